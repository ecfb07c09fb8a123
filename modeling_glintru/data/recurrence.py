"""How often people take an item again: what decides whether past items are recommended."""

from __future__ import annotations

import numpy as np
from datasets import Dataset

from .histories import arrow_view, flat_histories, iterate_flat_histories

__all__ = ["RECURRING", "recurring_targets", "recurring_training_targets"]

RECURRING = 0.06  # share of the training targets from which on past items are recommended again
ROWS_PER_BLOCK = 50_000


def recurring_training_targets(split: Dataset) -> float:
    """Share of the targets of training histories (all items but the first) that stood in the history before.

    Args:
        split: Training rows with `item_ids`.

    Returns:
        0 to 1; 0 where no history has two items.
    """
    recurring = targets = 0
    for items, lengths in iterate_flat_histories(split):
        rows = np.repeat(np.arange(len(lengths)), lengths)
        pairs = rows * (int(items.max(initial=0)) + 1) + items
        pairs.sort()  # 25 times as fast as np.unique
        recurring += int(np.count_nonzero(pairs[1:] == pairs[:-1]))
        targets += len(items) - int(np.count_nonzero(lengths))
    return recurring / max(targets, 1)


def recurring_targets(split: Dataset) -> float:
    """Share of the rows whose `target` stands in their `item_ids`, 0 to 1.

    Args:
        split: Evaluation rows with `item_ids` and `target`.
    """
    recurring = 0
    for table in arrow_view(split, ["item_ids", "target"]).iter(ROWS_PER_BLOCK):
        items, lengths = flat_histories(table)
        targets = table["target"].to_numpy()
        rows = np.repeat(np.arange(len(lengths)), lengths)
        recurring += len(np.unique(rows[items == targets[rows]]))
    return recurring / max(len(split), 1)
