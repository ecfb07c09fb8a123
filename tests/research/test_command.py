"""`python -m research.compare`."""

from __future__ import annotations

import json
import shutil

import pytest

from research.compare import main

from ..comparison.helpers import lines, tiny_data, tiny_protocol, tiny_recipe


@pytest.fixture
def run(capsys):
    """Runs the command; gives its exit status, what it printed and what it said on standard error."""

    def run(*words):
        capsys.readouterr()
        status = main([str(word) for word in words])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def words(tmp_path):
    """The options that describe the tiny comparison."""
    tiny_protocol(tmp_path)
    return (
        *("--protocol", tmp_path / "tiny.yaml", "--data", f"toy={tiny_data(tmp_path)}"),
        *("--preset", f"paper={tiny_recipe(tmp_path)}", "--ablate", "paper", "--results", tmp_path / "results"),
    )


def test_a_dry_run_says_what_would_run_and_how_long(run, words, tmp_path):
    status, printed, _ = run(*words, "--dry_run", "--workers", 2)
    assert status == 0
    *queue, total = printed.splitlines()
    assert "popularity" in queue[0] and "paper: no GRU" in queue[-1]
    assert any("gru4rec" in line and "search" in line and "3 x   1 epochs" in line for line in queue)
    assert any(line.endswith("then") for line in queue) and max(map(len, queue)) <= 80
    assert total.startswith("15 runs, at most") and "with --workers 2" in total
    assert not (tmp_path / "results").exists()
    _, few, _ = run(*words[:4], "--models", "gru4rec, popularity", "--dry_run")
    assert "glintru" not in few and "item_knn" not in few and "gru4rec" in few


def test_finished_work_is_not_done_again(run, words, tmp_path, finished):
    """All of it, workers included: they start, find nothing to do and end."""
    job, _ = finished
    shutil.copytree(job.folder, tmp_path / "results")
    status, printed, _ = run(*words)
    assert status == 0 and printed.splitlines()[-1] == "Nothing is left to run."
    before = lines(job)
    assert (tmp_path / "results" / "toy.jsonl").read_text(encoding="utf-8").count("\n") == len(before)


def test_a_first_look_takes_the_place_of_a_search_that_has_not_run(run, words, tmp_path, finished):
    job, _ = finished
    shutil.copytree(job.folder, tmp_path / "results")
    kept = [json.dumps(line) for line in lines(job) if line["row"] != "gru4rec"]
    (tmp_path / "results" / "toy.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    queue = run(*words, "--dry_run", "--first_look")[1].splitlines()
    assert len(queue) == 2 and queue[0].split()[:2] == ["gru4rec", "measured"], queue
    assert "search" in run(*words, "--dry_run")[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--data", "ml-1m"), "ml-1m needs its interactions: --data ml-1m=FILE"),
        (("--data", "ml-1m=nowhere"), "there is no file 'nowhere'"),
        (("--data", "ml-100k", "--models", "sasrek"), "did you mean 'sasrec'"),
        (("--data", "ml-100k", "--workers", "0"), "--workers must be at least 1"),
        (("--protocol", "nowhere.yaml"), "cannot be read"),
        (("--data", "ml-1"), "has no data 'ml-1'"),
    ],
)
def test_bad_input_is_one_line(run, words, said, tmp_path):
    status, _, error = run(*words, "--results", tmp_path / "results")
    assert status == 2 and said in error and len(error.strip().splitlines()) == 1
