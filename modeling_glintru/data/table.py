"""A table that is open: its names are known, its columns are read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from ..errors import DataError

__all__ = ["Table", "first_line", "from_arrow", "from_pandas", "row_place", "unreadable"]


def row_place(row: int) -> str:
    """The words for a row (0-based) of a table that has no lines: `"row 17"`, counted from 1."""
    return f"row {row + 1}"


@dataclass(frozen=True)
class Table:
    """A table whose columns are not read yet.

    Args:
        names: Names of the columns, in order.
        load: Reads the named columns into a polars frame, rows in the table's own order. Of a file of text every
            cell is a string exactly as it is written there, and an empty cell is null.
        source: Short display name: a file name without its folders, a Hub name, or the kind of object.
        is_text: Every cell is text (a CSV file): numbers are still to be recognised.
        has_no_time: The file is of a kind that has no times: the order of its lines is the order of the rows.
        files: Names of the part files, in the order in which they are read; empty where the table is one file.
        place: The words that say where a row (0-based, as loaded) stands: `"line 17"` of a file of text, `"line 3 of
            part-0001.csv"` of part files, `"row 17"` of anything else. Meant for errors; it may read the file again.
        paths: Where objects in a column of lists are the rows (JSON lines), the paths of their fields to the names of
            the columns: `{"events.aid": "aid"}`.
    """

    names: tuple[str, ...]
    load: Callable[[Sequence[str]], pl.DataFrame]
    source: str
    is_text: bool = False
    has_no_time: bool = False
    files: tuple[str, ...] = ()
    place: Callable[[int], str] = row_place
    paths: Mapping[str, str] = field(default_factory=dict)


def unreadable(path: Path, kind: str, error: BaseException) -> DataError:
    """The error for a file that a library cannot read, with the library's own reason."""
    return DataError(f"{path.name} cannot be read as {kind} ({first_line(error)}).")


def first_line(error: BaseException) -> str:
    """The first line of what an error says, without its full stop."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:200]


def from_pandas(frame: Any, names: Sequence[str]) -> pl.DataFrame:
    """The named columns of a pandas frame.

    Raises:
        DataError: A name stands for two columns, or a column holds mixed types.
    """
    from pandas.api.types import infer_dtype, is_list_like

    columns = {}
    for name in names:
        places = [place for place, column in enumerate(frame.columns) if str(column) == name]
        if len(places) > 1:
            raise DataError(f"The pandas frame has {len(places)} columns named {name!r}.")
        column = frame.iloc[:, places[0]]
        kind = infer_dtype(column, skipna=True) if column.dtype == object else ""
        if kind.startswith("mixed") and not column.dropna().map(is_list_like).all():
            raise DataError(
                f"Column {name!r} of the pandas frame holds mixed types ({kind}); ids are all text or all integers: "
                f"convert it first, for example with .astype(str)."
            )
        try:
            columns[name] = pl.from_pandas(column.reset_index(drop=True), nan_to_null=False)
        except Exception as error:
            raise DataError(f"Column {name!r} of the pandas frame cannot be read ({first_line(error)}).") from error
    return pl.DataFrame(columns)


def from_arrow(table: pa.Table) -> pl.DataFrame:
    """A pyarrow table as a polars frame."""
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
