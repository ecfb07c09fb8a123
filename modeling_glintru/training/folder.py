"""The folder that a run writes, and the identity by which another run does not go on from its checkpoints."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from ..data import PreparedData
from ..errors import ModelFolderError
from ..hub.card_text import CARD_FILE, is_signed
from ..hub.repository import MODEL_FILES
from ..machine import num_processes
from ..models.auto import MODELS
from ..models.untrusted_text import parse_json
from ..recipe import Recipe
from ..whole_files import NO_ROOM, locked, replace_entries
from .checkpoint import has_checkpoints, replace_json

__all__ = [
    "CHECKPOINTS",
    "REFIT",
    "RunFolder",
    "check_run_folder",
    "data_checksum",
    "ranking_checksums",
    "refit_folder",
    "run_folder",
    "run_identity",
]

CHECKPOINTS = "checkpoints"
IDENTITY = "run.json"  # in CHECKPOINTS
LOCK = "run.json.lock"  # in CHECKPOINTS: held by the process that writes the run
FINISHED = "checkpoint-finished"  # in CHECKPOINTS: what moves up when all of it is written
REFIT = "refit"  # in CHECKPOINTS: the checkpoints of the training on everything, with an IDENTITY of their own
# What a run, or saving its model and processor, puts into the folder; nothing else is ever removed.
OWN_FILES = (*MODEL_FILES, "training_log.json")
# Names of the same thing: what the data holds is compared by its content.
NAMES = (
    *("name", "description", "data.source", "data.train_data", "data.validation_data", "data.test_data"),
    *("data.item_titles", "data.items", "data.item_features", "data.text_encoder", "fine_tuning.from_model"),
)


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
    checkpoints.mkdir(parents=True, exist_ok=True)  # a folder that cannot be written is found now, not later
    try:
        with locked(checkpoints / LOCK):
            if resume and has_checkpoints(checkpoints):
                check_identity(checkpoints / IDENTITY, identity)
            else:
                _empty(checkpoints)
            finished = checkpoints / FINISHED
            shutil.rmtree(finished, ignore_errors=True)
            replace_json(checkpoints / IDENTITY, identity)
            run = RunFolder(finished)
            yield run

            def stays(entry: Path) -> bool:  # what others have put there since the start, too
                return run.goes_on if entry.name == CHECKPOINTS else not (entry.is_file() and is_own(entry))

            replace_entries(folder, finished, stays)
            shutil.rmtree(finished if run.goes_on else checkpoints, ignore_errors=True)
    except BlockingIOError as error:
        raise ModelFolderError(
            f"{folder} {error.strerror}, which writes its run there: wait for its end, or choose another --output_dir"
        ) from error
    except Exception as error:
        if not has_checkpoints(checkpoints):
            shutil.rmtree(checkpoints, ignore_errors=True)
            if made:
                with suppress(OSError):  # not empty: somebody else's files came in the meantime
                    folder.rmdir()
        if isinstance(error, SafetensorError) or (isinstance(error, OSError) and error.errno in NO_ROOM):
            reason = getattr(error, "strerror", None) or error
            raise ModelFolderError(f"{folder} cannot be written: {reason}") from error
        raise


def _empty(checkpoints: Path) -> None:
    """Removes all but the lock."""
    for entry in checkpoints.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != LOCK:
            entry.unlink()


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
        config = parse_json((folder / "config.json").read_text(encoding="utf-8"))
    except OSError:
        return (folder / CHECKPOINTS).is_dir()
    except ValueError:
        return False
    return isinstance(config, dict) and config.get("model_type") in list(MODELS)


# ---------------------------------------------------------------------- what a run is made of


def run_identity(recipe: Recipe, data: PreparedData) -> dict[str, Any]:
    """Recipe, data and processes of a run, as JSON can hold them."""
    values: dict[str, Any] = {}
    for key, value in recipe.to_dict().items():
        values |= {f"{key}.{name}": entry for name, entry in value.items()} if isinstance(value, dict) else {key: value}
    settings = {key: value for key, value in values.items() if key not in NAMES}
    identity = {"recipe": settings, "data": data_checksum(data), "processes": num_processes()}
    if data.item_features is not None:
        identity["item_features"] = hashlib.sha256(data.item_features.matrix.tobytes()).hexdigest()
    # Through JSON, so that it equals what a file gives back.
    return json.loads(json.dumps(identity))


def check_identity(file: Path, identity: dict[str, Any]) -> None:
    """Compares a run with the one whose identity is in `file`.

    Raises:
        ModelFolderError: They differ, or the file cannot be read.
    """
    try:
        stored = parse_json(file.read_text(encoding="utf-8"))
        recipe, data, processes = dict(stored["recipe"]), stored["data"], stored["processes"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelFolderError(
            f"{file} cannot be read, so --resume is not possible; start again with --overwrite"
        ) from error
    now = identity["recipe"]
    changed = [key for key in sorted({*recipe, *now}) if recipe.get(key) != now.get(key)]
    if changed:
        differences = ", ".join(f"{key} ({now.get(key)}, was {recipe.get(key)})" for key in changed)
        problem = f"the recipe is not that of the run: {differences}"
    elif data != identity["data"]:
        problem = "the interactions are not those of the run"
    elif stored.get("item_features") != identity.get("item_features"):
        problem = "the features of the items are not those of the run"
    elif processes != identity["processes"]:
        problem = f"the run had {processes} process(es), now there are {identity['processes']}"
    else:
        return
    raise ModelFolderError(
        f"--resume goes on with the same run only, but {problem}; give the same again, or --overwrite"
    )


def data_checksum(data: PreparedData) -> str:
    """Of the vocabulary and of all histories, targets and times between items."""
    checksum = hashlib.sha256(json.dumps([str(item) for item in data.processor.item_ids]).encode())
    for name in sorted(data.dataset):
        table = data.dataset[name].data
        for chunk in table.column("item_ids").chunks:
            checksum.update(chunk.value_lengths().to_numpy().astype(np.int64).tobytes())
            checksum.update(chunk.flatten().to_numpy().astype(np.int64).tobytes())
        if "target" in table.column_names:
            for chunk in table.column("target").chunks:
                checksum.update(chunk.to_numpy().astype(np.int64).tobytes())
        if "time_gaps" in table.column_names:
            for chunk in table.column("time_gaps").chunks:
                checksum.update(chunk.flatten().to_numpy().tobytes())
    return checksum.hexdigest()


def ranking_checksums(data: PreparedData, split: str) -> dict[str, str]:
    """Checksums of what a measurement is about, by raw ids, so that they compare between vocabularies.

    Returns:
        `{"targets": ..., "candidates": ...}`: of the users and targets of the split, and of the items that are ranked.
    """
    rows = data.dataset[split]
    targets = [str(rows["user_id"][:]), str(data.processor.decode(rows["target"][:]))]
    found = {"targets": targets, "candidates": sorted(map(str, data.processor.item_ids))}
    return {name: hashlib.sha256(json.dumps(texts).encode()).hexdigest() for name, texts in found.items()}
