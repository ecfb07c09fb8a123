"""An open table: the names of its columns are known, and only the columns that are wanted are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from ..errors import DataError, nearest_names

__all__ = ["Table", "first_line", "row_place", "unreadable"]


def row_place(row: int) -> str:
    """How an error names a row (0-based) of a table without lines of text: `"row 17"`, counted from 1."""
    return f"row {row + 1}"


@dataclass(frozen=True)
class Table:
    """A table whose columns are read by `load`.

    Args:
        names: Names of the columns, in order.
        read: Reads the named columns into a polars frame, with the rows in the order of the table.
        source: Short display name: a file name without its folders, a Hub name, or the kind of object.
        is_text: Whether every cell is text (a CSV file). Cells are then read exactly as they are written, an empty cell
            as null, and which of them are numbers is still to be decided.
        has_no_time: Whether files of this kind have no times, so that the order of the lines is the order in time.
        files: Names of the part files, in the order in which they are read; empty where the table is one file.
        place: How an error names a row (0-based, as loaded): `"line 17"` of a file of text, `"line 3 of part-0001.csv"`
            of part files, `"row 17"` of anything else. It may read the file again.
        paths: Where objects in a column of lists are the rows (JSON lines), the paths of their fields and the names of
            the columns: `{"events.aid": "aid"}`.
    """

    names: tuple[str, ...]
    read: Callable[[Sequence[str]], pl.DataFrame]
    source: str
    is_text: bool = False
    has_no_time: bool = False
    files: tuple[str, ...] = ()
    place: Callable[[int], str] = row_place
    paths: Mapping[str, str] = field(default_factory=dict)

    def load(self, names: Sequence[str]) -> pl.DataFrame:
        """Reads the named columns; `"events.aid"` is the field `aid` of a column of lists of objects.

        Raises:
            DataError: There is no such column or field, a name stands for two columns, or the table cannot be read.
        """
        names = list(dict.fromkeys(names))
        columns = {name: name if name in self.names else name.rpartition(".")[0] or name for name in names}
        for column in columns.values():
            if column not in self.names:
                raise DataError(f"{self.source} has no column {column!r}; {nearest_names(column, self.names)}")
            if self.names.count(column) > 1:
                raise DataError(f"{self.source} has {self.names.count(column)} columns named {column!r}.")
        frame = self.read(list(dict.fromkeys(columns.values())))
        fields = [self._field(frame, name, column) for name, column in columns.items() if name != column]
        return frame.with_columns(fields).select(names) if fields else frame

    def _field(self, frame: pl.DataFrame, path: str, column: str) -> pl.Expr:
        field, kind = path.removeprefix(f"{column}."), frame.schema[column]
        if not (isinstance(kind, pl.List) and isinstance(kind.inner, pl.Struct)):
            raise DataError(f"Column {column!r} of {self.source} holds no lists of objects with a field {field!r}.")
        known = [known.name for known in kind.inner.fields]
        if field not in known:
            raise DataError(f"The objects in {column!r} of {self.source} have no {field!r}; they have {known}.")
        return pl.col(column).list.eval(pl.element().struct.field(field)).alias(path)


def unreadable(path: Path, kind: str, error: BaseException) -> DataError:
    """The error for a file that a library cannot read, with the reason that the library gives."""
    return DataError(f"{path.name} cannot be read as {kind} ({first_line(error)}).")


def first_line(error: BaseException) -> str:
    """The first line of the message of an error, without its full stop."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:200]
