"""What a run is made of, so that another run does not go on from its checkpoints."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from ..data import PreparedData
from ..errors import ModelFolderError
from ..machine import num_processes
from ..recipe import Recipe

__all__ = ["check_identity", "data_checksum", "ranking_checksums", "run_identity"]

# Names of the same thing: what the data holds is compared by its content.
NAMES = (
    *("name", "description", "data.source", "data.train_data", "data.validation_data", "data.test_data"),
    *("data.item_titles", "fine_tuning.from_model"),
)


def run_identity(recipe: Recipe, data: PreparedData) -> dict[str, Any]:
    """Recipe, data and processes of a run, as JSON can hold them."""
    values: dict[str, Any] = {}
    for key, value in recipe.to_dict().items():
        values |= {f"{key}.{name}": entry for name, entry in value.items()} if isinstance(value, dict) else {key: value}
    settings = {key: value for key, value in values.items() if key not in NAMES}
    # Through JSON, so that it equals what a file gives back.
    return json.loads(json.dumps({"recipe": settings, "data": data_checksum(data), "processes": num_processes()}))


def check_identity(file: Path, identity: dict[str, Any]) -> None:
    """Compares a run with the one whose identity is in `file`.

    Raises:
        ModelFolderError: They differ, or the file cannot be read.
    """
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
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
        `{"targets": …, "candidates": …}`: of the users and targets of the split, and of the items that are ranked.
    """
    rows = data.dataset[split]
    asked = [str(rows["user_id"][:]), str(data.processor.decode(rows["target"][:]))]
    found = {"targets": asked, "candidates": sorted(map(str, data.processor.item_ids))}
    return {name: hashlib.sha256(json.dumps(texts).encode()).hexdigest() for name, texts in found.items()}
