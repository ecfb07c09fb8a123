"""What is left when a run fails or is stopped: an earlier model, or nothing."""

from __future__ import annotations

import errno
import os
import shutil
import signal

import pytest
from safetensors import SafetensorError

from modeling_glintru import jobs as runs
from modeling_glintru.evaluation import RankingMetrics

from .test_bad_input import refused, snapshot

DEMO = ("train", "--recipe", "demo", "--set", "num_train_epochs=1", "--quiet", "--output_dir")
TWO_EPOCHS = ("--set", "num_train_epochs=2")


def disk_full(*arguments, compute_result=True):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.json")


def weights_do_not_fit(*arguments, **options):
    raise SafetensorError("I/O error: No space left on device")


FAILURES = {
    "in the middle of the training": ("RankingMetrics", lambda ks: disk_full),
    "while the weights are written": ("save_model_folder", weights_do_not_fit),
    "after the weights": ("write_metrics_json", disk_full),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_run_that_fails_leaves_an_earlier_model_whole(demo, glintru, tmp_path, monkeypatch, case):
    """Beside it stay the checkpoints, where there are any."""
    folder, new = shutil.copytree(demo[0], tmp_path / "earlier"), tmp_path / "new"
    before = snapshot(folder)
    monkeypatch.setattr(runs, *FAILURES[case])
    refused(glintru(*DEMO, new), "No space left on device")
    refused(glintru(*DEMO, folder, "--overwrite"), "No space left on device")
    if "middle" in case:
        assert not new.exists()
    else:
        assert [entry.name for entry in new.iterdir()] == ["checkpoints"]
        shutil.rmtree(folder / "checkpoints")
        monkeypatch.undo()
        result = glintru(*DEMO, new, "--resume")
        assert result.exit_code == 0, result.output
    assert snapshot(folder) == before


def test_files_that_came_during_a_run_that_fails_stay(glintru, tmp_path, monkeypatch):
    def come_and_fail(*arguments, **options):
        (tmp_path / "new" / "notes.txt").write_text("loss looks odd")
        disk_full()

    monkeypatch.setattr(runs, "train_weights", come_and_fail)
    refused(glintru(*DEMO, tmp_path / "new"), "No space left on device")
    assert snapshot(tmp_path / "new") == {"notes.txt": b"loss looks odd"}


class StoppedInTheSecondEpoch(RankingMetrics):
    """Ctrl-C, as the terminal sends it."""

    epochs = 0

    def __call__(self, prediction, compute_result=True):
        metrics = super().__call__(prediction, compute_result)
        self.epochs += bool(compute_result)
        if self.epochs == 2:
            signal.raise_signal(signal.SIGINT)
        return metrics


@pytest.fixture
def stopped(monkeypatch):
    """Trainings stop as by Ctrl-C until `monkeypatch` is undone."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(runs, "RankingMetrics", StoppedInTheSecondEpoch)
    yield monkeypatch
    signal.signal(signal.SIGINT, handler)


def test_a_stopped_run_can_be_run_again(glintru, tmp_path, stopped):
    folder = tmp_path / "out"
    result = glintru(*DEMO, folder, *TWO_EPOCHS)
    assert result.exit_code == 130
    assert result.stderr == "glintru: stopped at step 58 of 58; the same command with --resume goes on\n"
    assert [entry.name for entry in folder.iterdir()] == ["checkpoints"]
    refused(glintru("recommend", folder, "--history", "a"), "a run that is not finished")
    stopped.undo()
    refused(glintru(*DEMO, folder), "unfinished run", "--resume", "--overwrite")
    result = glintru(*DEMO, folder, "--overwrite")
    assert result.exit_code == 0, result.output
    assert (folder / "metrics.json").is_file() and not (folder / "checkpoints").exists()


def test_a_stopped_run_leaves_an_earlier_model_usable(demo, glintru, tmp_path, stopped):
    folder = shutil.copytree(demo[0], tmp_path / "out")
    before = snapshot(folder)
    assert glintru(*DEMO, folder, *TWO_EPOCHS, "--overwrite").exit_code == 130
    shutil.rmtree(folder / "checkpoints")
    assert snapshot(folder) == before


def no_training(*arguments, **options):
    raise AssertionError("the folder must be refused before the training")


def test_a_folder_that_cannot_be_made_is_found_before_the_training(glintru, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "train_weights", no_training)
    (tmp_path / "file").write_text("")
    refused(glintru(*DEMO, tmp_path / "file" / "out"), "Not a directory")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    refused(glintru(*DEMO, tmp_path / "link"), "link to nowhere")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "link"]


def test_another_file_beside_a_model_keeps_both(demo, glintru, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "train_weights", no_training)
    folder = shutil.copytree(demo[0], tmp_path / "out")
    (folder / "thesis.txt").write_text("ten years of work")
    before = snapshot(folder)
    refused(glintru(*DEMO, folder, "--overwrite"), "thesis.txt", "choose another")
    assert snapshot(folder) == before


def test_heads_that_do_not_divide_the_width(glintru, tmp_path):
    changes = ("--set", "hidden_size=30", "--set", "num_attention_heads=4")
    refused(glintru(*DEMO, tmp_path / "out", *changes), "hidden_size must be a multiple", "30 and 4")
    assert not any(tmp_path.iterdir())


def test_a_trained_model_is_measured_as_it_is(demo, glintru, tmp_path):
    refused(glintru("evaluate", demo[0], "--set", "hidden_size=64"), "--set cannot change its hidden_size")
    refused(glintru("evaluate", demo[0], "--output", tmp_path), "--output must be a file")
    assert not any(tmp_path.iterdir())
