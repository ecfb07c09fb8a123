"""The folder that a run writes: what is refused, what is kept."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest

from modeling_glintru.errors import ModelFolderError
from modeling_glintru.training import check_run_folder


def files(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def folder_of(path: Path, **content: str) -> Path:
    """A folder with files; a double underscore stands for a dot, and content is JSON or text."""
    path.mkdir()
    for name, text in content.items():
        (path / name.replace("__", ".")).write_text(text)
    return path


OURS = json.dumps({"model_type": "glintru"})


def test_new_and_empty_folders_are_taken(tmp_path):
    check_run_folder(tmp_path / "new")
    check_run_folder(tmp_path)
    assert tmp_path.exists() and not (tmp_path / "new").exists()  # only a check


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_the_way_stays(tmp_path, overwrite):
    file = tmp_path / "model"
    file.write_text("precious")
    with pytest.raises(ModelFolderError, match="is a file"):
        check_run_folder(file, overwrite=overwrite)
    assert file.read_text() == "precious"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        {"notes__md": "precious"},
        {"config__json": json.dumps({"model_type": "bert"})},
        {"config__json": "not JSON"},
        {"config__json": "[1]"},
        {"recipe__yaml": "name: x"},
        {"recipe__yaml": "name: x", "notes__md": "precious"},
        {"config__json": OURS, "notes__md": "precious"},
    ],
)
def test_a_foreign_folder_is_never_deleted(tmp_path, content, overwrite):
    foreign = folder_of(tmp_path / "foreign", **content)
    before = files(foreign)
    with pytest.raises(ModelFolderError, match="not of a GLINT-RU run"):
        check_run_folder(foreign, overwrite=overwrite)
    assert files(foreign) == before


FINISHED = {"config__json": OURS}
UNFINISHED = {"recipe__yaml": "name: demo"}


@pytest.mark.parametrize(
    ("content", "checkpoints", "options", "problem"),
    [
        (FINISHED, False, {}, "--overwrite"),
        (FINISHED, False, {"overwrite": True}, None),
        (FINISHED, False, {"resume": True}, "nothing to resume.*finished model"),
        (FINISHED, True, {}, "unfinished run.*--resume or.*--overwrite"),
        (FINISHED, True, {"resume": True}, None),
        (UNFINISHED, True, {}, "unfinished run"),
        (UNFINISHED, True, {"overwrite": True}, None),
        (UNFINISHED, True, {"resume": True}, None),
        ({}, False, {"resume": True}, "nothing to resume.*no run"),
        (UNFINISHED, True, {"resume": True, "overwrite": True}, "one of the two"),
    ],
)
def test_what_may_be_done_with_an_earlier_run(tmp_path, content, checkpoints, options, problem):
    folder = folder_of(tmp_path / "model", **content)
    if checkpoints:
        (folder / "checkpoints" / "checkpoint-5").mkdir(parents=True)
        (folder / "checkpoints" / "run.json").write_text("{}")
    before = files(folder)
    with pytest.raises(ModelFolderError, match=problem) if problem else nullcontext():
        check_run_folder(folder, **options)
    assert files(folder) == before


def test_folders_and_links_beside_a_model_stay(tmp_path):
    folder = folder_of(tmp_path / "model", config__json=OURS)
    (tmp_path / "elsewhere").mkdir()
    for make in (
        lambda: (folder / "runs").mkdir(),
        lambda: (folder / "checkpoints").symlink_to(tmp_path / "elsewhere"),
        lambda: (folder / "checkpoints" / "photos").mkdir(parents=True),
    ):
        make()
        with pytest.raises(ModelFolderError, match="not of a GLINT-RU run"):
            check_run_folder(folder, overwrite=True)
        for entry in folder.iterdir():
            if entry.is_symlink():
                entry.unlink()
            elif entry.is_dir():
                shutil.rmtree(entry)
