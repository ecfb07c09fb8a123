"""Optional cleaning of interactions: repeated rows, k-core, short histories."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from ..errors import DataError
from .ids import sorted_codes
from .interactions import Interactions
from .sequences import time_keys

__all__ = [
    "DUPLICATE_POLICIES",
    "drop_duplicates",
    "drop_short_histories",
    "exact_copies",
    "filter_interactions",
    "k_core",
]

DUPLICATE_POLICIES = ("keep", "exact", "consecutive", "first", "last")


def filter_interactions(
    interactions: Interactions,
    *,
    duplicates: str = "exact",
    min_user_interactions: int = 0,
    min_item_interactions: int = 0,
    min_history_length: int = 0,
) -> Interactions:
    """Cleans interactions, in this order: repeated rows, k-core, short histories.

    Args:
        interactions: What was read.
        duplicates: What happens to repeated rows: `"keep"` all; of `"exact"` copies (equal in user, item and time, and
            order where there is one) only the first row of the file; of `"consecutive"` ones (the same item directly
            after itself in a user's history, or an exact copy) only the first; of all rows of a (user, item) pair only
            the `"first"` or the `"last"` in time (ties: in file order).
        min_user_interactions: k of the k-core for users: removed, together with rare items, until nothing changes.
        min_item_interactions: k of the k-core for items.
        min_history_length: Users with fewer interactions leave at the end, once: items are not counted again.

    Returns:
        The interactions that are left, in file order.

    Raises:
        DataError: An unknown policy, a negative number, or nothing is left.
    """
    if duplicates not in DUPLICATE_POLICIES:
        allowed = ", ".join(map(repr, DUPLICATE_POLICIES))
        raise DataError(f"duplicates must be one of {allowed}, but got {duplicates!r}.")
    limits = {
        "min_user_interactions": min_user_interactions,
        "min_item_interactions": min_item_interactions,
        "min_history_length": min_history_length,
    }
    for name, value in limits.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise DataError(f"{name} must be an integer of 0 or more, but got {value!r}.")
    frame = drop_duplicates(interactions.frame, duplicates)
    frame = k_core(frame, min_user_interactions, min_item_interactions)
    frame = drop_short_histories(frame, min_history_length)
    if frame.height == 0:
        used = ", ".join(f"{name}={value}" for name, value in limits.items() if value)
        raise DataError(
            f"Nothing is left of {len(interactions)} interactions of {interactions.source} after {used}; lower them."
        )
    # The same object, where nothing was left out, has counted its users and items already.
    return interactions if frame is interactions.frame else replace(interactions, frame=frame)


def drop_duplicates(frame: pl.DataFrame, policy: str) -> pl.DataFrame:
    """The rows that a policy of `filter_interactions` leaves; the same object where that is all of them."""
    if policy == "keep" or frame.is_empty():
        return frame
    if policy in ("exact", "consecutive"):
        copies = exact_copies(frame)
        frame = frame.filter(~copies) if copies.any() else frame
        return frame if policy == "exact" else _drop_consecutive(frame)
    user, (items, item) = sorted_codes(frame["user_id"])[1], sorted_codes(frame["item_id"])
    pair = user.astype(np.int64) * len(items) + item
    order = np.lexsort((*time_keys(frame), pair))  # stable: ties in time stay in file order
    changes = np.flatnonzero(np.diff(pair[order]))
    kept = np.zeros(frame.height, bool)
    kept[order[np.append(0, changes + 1) if policy == "first" else np.append(changes, len(order) - 1)]] = True
    return frame.filter(kept)


def exact_copies(frame: pl.DataFrame) -> np.ndarray:
    """bool, a value a row: whether an earlier row is equal to it in all columns."""
    hashes = frame.hash_rows().to_numpy()
    ordered = np.sort(hashes)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    copies = np.isin(hashes, repeated) if len(repeated) else np.zeros(frame.height, bool)
    del hashes, ordered
    if copies.any():  # rows that are equal have equal hashes, but not the other way round
        places = np.flatnonzero(copies)
        some = frame[places].with_columns(place=places)
        copies[some.unique(frame.columns, keep="first")["place"].to_numpy()] = False
    return copies


def _drop_consecutive(frame: pl.DataFrame) -> pl.DataFrame:
    users, items = sorted_codes(frame["user_id"])[1], sorted_codes(frame["item_id"])[1]
    order = np.lexsort((*time_keys(frame), users))
    users, items = users[order], items[order]
    again = order[1:][(users[1:] == users[:-1]) & (items[1:] == items[:-1])]
    if not len(again):
        return frame
    kept = np.ones(frame.height, bool)
    kept[again] = False
    return frame.filter(kept)


def k_core(frame: pl.DataFrame, min_user: int, min_item: int) -> pl.DataFrame:
    """The largest part of the table where each user has `min_user` and each item `min_item` interactions."""
    if min_user <= 1 and min_item <= 1:
        return frame
    users, items = sorted_codes(frame["user_id"])[1], sorted_codes(frame["item_id"])[1]
    rows = np.arange(frame.height)
    while True:
        enough = (np.bincount(users)[users] >= min_user) & (np.bincount(items)[items] >= min_item)
        if enough.all():
            return frame[rows]
        users, items, rows = users[enough], items[enough], rows[enough]


def drop_short_histories(frame: pl.DataFrame, min_length: int) -> pl.DataFrame:
    """Leaves out users with fewer than `min_length` interactions."""
    return frame if min_length <= 1 else frame.filter(pl.len().over("user_id") >= min_length)
