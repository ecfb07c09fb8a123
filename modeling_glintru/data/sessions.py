"""Sessions: a history is the pair of a user and a session, or ends where the user paused for long."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from ..errors import DataError
from .codes import sorted_codes
from .times import duration_seconds

__all__ = ["SEPARATOR", "pair_ids", "split_at_gaps"]

SEPARATOR = "/"


def pair_ids(users: pl.Series, sessions: pl.Series, source: str) -> pl.Series:
    """Histories by user and session: the text `"user/session"`.

    Args:
        users: Raw user ids, Int64 or String.
        sessions: Raw session ids, as long.
        source: Short name of the table, for the errors.

    Raises:
        DataError: Two pairs become the same text.
    """
    users, sessions = users.cast(pl.String), sessions.cast(pl.String)
    pairs = users + SEPARATOR + sessions
    if users.str.contains(SEPARATOR, literal=True).any() and sessions.str.contains(SEPARATOR, literal=True).any():
        different = pl.DataFrame({"user": users, "session": sessions}).n_unique()
        if pairs.n_unique() < different:
            raise DataError(
                f"The user and session ids of {source} hold {SEPARATOR!r}, and some pairs of them become the same "
                "text; replace it in one of the two columns."
            )
    return pairs


def split_at_gaps(
    users: pl.Series,
    times: pl.Series,
    gap: str | int | float,
    steps_in_a_second: int | None,
    order: pl.Series | None = None,
) -> pl.Series:
    """Histories that end where the time to a user's next row is longer than a gap: `"user/1"`, `"user/2"`, ....

    Args:
        users: Raw user ids, Int64 or String.
        times: Int64 or Float64, as long.
        gap: `"30m"`, `"1h"`, `"45s"`, `"2d"`, or a number: of seconds where the times are dates or Unix times, else in
            the unit of the times.
        steps_in_a_second: Of `times`, None where they are other numbers.
        order: Of the rows within a time.

    Raises:
        DataError: The gap is not understood, or has a unit where the times have none.
    """
    length, has_unit = duration_seconds(gap, "--session_gap")
    if has_unit and steps_in_a_second is None:
        raise DataError(
            f"--session_gap {gap!r} needs times that are dates or Unix times; give a number in the unit of the times."
        )
    user = sorted_codes(users)[1]
    time = times.to_numpy()
    by: list[Any] = [time, user] if order is None else [sorted_codes(order)[1], time, user]
    rows = np.lexsort(by)  # stable: ties stay in file order
    begins = np.concatenate([[True], np.diff(time[rows]) > length * (steps_in_a_second or 1)])
    first = np.concatenate([[True], np.diff(user[rows]) != 0])
    running = np.cumsum(begins | first, dtype=np.int32)
    numbers = np.empty(len(rows), np.int32)
    numbers[rows] = running - np.maximum.accumulate(np.where(first, running - 1, 0))
    return users.cast(pl.String) + SEPARATOR + pl.Series(numbers).cast(pl.String)
