"""Histories that are sessions: the pair of a user and a session, what ends at a pause, or one row of lists."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from ..errors import DataError
from .columns import base_name, find_list_column, is_usual_name
from .ids import sorted_codes
from .roles import Roles
from .rows import Rows, first_of
from .times import duration_seconds

__all__ = ["SEPARATOR", "explode_lists", "pair_ids", "split_at_gaps"]

SEPARATOR = "/"
AUGMENTED = 0.9  # of the rows of three items and more: above it a table holds the beginnings of its own sessions
PROBE = 1000
BETWEEN = "\x1f"
EMPTY_BRACKETS = r"^\[[\s,]*\]$"
EMPTY_LIST = re.compile(EMPTY_BRACKETS)
QUOTED_LIST = r"^\[\s*['\"]"
ELEMENT = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s,'\"\[\]]+", re.DOTALL)


def pair_ids(users: pl.Series, sessions: pl.Series, source: str) -> pl.Series:
    """Histories by user and session: the text `"user/session"`.

    Raises:
        DataError: Two pairs become the same text.
    """
    users, sessions = users.cast(pl.String), sessions.cast(pl.String)
    pairs = users + SEPARATOR + sessions
    if users.str.contains(SEPARATOR, literal=True).any() and sessions.str.contains(SEPARATOR, literal=True).any():
        different = pl.DataFrame({"user": users, "session": sessions}).n_unique()
        if pairs.n_unique() < different:
            raise DataError(
                f"The user and session ids of {source} hold {SEPARATOR!r}, and some pairs of them become the same "
                "text; replace it in one of the two columns."
            )
    return pairs


def split_at_gaps(
    users: pl.Series,
    times: pl.Series,
    gap: str | int | float,
    steps_in_a_second: int | None,
    order: pl.Series | None = None,
) -> pl.Series:
    """Histories that end where a user pauses for longer than `gap`: `"user/1"`, `"user/2"`, ....

    The gap is `"30m"`, `"1h"`, `"45s"`, `"2d"`, or a number: of seconds where the times are dates or Unix times
    (`steps_in_a_second` is not None), else in the unit of the times. `order` sorts the rows of one time.

    Raises:
        DataError: The gap is not understood, or has a unit where the times have none.
    """
    length, has_unit = duration_seconds(gap, "--session_gap")
    if has_unit and steps_in_a_second is None:
        raise DataError(
            f"--session_gap {gap!r} needs times that are dates or Unix times; give a number in the unit of the times."
        )
    user = sorted_codes(users)[1]
    time = times.to_numpy()
    by: list[Any] = [time, user] if order is None else [sorted_codes(order)[1], time, user]
    rows = np.lexsort(by)  # stable: ties stay in file order
    begins = np.concatenate([[True], np.diff(time[rows]) > length * (steps_in_a_second or 1)])
    first = np.concatenate([[True], np.diff(user[rows]) != 0])
    running = np.cumsum(begins | first, dtype=np.int32)
    numbers = np.empty(len(rows), np.int32)
    numbers[rows] = running - np.maximum.accumulate(np.where(first, running - 1, 0))
    return users.cast(pl.String) + SEPARATOR + pl.Series(numbers).cast(pl.String)


def explode_lists(rows: Rows, roles: Roles) -> Roles:
    """Makes one row of each item where the items are lists, and returns the roles in that table.

    Lists are columns of lists, and in text files RecBole's `token_seq`, cells in brackets, and columns that are named
    as lists (`item_id_list`, `item_seq`). A list of times is as long as that of the items; a single time holds for all.

    Raises:
        DataError: Lists of items and times have different lengths, another column is one of lists, or all are empty.
    """
    for column in (roles.user, roles.session, roles.order, roles.next_item, roles.next_time):
        if column is not None and rows.frame.schema[column].is_nested():
            raise DataError(
                f"Column {column!r} of {rows.table.source} holds {rows.frame.schema[column]}, but a single value a row "
                "is needed; only items and times may be lists."
            )
    items = _as_lists(rows, roles.item, "item")
    if items is None:
        return replace(
            roles,
            item=roles.next_item or roles.item,
            time=roles.next_time or roles.time,
            next_item=None,
            next_time=None,
        )
    user = roles.user
    columns = [roles.item]
    full = _with_next(items, None if roles.next_item is None else rows.frame[roles.next_item])
    frame = rows.frame.with_columns(full.alias(roles.item))
    times = None if roles.time is None else _as_lists(rows, roles.time, "time")
    if times is not None and roles.time is not None:
        times = _with_next(times, None if roles.next_time is None else rows.frame[roles.next_time])
        frame = frame.with_columns(times.alias(roles.time))
        columns.append(roles.time)
        uneven = times.list.len() != full.list.len()
        if uneven.any():
            row = uneven.arg_true()[0]
            raise DataError(
                f"{int(uneven.sum()):,} of {len(rows):,} rows of {rows.table.source} have lists of different lengths: "
                f"the first, in {rows.place(row)}, has {full.list.len()[row]} items in {roles.item!r} and "
                f"{times.list.len()[row]} times in {roles.time!r}."
            )
    rows.frame = frame
    sessions = len(rows)
    repeated = 0
    if roles.next_item is not None:
        kept = _without_beginnings(frame[user], full)
        repeated = int((~kept).sum())
        if repeated:
            rows.filter(kept)
    empty = rows.frame[roles.item].list.len() == 0
    if empty.any():
        rows.filter(~empty)
    if not len(rows):
        raise DataError(f"No row of {rows.table.source} has an item in {roles.item!r}.")
    several = len(rows) - rows.frame[user].n_unique()
    kept_rows = len(rows)
    rows.explode(columns)
    _say(rows, roles, sessions, kept_rows, repeated, int(empty.sum()), several)
    return replace(roles, next_item=None, next_time=None)


def _say(rows: Rows, roles: Roles, sessions: int, kept: int, repeated: int, empty: int, several: int) -> None:
    """The notes on what became of the rows."""
    follower = "" if roles.next_item is None else f" and then the one in {base_name(roles.next_item)!r}"
    rows.notes.append(
        f"{base_name(roles.item)!r} holds lists{follower}: {kept:,} rows became {len(rows):,} interactions, in the "
        "order of the lists."
    )
    if repeated:
        rows.notes.append(
            f"{repeated:,} of {sessions:,} rows are the beginning of another row's history and were left out, so that "
            "no interaction counts twice."
        )
    if empty:
        rows.notes.append(f"{empty:,} of {sessions:,} rows have an empty list and were left out.")
    if several and roles.time is None:
        rows.notes.append(
            f"{several:,} rows are further rows of a {base_name(roles.user)!r} that has one already: its rows follow "
            "each other in the order of the table."
        )


def _as_lists(rows: Rows, name: str, role: str) -> pl.Series | None:
    """A column of lists without nulls, or None where the column has single values."""
    column = rows.frame[name]
    kind = column.dtype
    if isinstance(kind, pl.Array):
        column = column.cast(pl.List(kind.inner))
    if isinstance(column.dtype, pl.List):
        return column.fill_null([])
    if kind != pl.String or not rows.table.is_text:
        return None
    if not _is_named_as_list(name, role) and not (_in_brackets(column.head(PROBE)) and _in_brackets(column)):
        return None
    return _lists_of_text(column.fill_null("").str.strip_chars(), name, rows)


def _is_named_as_list(name: str, role: str) -> bool:
    """Whether a name says that cells of text are lists; the plural `items` does not, its cells may be titles."""
    if name != base_name(name) and name.rpartition(":")[2].strip().endswith("_seq"):
        return True
    plural = role == "item" and base_name(name).strip().lower().endswith("s")
    return not plural and not is_usual_name(name, role) and find_list_column([name], role) is not None


def _in_brackets(cells: pl.Series) -> bool:
    """Whether cells are lists in brackets: with quotes, commas or numbers, and not ids such as `[Deluxe Edition]`."""
    cells = cells.drop_nulls().str.strip_chars()
    if not len(cells) or not cells.str.contains(r"^(?s)\[.*\]$").all():
        return False
    filled = cells.filter(~cells.str.contains(EMPTY_BRACKETS))
    return bool(filled.str.contains(r"^\[\s*['\"]|,").any() or filled.str.contains(r"^\[[\s\d.+-]*\]$").all())


def _lists_of_text(cells: pl.Series, name: str, rows: Rows) -> pl.Series:
    """Lists of the elements that stand in cells of text.

    Elements in quotes (lists of Python, numpy and JSON) may hold blanks and commas. Others are divided by the commas
    where a column of brackets has any, and else by commas and blanks.
    """
    quoted = cells.str.contains(QUOTED_LIST)
    by_commas = bool(cells.filter(~quoted).str.contains(r"^\[(?s).*,.*\]$").any())
    pairs = list(zip(cells, quoted, strict=True))
    wrong = pl.Series([is_quoted and not EMPTY_LIST.match(ELEMENT.sub("", cell)) for cell, is_quoted in pairs])
    if wrong.any():
        raise DataError(
            f"Column {name!r} of {rows.table.source} holds {int(wrong.sum()):,} lists that cannot be read, the first "
            f"is {first_of(cells, wrong, rows.place)}: a list is written as ['a b', 'c'] or [\"a b\", \"c\"]."
        )
    lists = [
        list(map(_unquoted, ELEMENT.findall(cell))) if is_quoted else _divided(cell, by_commas)
        for cell, is_quoted in pairs
    ]
    return pl.Series(name, [[element for element in each if element] for each in lists], dtype=pl.List(pl.String))


def _divided(cell: str, by_commas: bool) -> list[str]:
    in_brackets = cell.startswith("[") and cell.endswith("]")
    text = cell[1:-1] if in_brackets else cell
    parts = text.split(",") if in_brackets and by_commas else re.split(r"[,\s]+", text)
    return [part.strip("'\" \n\t") for part in parts]


def _unquoted(text: str) -> str:
    """An element of a list as it is meant: without its quotes and the backslashes of JSON or Python."""
    if text[0] not in "'\"":
        return text
    if "\\" in text:
        for read in (json.loads, ast.literal_eval):
            try:
                return str(read(text))
            except (ValueError, SyntaxError):
                continue
    return text[1:-1]


def _with_next(lists: pl.Series, following: pl.Series | None) -> pl.Series:
    if following is None:
        return lists
    assert isinstance(lists.dtype, pl.List)
    return pl.select(pl.concat_list(pl.lit(lists), pl.lit(following.cast(lists.dtype.inner)))).to_series()


def _without_beginnings(users: pl.Series, lists: pl.Series) -> pl.Series:
    """Which rows are whole histories, and not the beginning of the history in another row.

    A file for training by prefixes has a row for each prefix of a session, either under the session's own id or, where
    nearly every row of three items and more has its beginning in another row, under ids of their own.
    """
    cut = pl.col("items").list.head(pl.col("items").list.len() - 1)
    frame = pl.DataFrame({"user": users, "items": lists.cast(pl.List(pl.String))}).select(
        "user",
        pl.col("items").list.join(BETWEEN).alias("text"),
        cut.list.join(BETWEEN).alias("cut"),
        pl.col("items").list.len().alias("length"),
    )
    keys, cuts = ["user", "text"], ["user", "cut"]
    if users.n_unique() == len(users):
        begun = frame.filter(pl.col("length") >= 3)["cut"].is_in(frame["text"].implode())
        if not len(begun) or int(begun.sum()) < AUGMENTED * len(begun):
            return pl.repeat(True, len(users), eager=True)
        keys, cuts = ["text"], ["cut"]
    # How many rows go on from this one: as many of its copies are beginnings, the others are histories that end here.
    longer = frame.group_by(cuts).agg(pl.len().alias("longer"))
    copies = frame.with_columns(pl.int_range(pl.len()).over(keys).alias("copy")).with_row_index("row")
    joined = copies.join(longer, left_on=keys, right_on=cuts, how="left").sort("row")
    return joined["copy"] >= joined["longer"].fill_null(0)
