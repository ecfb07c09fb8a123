"""The rows of a table while they become interactions, and the notes on what is missing or unusual in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import polars as pl

from ..errors import DataError
from .columns import base_name, is_usual_name, name_in_condition, where_option
from .readers import Table

__all__ = ["MISSING_TEXT", "Rows", "first_of", "giant_note", "looks_like_session", "shown", "unused_note"]

# Cells of a text file that mean a missing value; see also `Rows.blank_minus_one`.
MISSING_TEXT = ("", "NA", "N/A", "n/a", "null", "NULL", "None", "nan", "NaN", r"\N")
NEGATIVE_INTEGER = r"^-[0-9]+$"
NATURAL_NUMBER = r"^[0-9]+$"
GIANT_SHARE, GIANT_TIMES_EVEN = 0.05, 4
GIANT_ROWS, GIANT_IDS, GIANT_SAMPLE = 100, 20, 100_000
LONGEST_NOTE = 160
EVENTS = ("event", "eventtype", "behavior", "behaviortype", "behaviour", "action", "actiontype", "type", "interaction")
RATINGS = ("rating", "overall", "stars", "score", "ratings")


class Rows:
    """The rows of a table by the names of their columns; each method leaves out rows or changes a column.

    Attributes:
        frame: The rows that remain.
        notes: Sentences about what was changed or left out.
        exploded: Whether one row was made of each element of lists.
    """

    def __init__(self, table: Table, columns: Sequence[str]) -> None:
        self.table = table
        self.frame = table.load(columns)
        self.notes: list[str] = []
        self.exploded = False
        self._blanked: dict[str, dict[int, str]] = {}  # by column and row, the first cells that meant a missing value
        self._places: pl.Series | None = None  # the rows in the table, where some are left out or exploded
        if self.frame.height == 0:
            raise DataError(f"{table.source} is empty: it has columns but no rows.")
        texts = [name for name, kind in self.frame.schema.items() if kind in (pl.Categorical, pl.Enum)]
        if texts:
            self.frame = self.frame.with_columns(pl.col(texts).cast(pl.String))

    def __len__(self) -> int:
        return self.frame.height

    def place(self, row: int) -> str:
        """How an error names a row by its place in the table: `"line 17"`."""
        return self.table.place(row if self._places is None else int(self._places[row]))

    def filter(self, mask: pl.Series) -> None:
        """Leaves out the rows where `mask` is false or null."""
        if mask.sum() < len(mask):
            self._places = self._numbers().filter(mask)
            self.frame = self.frame.filter(mask)

    def explode(self, columns: Sequence[str]) -> None:
        """Makes one row of each element of columns of lists; the lists of a row must be equally long and not empty."""
        name = "row in the table"
        frame = self.frame.with_columns(self._numbers().alias(name)).explode(list(columns))
        self._places, self.frame, self.exploded = frame[name], frame.drop(name), True

    def strip(self, columns: Sequence[str]) -> None:
        """Removes the blanks around the cells of a text file; in other tables a note tells of ids that have some."""
        for name in dict.fromkeys(columns):
            column = self.frame[name]
            if column.dtype != pl.String:
                continue
            stripped = column.str.strip_chars()
            changed = int((stripped != column).sum())
            if changed and self.table.is_text:
                self.frame = self.frame.with_columns(stripped)
                self.notes.append(f"Blanks around {changed:,} cells of {name!r} were taken away.")
            elif changed and (merged := column.n_unique() - stripped.n_unique()):
                self.notes.append(
                    f"{merged:,} of the ids in {name!r} differ from another id only by blanks around them; they "
                    "stay different ids, because only cells of text files are stripped."
                )

    def blank_missing(self, columns: Sequence[str]) -> None:
        """Makes null what means a missing value: `MISSING_TEXT` in text files, the empty text and NaN elsewhere."""
        for name in dict.fromkeys(columns):
            column = self.frame[name]
            if column.dtype == pl.String:
                missing = column.is_in(MISSING_TEXT) if self.table.is_text else column == ""
            elif column.dtype.is_float():
                missing = column.is_nan()
            else:
                continue
            self._blank(name, missing)

    def blank_minus_one(self, user: str, item: str) -> None:
        """Makes null the `-1` of a text file that means an unknown user or item.

        A user `-1` means this unless another user is a negative integer, an item `-1` only where all other items are
        natural numbers.
        """
        if not self.table.is_text:
            return
        for name in (user, item):
            found = self.frame[name] == "-1"
            others = self.frame[name].filter(~found)
            if not found.any() or others.null_count() == len(others):
                continue
            natural, negative = others.str.contains(NATURAL_NUMBER), others.str.contains(NEGATIVE_INTEGER)
            if natural.all() if name == item else not negative.any():
                self._blank(name, found)

    def refuse_or_drop_missing(self, columns: Sequence[str], drop: bool, advice: str = "") -> None:
        """Refuses rows where one of the columns is null, or leaves them out where `drop` is true.

        Raises:
            DataError: There are such rows and `drop` is false, or no row remains.
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
        self.filter(complete)
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
    """The first value at which `wrong` is True and its place, for an error: `"'x' in line 7"`."""
    row = wrong.arg_true()[0]
    return f"{shown(column[row])} in {place(row)}"


