"""Recognises columns by the usual names of users, items and times, and finds columns that were named."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from ..errors import DataError, nearest_names

__all__ = [
    "OPTIONS",
    "USUAL_NAMES",
    "base_name",
    "find_list_column",
    "has_usual_name",
    "is_usual_name",
    "name_in_condition",
    "plain_name",
    "recognise_column",
    "recognise_item_column",
    "where_option",
]


SESSIONS = ("sessionid", "session", "sid", "usersession")
# The usual names of each role, best first. Compared without upper case, underscores, hyphens, dots and blanks.
# Names of one line have equal rank: two of them in one table are ambiguous, and then the option must decide.
USUAL_NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "user": (
        ("userid", "uid", "user"),
        ("reviewerid", "customerid", "visitorid", "memberid", "clientid", "accountid", "playerid", "readerid"),
        ("username", "customer", "reviewer", "visitor", "client"),
        SESSIONS,
    ),
    "item": (
        ("itemid", "iid", "item"),
        ("parentasin",),
        (
            *("movieid", "asin", "sku", "productid", "articleid", "trackid", "songid", "bookid", "gameid", "newsid"),
            *("videoid", "businessid", "contentid", "goodsid", "aid", "isbn"),
        ),
        ("product", "movie", "article", "track", "song", "book", "game"),
    ),
    "time": (
        ("timestamp",),
        ("unixreviewtime", "unixtime", "unixtimestamp", "eventtimestamp"),
        ("time", "ts", "eventtime", "datetime"),
        ("date", "eventdate", "createdat", "reviewtime", "reviewdate", "purchasedate", "orderdate", "tdat"),
    ),
    "title": (
        ("title", "itemtitle", "movietitle", "producttitle"),
        ("name", "itemname", "productname", "prodname", "trackname"),
    ),
    # A column with one of these names is never used on its own, but a note names the option that would use it.
    "session": (SESSIONS,),
    "order": (("timeframe", "position", "step", "eventorder", "itemorder", "clickorder", "addtocartorder"),),
}
OPTIONS = {role: f"--{role}_column" for role in USUAL_NAMES}
RECBOLE_TYPES = ("token", "float", "token_seq", "float_seq")
# A column of lists has one of these after the usual name of its role: item_id_list, item_seq, timestamps.
LIST_ENDINGS = ("list", "seq", "sequence", "s")


def base_name(column: str) -> str:
    """The name of a column without RecBole's type: `"user_id:token"` is `"user_id"`."""
    name, colon, kind = column.rpartition(":")
    return name if colon and kind.strip() in RECBOLE_TYPES else column


def name_in_condition(column: str) -> str:
    """A column as it is written in a condition (`row_filters`): in backticks where its name is no plain word."""
    name = base_name(column)
    return name if name.isidentifier() else f"`{name}`"


def where_option(condition: str) -> str:
    """The option `--where` with a condition as it is typed in a shell, in double quotes where these change nothing."""
    replaced = re.search(r"[\"$`\\]|!(?!=)", condition)
    return f"--where {shlex.quote(condition)}" if replaced else f'--where "{condition}"'


def recognise_column(columns: Sequence[str], role: str, source: str, given: str | None = None) -> str:
    """The column with the name that the caller gave, or else with the best usual name of a role (`USUAL_NAMES`).

    Raises:
        DataError: There is no such column, or two columns have names of equal rank.
    """
    if given is not None:
        for column in columns:
            if given in (column, base_name(column)):
                return column
        raise DataError(
            f"{source} has no column {given!r} ({OPTIONS[role]}); {nearest_names(given, columns)} "
            f"It has: {_listed(columns)}."
        )
    names = {column: plain_name(base_name(column)) for column in columns}
    for rank in USUAL_NAMES[role]:
        found = [column for column in columns if names[column] in rank]
        if len(found) == 1:
            return found[0]
        if found:
            raise DataError(
                f"{source} has more than one column that could be the {role}: {_listed(found)}; "
                f"choose one with {OPTIONS[role]}."
            )
    in_order = ", or say with --in_file_order that the rows are in the order of time" if role == "time" else ""
    raise DataError(
        f"{source} has no column that looks like the {role}; name it with {OPTIONS[role]}{in_order}. "
        f"It has: {_listed(columns)}."
    )


def recognise_item_column(columns: Sequence[str], source: str, name: str | None) -> str:
    """The column of item ids of a table that stands beside the interactions.

    Args:
        columns: The columns of that table.
        source: Its display name.
        name: The name of the column of items in the interactions, or None; where the table does not have it, a column
            with a usual name is taken.

    Raises:
        DataError: There is none.
    """
    there = {*columns, *map(base_name, columns)}
    if name is None or name in there or has_usual_name(columns, "item"):
        return recognise_column(columns, "item", source, name if name in there else None)
    raise DataError(
        f"{source} has no column of item ids: neither {name!r}, as --item_column says, nor a usual name; rename "
        f"the column of ids in it to {name!r}. It has: {_listed(columns)}."
    )


def is_usual_name(column: str, role: str) -> bool:
    """Whether a column has a usual name of the role."""
    return any(plain_name(base_name(column)) in rank for rank in USUAL_NAMES[role])


def has_usual_name(columns: Sequence[str], role: str) -> bool:
    """Whether any column has a usual name of the role."""
    return any(is_usual_name(column, role) for column in columns)


def find_list_column(columns: Sequence[str], role: str) -> str | None:
    """The first column that is named like a list of a role (`item_id_list`, `timestamps`), or None."""
    usual = {name for rank in USUAL_NAMES[role] for name in rank}
    lists = {name + ending for name in usual for ending in LIST_ENDINGS} - usual
    return next((column for column in columns if plain_name(base_name(column)) in lists), None)


def plain_name(name: str) -> str:
    """A name in the form in which `USUAL_NAMES` are compared: lower case, letters and digits alone."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _listed(columns: Sequence[str]) -> str:
    shown = ", ".join(repr(column) for column in columns[:20])
    return shown + (f", ... ({len(columns)} in all)" if len(columns) > 20 else "")
