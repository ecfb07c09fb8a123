"""Which column plays which role in a table: given by name, recognised, or a list named after the role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from ..errors import DataError
from .columns import OPTIONS, base_name, find_list_column, has_usual_name, recognise_column
from .readers import Table

__all__ = ["Roles", "find_roles"]


@dataclass(frozen=True)
class Roles:
    """Which column plays which role; where items are a list, `next_item` and `next_time` follow it (RecBole's benchmark
    files), and `time` may be a list too. Without `time` the rows are in order.
    """

    user: str
    item: str
    time: str | None = None
    next_item: str | None = None
    next_time: str | None = None
    session: str | None = None
    order: str | None = None

    @property
    def columns(self) -> list[str]:
        """All columns that play a role."""
        found = (self.user, self.item, self.next_item, self.time, self.next_time, self.session, self.order)
        return [column for column in found if column is not None]


def find_roles(table: Table, given: Mapping[str, str | None], in_order: bool) -> tuple[Roles, DataError | None]:
    """Which column plays which role.

    Args:
        table: The table.
        given: Role (`"user"`, `"item"`, `"time"`, `"session"`, `"order"`) to the name that the caller gave, or None.
        in_order: No column of times is wanted.

    Returns:
        The roles, and the error to raise where there are no times and the items turn out to be no lists either.

    Raises:
        DataError: A column is missing, ambiguous, or in two roles.
    """
    source = table.source
    given = {role: name if name in table.names else table.paths.get(name or "", name) for role, name in given.items()}
    user = recognise_column(table.names, "user", source, given["user"])
    item, next_item, is_list = _find_item(table, given["item"])
    time, next_time, no_time = None, None, None
    if not in_order:
        try:
            time, next_time = _find_time(table, given["time"], is_list, next_item is not None)
        except DataError as error:
            if given["time"] is not None or has_usual_name(table.names, "time"):
                raise
            no_time = error
    session, order = (
        None if given[role] is None else recognise_column(table.names, role, source, given[role])
        for role in ("session", "order")
    )
    roles = Roles(user, item, time, next_item, next_time, session, order)
    _check_distinct(roles, source)
    return roles, no_time


def _find_item(table: Table, given: str | None) -> tuple[str, str | None, bool]:
    """The column of items, the one of the item after the list, and whether the column is named as a list."""
    if given is not None:
        return _given_column(table, "item", given), None, False
    lists = _find_lists(table.names, "item")
    if lists is not None:
        return *lists, True
    try:
        return recognise_column(table.names, "item", table.source), None, False
    except DataError:
        path = None if has_usual_name(table.names, "item") else _find_lists_of_objects(table, "item")
        if path is None:
            raise
        return path, None, True


def _find_time(table: Table, given: str | None, is_list: bool, has_next: bool) -> tuple[str, str | None]:
    """The column of times, and the one of the time after the list."""
    if given is not None:
        return _given_column(table, "time", given), None
    lists = _find_lists(table.names, "time")
    if is_list and lists is not None:
        return lists[0], lists[1] if has_next else None
    try:
        return recognise_column(table.names, "time", table.source), None
    except DataError:
        path = None if has_usual_name(table.names, "time") or not is_list else _find_lists_of_objects(table, "time")
        found = path or find_list_column(table.names, "time")
        if found is None:
            raise
        return found, None


def _given_column(table: Table, role: str, given: str) -> str:
    column, dot, _ = given.rpartition(".")
    if dot and column in table.names and given not in map(base_name, table.names):
        return given
    return recognise_column(table.names, role, table.source, given)


def _find_lists(names: Sequence[str], role: str) -> tuple[str, str | None] | None:
    """The column of lists that is named after a role, and the column of the single value that follows the list.

    `item_id_list` goes before `item_id`, which then is the next item; a mere plural (`items`) counts only where no
    other column plays the role.
    """
    found = find_list_column(names, role)
    if found is None:
        return None
    if has_usual_name(names, role):
        single = recognise_column(names, role, "")
        return None if base_name(found).lower().endswith("s") else (found, single)
    return found, None


def _find_lists_of_objects(table: Table, role: str) -> str | None:
    """The field of a column of lists of objects that plays a role, as `"events.aid"`, or None.

    Loads the columns one by one: only for a table in which the role is not found otherwise.
    """
    for name in table.names:
        try:
            kind = table.load([name]).schema[name]
        except DataError:
            continue
        if isinstance(kind, pl.List) and isinstance(kind.inner, pl.Struct):
            fields = [field.name for field in kind.inner.fields]
            if has_usual_name(fields, role):
                return f"{name}.{recognise_column(fields, role, table.source)}"
    return None


def _check_distinct(roles: Roles, source: str) -> None:
    played: dict[str, str] = {}
    for role in ("user", "item", "time", "session", "order"):
        column = getattr(roles, role)
        if column is None:
            continue
        if column in played:
            raise DataError(
                f"Column {column!r} of {source} cannot be both the {played[column]} and the {role}; choose with "
                f"{OPTIONS[played[column]]} and {OPTIONS[role]}."
            )
        played[column] = role
