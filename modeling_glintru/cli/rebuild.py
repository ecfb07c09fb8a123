"""`glintru rebuild`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import StoreError
from ..terminal import print_lines
from .options import DeviceOption, ModelArgument


def rebuild(
    model: ModelArgument,
    store: Annotated[Path, typer.Option("--store", help="SQLite file of the user states.")],
    drop_old: Annotated[
        bool, typer.Option("--drop_old", help="Drop the states of all other weights when it is done.")
    ] = False,
    device: DeviceOption = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Compute the states of all users anew, from their events, after the weights have changed.

    Processes that serve from the old states go on meanwhile. It may be stopped; run again, it goes on where it was.

    Example: glintru rebuild outputs/new --store users.db
    """
    from ..serving import SQLiteStateStore, StreamingRecommender, rebuild_all

    if not store.is_file():  # opening it would make an empty one
        raise StoreError(f"there is no store {store}")
    with (
        SQLiteStateStore(store) as states,
        StreamingRecommender.from_pretrained(model, states, rebuild_on_demand=True, device=device) as recommender,
    ):
        report = rebuild_all(recommender, progress=not quiet)
        if drop_old:
            states.keep_only(recommender.step.fingerprint)
    print_lines(
        f"Rebuilt {report.users:,} users from {report.events:,} events; {report.overtaken:,} were written meanwhile."
    )
