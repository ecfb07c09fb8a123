"""`glintru recommend`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..errors import DataError
from .options import ItemColumn, JsonOption, ModelArgument, TimeColumn, UserColumn, parse_ids
from .printing import print_recommendation


def recommend(
    model: ModelArgument,
    history: Annotated[
        str | None, typer.Option("--history", help="Raw item ids, oldest first, separated by commas.", metavar="IDS")
    ] = None,
    users: Annotated[
        str | None,
        typer.Option("--users", help="Table of interactions: recommend for each user in it.", metavar="FILE"),
    ] = None,
    user_ids: Annotated[
        str | None, typer.Option("--user_ids", help="Only these users, separated by commas.", metavar="IDS")
    ] = None,
    top_k: Annotated[int, typer.Option("--top_k", help="Items for each user.")] = 10,
    include_seen: Annotated[bool, typer.Option("--include_seen", help="Past items may come again.")] = False,
    unknown_items: Annotated[str, typer.Option("--unknown_items", help="drop or error.")] = "drop",
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    time_column: TimeColumn = None,
    as_json: JsonOption = False,
) -> None:
    """Recommend the next items after a history, or for each user of a table.

    With --json each user is one line.

    Example: glintru recommend outputs/ml-100k --history "50,172,181" --top_k 10
    """
    from ..serving import Recommender

    if (history is None) == (users is None):
        raise DataError("say for whom: either --history IDS or --users FILE")
    if user_ids is not None and users is None:
        raise DataError("--user_ids chooses among the users of --users FILE")
    recommender = Recommender.from_pretrained(model)
    if history is not None:
        names = [None]
        histories = [[recommender.processor.parse_item_id(text) for text in parse_ids(history, "--history")]]
    else:
        names, histories = _histories(users, user_ids, recommender.processor, user_column, item_column, time_column)
    found = recommender.stream(histories, top_k, exclude_seen=not include_seen, unknown_items=unknown_items)
    for name, items, recommendation in zip(names, histories, found, strict=True):
        print_recommendation(recommender.processor, name, items, recommendation, as_json)


def _histories(
    users: str | None,
    user_ids: str | None,
    processor: Any,
    user_column: str | None,
    item_column: str | None,
    time_column: str | None,
) -> tuple[list[Any], list[list[Any]]]:
    """Raw user ids and their histories, in time order, with item ids in the type of the model's own."""
    import polars as pl

    from ..data import load_source

    interactions = load_source(users, user_column=user_column, item_column=item_column, time_column=time_column)
    frame = interactions.frame
    if user_ids is not None:
        wanted = parse_ids(user_ids, "--user_ids")
        if not wanted:
            raise DataError("--user_ids names no user")
        frame = frame.filter(pl.col("user_id").cast(pl.String).is_in(wanted))
        missing = set(wanted) - set(frame["user_id"].cast(pl.String).to_list())
        if missing:
            raise DataError(f"{interactions.source} has no user {', '.join(sorted(missing))}")
    if processor.id_type == "string":
        frame = frame.with_columns(pl.col("item_id").cast(pl.String))
    grouped = frame.sort("timestamp", maintain_order=True).group_by("user_id", maintain_order=True).agg("item_id")
    grouped = grouped.sort("user_id")
    return grouped["user_id"].to_list(), grouped["item_id"].to_list()
