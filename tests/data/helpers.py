"""Small tables that the tests of this folder share, and the obvious way to order them."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import settings

from modeling_glintru.data.interactions import Interactions

# The same examples in every run, and no limit on time: machines differ.
STEADY = settings(deadline=None, derandomize=True)

COLUMNS = {"user": "user_id", "item": "item_id", "time": "timestamp"}


def make_interactions(users: list, items: list, times: list) -> Interactions:
    frame = pl.DataFrame({"user_id": users, "item_id": items, "timestamp": times})
    return Interactions(frame, COLUMNS, "table")


def random_interactions(
    seed: int, num_users: int = 30, num_items: int = 15, rows: int = 300, num_times: int = 40
) -> Interactions:
    """Rows in random order with many ties in time, no two of them equal."""
    rng = np.random.default_rng(seed)
    draw = [rng.integers(0, top, rows).tolist() for top in (num_users, num_items, num_times)]
    distinct = list(dict.fromkeys(zip(*draw, strict=True)))
    users, items, times = (list(column) for column in zip(*distinct, strict=True))
    return make_interactions([f"u{user}" for user in users], [item + 100 for item in items], times)


def naive_histories(interactions: Interactions) -> dict:
    """User to [(time, item)], by Python's own stable sort."""
    histories: dict = {}
    for user, item, time in interactions.frame.iter_rows():
        histories.setdefault(user, []).append((time, item))
    return {user: sorted(history, key=lambda row: row[0]) for user, history in histories.items()}
