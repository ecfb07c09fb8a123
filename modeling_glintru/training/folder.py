"""The folder that a run writes."""

from __future__ import annotations

import fnmatch
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ..errors import ModelFolderError
from ..hub.card_text import CARD_FILE, is_signed
from ..hub.repository import MODEL_FILES
from ..models.auto import MODELS
from .checkpoint import has_checkpoints, replace_json
from .identity import check_identity

__all__ = ["CHECKPOINTS", "REFIT", "RunFolder", "check_run_folder", "refit_folder", "run_folder"]

CHECKPOINTS = "checkpoints"
IDENTITY = "run.json"  # in CHECKPOINTS
FINISHED = "checkpoint-finished"  # in CHECKPOINTS: what moves up when all of it is written
REFIT = "refit"  # in CHECKPOINTS: the checkpoints of the training on everything, with an IDENTITY of their own
# What a run, or saving its model and processor, puts into the folder; nothing else is ever removed.
OWN_FILES = (*MODEL_FILES, "training_log.json")


def check_run_folder(folder: Path, *, overwrite: bool = False, resume: bool = False) -> None:
    """Makes sure that a run may write to `folder`; nothing is changed.

    Args:
        folder: Need not exist.
        overwrite: Whether the run may replace an earlier model, or start an unfinished run again.
        resume: Whether the run goes on with an unfinished one.

    Raises:
        ModelFolderError: It is a file, holds what no run of ours wrote, holds an earlier model or an unfinished run
            that the run may not touch, or holds nothing to resume.
    """
    if resume and overwrite:
        raise ModelFolderError("--resume goes on with a run and --overwrite starts it again: give one of the two")
    if folder.exists() and not folder.is_dir():
        raise ModelFolderError(f"{folder} is a file, --output_dir must be a folder")
    if not folder.exists() and folder.is_symlink():
        raise ModelFolderError(f"{folder} is a link to nowhere; choose another --output_dir")
    entries = sorted(folder.iterdir()) if folder.exists() else []
    foreign = [entry.name for entry in entries if not is_own(entry)]
    if foreign or (entries and not is_run_folder(folder)):
        name = foreign[0] if foreign else entries[0].name
        raise ModelFolderError(f"{folder} holds what is not of a GLINT-RU run ({name!r}); choose another --output_dir")
    unfinished = (folder / CHECKPOINTS).is_dir()
    if resume and not unfinished:
        what = "holds a finished model" if entries else "holds no run"
        raise ModelFolderError(f"there is nothing to resume: {folder} {what}; leave out --resume")
    if unfinished and not (resume or overwrite):
        raise ModelFolderError(f"{folder} holds an unfinished run: go on with --resume or start again with --overwrite")
    if entries and not (resume or overwrite):
        raise ModelFolderError(f"{folder} already holds a model; choose another --output_dir or add --overwrite")


@dataclass
class RunFolder:
    """Where a run writes its results.

    Args:
        results: A folder for them.
        goes_on: Set where the time limit ended the run: its checkpoints then stay beside the results, for `--resume`.
    """

    results: Path
    goes_on: bool = False


@contextmanager
def run_folder(folder: Path, identity: dict[str, Any], resume: bool) -> Iterator[RunFolder]:
    """Gives a place inside `folder` (checked before) to write the results to; they move into `folder` at the end.

    An earlier model in `folder` stays until then. Checkpoints stay for `--resume` when the run is stopped or fails;
    a run that fails before its first checkpoint leaves nothing.

    Args:
        folder: Where the model goes.
        identity: See `run_identity`.
        resume: Whether to keep the checkpoints that are there, of a run with the same identity.

    Raises:
        ModelFolderError: The unfinished run is another one, or the weights cannot be written.
    """
    made = not folder.exists()
    checkpoints = folder / CHECKPOINTS
    if resume and has_checkpoints(checkpoints):
        check_identity(checkpoints / IDENTITY, identity)
    else:
        shutil.rmtree(checkpoints, ignore_errors=True)
    finished = checkpoints / FINISHED
    try:
        checkpoints.mkdir(parents=True, exist_ok=True)  # a folder that cannot be written is found now, not later
        shutil.rmtree(finished, ignore_errors=True)
        replace_json(checkpoints / IDENTITY, identity)
        run = RunFolder(finished)
        yield run
        for entry in folder.iterdir():
            if entry.is_file() and is_own(entry):
                entry.unlink()
        for entry in finished.iterdir():
            entry.rename(folder / entry.name)
    except Exception as error:
        if not has_checkpoints(checkpoints):
            shutil.rmtree(checkpoints, ignore_errors=True)
            if made:
                with suppress(OSError):  # not empty: somebody else's files came in the meantime
                    folder.rmdir()
        if isinstance(error, SafetensorError):
            raise ModelFolderError(f"{folder} cannot be written: {error}") from error
        raise
    shutil.rmtree(finished if run.goes_on else checkpoints)


def refit_folder(folder: Path, epochs: int, resume: bool) -> None:
    """Makes the place for the checkpoints of a refit, inside those of the run in `folder`.

    Those that are there stay where the run goes on and its refit has as many epochs as theirs.
    """
    refit = folder / CHECKPOINTS / REFIT
    identity = {"epochs": epochs}
    try:
        same = resume and json.loads((refit / IDENTITY).read_text(encoding="utf-8")) == identity
    except (OSError, ValueError):
        same = False
    if not same:
        shutil.rmtree(refit, ignore_errors=True)
        refit.mkdir(parents=True)
        replace_json(refit / IDENTITY, identity)


def is_own(entry: Path) -> bool:
    """Whether a file or folder has the name and form of something that a run writes."""
    if entry.is_symlink():
        return False
    if entry.is_dir():
        return entry.name == CHECKPOINTS and all(
            inside.name.startswith(("checkpoint-", IDENTITY)) or inside.name == REFIT for inside in entry.iterdir()
        )
    if entry.name == CARD_FILE and not is_signed(entry.read_text(encoding="utf-8", errors="replace")):
        return False  # somebody wrote or edited it: not to be lost with an earlier model
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
