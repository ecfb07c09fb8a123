"""One global batch over several processes: each takes its share of the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from ..data import LengthBucketSampler
from ..data.batches import IGNORED_LABEL
from ..errors import RecipeError

__all__ = ["ProcessShare", "ShareCollator", "device_batch_size"]


def device_batch_size(train_batch_size: int, devices: int) -> int:
    """Windows of one device in a step, so that the recipe's batch is the batch of all devices together.

    Raises:
        RecipeError: The batch cannot be shared out evenly.
    """
    if train_batch_size % devices:
        raise RecipeError(
            f"training.train_batch_size is the batch of all processes together, but {train_batch_size} windows cannot "
            f"be shared out evenly to {devices}; take a multiple of {devices} with --set train_batch_size=..."
        )
    return train_batch_size // devices


class ProcessShare(Sampler[list[int]]):
    """The rows of each global batch that fall to one process: every `processes`-th, so that all get like lengths.

    Unlike Accelerate's own split nothing is repeated to fill the last batch, which keeps the loss that of one process.
    A share of the last batch may be empty, see `ShareCollator`.

    Args:
        sampler: Gives rows in an order in which each `sampler.batch_size` consecutive ones are a global batch.
        rank: Number of this process, from 0.
        processes: How many there are.
    """

    def __init__(self, sampler: LengthBucketSampler, rank: int, processes: int) -> None:
        self.sampler = sampler
        self.rank = rank
        self.processes = processes
        self.batch_size = sampler.batch_size // processes
        self.drop_last = False

    def set_epoch(self, epoch: int) -> None:
        """The next pass uses the order of this epoch."""
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.sampler.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order, size = list(self.sampler), self.sampler.batch_size
        for start in range(0, len(order), size):
            yield order[start : start + size][self.rank :: self.processes]


@dataclass(frozen=True)
class ShareCollator:
    """A collator for which an empty share is one row that asks nothing: the process must still take part in the step.

    Args:
        collate: The collator of shares that hold rows.
    """

    collate: Callable[[Sequence[Mapping[str, Any]]], dict[str, torch.Tensor]]

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch, as `collate` gives it."""
        if rows:
            return self.collate(rows)
        batch = self.collate([{"item_ids": np.ones(2, dtype=np.int64)}])
        return {**batch, "labels": torch.full_like(batch["labels"], IGNORED_LABEL)}
