"""A small synthetic set with planted sequential structure: the recipe `demo`, and the tests.

The catalogue consists of sagas of several volumes. Who has read volume k mostly reads volume k + 1 next, sometimes
begins another saga, and now and then takes anything. No item is popular (each has below one percent of the
interactions), so popularity predicts next to nothing, while the last item predicts the next one well.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from ..errors import DataError
from .interactions import Interactions

__all__ = ["synthetic_interactions", "synthetic_item_titles"]

VOLUMES = 8
MIN_LENGTH, MAX_LENGTH = 6, 40
GO_ON, NEW_SAGA = 0.75, 0.15  # what is left (0.10) is a uniform draw over all items
HOUR = 3600
START = 1_700_000_000  # seconds since 1970


def synthetic_interactions(num_users: int = 800, num_items: int = 240, seed: int = 42) -> Interactions:
    """Draws histories of 6 to 40 items.

    Args:
        num_users: At least 2.
        num_items: At least 16 (two sagas).
        seed: The same seed gives the same table.

    Returns:
        Interactions with string ids (`"user-0001"`, `"saga-03-volume-5"`) and times in seconds, in time order.

    Raises:
        DataError: Too few users or items.
    """
    if num_users < 2 or num_items < 2 * VOLUMES:
        raise DataError(
            f"The synthetic set needs at least 2 users and {2 * VOLUMES} items, but got {num_users} and {num_items}."
        )
    rng = np.random.default_rng(seed)
    shape = (num_users, MAX_LENGTH)
    chance, anything = rng.random(shape), rng.integers(0, num_items, shape)
    opening = rng.integers(0, -(-num_items // VOLUMES), shape) * VOLUMES
    items = np.empty(shape, np.int64)
    items[:, 0] = anything[:, 0]
    # All users take a step at once.
    for step in range(1, MAX_LENGTH):
        following = items[:, step - 1] + 1
        # After the last volume comes the first of some other saga.
        following = np.where((following % VOLUMES == 0) | (following >= num_items), opening[:, step], following)
        items[:, step] = np.select(
            [chance[:, step] < GO_ON, chance[:, step] < GO_ON + NEW_SAGA],
            [following, opening[:, step]],
            anything[:, step],
        )
    times = START + rng.integers(0, 365 * 24, (num_users, 1)) * HOUR
    times = times + np.cumsum(rng.integers(1, 72 * HOUR, shape), axis=1)
    taken = np.arange(MAX_LENGTH) < rng.integers(MIN_LENGTH, MAX_LENGTH + 1, (num_users, 1))
    users = np.broadcast_to(np.arange(num_users)[:, None], shape)
    user_names = pl.Series([f"user-{user + 1:04d}" for user in range(num_users)])
    item_names = pl.Series(_item_ids(num_items))
    frame = pl.DataFrame(
        {
            "user_id": user_names.gather(users[taken]),
            "item_id": item_names.gather(items[taken]),
            "timestamp": times[taken],
        }
    ).sort("timestamp", maintain_order=True)
    return Interactions(frame, {"user": "user_id", "item": "item_id", "time": "timestamp"}, "demo")


def synthetic_item_titles(num_items: int = 240) -> dict[str, str]:
    """Raw id to title, such as `"saga-03-volume-5"` to `"Saga 3, volume 5"`."""
    return {
        raw: f"Saga {item // VOLUMES + 1}, volume {item % VOLUMES + 1}" for item, raw in enumerate(_item_ids(num_items))
    }


def _item_ids(num_items: int) -> list[str]:
    return [f"saga-{item // VOLUMES + 1:02d}-volume-{item % VOLUMES + 1}" for item in range(num_items)]
