"""Makes histories of sessions: of pairs of a user and a session, of rows between pauses, and of rows with lists."""

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
AUGMENTED = 0.9  # If so many rows of three or more items have their beginning in another row, beginnings are left out.
PROBE = 1000
BETWEEN = "\x1f"
EMPTY_BRACKETS = r"^\[[\s,]*\]$"
EMPTY_LIST = re.compile(EMPTY_BRACKETS)
QUOTED_LIST = r"^\[\s*['\"]"
ELEMENT = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s,'\"\[\]]+", re.DOTALL)


def pair_ids(users: pl.Series, sessions: pl.Series, source: str) -> pl.Series:
    """The id of each pair of a user and a session: the text `"user/session"`.

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
    """The ids `"user/1"`, `"user/2"`, … of histories that end where a user pauses for longer than `gap`.

    The gap is a text such as `"30m"`, `"1h"`, `"45s"` or `"2d"`, or a number: of seconds where the times are dates or
    Unix times (`steps_in_a_second` is not None), and otherwise in the unit of the times. `order` sorts the rows of one
    time.

    Raises:
        DataError: The gap is not understood, or has a unit although the times have none.
    """
    length, has_unit = duration_seconds(gap, "--session_gap")
    if has_unit and steps_in_a_second is None:
        raise DataError(
            f"--session_gap {gap!r} needs times that are dates or Unix times; give a number in the unit of the times."
        )
    user = sorted_codes(users)[1]
    time = times.to_numpy()
    by: list[Any] = [time, user] if order is None else [sorted_codes(order)[1], time, user]
    rows = np.lexsort(by)  # The sort is stable: rows that are equal stay in the order of the file.
    begins = np.concatenate([[True], np.diff(time[rows]) > length * (steps_in_a_second or 1)])
    first = np.concatenate([[True], np.diff(user[rows]) != 0])
    running = np.cumsum(begins | first, dtype=np.int32)
    numbers = np.empty(len(rows), np.int32)
    numbers[rows] = running - np.maximum.accumulate(np.where(first, running - 1, 0))
    return users.cast(pl.String) + SEPARATOR + pl.Series(numbers).cast(pl.String)


def explode_lists(rows: Rows, roles: Roles) -> Roles:
    """Makes one row of each item where the items are lists, and returns the roles of the columns from then on.

    Lists are columns of lists and, in text files, RecBole's `token_seq`, cells in brackets, and columns that are named
    as lists (`item_id_list`, `item_seq`). Times are a list of the same length, or one time for all items of the row.

    Raises:
        DataError: Lists of items and times have different lengths, another column holds lists, or all lists are empty.
    """
    for column in (roles.user, roles.session, roles.order, roles.next_item, roles.next_time):
        if column is not None and rows.frame.schema[column].is_nested():
            raise DataError(
                f"Column {column!r} of {rows.table.source} holds {rows.frame.schema[column]}, but a single value a row "
                "is needed; only items and times may be lists."
            )
    single = replace(roles, next_item=None, next_time=None)
    items = _as_lists(rows, roles.item, "item", roles.next_item)
    if items is None:
        return replace(single, item=roles.next_item or roles.item, time=roles.next_time or roles.time)
    times = None if roles.time is None else _as_lists(rows, roles.time, "time", roles.next_time)
    lists = [items] if times is None else [items, times]
    if times is not None and (uneven := times.list.len() != items.list.len()).any():
        row = uneven.arg_true()[0]
        raise DataError(
            f"{int(uneven.sum()):,} of {len(rows):,} rows of {rows.table.source} have lists of different lengths: "
            f"the first, in {rows.place(row)}, has {items.list.len()[row]} items in {roles.item!r} and "
            f"{times.list.len()[row]} times in {roles.time!r}."
        )
    rows.frame = rows.frame.with_columns(lists)
    sessions = len(rows)
    if roles.next_item is not None:
        rows.filter(_without_beginnings(rows.frame[roles.user], items))
    repeated = sessions - len(rows)
    rows.filter(rows.frame[roles.item].list.len() > 0)
    filled = len(rows)
    if not filled:
        raise DataError(f"No row of {rows.table.source} has an item in {roles.item!r}.")
    several = filled - rows.frame[roles.user].n_unique()
    rows.explode([column.name for column in lists])
    follower = "" if roles.next_item is None else f" and then the one in {base_name(roles.next_item)!r}"
    rows.notes.append(
        f"{base_name(roles.item)!r} holds lists{follower}: {filled:,} rows became {len(rows):,} interactions, in the "
        "order of the lists."
    )
    if repeated:
        rows.notes.append(
            f"{repeated:,} of {sessions:,} rows are the beginning of another row's history and were left out, so that "
            "no interaction counts twice."
        )
    if empty := sessions - repeated - filled:
        rows.notes.append(f"{empty:,} of {sessions:,} rows have an empty list and were left out.")
    if several and roles.time is None:
        rows.notes.append(
            f"{several:,} rows are further rows of a {base_name(roles.user)!r} that has one already: its rows follow "
            "each other in the order of the table."
        )
    return single


def _as_lists(rows: Rows, name: str, role: str, following: str | None) -> pl.Series | None:
    """A column as lists without nulls, with the single value of the column `following` at their ends.

    It is None where the column holds single values.
    """
    lists = rows.frame[name]
    kind = lists.dtype
    if isinstance(kind, pl.Array):
        lists = lists.cast(pl.List(kind.inner))
    if isinstance(lists.dtype, pl.List):
        lists = lists.fill_null([])
    elif kind == pl.String and rows.table.is_text:
        if not _is_named_as_list(name, role) and not (_in_brackets(lists.head(PROBE)) and _in_brackets(lists)):
            return None
        lists = _lists_of_text(lists.fill_null("").str.strip_chars(), name, rows)
    else:
        return None
    if following is None:
        return lists
    assert isinstance(lists.dtype, pl.List)
    value = rows.frame[following].cast(lists.dtype.inner)
    return pl.select(pl.concat_list(pl.lit(lists), pl.lit(value)).alias(name)).to_series()


def _is_named_as_list(name: str, role: str) -> bool:
    """Whether the name of a column of text means lists; the plural `items` does not, since its cells may be titles."""
    if name != base_name(name) and name.rpartition(":")[2].strip().endswith("_seq"):
        return True
    plural = role == "item" and base_name(name).strip().lower().endswith("s")
    return not plural and not is_usual_name(name, role) and find_list_column([name], role) is not None


def _in_brackets(cells: pl.Series) -> bool:
    """Whether cells are lists in brackets with quotes, commas or numbers, and no ids such as `[Deluxe Edition]`."""
    cells = cells.drop_nulls().str.strip_chars()
    if not len(cells) or not cells.str.contains(r"^(?s)\[.*\]$").all():
        return False
    filled = cells.filter(~cells.str.contains(EMPTY_BRACKETS))
    return bool(filled.str.contains(QUOTED_LIST + "|,").any() or filled.str.contains(r"^\[[\s\d.+-]*\]$").all())


def _lists_of_text(cells: pl.Series, name: str, rows: Rows) -> pl.Series:
    """The lists that are written in cells of text.

    Elements in quotes (lists of Python, numpy and JSON) may hold blanks and commas. Other lists are divided at the
    commas where a cell in brackets has one, and otherwise at commas and blanks.
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
    """An element of a list without its quotes and without the backslashes of JSON or Python."""
    if text[0] not in "'\"":
        return text
    if "\\" in text:
        for read in (json.loads, ast.literal_eval):
            try:
                return str(read(text))
            except (ValueError, SyntaxError):
                continue
    return text[1:-1]


def _without_beginnings(users: pl.Series, lists: pl.Series) -> pl.Series:
    """bool, one value for each row: whether it is a whole history and not the beginning of another row's history.

    A file for training by prefixes has one row for each prefix of a session. All of them have the id of the session, or
    each has an id of its own, which is assumed where nearly every row of three or more items has its beginning in
    another row.
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
    # As many copies of a row are beginnings as there are rows that go on from it; the other copies are whole histories.
    longer = frame.group_by(cuts).agg(pl.len().alias("longer"))
    copies = frame.with_columns(pl.int_range(pl.len()).over(keys).alias("copy")).with_row_index("row")
    joined = copies.join(longer, left_on=keys, right_on=cuts, how="left").sort("row")
    return joined["copy"] >= joined["longer"].fill_null(0)
