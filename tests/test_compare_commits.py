"""`benchmarks/compare_commits.py` checks out what it compares, leaves nothing behind, and its worker still runs."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "class GlintRUForSequentialRecommendation:\n    age = {age!r}\n"


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path) -> Path:
    """A repository with two commits of a package that imports at once, and a change that is not committed."""
    folder = tmp_path / "repository"
    package = folder / "modeling_glintru"
    package.mkdir(parents=True)
    git(folder, "init", "--quiet")
    (package / "__main__.py").write_text("")
    for age in ("first", "second"):
        (package / "__init__.py").write_text(PACKAGE.format(age=age))
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "-m", f"The {age} commit")
    (package / "__init__.py").write_text(PACKAGE.format(age="not committed"))
    return folder


@pytest.fixture
def compare(monkeypatch, repository):
    """The tool, at work in that repository."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("compare_commits")
    sides = module.two_sides
    monkeypatch.setattr(module, "two_sides", lambda old, new: sides(old, new, repository))
    return module


def age(root: Path) -> str:
    return (root / "modeling_glintru" / "__init__.py").read_text().split("'")[1]


def test_each_side_has_its_own_files_and_all_go_away(compare, repository):
    with compare.two_sides("HEAD~1", "HEAD") as sides:
        assert [age(side.root) for side in sides] == ["first", "second"]
        assert [side.described[8:] for side in sides] == ["The first commit", "The second commit"]
        roots = [side.root for side in sides]
    assert not any(root.exists() or root.parent.exists() for root in roots)
    with compare.two_sides("HEAD", ".") as sides:
        assert [age(side.root) for side in sides] == ["second", "not committed"]
    with contextlib.suppress(KeyboardInterrupt), compare.two_sides("HEAD~1", "HEAD"):
        assert git(repository, "worktree", "list").count("\n") == 2
        raise KeyboardInterrupt
    assert git(repository, "worktree", "list").count("\n") == 0


def test_the_rows_of_the_table(compare, capsys, tmp_path):
    compare.main(["HEAD~1", ".", "--only", "import", "--rounds", "2", "--json", str(tmp_path / "ratios.json")])
    out, progress = capsys.readouterr()
    assert progress.splitlines()[2:] == [f"round {n} of 2, {side}" for n in (1, 2) for side in ("old", "new")]
    assert "quiet machine" in out and "new  the working tree" in out
    assert max(map(len, out.splitlines()[:-1])) <= 80  # the last line names the file
    report = json.loads((tmp_path / "ratios.json").read_text())
    assert list(report["rows"]) == ["import, package", "import, model", "glintru --help"]
    for row, values in report["values"].items():
        assert len(values["old"]) == len(values["new"]) == 2
        found = [old["seconds"] / new["seconds"] for old, new in zip(values["old"], values["new"], strict=True)]
        ratio = report["rows"][row]["ratio"]
        assert (ratio["low"], ratio["high"]) == (min(found), max(found))


def test_above_one_the_new_side_is_faster_or_smaller(compare):
    seconds = [[{"seconds": 4.0, "cpu": 2.0}] * 2, [{"seconds": 2.0, "cpu": 4.0}, {"seconds": 1.0, "cpu": 4.0}]]
    sizes = [[{"bytes": 3e9}], [{"bytes": 1e9}]]
    found = {"offline, plain": dict(zip(("old", "new"), seconds, strict=True))}
    found["memory, glintru train"] = dict(zip(("old", "new"), sizes, strict=True))
    rows = compare.summary(found)
    assert rows["offline, plain"]["ratio"] == {"median": 3.0, "low": 2.0, "high": 4.0}
    assert rows["offline, plain"]["cpu_ratio"]["median"] == 0.5
    assert rows["memory, glintru train"]["ratio"]["median"] == 3.0
    lines = [line.split() for line in compare.table(rows).splitlines()]
    assert lines[1] == ["offline,", "plain", "0", "/s", "1", "/s", "3.00", "[2.00,", "4.00]", "0.50"]
    assert lines[2] == ["memory,", "glintru", "train", "3,000", "MB", "1,000", "MB", "3.00", "[3.00,", "3.00]"]


def test_a_missing_commit_is_named(compare):
    with pytest.raises(SystemExit, match=r"^there is no commit 'v9' in this clone$"), compare.two_sides("HEAD", "v9"):
        pass


def test_a_shallow_clone_says_how_to_get_a_commit(compare, repository, tmp_path):
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", "--depth", "1", repository.as_uri(), str(shallow))
    assert compare.commit_of("HEAD", shallow) == git(shallow, "rev-parse", "HEAD")
    with pytest.raises(SystemExit, match=r"no commit 'HEAD~1' in this clone; it is a shallow one: `git fetch --unsh"):
        compare.commit_of("HEAD~1", shallow)


def test_a_folder_without_git_is_named(compare, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "plain").mkdir()
    with pytest.raises(SystemExit, match="plain is no clone of a git repository"):
        compare.commit_of("HEAD", tmp_path / "plain")


def test_each_side_imports_its_own_package(compare, repository, monkeypatch):
    """Also where the command is given in the repository, whose own package Python would take first."""
    monkeypatch.chdir(repository)
    check = "import modeling_glintru as m; assert m.GlintRUForSequentialRecommendation.age == {!r}"
    with compare.two_sides("HEAD~1", "HEAD") as sides:
        for side, age in zip(sides, ("first", "second"), strict=True):
            compare.run_python(["-c", check.format(age)], side.root)


def test_a_failing_process_shows_what_it_said(compare, repository):
    (repository / "modeling_glintru" / "__init__.py").write_text("raise ValueError('no such shop')\n")
    with pytest.raises(RuntimeError, match="no such shop"):
        compare.main(["HEAD", ".", "--only", "import", "--rounds", "1"])
    assert git(repository, "worktree", "list").count("\n") == 0


@pytest.mark.slow
def test_the_worker_measures_this_package(tmp_path):
    worker = str(ROOT / "benchmarks" / "commit_worker.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    measures = ["step", "click", "offline", "load"]
    command = [sys.executable, worker, str(tmp_path), "prepare", *measures, "--quick"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "measured.json").read_text())
    assert report["package"] == str(ROOT / "modeling_glintru")
    assert list(report["rows"]) == [f"{name}, {model}" for name in measures for model in ("plain", "best")]
    assert all(values["seconds"] > 0 and values["cpu"] > 0 for values in report["rows"].values())
