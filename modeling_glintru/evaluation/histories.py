"""Rows of a prepared split, read out of Arrow memory a block at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from datasets import Dataset

from ..errors import DataError

__all__ = [
    "arrow_view",
    "flat_histories",
    "iterate_flat_histories",
    "read_request_gaps",
    "read_rows",
]

ROWS_PER_BLOCK = 10_000


def arrow_view(dataset: Dataset, columns: list[str]) -> Dataset:
    """The same rows with only `columns`, handed out as Arrow tables.

    Raises:
        DataError: When a column is missing.
    """
    missing = [name for name in columns if name not in dataset.column_names]
    if missing:
        raise DataError(
            f"the split has no column {missing[0]!r} (found: {', '.join(dataset.column_names)}); "
            "'glintru prepare' makes splits with the right columns"
        )
    return dataset.select_columns(columns).with_format("arrow")


def flat_histories(table: pa.Table, column: str = "item_ids") -> tuple[np.ndarray, np.ndarray]:
    """All histories of a table one after the other.

    Returns:
        `(items, lengths)`: int64 item indices of all rows together, and int64 lengths, one a row.
    """
    lists = table[column].combine_chunks()
    items = lists.flatten()
    if lists.null_count or items.null_count:
        raise DataError(f"the column {column!r} holds nulls; every history must be a list of item indices")
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    return items.to_numpy(zero_copy_only=False).astype(np.int64), lengths.astype(np.int64)


def iterate_flat_histories(dataset: Dataset, rows_per_block: int = ROWS_PER_BLOCK) -> Iterator[tuple[np.ndarray, ...]]:
    """`flat_histories` of the whole split, block by block."""
    view = arrow_view(dataset, ["item_ids"])
    for start in range(0, len(view), rows_per_block):
        yield flat_histories(view[start : start + rows_per_block])


def read_request_gaps(view: Dataset, rows: np.ndarray) -> np.ndarray:
    """The time from the last item of some rows to their target, float32 (B,); -1 for a row without items.

    Args:
        view: What `arrow_view(dataset, ["time_gaps"])` gave.
        rows: Row numbers, (B,).
    """
    lists = view[rows.tolist()]["time_gaps"].combine_chunks()
    gaps, lengths = lists.flatten().to_numpy(zero_copy_only=False), lists.value_lengths().to_numpy(zero_copy_only=False)
    ends = np.cumsum(lengths)
    return np.where(lengths > 0, np.append(gaps, -1)[ends - 1], -1).astype(np.float32)


def read_rows(view: Dataset, rows: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Histories and targets of some rows.

    Args:
        view: What `arrow_view(dataset, ["item_ids", "target"])` gave.
        rows: Row numbers, (B,).

    Returns:
        `(histories, targets)`: B int64 arrays, and int64 (B,).
    """
    table = view[rows.tolist()]
    items, lengths = flat_histories(table)
    targets = table["target"].combine_chunks()
    if targets.null_count:
        raise DataError("the column 'target' holds nulls; every row of an evaluated split needs one target")
    return np.split(items, np.cumsum(lengths)[:-1]), targets.to_numpy(zero_copy_only=False).astype(np.int64)