def shown(value: Any) -> str:
    """A value as an error shows it, without the end where it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST_NOTE else f"{text[:LONGEST_NOTE]}…"


def giant_note(ids: pl.Series, role: str, column: str) -> str | None:
    """A sentence where one user or item (`role`) has more than 5 % of all rows and more than four times an even share.

    Smaller tables than of 100 rows and 20 users (or items) get none.
    """
    if len(ids) < GIANT_ROWS:
        return None
    # The candidate is found in a sample, because counting the ids of all rows takes several times as long as reading.
    sample = ids.sample(GIANT_SAMPLE, seed=0) if len(ids) > GIANT_SAMPLE else ids
    counts = sample.value_counts(name="count")
    value, sampled = counts.row(int(counts["count"].arg_max() or 0))
    if len(counts) < GIANT_IDS or sampled < GIANT_SHARE / 2 * len(sample):
        return None
    count = int((ids == value).sum())
    if count <= len(ids) * max(GIANT_SHARE, GIANT_TIMES_EVEN / len(counts)):
        return None
    advice = (
        f" ({where_option(f'{name_in_condition(column)} != {value!r}')} leaves it out)"
        if column and len(str(value)) < LONGEST_NOTE
        else ""
    )
    return (
        f"The {role} {shown(value)} has {100 * count / len(ids):.1f} % of all rows: is it a real {role}, or what "
        f"stands for an unknown one?{advice}"
    )


def looks_like_session(names: Iterable[str], used: Sequence[str]) -> str | None:
    """The first column that is named like a session and plays no role yet, or None."""
    return next((name for name in names if name not in used and is_usual_name(name, "session")), None)


def unused_note(names: Sequence[str], used: Sequence[str], has_times: bool) -> str | None:
    """A sentence of at most 160 letters that names the unused columns and the options that would use them.

    Columns of titles are left out, because `load_titles` reads them.
    """
    rest = [name for name in names if name not in used and not is_usual_name(name, "title")]
    if not rest:
        return None
    options = {name: _option(name, has_times) for name in rest}
    rest.sort(key=lambda name: options[name] is None)  # columns for which there is an option come first
    note = "Not used:"
    for count, name in enumerate(rest):
        option = options[name] or ("--where" if count == 0 else None)
        part = f"{',' if count else ''} {base_name(name)!r}" + (f" ({option})" if option else "")
        left = len(rest) - count - 1
        room = LONGEST_NOTE - (len(f" and {left:,} more.") if left else 1)
        if len(note) + len(part) > room:
            return f"{note} and {left + 1:,} more." if count else f"Not used: {left + 1:,} columns (--where)."
        note += part
    return f"{note}."


def _option(name: str, has_times: bool) -> str | None:
    """The option that would use a column, as its name suggests."""
    letters = "".join(letter for letter in base_name(name).lower() if letter.isalnum())
    if letters in EVENTS:
        written = name_in_condition(name)
        # A name in backticks needs single quotes around the condition, and so the value stands in double ones.
        return where_option(f"{written} == " + ('"purchase"' if written.startswith("`") else "'purchase'"))
    if letters in RATINGS:
        return where_option(f"{name_in_condition(name)} >= 4")
    if is_usual_name(name, "session"):
        return f"--session_column {base_name(name)}"
    if has_times and is_usual_name(name, "order"):
        return f"--order_column {base_name(name)}"
    return None
