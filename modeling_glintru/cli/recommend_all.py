"""`glintru recommend --all`: every user of a table, into a file."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from ..terminal import print_lines
from .item_files import read_filters
from .printing import print_notes


def recommend_everyone(
    model: str,
    data: str,
    output: Path,
    *,
    top_k: int,
    exclude_seen: bool | None,
    allowed: str | None,
    exclude: str | None,
    unknown_items: str,
    now: str | None,
    device: str,
    reading: dict[str, Any],
    overwrite: bool,
    quiet: bool,
) -> None:
    """Reads the table, recommends for all of its users, and writes the file whole or not at all."""
    from tqdm.auto import tqdm

    from ..machine import pick_device
    from ..models.configuration_glintru import check_knows_time
    from ..models.loading import load_model_folder
    from ..serving.offline import UserHistories, check_type, load_like_the_training, recommend_all
    from ..serving.recommendation_file import check_output, open_output

    check_output(output, overwrite)
    where: Any = pick_device(device)
    recommender, processor = load_model_folder(model)
    recommender.to(where)
    filters = read_filters(allowed, exclude, reading.get("item_column"), processor)
    if now is not None:
        check_knows_time(recommender)
    interactions = load_like_the_training(model, data, reading)
    print_notes(interactions, sys.stdout)
    check_type(interactions.frame["item_id"], processor)
    users = UserHistories.of(interactions.frame, processor, unknown_items)
    gaps = None if now is None else users.time_gaps(interactions.read_time(now), interactions.ticks)
    del interactions
    cold = users.cold
    started, done = time.perf_counter(), 0
    options: dict[str, Any] = {"exclude_seen": exclude_seen, "time_gaps": gaps, **filters}
    blocks = recommend_all(recommender, users, processor.max_length, top_k, **options)
    with (
        open_output(output, processor, users.user_ids) as writer,
        tqdm(total=len(users), desc="Recommending", unit="user", disable=quiet) as bar,
    ):
        for items, scores in blocks:
            part = slice(done, done + len(items))
            writer.add(users.user_ids[part], items, scores, cold[part])
            done += len(items)
            bar.update(len(items))
    seconds = time.perf_counter() - started
    print_lines(f"{len(users):,} users in {seconds:.1f} s ({len(users) / seconds:,.0f} a second), written to {output}")
    if users.num_unknown_items:
        total = users.num_unknown_items + len(users.items)
        print_lines(
            f"{users.num_unknown_items:,} of {total:,} interactions are with items that are unknown to the model; they "
            "were left out"
        )
    if cold.any():
        print_lines(
            f"Users without an item that the model knows: {int(cold.sum()):,}; they got the most popular items, "
            "with cold_start and the score 0"
        )
