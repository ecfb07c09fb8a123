"""Sources by name: the two that come with the package, and everything that `read_interactions` reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl

from ..errors import DataError
from .columns import has_usual_name, recognise_column
from .interactions import Interactions, read_ids, read_interactions
from .movielens import load_movielens_100k, movielens_100k_titles
from .readers import open_table
from .synthetic import synthetic_interactions, synthetic_item_titles

__all__ = ["NAMED_SOURCES", "NamedSource", "load_source", "load_titles"]


@dataclass(frozen=True)
class NamedSource:
    """Interactions and titles that a name stands for."""

    interactions: Callable[[], Interactions]
    titles: Callable[[], dict[Any, str]]


NAMED_SOURCES = {
    "demo": NamedSource(synthetic_interactions, synthetic_item_titles),
    "ml-100k": NamedSource(load_movielens_100k, movielens_100k_titles),
}


def load_source(
    source: Any,
    *,
    user_column: str | None = None,
    item_column: str | None = None,
    time_column: str | None = None,
    split: str = "train",
) -> Interactions:
    """Interactions of a named source (`"ml-100k"`, `"demo"`), or of anything that `read_interactions` takes.

    The options are those of `read_interactions`; a named source needs none of them.

    Raises:
        DataError: As `read_interactions`, or columns were named for a named source.
    """
    if isinstance(source, str) and source in NAMED_SOURCES:
        given = [
            f"--{role}_column"
            for role, column in (("user", user_column), ("item", item_column), ("time", time_column))
            if column
        ]
        if given:
            raise DataError(f"The source {source!r} has fixed columns: leave {', '.join(given)} out.")
        return NAMED_SOURCES[source].interactions()
    return read_interactions(
        source, user_column=user_column, item_column=item_column, time_column=time_column, split=split
    )


def load_titles(
    source: Any, *, item_column: str | None = None, title_column: str | None = None, split: str = "train"
) -> dict[Any, str] | None:
    """Titles of items: raw item id to title.

    Args:
        source: A named source, or any table (see `read_interactions`) with a column of item ids and one of titles:
            a catalogue, or interactions that carry titles. An item that occurs more than once has its first title.
        item_column: Name of the column of item ids.
        title_column: Name of the column of titles.
        split: Which split of a data set that has several.

    Returns:
        Titles by raw id (rows without id or title left out), or None where the table has no column of titles and
        none was named.

    Raises:
        DataError: The table cannot be read, or a named column is missing.
    """
    if isinstance(source, str) and source in NAMED_SOURCES:
        return NAMED_SOURCES[source].titles()
    table = open_table(source, split)
    if title_column is None and not has_usual_name(table.names, "title"):
        return None
    title = recognise_column(table.names, "title", table.source, title_column)
    item = recognise_column(table.names, "item", table.source, item_column)
    frame = table.load([item, title]).drop_nulls().unique(item, keep="first", maintain_order=True)
    if frame.height == 0:
        return None
    return dict(zip(read_ids(frame[item], table).to_list(), frame[title].cast(pl.String).to_list(), strict=True))
