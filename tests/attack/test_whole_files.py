"""A process killed at any moment leaves the old file or folder, or the new one, and nothing that stays for ever."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation, GlintRUProcessor, whole_files
from modeling_glintru.errors import DataError, ModelFolderError
from modeling_glintru.evaluation.report import write_metrics_json
from modeling_glintru.models.loading import load_model_folder
from modeling_glintru.serving.recommendation_file import check_output
from modeling_glintru.training import check_run_folder
from modeling_glintru.training.folder import CHECKPOINTS, LOCK, run_folder
from modeling_glintru.whole_files import exchange, locked, unfinished_folder, whole_file

from .processes import killed_at
from .shop import content


def save_model(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    config = GlintRUConfig(vocab_size=5, hidden_size=8, num_attention_heads=2)
    GlintRUForSequentialRecommendation(config).save_pretrained(folder)
    GlintRUProcessor(["tea", "milk", "bread", "jam"], max_length=6).save_pretrained(folder)


def weight(folder: Path) -> float:
    return load_model_folder(folder)[0].model.embed_items.weight[1, 0].item()


def finish_run(folder: Path, new: Path, goes_on: bool) -> None:
    with run_folder(folder, {"run": 1}, resume=True) as run:
        shutil.copytree(new, run.results)
        run.goes_on = goes_on


@pytest.mark.parametrize("earlier", [True, False], ids=["an earlier model", "no earlier model"])
@pytest.mark.parametrize("goes_on", [False, True], ids=["finished", "stopped by the time limit"])
def test_the_end_of_a_run_killed_at_every_write(tmp_path, monkeypatch, earlier, goes_on):
    monkeypatch.setattr("modeling_glintru.training.folder.check_identity", lambda file, identity: None)
    monkeypatch.setattr("modeling_glintru.training.folder.has_checkpoints", lambda folder: True)
    for name, seed in (("old", 0), ("new", 1)):
        save_model(tmp_path / name, seed)
    old, new = content(tmp_path / "old"), content(tmp_path / "new")
    seen, number = [], 0
    while True:
        number += 1
        base = tmp_path / f"kill-{number}"
        folder = base / "model"
        if earlier:
            shutil.copytree(tmp_path / "old", folder)
        (folder / CHECKPOINTS / "checkpoint-7").mkdir(parents=True)
        (folder / CHECKPOINTS / "checkpoint-7" / "state").write_text("seven")
        killed = killed_at(number, lambda folder=folder: finish_run(folder, tmp_path / "new", goes_on))
        found = content(folder)
        assert found in ((old, new) if earlier else (None, new))
        seen.append(found == new)
        if found != new or goes_on:  # the run can go on
            assert (folder / CHECKPOINTS / "checkpoint-7" / "state").read_text() == "seven"
            check_run_folder(folder, resume=True)
        if not killed:
            break
        finish_run(folder, tmp_path / "new", False)  # and does; it removes what the killed one left
        assert os.listdir(base) == ["model"] and content(folder) == new and not (folder / CHECKPOINTS).exists()
        shutil.rmtree(base)
    assert weight(folder) == weight(tmp_path / "new")
    assert number > 15 and set(seen) == {True, False}


def test_what_others_put_beside_a_model_stays(tmp_path):
    save_model(tmp_path / "new", 1)
    folder = tmp_path / "model"
    with run_folder(folder, {"run": 1}, resume=False) as run:
        shutil.copytree(tmp_path / "new", run.results)
        (folder / "notes").mkdir()
        (folder / "notes" / "a.txt").write_text("mine")
        (folder / "todo.txt").write_text("mine too")
        (folder / "link").symlink_to("todo.txt")
    assert (folder / "notes" / "a.txt").read_text() == "mine" and (folder / "link").read_text() == "mine too"
    assert (folder / "link").is_symlink() and weight(folder) == weight(tmp_path / "new")


def test_a_folder_that_cannot_be_moved(tmp_path, monkeypatch):
    """As where another file system begins."""

    def refuse(first, second):
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr("modeling_glintru.whole_files.exchange", refuse)
    save_model(tmp_path / "new", 1)
    for goes_on in (True, False):
        with run_folder(tmp_path / "model", {"run": 1}, resume=False) as run:
            shutil.copytree(tmp_path / "new", run.results)
            run.goes_on = goes_on
        assert weight(tmp_path / "model") == weight(tmp_path / "new")
        assert (tmp_path / "model" / CHECKPOINTS).exists() == goes_on
        assert sorted(os.listdir(tmp_path)) == ["model", "new"]


def test_two_runs_in_one_folder(tmp_path):
    with run_folder(tmp_path / "model", {"run": 1}, resume=False) as run:
        for resume in (True, False):
            message = rf"model is in use by process {os.getpid()} on .*, which writes its run there"
            with pytest.raises(ModelFolderError, match=message), run_folder(tmp_path / "model", {"run": 1}, resume):
                pass
        assert (tmp_path / "model" / CHECKPOINTS / LOCK).exists()
        save_model(run.results, 1)
    assert not (tmp_path / "model" / CHECKPOINTS).exists()


def test_a_lock_ends_with_its_process(tmp_path):
    code = "import sys, time; from pathlib import Path; from modeling_glintru.whole_files import locked\n"
    code += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path / "lock"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(BlockingIOError, match=f"is in use by process {process.pid} on"), locked(tmp_path / "lock"):
        pass
    process.kill()
    process.wait()
    with locked(tmp_path / "lock"):
        pass


# ---------------------------------------------------------------------- one file


def test_a_file_killed_at_every_write(tmp_path):
    def work() -> None:
        with whole_file(tmp_path / "a.json") as unfinished:
            unfinished.write_text("new")

    (tmp_path / "a.json").write_text("old")
    number = 1
    while killed_at(number, work):
        assert (tmp_path / "a.json").read_text() in ("old", "new")
        number += 1
    assert number >= 4 and (tmp_path / "a.json").read_text() == "new" and os.listdir(tmp_path) == ["a.json"]


def test_a_link_stays_and_its_target_is_written(tmp_path):
    (tmp_path / "target.json").write_text("old")
    (tmp_path / "link.json").symlink_to("target.json")
    write_metrics_json(tmp_path / "link.json", {"a": 1})
    assert (tmp_path / "link.json").is_symlink() and '"a": 1' in (tmp_path / "target.json").read_text()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["a pipe", "a folder"])
def test_only_regular_files_are_replaced(tmp_path, make):
    make(tmp_path / "a.csv")
    before = os.stat(tmp_path / "a.csv")
    with pytest.raises(OSError, match=r"is no regular file|is a folder"):
        write_metrics_json(tmp_path / "a.csv", {"a": 1})
    with pytest.raises(DataError, match=r"regular file|is a folder"):
        check_output(tmp_path / "a.csv", overwrite=True)
    assert os.path.samestat(before, os.stat(tmp_path / "a.csv")) and os.listdir(tmp_path) == ["a.csv"]


def test_the_command_writes_into_regular_files_only(glintru, demo, tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    result = glintru("evaluate", demo[0], "--quiet", "--output", tmp_path / "pipe.json")
    assert result.exit_code == 2 and "is no regular file" in result.output
    assert (tmp_path / "pipe.json").is_fifo()


def test_an_error_names_the_file_of_the_user(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing/a\.json"), whole_file(tmp_path / "missing" / "a.json"):
        pass


def test_what_another_process_writes_is_not_removed(tmp_path):
    with unfinished_folder(tmp_path / "data") as first, unfinished_folder(tmp_path / "data") as second:
        assert first.is_dir() and second.is_dir()
        with whole_file(tmp_path / "data") as file:
            assert first.is_dir() and second.is_dir() and file.exists()


def test_a_folder_that_is_taken_for_a_leftover_is_begun_again(tmp_path, monkeypatch):
    """Another process may remove it between the moment when it is made and the moment when it is locked."""
    make, calls = whole_files._new_folder, []

    def removed_at_first(path):
        calls.append(path)
        if len(calls) == 1:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return make(path)

    monkeypatch.setattr(whole_files, "_new_folder", removed_at_first)
    with unfinished_folder(tmp_path / "data") as folder:
        assert folder.is_dir() and len(calls) == 2


@pytest.mark.parametrize("known", [True, False], ids=["in one step", "in three"])
def test_two_folders_are_exchanged(tmp_path, monkeypatch, known):
    if not known:
        monkeypatch.setattr("modeling_glintru.whole_files.hasattr", lambda *name: False, raising=False)
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    exchange(tmp_path / "a", tmp_path / "b")
    assert os.listdir(tmp_path / "a") == ["b"] and os.listdir(tmp_path / "b") == ["a"]
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_run_into_the_current_folder(tmp_path, monkeypatch):
    save_model(tmp_path / "new", 1)
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path / "model")
    for _ in range(2):
        with run_folder(Path(), {"run": 1}, resume=False) as run:
            shutil.copytree(tmp_path / "new", run.results)
        assert weight(Path()) == weight(tmp_path / "model") == weight(tmp_path / "new")
        assert Path.cwd() == tmp_path / "model"
