"""Reads a split that came with the data: a training, a validation and a test file."""

from __future__ import annotations

from typing import Any

import polars as pl

from ..errors import DataError
from .interactions import Interactions
from .sources import load_source

__all__ = ["read_given_split"]


def read_given_split(train: Any, validation: Any, test: Any, **reading: Any) -> Interactions:
    """The interactions of all files in one table, each with the file that it came from.

    Args:
        train: What is trained on, as for `read_interactions`.
        validation: What is validated on; None where there is no such file.
        test: What is tested on.
        reading: Options of `read_interactions`, the same for all files.

    Returns:
        The interactions, file after file, with a further column `part` (Int8): 0 for training, 1 for validation, 2 for
        test. Ids that are integers in one file and text in another are text in all.

    Raises:
        DataError: As `read_interactions`, or the times of the files are of different kinds.
    """
    sources = {0: train, 1: validation, 2: test}
    files = {part: load_source(source, **reading) for part, source in sources.items() if source is not None}
    first = files[0]
    for other in files.values():
        if other.has_dates != first.has_dates:
            dates, numbers = (other, first) if other.has_dates else (first, other)
            raise DataError(f"The times of {dates.source} are dates, but those of {numbers.source} are numbers.")
    frames = [file.frame.with_columns(part=pl.lit(part, pl.Int8)) for part, file in files.items()]
    for column in ("user_id", "item_id"):
        if len({frame[column].dtype for frame in frames}) > 1:
            frames = [frame.with_columns(pl.col(column).cast(pl.String)) for frame in frames]
    notes = [f"{file.source}: {note}" for file in files.values() for note in file.notes]
    return Interactions(
        frame=pl.concat(frames, how="vertical_relaxed"),
        columns=first.columns,
        source=" + ".join(file.source for file in files.values()),
        has_dates=first.has_dates,
        notes=tuple(notes),
    )
