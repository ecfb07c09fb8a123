"""`glintru recommend`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ..data.reading import ReadingOptions
from ..errors import DataError
from .interactive import recommend_interactively
from .item_files import parse_item_id, read_filters
from .options import (
    DeviceOption,
    JsonOption,
    ModelArgument,
    OverwriteOption,
    TrustOption,
    parse_ids,
    trust,
    with_options_of,
)
from .printing import print_notes, print_recommendation
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
    include_seen: Annotated[
        bool | None,
        typer.Option(
            "--include_seen/--exclude_seen",
            help="Whether past items may come again; as the training decided if left out.",
        ),
    ] = None,
    allowed: Annotated[
        str | None,
        typer.Option(
            "--allowed",
            help="Recommend only these items: a .txt with one id a line, or a table with an item column.",
            metavar="FILE",
        ),
    ] = None,
    exclude: Annotated[
        str | None, typer.Option("--exclude", help="Never recommend these items; a file likewise.", metavar="FILE")
    ] = None,
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
    device: DeviceOption = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    interactive: Annotated[
        bool, typer.Option("--interactive", help="Type ids or titles and see the next items after each.")
    ] = False,
    trust_remote_code: TrustOption = False,
) -> None:
    """Recommend the next items: after a history, for users of a table, for all of them, or as you type.

    With --json each user is one line.

    Example: glintru recommend outputs/ml-100k --history "50,172,181" --top_k 10
    """
    from ..serving import Recommender
    from ..serving.offline import load_like_the_training

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
    trust(model, trust_remote_code)
    exclude_seen = None if include_seen is None else not include_seen
    item_column = reading.get("item_column")
    if everyone:
        assert data is not None and output is not None
        recommend_everyone(
            model,
            data,
            output,
            top_k=top_k,
            exclude_seen=exclude_seen,
            allowed=allowed,
            exclude=exclude,
            unknown_items=unknown_items,
            now=now,
            device=device,
            reading=reading,
            overwrite=overwrite,
            quiet=quiet,
        )
        return
    if interactive:
        filters = {"allowed": allowed, "exclude": exclude, "item_column": item_column}
        recommend_interactively(model, top_k=top_k, exclude_seen=exclude_seen, device=device, **filters)
        return
    recommender = Recommender.from_pretrained(model, device=device)
    filters = read_filters(allowed, exclude, item_column, recommender.processor)
    if history is not None:
        names, gaps = [None], None
        histories = [[parse_item_id(recommender.processor, text) for text in parse_ids(history, "--history")]]
    else:
        assert users is not None
        interactions = load_like_the_training(model, users, reading)
        print_notes(interactions, sys.stderr if as_json else sys.stdout)
        names, histories, gaps = _histories(interactions, user_ids, recommender.processor, now, unknown_items)
    if time_gap is not None:
        gaps = [time_gap] * len(histories)
    kind = str if recommender.processor.id_type == "string" else int
    read = [[raw for raw in history if isinstance(raw, kind)] for history in histories]
    found = recommender.stream(
        read, top_k, exclude_seen=exclude_seen, unknown_items=unknown_items, time_gaps=gaps, **filters
    )
    for name, items, own, recommendation in zip(names, histories, read, found, strict=True):
        unknown = recommendation.num_unknown_items + len(items) - len(own)
        print_recommendation(
            recommender.processor, name, items, replace(recommendation, num_unknown_items=unknown), as_json
        )


def _histories(
    interactions: Any, user_ids: str | None, processor: Any, now: str | None, unknown_items: str
) -> tuple[list[Any], list[list[Any]], list[float | None] | None]:
    """Raw user ids, their histories in time order, with item ids in the type of the model's own, and times to `now`.

    An id that cannot be of that type, a text where integers are meant, stays as it came: the model does not know it.
    """

    from ..data.interactions import ids_of_type
    from ..serving.offline import UserHistories, check_type, indices_of, of_users

    frame = interactions.frame
    check_type(frame["item_id"], processor)
    if user_ids is not None:
        wanted = parse_ids(user_ids, "--user_ids")
        if not wanted:
            raise DataError("--user_ids names no user")
        frame = of_users(frame, wanted, interactions.source)
    gaps = None
    if now is not None:
        users_now = UserHistories.of(frame, processor, "drop")
        known = users_now.time_gaps(interactions.read_time(now), interactions.ticks)
        gaps = [None if gap < 0 else gap for gap in known.tolist()]
    typed = ids_of_type(frame["item_id"], processor.id_type)
    indices_of(frame["item_id"].filter(typed.is_null()), processor, unknown_items)  # refuses them under "error"
    frame = frame.with_columns(typed.alias("typed")).sort("timestamp", maintain_order=True)
    grouped = frame.group_by("user_id", maintain_order=True).agg("item_id", "typed").sort("user_id")
    both = zip(grouped["item_id"].to_list(), grouped["typed"].to_list(), strict=True)
    histories = [[raw if own is None else own for raw, own in zip(*lists, strict=True)] for lists in both]
    return grouped["user_id"].to_list(), histories, gaps
