"""Reads a table of users, items and times, and checks every id and every time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from ..errors import DataError
from .columns import OPTIONS, base_name
from .ids import ids_of_type, read_ids, stray_ids
from .readers import open_table
from .roles import Roles, find_roles
from .row_filters import filter_rows, parse_condition
from .rows import Rows, giant_note, looks_like_session, unused_note
from .sessions import explode_lists, pair_ids, split_at_gaps
from .times import date_times, read_times

__all__ = ["Interactions", "ids_of_type", "read_ids", "read_interactions"]

UNIX_SECONDS = 631_152_000, 4_102_444_800  # the Unix times of 1990 and of 2100


@dataclass(frozen=True)
class Interactions:
    """A checked table of interactions.

    Args:
        frame: Columns `user_id` and `item_id` (Int64 or String, unchanged raw ids) and `timestamp` (Int64 or Float64,
            in the table's own unit; dates become whole microseconds since 1970 in UTC), without missing values, in the
            order of the file. Where the rows are in the order of time, `timestamp` is the number of the row. With an
            order column there is also `order` (Int64, Float64 or String), which sorts the rows of one time.
        columns: For each of `"user"`, `"item"`, `"time"`, `"session"` and `"order"` the name of its column; without
            `"time"` the order of the rows is the order of time.
        source: Short display name.
        has_dates: Whether the times were dates.
        notes: Sentences about what was left out or changed, what is unusual, and which columns are not used.
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
        """Steps of `timestamp` in a second, where the times are dates or Unix times; None for other numbers.

        Unix times may be in seconds, milli-, micro- or nanoseconds; the unit is the one in which the newest time lies
        between 1990 and 2100.
        """
        return _steps_in_a_second(self.frame["timestamp"], self.has_dates) if self.has_times else None

    @property
    def has_times(self) -> bool:
        """Whether `timestamp` comes from the table and is not the number of the row."""
        return "time" in self.columns

    @property
    def ticks(self) -> int:
        """Steps of `timestamp` in one unit of a time gap: a second where that is known, else the table's own unit."""
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
        """Reads a time in the unit of this table: a number, or a date where the table has dates or Unix times.

        Raises:
            DataError: The text is neither.
        """
        given = pl.Series("now", [text])
        for kind in (pl.Int64(), pl.Float64()):
            number = given.cast(kind, strict=False)[0]
            if number is not None:
                if not math.isfinite(number):
                    raise DataError(f"The given time must be finite, got {text!r}.")
                return number
        moment = date_times(given).dt.epoch("us")[0]
        if moment is None:
            raise DataError(f"The given time must be a number or a date such as 2024-05-31T18:00:00, got {text!r}.")
        if self.steps_in_a_second is None:
            raise DataError(f"{self.source} has numbers for times: give a number in the same unit, not {text!r}.")
        return moment * self.steps_in_a_second // 1_000_000  # Python's integers, because 64 bits may be too few.

    def describe(self) -> str:
        """One line with the recognised columns and the numbers of interactions, users and items."""
        roles = ", ".join(f"{role} = {name!r}" for role, name in self.columns.items())
        if not self.has_times:
            roles += ", time = order of the rows"
        return f"{self.source}: {roles}; {len(self):,} interactions, {self.num_users:,} users, {self.num_items:,} items"


def read_interactions(
    source: Any,
    *,
    user_column: str | None = None,
    item_column: str | None = None,
    time_column: str | None = None,
    split: str = "train",
    encoding: str | None = None,
    separator: str | None = None,
    columns: Sequence[str] | str | None = None,
    quote: str | None = None,
    order_column: str | None = None,
    in_file_order: bool = False,
    time_format: str | None = None,
    session_column: str | None = None,
    session_gap: str | int | float | None = None,
    where: str | Sequence[str] = (),
    drop_missing: bool = False,
) -> Interactions:
    """Reads interactions from a file, a frame or a data set.

    Columns that are not named are recognised by the usual names (`columns.USUAL_NAMES`). Files of text have no types:
    their ids are integers where every id is written as a plain integer, and otherwise all of them are text. The ids of
    other tables stay as they are. A table with one row for each session, whose items are a list, gets one row for each
    item.

    Args:
        source: What `open_table` takes: a path, a frame, a data set, or the name of a data set on the Hub.
        user_column: Name of the column of user ids.
        item_column: Name of the column of item ids or lists of them; `"events.aid"` is the field of a column of lists
            of objects.
        time_column: Name of the column of times or lists of them.
        split: Name of the split, of a data set that has several.
        encoding: How a file of text is written, as `separator`, `columns` and `quote`; see `open_table`.
        order_column: Name of the column that sorts a user's rows of one time.
        in_file_order: Whether the rows are in the order of time, so that no column of times is read.
        time_format: `"day_first"`, `"month_first"`, or signs such as `"%d/%m/%Y %H:%M"`; not for ISO dates.
        session_column: Name of the column of sessions; each session of a user is a history with the id
            `"user/session"`.
        session_gap: A pause that ends a history, such as `"30m"` or a number of seconds; user ids become `"user/1"`,
            `"user/2"`, ….
        where: Conditions on rows, such as `"event_type == 'purchase'"`, see `row_filters.parse_condition`.
        drop_missing: Whether to leave out rows without a user, item or time (or session or order) instead of refusing
            them.

    Returns:
        The interactions, in the order of the file.

    Raises:
        DataError: The source or a column is missing, empty, unreadable or of the wrong type, there are missing values
            or times that are not finite, or an option is not understood or does not fit the table.
    """
    reading: dict[str, Any] = {"encoding": encoding, "separator": separator, "columns": columns, "quote": quote}
    table = open_table(source, split, **{name: value for name, value in reading.items() if value is not None})
    if in_file_order and time_column is not None:
        raise DataError("--in_file_order means that no column of times is read: leave it or --time_column out.")
    given = {"user": user_column, "item": item_column, "time": time_column}
    given |= {"session": session_column, "order": order_column}
    in_order = in_file_order or (table.has_no_time and time_column is None)
    roles, no_time = find_roles(table, given, in_order)
    conditions = [
        parse_condition(text, table.names, table.source) for text in ([where] if isinstance(where, str) else where)
    ]
    wanted = [*roles.columns, *(column for condition in conditions for column in condition.columns)]
    rows = Rows(table, wanted)
    filter_rows(rows, conditions, roles.time, time_format)
    roles = explode_lists(rows, roles)
    if no_time is not None and not rows.exploded:
        raise no_time
    has_dates = _convert(rows, roles, time_format)
    advice, session = "", looks_like_session(table.names, roles.columns)
    if session is not None and rows.frame[roles.user].null_count():
        name = base_name(session)
        advice = f" {name!r} looks like a session: --user_column {name} makes each session a history."
    rows.refuse_or_drop_missing(roles.columns, drop_missing, advice)
    users = _histories(rows, roles, has_dates, session_gap)
    frame = {"user_id": users, "item_id": rows.frame[roles.item]}
    numbers = pl.int_range(len(rows), dtype=pl.Int64, eager=True)
    frame["timestamp"] = numbers if roles.time is None else rows.frame[roles.time]
    if roles.order is not None:
        frame["order"] = rows.frame[roles.order]
    has_own_users = session_column is None and session_gap is None
    for role, column in (("user", roles.user if has_own_users else ""), ("item", "" if rows.exploded else roles.item)):
        if note := giant_note(frame[f"{role}_id"], role, column):
            rows.notes.append(note)
    used = [*wanted, *(name.partition(".")[0] for name in roles.columns)]
    if note := unused_note(table.names, used, has_times=roles.time is not None):
        rows.notes.append(note)
    return Interactions(
        frame=pl.DataFrame(frame),
        columns={role: base_name(name) for role in given if (name := getattr(roles, role)) is not None},
        source=table.source,
        has_dates=has_dates,
        notes=tuple(rows.notes),
    )


def _convert(rows: Rows, roles: Roles, time_format: str | None) -> bool:
    """Makes ids and times of the cells, with null for missing ones, and returns whether the times were dates."""
    table = rows.table
    ids = [name for name in (roles.user, roles.item, roles.session) if name is not None]
    rows.strip(roles.columns if table.is_text else ids)
    rows.blank_missing(roles.columns)
    rows.blank_minus_one(roles.user, roles.item)
    converted = {name: read_ids(rows.frame[name], table, rows.place) for name in ids}
    if table.is_text:
        rows.notes += [note for name in ids[:2] if (note := stray_ids(converted[name], rows.place))]
    has_dates = False
    if roles.time is not None:
        where = f"Time column {roles.time!r} of {table.source}"
        column = rows.frame[roles.time]
        converted[roles.time], has_dates = read_times(column, where, rows.place, time_format, rows.notes)
    elif time_format is not None:
        raise DataError(f"{table.source} has no column of times for --time_format; leave it out.")
    if roles.order is not None:
        converted[roles.order] = _order(rows.frame[roles.order], table.source)
    rows.frame = pl.DataFrame(converted)
    return has_dates


def _order(column: pl.Series, source: str) -> pl.Series:
    """The column that sorts the rows of one time, as Int64, Float64 or String."""
    kind = column.dtype
    if kind == pl.String:
        for number in (pl.Int64(), pl.Float64()):
            numbers = column.cast(number, strict=False)
            if numbers.null_count() == column.null_count():
                return numbers
        return column
    if kind.is_temporal() or kind.is_integer() or kind == pl.Boolean:
        return column.cast(pl.Int64)
    if kind.is_float() or kind.is_decimal():
        return column.cast(pl.Float64)
    raise DataError(
        f"Column {column.name!r} of {source} has the type {kind}, which orders nothing (another column? "
        f"{OPTIONS['order']})."
    )


def _histories(rows: Rows, roles: Roles, has_dates: bool, session_gap: str | int | float | None) -> pl.Series:
    """The user id of each row, with the session where each session is a history."""
    users = single = rows.frame[roles.user]
    if roles.session is not None:
        users = pair_ids(users, rows.frame[roles.session], rows.table.source)
    if session_gap is not None:
        if roles.time is None:
            raise DataError(f"--session_gap needs times, which {rows.table.source} does not have ({OPTIONS['time']}).")
        times = rows.frame[roles.time]
        order = None if roles.order is None else rows.frame[roles.order]
        users = split_at_gaps(users, times, session_gap, _steps_in_a_second(times, has_dates), order)
    if users is not single:
        rows.notes.append(
            f"A history is a session of one of {single.n_unique():,} users: the user ids are now {users[0]!r} and so "
            "on."
        )
    return users


def _steps_in_a_second(times: pl.Series, has_dates: bool) -> int | None:
    if has_dates:
        return 1_000_000
    newest: Any = times.max()
    begin, end = UNIX_SECONDS
    return next((steps for steps in (1, 10**3, 10**6, 10**9) if begin * steps <= (newest or 0) < end * steps), None)
