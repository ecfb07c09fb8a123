"""Finds the columns of users, items, times, sessions and order in a table, also where items or times are lists."""

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
    """The name of the column of each role; without `time` the rows are in the order of time.

    Items and times may be lists. In RecBole's benchmark files the columns `next_item` and `next_time` hold the single
    values that follow them.
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
        """All columns that have a role."""
        found = (self.user, self.item, self.next_item, self.time, self.next_time, self.session, self.order)
        return [column for column in found if column is not None]


def find_roles(table: Table, given: Mapping[str, str | None], in_order: bool) -> tuple[Roles, DataError | None]:
    """Finds the column of each role.

    Args:
        table: The table.
        given: For each of `"user"`, `"item"`, `"time"`, `"session"` and `"order"` the name that the caller gave, or
            None.
        in_order: Whether the rows are in the order of time, so that no column of times is needed.

    Returns:
        The roles, and an error that the caller raises where the table has no times and its items are no lists.

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
    """The column of items, the column of the item that follows the list, and whether the first is named as a list."""
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
    """The column of times, and the column of the time that follows the list."""
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

    Where a table has `item_id_list` and `item_id`, the second is the item after the list. A plural such as `items` is a
    list only where no other column has a usual name of the role.
    """
    found = find_list_column(names, role)
    if found is None or not has_usual_name(names, role):
        return None if found is None else (found, None)
    return None if base_name(found).lower().endswith("s") else (found, recognise_column(names, role, ""))


def _find_lists_of_objects(table: Table, role: str) -> str | None:
    """The path of a field with a usual name of the role in a column of lists of objects, as `"events.aid"`, or None.

    It loads the columns one by one, and is called only where the role is not found otherwise.
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
    role_of: dict[str, str] = {}
    for role in ("user", "item", "time", "session", "order"):
        column = getattr(roles, role)
        other = role_of.setdefault(column, role) if column is not None else role
        if other != role:
            raise DataError(
                f"Column {column!r} of {source} cannot be both the {other} and the {role}; choose with "
                f"{OPTIONS[other]} and {OPTIONS[role]}."
            )
