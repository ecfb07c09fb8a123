"""Reads rows of a prepared split out of Arrow memory, one block at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from ..errors import DataError

__all__ = [
    "arrow_view",
    "flat_histories",
    "history_lengths",
    "iterate_flat_histories",
    "read_request_gaps",
    "read_rows",
    "users_of_rows",
]

ROWS_PER_BLOCK = 10_000  # with their items
LENGTHS_PER_BLOCK = 100_000


def arrow_view(dataset: Dataset, columns: list[str]) -> Dataset:
    """The same rows with only these columns, as Arrow tables.

    Raises:
        DataError: A column is missing.
    """
    missing = [name for name in columns if name not in dataset.column_names]
    if missing:
        raise DataError(
            f"the split has no column {missing[0]!r} (found: {', '.join(dataset.column_names)}); "
            "'glintru prepare' makes splits with the right columns"
        )
    return dataset.select_columns(columns).with_format("arrow")


def flat_histories(table: pa.Table, column: str = "item_ids") -> tuple[np.ndarray, np.ndarray]:
    """All histories of a table one after the other: int64 item indices, and the int64 length of each row."""
    lists, lengths = _lists(table, column)
    items = lists.flatten()
    if items.null_count:
        raise _nulls(column)
    return items.to_numpy(zero_copy_only=False).astype(np.int64), lengths


def iterate_flat_histories(dataset: Dataset, rows_per_block: int = ROWS_PER_BLOCK) -> Iterator[tuple[np.ndarray, ...]]:
    """`flat_histories` of the whole split, block by block."""
    for table in arrow_view(dataset, ["item_ids"]).iter(rows_per_block):
        yield flat_histories(table)


def history_lengths(split: Dataset) -> np.ndarray:
    """The number of items of each row, int64 (num_rows,); the items themselves are not read."""
    blocks = arrow_view(split, ["item_ids"]).iter(LENGTHS_PER_BLOCK)
    return np.concatenate([np.zeros(0, np.int64), *(_lists(table, "item_ids")[1] for table in blocks)])


def _lists(table: pa.Table, column: str) -> tuple[pa.Array, np.ndarray]:
    """A column as one array, and the int64 lengths of its rows."""
    lists = table[column].combine_chunks()
    if lists.null_count:
        raise _nulls(column)
    return lists, lists.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)


def _nulls(column: str) -> DataError:
    return DataError(f"the column {column!r} holds nulls; every history must be a list of item indices")


def read_request_gaps(view: Dataset, rows: np.ndarray) -> np.ndarray:
    """The time from the last item of some rows to their target, float32 (B,); -1 for a row without items.

    `view` is the result of `arrow_view(dataset, ["time_gaps"])`.
    """
    lists = view[rows.tolist()]["time_gaps"].combine_chunks()
    gaps, lengths = lists.flatten().to_numpy(zero_copy_only=False), lists.value_lengths().to_numpy(zero_copy_only=False)
    ends = np.cumsum(lengths)
    return np.where(lengths > 0, np.append(gaps, -1)[ends - 1], -1).astype(np.float32)


def read_rows(view: Dataset, rows: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Histories and targets of some rows: B int64 arrays, and int64 (B,).

    `view` is the result of `arrow_view(dataset, ["item_ids", "target"])`.
    """
    table = view[rows.tolist()]
    items, lengths = flat_histories(table)
    targets = table["target"].combine_chunks()
    if targets.null_count:
        raise DataError("the column 'target' holds nulls; every row of an evaluated split needs one target")
    return np.split(items, np.cumsum(lengths)[:-1]), targets.to_numpy(zero_copy_only=False).astype(np.int64)


def users_of_rows(split: Dataset) -> np.ndarray | None:
    """The user of each row, int64 (num_rows,), counted from 0; None where each row has a user of its own.

    The rows of one user must follow each other, as `prepare` writes them.
    """
    if "user_id" not in split.column_names or len(split) == 0:
        return None
    new = [np.zeros(1, bool)]  # The first row belongs to user 0.
    last: pa.Array | None = None
    for table in arrow_view(split, ["user_id"]).iter(LENGTHS_PER_BLOCK):
        ids = table["user_id"].combine_chunks()
        if last is not None:
            new.append(pc.not_equal(last, ids[:1]).to_numpy(zero_copy_only=False))
        new.append(pc.not_equal(ids[:-1], ids[1:]).to_numpy(zero_copy_only=False))
        last = ids[-1:]
    users = np.cumsum(np.concatenate(new).astype(np.int64))
    return None if users[-1] == len(users) - 1 else users
