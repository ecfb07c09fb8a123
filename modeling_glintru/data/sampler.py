"""A sampler that puts rows of similar length into one batch, so that little is spent on padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from torch.utils.data import Sampler

from ..errors import DataError

__all__ = ["LengthBucketSampler", "TargetBatchSampler", "padding_share"]


@runtime_checkable
class HasLengths(Protocol):
    """Rows that know their lengths, such as `TrainingWindows`."""

    @property
    def lengths(self) -> np.ndarray: ...


class LengthBucketSampler(Sampler[int]):
    """Shuffles, sorts by length inside groups of `bucket_batches` batches, then shuffles the batches.

    It gives single indices in an order in which each `batch_size` consecutive ones form a batch, so it fits any
    `DataLoader` (`sampler=...` with the same `batch_size`). An incomplete batch comes last.

    Args:
        lengths: Length of each row, or an object with `.lengths` (asked anew each epoch, as windows may move).
        batch_size: Rows per batch.
        seed: The order is determined by (seed, epoch).
        bucket_batches: Batches sorted together: more means less padding and less mixing.
        drop_last: Leaves an incomplete last batch out.

    Raises:
        DataError: A `batch_size` or `bucket_batches` below 1, or no rows.
    """

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray | HasLengths,
        batch_size: int,
        *,
        seed: int = 42,
        bucket_batches: int = 50,
        drop_last: bool = False,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("bucket_batches", bucket_batches)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise DataError(f"{name} must be a positive integer, but got {value!r}.")
        self._rows = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.bucket_batches = bucket_batches
        self.drop_last = drop_last
        self.epoch = 0
        if len(self._lengths()) == 0:
            raise DataError("A sampler needs at least one row, but there are none.")

    def _lengths(self) -> np.ndarray:
        return np.asarray(self._rows.lengths if isinstance(self._rows, HasLengths) else self._rows)

    def set_epoch(self, epoch: int) -> None:
        """The next pass uses the order of this epoch, and its windows where those move."""
        self.epoch = epoch
        # Accelerate tells the sampler alone when batches are split over processes or skipped.
        if hasattr(self._rows, "set_epoch"):
            self._rows.set_epoch(epoch)

    def __len__(self) -> int:
        rows = len(self._lengths())
        return rows - rows % self.batch_size if self.drop_last else rows

    def __iter__(self) -> Iterator[int]:
        lengths = self._lengths()
        rng = np.random.default_rng([self.seed, self.epoch])
        shuffled = rng.permutation(len(lengths))
        bucket = np.arange(len(lengths)) // (self.batch_size * self.bucket_batches)
        # By bucket, then by length; stable, so that equal lengths stay shuffled.
        order = shuffled[np.lexsort((lengths[shuffled], bucket))]
        full = len(order) - len(order) % self.batch_size
        batches = rng.permutation(order[:full].reshape(-1, self.batch_size))
        for batch in batches:  # one at a time: Python's integers take five times the room of the array
            yield from batch.tolist()
        if not self.drop_last:
            yield from order[full:].tolist()


class TargetBatchSampler(Sampler[list[int]]):
    """Batches of windows with about the same number of targets each, whatever the lengths: for `batch_sampler=...`.

    Windows of similar length meet as in `LengthBucketSampler`. Every window is in exactly one batch. The number of
    batches is the same in each epoch, and each holds less than one window more or less than its share of the targets.

    Args:
        windows: `TrainingWindows`, or other rows with `.lengths` whose sum does not change.
        batch_targets: Targets per batch, at least; not below the longest window, so that no batch is empty.
        seed: Batches and their order are determined by (seed, epoch).
        bucket_batches: Batches sorted together: more means less padding and less mixing.

    Raises:
        DataError: `batch_targets` below the longest window, or `bucket_batches` below 1.
    """

    def __init__(self, windows: HasLengths, batch_targets: int, *, seed: int = 42, bucket_batches: int = 50) -> None:
        if isinstance(bucket_batches, bool) or not isinstance(bucket_batches, int) or bucket_batches < 1:
            raise DataError(f"bucket_batches must be a positive integer, but got {bucket_batches!r}.")
        longest = max(int(windows.lengths.max()), getattr(windows, "max_length", 1))
        if isinstance(batch_targets, bool) or not isinstance(batch_targets, int) or batch_targets < longest:
            raise DataError(f"batch_targets must be at least {longest} (max_length), not {batch_targets!r}.")
        self.windows = windows
        self.batch_targets = batch_targets
        self.seed = seed
        self.bucket_batches = bucket_batches
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The next pass uses the batches of this epoch, and its windows where those move."""
        self.epoch = epoch
        if hasattr(self.windows, "set_epoch"):
            self.windows.set_epoch(epoch)

    def __len__(self) -> int:
        return max(1, int(self.windows.lengths.sum()) // self.batch_targets)

    def __iter__(self) -> Iterator[list[int]]:
        lengths, count = self.windows.lengths, len(self)
        rng = np.random.default_rng([self.seed, self.epoch])
        shuffled = rng.permutation(len(lengths))
        bucket = np.cumsum(lengths[shuffled]) // (self.batch_targets * self.bucket_batches)
        # Lengths rise in one bucket and fall in the next, so that a batch across their border is of one length too.
        order = shuffled[np.lexsort((np.where(bucket % 2, -1, 1) * lengths[shuffled], bucket))]
        before = np.cumsum(lengths[order]) - lengths[order]
        cuts = np.searchsorted(before * count // int(lengths.sum()), np.arange(count + 1))
        for batch in rng.permutation(count):
            yield order[cuts[batch] : cuts[batch + 1]].tolist()


def padding_share(lengths: np.ndarray, order: Sequence[int], batch_size: int) -> float:
    """Share of the positions of padded batches that hold no item, for rows taken in `order`.

    Args:
        lengths: Length of each row.
        order: Indices of rows, each `batch_size` consecutive ones form a batch.
        batch_size: Rows per batch.
    """
    taken = np.asarray(lengths)[np.asarray(order)]
    cuts = np.arange(0, len(taken), batch_size)
    sizes = np.minimum(batch_size, len(taken) - cuts)
    total = int((np.maximum.reduceat(taken, cuts) * sizes).sum())
    return 1 - int(taken.sum()) / total
