"""`glintru compare` on the command line."""

from __future__ import annotations

import json
import shutil

import pytest
from typer.testing import CliRunner

from modeling_glintru.cli import app

from .helpers import lines, tiny_data, tiny_protocol, tiny_recipe


def glintru(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def words(tmp_path):
    """The options that describe the tiny comparison."""
    tiny_protocol(tmp_path)
    return (
        *("--protocol", tmp_path / "tiny.yaml", "--data", f"toy={tiny_data(tmp_path)}"),
        *("--preset", f"paper={tiny_recipe(tmp_path)}", "--ablate", "paper", "--results", tmp_path / "results"),
    )


def test_a_dry_run_says_what_would_run_and_how_long(words, tmp_path):
    result = glintru("compare", *words, "--dry_run", "--workers", 2)
    assert result.exit_code == 0, result.output
    *queue, total = result.stdout.splitlines()
    assert "popularity" in queue[0] and "paper: no GRU" in queue[-1]
    assert any("gru4rec" in line and "search" in line and "3 x   1 epochs" in line for line in queue)
    assert any("after the steps before it" in line for line in queue)
    assert total.startswith("15 runs, at most") and "with --workers 2" in total
    assert not (tmp_path / "results").exists()
    few = glintru("compare", *words[:4], "--models", "gru4rec, popularity", "--dry_run").stdout
    assert "glintru" not in few and "item_knn" not in few and "gru4rec" in few


def test_finished_work_is_not_done_again(words, tmp_path, finished):
    """All of it, workers included: they start, find nothing to do and end. Then the page."""
    job, _ = finished
    shutil.copytree(job.folder, tmp_path / "results")
    result = glintru("compare", *words)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "Nothing is left to run."
    before = lines(job)
    assert (tmp_path / "results" / "toy.jsonl").read_text(encoding="utf-8").count("\n") == len(before)
    page = tmp_path / "page.md"
    options = ("--protocol", tmp_path / "tiny.yaml", "--results", tmp_path / "results", "--output", page)
    written = glintru("compare", *options, "--report")
    assert written.exit_code == 0 and str(page) in written.stdout, written.output
    assert all(line["key"] in page.read_text(encoding="utf-8") for line in before if line["stage"] == "final")


def test_a_first_look_takes_the_place_of_a_search_that_has_not_run(words, tmp_path, finished):
    job, _ = finished
    shutil.copytree(job.folder, tmp_path / "results")
    kept = [json.dumps(line) for line in lines(job) if line["row"] != "gru4rec"]
    (tmp_path / "results" / "toy.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    queue = glintru("compare", *words, "--dry_run", "--first_look").stdout.splitlines()
    assert len(queue) == 2 and queue[0].split()[:4] == ["toy", "gru4rec", "first", "look"], queue
    assert "search" in glintru("compare", *words, "--dry_run").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--data", "ml-1m"), "ml-1m needs its interactions: --data ml-1m=FILE"),
        (("--data", "ml-1m=nowhere"), "there is no file 'nowhere'"),
        (("--data", "ml-100k", "--models", "sasrek"), "did you mean 'sasrec'"),
        (("--data", "ml-100k", "--workers", "0"), "--workers must be at least 1"),
        (("--protocol", "nowhere.yaml"), "cannot be read"),
        (("--report", "--data", "ml-1"), "has no data 'ml-1'"),
    ],
)
def test_bad_input_is_one_line(words, said, tmp_path):
    result = glintru("compare", *words, "--results", tmp_path / "results")
    assert result.exit_code == 2 and said in result.stderr, result.output
    assert len(result.stderr.strip().splitlines()) == 1
