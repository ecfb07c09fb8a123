"""Columns as numbers to sort by, in time that grows with the rows and not faster."""

from __future__ import annotations

import numpy as np
import polars as pl

__all__ = ["sorted_codes", "time_keys"]


def sorted_codes(column: pl.Series) -> tuple[pl.Series, np.ndarray]:
    """The distinct values of a column, and which of them each row holds.

    Only the distinct values are sorted: to rank the whole column instead took eight times as long for text.

    Args:
        column: Any type that sorts, no missing values, length N.

    Returns:
        The sorted distinct values (integers by value, text by code point), and int32, length N: places in them from 0.
    """
    values = column.unique().sort()
    places = pl.Series(np.arange(len(values), dtype=np.int32))
    return values, column.replace_strict(values, places, return_dtype=pl.Int32).to_numpy()


def time_keys(frame: pl.DataFrame) -> tuple[np.ndarray, ...]:
    """What the interactions of a user are sorted by, for `np.lexsort`: the last key counts most.

    Args:
        frame: As `Interactions.frame`: a column `timestamp`, and where there are such, `order` (which sorts within a
            time, numbers or text) and `part` (the file of a given split, which sorts before the time).
    """
    keys = [frame["timestamp"].to_numpy()]
    if "order" in frame.columns:
        order = frame["order"]
        keys.insert(0, order.to_numpy() if order.dtype.is_numeric() else sorted_codes(order)[1])
    if "part" in frame.columns:
        keys.append(frame["part"].to_numpy())
    return tuple(keys)
