"""The rows of a table on their way to interactions: which are left, where they stood, and what to say of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from ..errors import DataError
from .readers import Table

__all__ = ["MISSING_TEXT", "Rows", "first_of"]

# Cells of a text file that stand for nothing; see also `Rows.blank_stand_ins` for -1.
MISSING_TEXT = ("", "NA", "N/A", "n/a", "null", "NULL", "None", "nan", "NaN", r"\N")
NEGATIVE_INTEGER = r"^-[0-9]+$"
NATURAL_NUMBER = r"^[0-9]+$"


class Rows:
    """Rows of a table, by the names of their columns; every step takes some away or changes a column.

    Args:
        table: Where they are from.
        columns: Names of the columns to load.

    Attributes:
        frame: The rows that are left.
        notes: Sentences for people, of what was done to them.
        exploded: Whether a row was made of each element of lists.
    """

    def __init__(self, table: Table, columns: Sequence[str]) -> None:
        self.table = table
        self.frame = table.load(list(dict.fromkeys(columns)))
        self.notes: list[str] = []
        self.exploded = False
        self._blanked: dict[str, dict[int, str]] = {}  # the first cells that stood for a missing value, by row
        self._places: pl.Series | None = None  # of the rows in the table, where some are gone or are several
        if self.frame.height == 0:
            raise DataError(f"{table.source} is empty: it has columns but no rows.")
        texts = [name for name, kind in self.frame.schema.items() if kind in (pl.Categorical, pl.Enum)]
        if texts:
            self.frame = self.frame.with_columns(pl.col(texts).cast(pl.String))

    def __len__(self) -> int:
        return self.frame.height

    def place(self, row: int) -> str:
        """Where a row stood in the table, for people: `"line 17"`."""
        return self.table.place(row if self._places is None else int(self._places[row]))

    def first(self, column: pl.Series, wrong: pl.Series) -> str:
        """The first of the wrong values and its place: `"'abc' in line 17"`."""
        row = wrong.arg_true()[0]
        return f"{column[row]!r} in {self.place(row)}"

    def keep(self, kept: pl.Series) -> None:
        """Leaves out the rows where `kept` is false or null."""
        self._places = self._numbers().filter(kept)
        self.frame = self.frame.filter(kept)

    def explode(self, columns: Sequence[str]) -> None:
        """Makes one row of each element of columns of lists, which are equally long in each row and never empty."""
        name = "row in the table"
        frame = self.frame.with_columns(self._numbers().alias(name)).explode(list(columns))
        self._places, self.frame, self.exploded = frame[name], frame.drop(name), True

    def strip(self, columns: Sequence[str]) -> None:
        """Takes away the blanks around the cells of a text file; in other tables they are only counted."""
        for name in dict.fromkeys(columns):
            column = self.frame[name]
            if column.dtype != pl.String:
                continue
            stripped = column.str.strip_chars()
            changed = int((stripped != column).sum())
            if changed and self.table.is_text:
                self.frame = self.frame.with_columns(stripped)
                self.notes.append(f"Blanks around {changed:,} cells of {name!r} were taken away.")
            elif changed:
                merged = column.n_unique() - stripped.n_unique()
                if merged:
                    self.notes.append(
                        f"{merged:,} of the ids in {name!r} differ from another id only by blanks around them; they "
                        "stay different ids, because only cells of text files are stripped."
                    )

    def blank_missing(self, columns: Sequence[str]) -> None:
        """Makes null what stands for a missing value.

        In text files these are the cells of `MISSING_TEXT`, in other tables the empty text, because it is nobody's
        id, and NaN.
        """
        for name in dict.fromkeys(columns):
            column = self.frame[name]
            if column.dtype == pl.String:
                missing = column.is_in(MISSING_TEXT) if self.table.is_text else column == ""
            elif column.dtype.is_float():
                missing = column.is_nan()
            else:
                continue
            self._blank(name, missing)

    def blank_stand_ins(self, user: str, item: str) -> None:
        """Makes null the `-1` of a text file that stands for an unknown user or item.

        A user `-1` does so unless another user is a negative integer, an item `-1` only where all other items are
        natural numbers.
        """
        if not self.table.is_text:
            return
        for name, needs_numbers in ((user, False), (item, True)):
            column = self.frame[name]
            found = column == "-1"
            if not found.any():
                continue
            others = column.filter(~found)
            if needs_numbers:
                stands_in = bool(others.str.contains(NATURAL_NUMBER).all())
            else:
                stands_in = not others.str.contains(NEGATIVE_INTEGER).any()
            if stands_in and others.null_count() < len(others):
                self._blank(name, found)

    def refuse_or_drop_missing(self, columns: Sequence[str], drop: bool, advice: str = "") -> None:
        """Leaves out the rows where one of the columns is null, where that was asked for.

        Raises:
            DataError: It was not, or nothing is left.
        """
        columns = list(dict.fromkeys(columns))
        counts = {name: count for name in columns if (count := self.frame[name].null_count())}
        if not counts:
            return
        total = len(self)
        complete = self.frame.select(pl.all_horizontal(pl.col(columns).is_not_null())).to_series()
        gone = f"{total - int(complete.sum()):,} of {total:,} rows"
        if not drop:
            cells = ", ".join(f"{count:,} in {name!r} ({self._first_missing(name)})" for name, count in counts.items())
            raise DataError(
                f"{self.table.source} has missing values in {gone}: {cells}; leave such rows out with --drop_missing, "
                f"or repair them.{advice}"
            )
        cells = ", ".join(f"{count:,} in {name!r}" for name, count in counts.items())
        self.keep(complete)
        if not len(self):
            raise DataError(f"No row of {self.table.source} is left without missing values: {cells}.{advice}")
        self.notes.append(f"{gone} have missing values and were left out: {cells}.")

    def _first_missing(self, name: str) -> str:
        row = self.frame[name].is_null().arg_true()[0]
        text = self._blanked.get(name, {}).get(row)
        return f"the first in {self.place(row)}" + (f": {text!r}" if text else "")

    def _blank(self, name: str, missing: pl.Series) -> None:
        if missing.any():
            row = missing.arg_true()[0]
            self._blanked.setdefault(name, {})[row] = self.frame[name][row]
            self.frame = self.frame.with_columns(
                pl.when(pl.lit(missing)).then(None).otherwise(pl.col(name)).alias(name)
            )

    def _numbers(self) -> pl.Series:
        return pl.int_range(len(self), dtype=pl.UInt32, eager=True) if self._places is None else self._places


def first_of(column: pl.Series, wrong: pl.Series, place: Callable[[int], str]) -> str:
    """The first value that is wrong and where it stands, for an error; `wrong` is True at each such value."""
    row = wrong.arg_true()[0]
    return f"{column[row]!r} in {place(row)}"
