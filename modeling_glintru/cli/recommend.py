"""`glintru recommend`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..data.reading import ReadingOptions
from ..errors import DataError
from .histories import load_like_the_training
from .interactive import recommend_interactively
from .options import JsonOption, ModelArgument, OverwriteOption, parse_ids, with_options_of
from .printing import print_recommendation
from .recommend_all import recommend_everyone


@with_options_of(ReadingOptions, into="reading")
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
    time_gap: Annotated[
        float | None,
        typer.Option("--time_gap", help="Time since the newest item, for models with use_time_gaps.", metavar="TIME"),
    ] = None,
    now: Annotated[
        str | None,
        typer.Option(
            "--now",
            help="The same for --users and --all: the time of the requests, a date or a number as in the time column.",
            metavar="TIME",
        ),
    ] = None,
    *,
    reading: dict[str, Any],
    as_json: JsonOption = False,
    everyone: Annotated[
        bool, typer.Option("--all", help="For all users of --data, into the file --output, as fast as possible.")
    ] = False,
    data: Annotated[str | None, typer.Option("--data", help="With --all: interactions, as for glintru train.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="With --all: the file to write, .parquet, .csv or .jsonl.")
    ] = None,
    overwrite: OverwriteOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    interactive: Annotated[
        bool, typer.Option("--interactive", help="Type ids or titles and see the next items after each.")
    ] = False,
) -> None:
    """Recommend the next items: after a history, for users of a table, for all of them, or as you type.

    With --json each user is one line.

    Example: glintru recommend outputs/ml-100k --history "50,172,181" --top_k 10
    """
    from ..serving import Recommender

    if [history is not None, users is not None, everyone, interactive].count(True) != 1:
        raise DataError(
            "say for whom: either --history IDS or --users FILE, or --all with --data and --output, or --interactive"
        )
    if not everyone and (data is not None or output is not None or overwrite):
        raise DataError("--data, --output and --overwrite belong to --all")
    if everyone and (data is None or output is None):
        raise DataError("--all needs --data FILE and --output FILE")
    if (everyone or interactive) and as_json:
        raise DataError("--json is for --history and --users; with --all, let --output end in .jsonl")
    if time_gap is not None and (everyone or interactive):
        raise DataError("--time_gap is for --history and --users; --all takes --now, the time of the requests")
    if now is not None and (time_gap is not None or (users is None and not everyone)):
        raise DataError("--now is for --users and --all, without --time_gap")
    if user_ids is not None and users is None:
        raise DataError("--user_ids chooses among the users of --users FILE")
    if everyone:
        assert data is not None and output is not None
        recommend_everyone(
            model,
            data,
            output,
            top_k=top_k,
            exclude_seen=not include_seen,
            unknown_items=unknown_items,
            now=now,
            reading=reading,
            overwrite=overwrite,
            quiet=quiet,
        )
        return
    if interactive:
        recommend_interactively(model, top_k=top_k, exclude_seen=not include_seen)
        return
    recommender = Recommender.from_pretrained(model)
    if history is not None:
        names, gaps = [None], None
        histories = [[recommender.processor.parse_item_id(text) for text in parse_ids(history, "--history")]]
    else:
        assert users is not None
        interactions = load_like_the_training(model, users, reading, sys.stderr if as_json else sys.stdout)
        names, histories, gaps = _histories(interactions, user_ids, recommender.processor, now)
    if time_gap is not None:
        gaps = [time_gap] * len(histories)
    found = recommender.stream(
        histories, top_k, exclude_seen=not include_seen, unknown_items=unknown_items, time_gaps=gaps
    )
    for name, items, recommendation in zip(names, histories, found, strict=True):
        print_recommendation(recommender.processor, name, items, recommendation, as_json)


def _histories(
    interactions: Any, user_ids: str | None, processor: Any, now: str | None
) -> tuple[list[Any], list[list[Any]], list[float | None] | None]:
    """Raw user ids, their histories in time order, with item ids in the type of the model's own, and times to `now`."""
    import polars as pl

    from ..serving.offline import UserHistories

    frame = interactions.frame
    if user_ids is not None:
        wanted = parse_ids(user_ids, "--user_ids")
        if not wanted:
            raise DataError("--user_ids names no user")
        frame = frame.filter(pl.col("user_id").cast(pl.String).is_in(wanted))
        missing = set(wanted) - set(frame["user_id"].cast(pl.String).to_list())
        if missing:
            raise DataError(f"{interactions.source} has no user {', '.join(sorted(missing))}")
    gaps = None
    if now is not None:
        users_now = UserHistories.of(frame, processor, "drop")
        known = users_now.time_gaps(interactions.read_time(now), interactions.ticks)
        gaps = [None if gap < 0 else gap for gap in known.tolist()]
    if processor.id_type == "string":
        frame = frame.with_columns(pl.col("item_id").cast(pl.String))
    grouped = frame.sort("timestamp", maintain_order=True).group_by("user_id", maintain_order=True).agg("item_id")
    grouped = grouped.sort("user_id")
    return grouped["user_id"].to_list(), grouped["item_id"].to_list(), gaps
