"""Cleans interactions on request: repeated rows, rare users and items (k-core), short histories."""

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
    """Removes repeated rows, then rare users and items (k-core), then short histories.

    Args:
        interactions: The interactions.
        duplicates: Which of repeated rows remain: with `"keep"` all of them; with `"exact"` the first row of the file
            of those that are equal in user, item and time (and order where there is one); with `"consecutive"` also
            only the first of an item's directly successive rows in a user's history; with `"first"` or `"last"` the
            first or last in time of all rows with the same user and item (where times are equal, in the file).
        min_user_interactions: Users with fewer interactions are removed together with rare items, until nothing changes
            (k-core).
        min_item_interactions: The same for items.
        min_history_length: Users with fewer interactions are removed at the end, and items are not counted again.

    Returns:
        The interactions that are left, in the order of the file.

    Raises:
        DataError: The policy is unknown, a number is negative, or nothing is left.
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
    # Where nothing was left out, the same object is returned, which has counted its users and items already.
    return interactions if frame is interactions.frame else replace(interactions, frame=frame)


def drop_duplicates(frame: pl.DataFrame, policy: str) -> pl.DataFrame:
    """The rows that remain by a policy of `filter_interactions`; the same object where all of them remain."""
    if policy == "keep" or frame.is_empty():
        return frame
    if policy in ("exact", "consecutive"):
        copies = exact_copies(frame)
        frame = frame.filter(~copies) if copies.any() else frame
    if policy == "exact":
        return frame
    user, (items, item) = sorted_codes(frame["user_id"])[1], sorted_codes(frame["item_id"])
    pair = user.astype(np.int64) * len(items) + item
    # Both sorts are stable, so that rows of equal times stay in the order of the file.
    order = np.lexsort((*time_keys(frame), user if policy == "consecutive" else pair))
    same = pair[order[1:]] == pair[order[:-1]]
    dropped = order[:-1][same] if policy == "last" else order[1:][same]
    if not len(dropped):
        return frame
    remains = np.ones(frame.height, bool)
    remains[dropped] = False
    return frame.filter(remains)


def exact_copies(frame: pl.DataFrame) -> np.ndarray:
    """bool, one value for each row: whether an earlier row is equal to it in all columns."""
    hashes = frame.hash_rows().to_numpy()
    ordered = np.sort(hashes)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    copies = np.isin(hashes, repeated) if len(repeated) else np.zeros(frame.height, bool)
    del hashes, ordered
    if copies.any():  # Equal rows have equal hashes, but rows with equal hashes may differ.
        places = np.flatnonzero(copies)
        some = frame[places].with_columns(place=places)
        copies[some.unique(frame.columns, keep="first")["place"].to_numpy()] = False
    return copies


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
    """The rows of users with at least `min_length` interactions."""
    return frame if min_length <= 1 else frame.filter(pl.len().over("user_id") >= min_length)
