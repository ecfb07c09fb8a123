"""Reads a table of (user, item, time) and checks it: from here on every id and every time is sound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from ..errors import DataError
from .columns import OPTIONS, base_name, recognise_column
from .readers import Table, open_table

__all__ = ["Interactions", "read_interactions"]

NAMES = {"user": "user_id", "item": "item_id", "time": "timestamp"}
INTEGER_TEXT = r"^(0|-?[1-9][0-9]*)$"
WHOLE_FLOAT_TEXT = r"^-?[0-9]+\.0+$"
ISO_TIME_TEXT = r"^\d{4}-\d{2}-\d{2}($|[T ])"
FLOAT_IDS = (
    "usually integers that once stood beside missing values: drop those rows and convert the column to integers (or "
    "to text), ids are never changed silently"
)
UNIX_SECONDS = 631_152_000, 4_102_444_800  # of 1990 and of 2100


@dataclass(frozen=True)
class Interactions:
    """A checked table of interactions.

    Args:
        frame: Columns `user_id` and `item_id` (Int64 or String, raw ids as they came) and `timestamp` (Int64 or
            Float64, in the table's own unit; dates become whole microseconds since 1970 in UTC). No missing values,
            finite times, rows in file order.
        columns: Role (`"user"`, `"item"`, `"time"`) to the name of the column that played it.
        source: Short display name.
        has_dates: Whether the times were dates.
        notes: Sentences for people on what was found while reading.
    """

    frame: pl.DataFrame
    columns: dict[str, str]
    source: str
    has_dates: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.frame.height

    @cached_property
    def steps_in_a_second(self) -> int | None:
        """Of `timestamp`, where the times are dates or Unix times; None where they are other numbers.

        Unix times may be in seconds, milli-, micro- or nanoseconds: the one by which the newest is of 1990 to 2100.
        """
        if self.has_dates:
            return 1_000_000
        newest: Any = self.frame["timestamp"].max()
        begin, end = UNIX_SECONDS
        return next((steps for steps in (1, 10**3, 10**6, 10**9) if begin * steps <= (newest or 0) < end * steps), None)

    @property
    def ticks(self) -> int:
        """Steps of `timestamp` in one unit of a time gap, a second where that is known, else the table's own."""
        return self.steps_in_a_second or 1

    @cached_property
    def num_users(self) -> int:
        """Number of different users."""
        return self.frame["user_id"].n_unique()

    @cached_property
    def num_items(self) -> int:
        """Number of different items."""
        return self.frame["item_id"].n_unique()

    def read_time(self, text: str) -> int | float:
        """A moment on the axis of this table: a number in its unit, or a date where it has dates or Unix times.

        Raises:
            DataError: The text is neither.
        """
        times = _times_from_text(pl.Series("now", [text]), "The given time")
        if isinstance(times.dtype, pl.Datetime):
            if self.steps_in_a_second is None:
                raise DataError(f"{self.source} has numbers for times: give a number in the same unit, not {text!r}.")
            return times.dt.epoch("us")[0] * self.steps_in_a_second // 1_000_000  # in Python: 64 bits may not do
        if not math.isfinite(times[0]):
            raise DataError(f"The given time must be finite, got {text!r}.")
        return times[0]

    def describe(self) -> str:
        """What was recognised, in one line."""
        roles = ", ".join(f"{role} = {name!r}" for role, name in self.columns.items())
        return f"{self.source}: {roles}; {len(self):,} interactions, {self.num_users:,} users, {self.num_items:,} items"


def read_interactions(
    source: Any,
    *,
    user_column: str | None = None,
    item_column: str | None = None,
    time_column: str | None = None,
    split: str = "train",
) -> Interactions:
    """Reads interactions from a file, a frame or a data set.

    Columns that are not named are recognised from the usual names (`columns.USUAL_NAMES`). Files of text (CSV, TSV,
    RecBole) have no types: ids there are integers where every one is written as a plain integer (no leading zeros),
    and otherwise all strings.

    Args:
        source: A path (`.csv .tsv .parquet .jsonl .ndjson .json .inter`, text also with `.gz`), a pandas or polars
            frame, a pyarrow table, a `datasets.Dataset`, or a Hub data set (`owner/name[:config]` or
            `hf://datasets/owner/name/file`).
        user_column: Name of the column of user ids.
        item_column: Name of the column of item ids.
        time_column: Name of the column of times.
        split: Which split of a data set that has several.

    Returns:
        The interactions, in file order.

    Raises:
        DataError: The source or a column is missing, empty, unreadable or of the wrong type, or holds missing values
            or times that are not finite.
    """
    table = open_table(source, split)
    given = {"user": user_column, "item": item_column, "time": time_column}
    columns = {role: recognise_column(table.names, role, table.source, name) for role, name in given.items()}
    _check_distinct(columns, table)
    frame = table.load(list(columns.values()))
    if frame.height == 0:
        raise DataError(f"{table.source} is empty: it has columns but no rows.")
    _check_complete(frame, list(columns.values()), table.source)
    users, items = (read_ids(frame[columns[role]], table) for role in ("user", "item"))
    times, has_dates = _read_times(frame[columns["time"]], table)
    return Interactions(
        frame=pl.DataFrame({"user_id": users, "item_id": items, "timestamp": times}),
        columns={role: base_name(column) for role, column in columns.items()},
        source=table.source,
        has_dates=has_dates,
    )


def read_ids(column: pl.Series, table: Table) -> pl.Series:
    """A column of raw ids as Int64 or String.

    Raises:
        DataError: The ids are floats, booleans, nested, or integers above 64 bits.
    """
    kind = column.dtype
    where = f"Column {column.name!r} of {table.source}"
    if table.is_text:
        return _ids_from_text(column, where)
    if kind in (pl.Categorical, pl.Enum, pl.String):
        return column.cast(pl.String)
    if kind.is_integer():
        ids = column.cast(pl.Int64, strict=False)
        if ids.null_count() > column.null_count():
            raise DataError(f"{where} holds integers that do not fit in 64 bits; convert it to text.")
        return ids
    if kind.is_float() or kind.is_decimal():
        examples = ", ".join(map(str, column.head(2).to_list()))
        raise DataError(f"{where} holds ids that are floating-point numbers ({examples}), {FLOAT_IDS}.")
    raise DataError(f"{where} has the type {kind}, but ids are strings or integers (another column? {_options()}).")


def _ids_from_text(column: pl.Series, where: str) -> pl.Series:
    if column.str.contains(INTEGER_TEXT).all():
        ids = column.cast(pl.Int64, strict=False)
        # Integers of more than 64 bits stay text.
        return ids if ids.null_count() == 0 else column
    if column.str.contains(WHOLE_FLOAT_TEXT).all():
        raise DataError(f"{where} holds ids that are floating-point numbers ({column[0]}), {FLOAT_IDS}.")
    return column


def _read_times(column: pl.Series, table: Table) -> tuple[pl.Series, bool]:
    """The times as numbers, and whether they were dates."""
    where = f"Time column {column.name!r} of {table.source}"
    if column.dtype in (pl.String, pl.Categorical, pl.Enum):
        column = _times_from_text(column.cast(pl.String), where)
    kind = column.dtype
    if kind == pl.Date or isinstance(kind, pl.Datetime):
        return column.cast(pl.Datetime("us")).dt.epoch("us") if kind == pl.Date else column.dt.epoch("us"), True
    if kind.is_integer():
        times = column.cast(pl.Int64, strict=False)
        if times.null_count():
            raise DataError(f"{where} holds integers that do not fit in 64 bits.")
        return times, False
    if kind.is_float() or kind.is_decimal():
        times = column.cast(pl.Float64)
        nans, infinite = int(times.is_nan().sum()), int(times.is_infinite().sum())
        if nans or infinite:
            raise DataError(
                f"{where} holds times that are not finite ({nans} NaN, {infinite} infinite, of {len(times)} rows); "
                "drop or repair those rows first."
            )
        return times, False
    raise DataError(f"{where} has the type {kind}, but times are numbers or dates (another column? {OPTIONS['time']}).")


def _times_from_text(column: pl.Series, where: str) -> pl.Series:
    """Text as Int64, else Float64, else dates in ISO form."""
    for numeric in (pl.Int64(), pl.Float64()):
        times = column.cast(numeric, strict=False)
        if times.null_count() == 0:
            return times
    # Only ISO: in other forms day and month cannot be told apart for sure.
    iso = column.str.contains(ISO_TIME_TEXT)
    try:
        times = column.str.to_datetime(time_unit="us", strict=False)
    except pl.exceptions.PolarsError:
        times = pl.Series(column.name, [None] * len(column), dtype=pl.Datetime("us"))
    wrong = ~iso | times.is_null()
    if wrong.any():
        raise DataError(
            f"{where} holds {int(wrong.sum())} of {len(column)} times that are neither numbers nor dates such as "
            f"2024-05-31T18:00:00, the first is {column.filter(wrong)[0]!r} (another column? {OPTIONS['time']})."
        )
    return times


def _check_distinct(columns: dict[str, str], table: Table) -> None:
    for column in set(columns.values()):
        roles = [role for role, name in columns.items() if name == column]
        if len(roles) > 1:
            raise DataError(
                f"Column {column!r} of {table.source} cannot be both the {' and the '.join(roles)}; choose with "
                f"{' and '.join(OPTIONS[role] for role in roles)}."
            )


def _check_complete(frame: pl.DataFrame, columns: Sequence[str], source: str) -> None:
    # An empty text is nobody's id: it is a missing value that was quoted.
    empty = {name: int((frame[name] == "").sum()) if frame[name].dtype == pl.String else 0 for name in columns}
    missing = {name: count for name in columns if (count := frame[name].null_count() + empty[name])}
    if missing:
        counts = ", ".join(f"{count} in {name!r}" for name, count in missing.items())
        raise DataError(f"{source} has missing values in {frame.height} rows: {counts}; drop or fill those rows first.")


def _options() -> str:
    return f"{OPTIONS['user']}, {OPTIONS['item']}"
