"""The folder that a run writes."""

from __future__ import annotations

import fnmatch
import json
import shutil
from pathlib import Path

from ..auto import MODELS
from ..errors import ModelFolderError

__all__ = ["CHECKPOINTS", "check_run_folder"]

CHECKPOINTS = "checkpoints"
# What a run, or saving its model and processor, puts into the folder; nothing else is ever removed.
OWN_FILES = (
    *("config.json", "model.safetensors", "model-*.safetensors", "model.safetensors.index.json"),
    *("preprocessor_config.json", "item_vocabulary.safetensors", "*_glintru.py"),
    *("metrics.json", "recipe.yaml", "training_log.json", "learning_curves.png"),
)


def check_run_folder(folder: Path, overwrite: bool, dry_run: bool = False) -> None:
    """Makes sure that a run can write to `folder`; with `overwrite` an earlier model in it is removed.

    Args:
        folder: Need not exist.
        overwrite: Whether an earlier model may go.
        dry_run: Only checks, removes nothing.

    Raises:
        ModelFolderError: It is a file, holds another model and `overwrite` is off, or holds what no run of ours wrote.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ModelFolderError(f"{folder} is a file, --output_dir must be a folder")
    entries = sorted(folder.iterdir())
    if not entries:
        return
    foreign = [entry.name for entry in entries if not is_own(entry)]
    if foreign or not is_run_folder(folder):
        name = foreign[0] if foreign else entries[0].name
        raise ModelFolderError(f"{folder} holds what is not of a GLINT-RU run ({name!r}); choose another --output_dir")
    if not overwrite:
        raise ModelFolderError(f"{folder} already holds a model; choose another --output_dir or add --overwrite")
    if dry_run:
        return
    for entry in entries:
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def is_own(entry: Path) -> bool:
    """Whether a file or folder has the name and form of something that a run writes."""
    if entry.is_symlink():
        return False
    if entry.is_dir():
        return entry.name == CHECKPOINTS and all(inside.name.startswith("checkpoint-") for inside in entry.iterdir())
    return any(fnmatch.fnmatch(entry.name, pattern) for pattern in OWN_FILES)


def is_run_folder(folder: Path) -> bool:
    """Whether a run of ours wrote `folder`: a GLINT-RU model, or the checkpoints of one that did not finish."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except OSError:
        return (folder / CHECKPOINTS).is_dir()
    except ValueError:
        return False
    return isinstance(config, dict) and config.get("model_type") in list(MODELS)
