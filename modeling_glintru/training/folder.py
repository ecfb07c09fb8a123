"""The folder that a run writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ..errors import ModelFolderError

__all__ = ["CHECKPOINTS", "check_run_folder"]

CHECKPOINTS = "checkpoints"


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
    if not any(folder.iterdir()):
        return
    if not is_run_folder(folder):
        raise ModelFolderError(f"{folder} holds files that are not a GLINT-RU model; choose another --output_dir")
    if not overwrite:
        raise ModelFolderError(f"{folder} already holds a model; choose another --output_dir or add --overwrite")
    if not dry_run:
        shutil.rmtree(folder)


def is_run_folder(folder: Path) -> bool:
    """Whether a run of ours wrote `folder`, finished or not."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type") == "glintru"
    except (OSError, ValueError):
        return {file.name for file in folder.iterdir()} <= {CHECKPOINTS, "recipe.yaml"}
