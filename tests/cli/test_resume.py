"""`glintru train --resume`: the command, and real processes that are killed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time

import polars as pl
import pytest

from modeling_glintru.data import synthetic_interactions
from modeling_glintru.hub.repository import model_files

from .conftest import EPOCHS
from .test_bad_input import refused

DEMO = ("train", "--recipe", "demo", *EPOCHS, "--output_dir")  # the fixture `demo` is this run, never stopped
AT_ONCE = ("--max_minutes", "1e-9")


@pytest.fixture
def stopped(glintru, tmp_path):
    """A folder with a run that the time limit ended at its first step: a model, and checkpoints beside it."""
    result = glintru(*DEMO, tmp_path / "out", *AT_ONCE)
    assert result.exit_code == 0, result.output
    assert "Stopped   by --max_minutes after 0.0345 of 2 epochs: epoch 0.03 is kept\n" in result.stdout
    assert "The training is not finished: the same command with --resume goes on with it.\n" in result.stdout
    return tmp_path / "out"


def assert_finished_like(folder, demo) -> None:
    assert (folder / "model.safetensors").read_bytes() == (demo[0] / "model.safetensors").read_bytes()
    assert {file.name for file in folder.iterdir()} == {file.name for file in demo[0].iterdir()}


def test_a_time_limit_leaves_a_model_with_its_figures(demo, glintru, stopped):
    """In the folder lies all that a finished run leaves, and the way on."""
    names = {file.name for file in demo[0].iterdir()}
    assert {file.name for file in stopped.iterdir()} == names | {"checkpoints"}
    metrics = json.loads((stopped / "metrics.json").read_text())
    assert metrics["stopped"] == {"by": "max_minutes", "epochs": 0.0345, "of": 2, "during": "training"}
    measured = json.loads(glintru("evaluate", stopped, "--data", "demo", "--json").stdout)
    assert measured["test"] == metrics["test"] and metrics["training"]["steps"] == 1
    found = glintru("recommend", stopped, "--history", "saga-25-volume-5", "--json")
    assert found.exit_code == 0 and len(json.loads(found.stdout)["recommendations"]) == 10
    refused(glintru(*DEMO, stopped), "an unfinished run", "--resume", "--overwrite")
    assert not any(file.path.startswith("checkpoint") for file in model_files(stopped, "ann/demo"))


def test_it_can_be_started_again(demo, glintru, stopped):
    result = glintru(*DEMO, stopped, "--overwrite")
    assert result.exit_code == 0, result.output
    assert_finished_like(stopped, demo)


def test_a_run_in_pieces_equals_a_whole_one(demo, glintru, stopped):
    for step in (2, 3):
        result = glintru(*DEMO, stopped, "--resume", *AT_ONCE)
        assert f"goes on from checkpoint-{step - 1}\n" in result.stdout and result.exit_code == 0
        assert json.loads((stopped / "metrics.json").read_text())["training"]["steps"] == step
    result = glintru(*DEMO, stopped, "--resume")
    assert result.exit_code == 0, result.output
    assert_finished_like(stopped, demo)
    refused(glintru(*DEMO, stopped, "--resume"), "nothing to resume", "a finished model")


def test_the_recipe_must_be_the_same(glintru, stopped):
    changes = ("--set", "learning_rate=0.001", "--seed", "5")
    refused(
        glintru(*DEMO, stopped, "--resume", *changes),
        "seed (5, was 42), training.learning_rate (0.001, was 0.005)",
        "--overwrite",
    )


def test_the_data_must_be_the_same(glintru, tmp_path):
    frame = synthetic_interactions(num_users=60, num_items=30).frame
    file, moved = tmp_path / "log.csv", tmp_path / "moved.csv"
    frame.write_csv(file)
    options = ("train", "--recipe", "demo", "--set", "evaluation.reference_models=[]", "--quiet")
    assert glintru(*options, "--data", file, "--output_dir", tmp_path / "out", *AT_ONCE).exit_code == 0
    frame.with_columns(pl.col("item_id").reverse()).write_csv(moved)
    resume = (*options, "--output_dir", tmp_path / "out", "--resume", *AT_ONCE, "--data")
    refused(glintru(*resume, moved), "the interactions are not those of the run")
    file.rename(moved)  # the same under another name
    assert glintru(*resume, moved).exit_code == 0


def test_as_many_processes_as_before(glintru, stopped, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused(glintru(*DEMO, stopped, "--resume"), "the run had 1 process(es), now there are 2")


def test_where_there_is_nothing_to_resume(demo, glintru, tmp_path):
    refused(glintru(*DEMO, tmp_path / "new", "--resume"), "nothing to resume", "leave out --resume")
    refused(glintru(*DEMO, demo[0], "--resume", "--overwrite"), "one of the two")
    assert not any(tmp_path.iterdir())


def test_limits_are_checked(glintru, tmp_path):
    refused(glintru(*DEMO, tmp_path / "new", "--max_minutes", "0"), "--max_minutes must be above 0")
    refused(glintru(*DEMO, tmp_path / "new", "--save_minutes", "-1"), "--save_minutes at least 0")


@pytest.mark.slow
def test_killed_at_random(glintru, tmp_path):
    """kill -9, Ctrl-C and SIGTERM at random moments of the training and of the refit, mostly within a checkpoint."""
    whole, folder, draw = tmp_path / "whole", tmp_path / "out", random.Random(7)
    assert glintru(*DEMO, whole, "--refit").exit_code == 0
    words = (*DEMO, str(folder), "--save_minutes", "0", "--refit")
    for place, kill, status in (
        ("checkpoints", signal.SIGKILL, -9),
        ("checkpoints", signal.SIGINT, 130),
        ("checkpoints/refit", signal.SIGKILL, -9),
        ("checkpoints/refit", signal.SIGTERM, 143),
    ):
        before = checkpoints(folder / place)
        process = subprocess.Popen(
            [sys.executable, "-m", "modeling_glintru", *words, *(["--resume"] if folder.exists() else [])],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # Tests that run in the background may be told to ignore Ctrl-C, and hand that down.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        while process.poll() is None and checkpoints(folder / place) <= before:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.3))
        process.send_signal(kill)
        _, errors = process.communicate()
        assert process.returncode == status, errors
        assert [entry.name for entry in folder.iterdir()] == ["checkpoints"]
    done = glintru(*words, "--resume")
    assert "The refit goes on from checkpoint-" in done.stdout, done.output
    assert_finished_like(folder, (whole, None))


def checkpoints(folder) -> set[str]:
    return {entry.name for entry in folder.glob("checkpoint-*") if entry.suffix != ".partial"}
