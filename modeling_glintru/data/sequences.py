"""Makes histories of a table: one flat array of item indices, of which each user has a slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from .ids import sorted_codes
from .interactions import Interactions

__all__ = ["Sequences", "build_sequences", "time_keys"]


@dataclass(frozen=True)
class Sequences:
    """All histories, one after the other.

    Args:
        users: Raw user ids, sorted (Int64 or String), length U.
        items: Raw item ids, sorted: `items[i]` has index `i + 1`.
        item_indices: int32, length N: item indices 1 ... n, user after user, each in the order of time.
        timestamps: int64 or float64, length N: the times of `item_indices`.
        offsets: int64, length U + 1: user u has `item_indices[offsets[u] : offsets[u + 1]]`.
        tied: bool, length N: whether a position has the same user and time, and the same value of the order column, as
            the position before it, so that only the order of the file tells which of them comes first.
        ticks: Steps of `timestamps` in one unit of a time gap, see `Interactions`.
        parts: int8, length N: 0, 1 or 2 for the training, validation and test file of a given split; else None.
    """

    users: pl.Series
    items: pl.Series
    item_indices: np.ndarray
    timestamps: np.ndarray
    offsets: np.ndarray
    tied: np.ndarray
    ticks: int = 1
    parts: np.ndarray | None = None

    @property
    def lengths(self) -> np.ndarray:
        """int64, length U: how many interactions each user has."""
        return np.diff(self.offsets)


def build_sequences(interactions: Interactions) -> Sequences:
    """Sorts interactions by user, time and order column; rows that are equal in these stay in the order of the file.

    Items get the indices 1 ... n in the order of their sorted raw ids (integers by value, strings by code point), so
    that an index tells nothing about popularity or the order of the file. In a given split a user's rows of the
    training file come before those of the validation file, and those before the test file, whatever their times are.
    """
    frame = interactions.frame
    users, user = sorted_codes(frame["user_id"])
    items, item = sorted_codes(frame["item_id"])
    keys = time_keys(frame)
    order = _order(user, keys)
    timestamps = frame["timestamp"].to_numpy()[order]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(user))]).astype(np.int64)
    tied = np.zeros(len(order), bool)
    tied[1:] = timestamps[1:] == timestamps[:-1]
    tied[offsets[:-1]] = False
    if "order" in frame.columns:
        within = keys[0][order]
        tied[1:] &= within[1:] == within[:-1]
    parts = None
    if "part" in frame.columns:
        parts = frame["part"].to_numpy()[order]
        tied[1:] &= parts[1:] == parts[:-1]
    return Sequences(
        users=users,
        items=items,
        item_indices=item[order] + np.int32(1),
        timestamps=timestamps,
        offsets=offsets,
        tied=tied,
        ticks=interactions.ticks,
        parts=parts,
    )


def time_keys(frame: pl.DataFrame) -> tuple[np.ndarray, ...]:
    """The keys by which the interactions of a user are sorted, for `np.lexsort`, where the last key counts most.

    The column `part` of `Interactions.frame` (the file of a given split) counts more than `timestamp`, and `timestamp`
    more than `order`; `part` and `order` are optional.
    """
    keys = [frame["timestamp"].to_numpy()]
    if "order" in frame.columns:
        order = frame["order"]
        keys.insert(0, order.to_numpy() if order.dtype.is_numeric() else sorted_codes(order)[1])
    if "part" in frame.columns:
        keys.append(frame["part"].to_numpy())
    return tuple(keys)


def _order(user: np.ndarray, keys: Sequence[np.ndarray]) -> np.ndarray:
    """int64 (rows,): the rows sorted by user, then by the keys, then in the order of the file.

    The sort is stable: an unstable one would change a quarter of ML-1M's targets.
    """
    rows = len(user)
    in_order = len(keys) == 1 and bool((keys[0][1:] >= keys[0][:-1]).all())
    if not in_order or rows * (int(user.max(initial=0)) + 1) >= 2**63:
        return np.lexsort((*keys, user))
    # The rows of a log are in the order of time already: one number of user and row is sorted ten times as fast.
    packed = user.astype(np.int64) * rows + np.arange(rows)
    packed.sort()
    return packed % rows
