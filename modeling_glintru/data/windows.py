"""Training windows and prefixes of whole histories, read from the memory-mapped column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from torch.utils.data import Dataset

from ..errors import DataError
from ..models.configuration_glintru import UNKNOWN_GAP
from .batches import check_positive

__all__ = ["TrainingPrefixes", "TrainingWindows", "check_gaps_differ", "check_has_gaps"]


class TrainingWindows(Dataset):
    """Cuts each history into windows so that every target is used exactly once per epoch.

    A history of n items has n - 1 targets: every item but the first. They are cut from the newest end into windows of
    `max_length` targets, so that only the oldest window of a history may be shorter. A window has its targets and the
    one item before them: inputs are `item_ids[:-1]` and targets `item_ids[1:]`.

    With `random_shift` the borders move in each epoch, and the oldest window becomes longer or shorter. The number of
    windows stays the same, and each target is still used exactly once.

    Only the starts and lengths of windows are in memory (16 bytes a window); items stay in the memory-mapped file.

    Args:
        dataset_split: A `datasets.Dataset` with the column `item_ids` (lists of integers, oldest first).
        max_length: The most targets of a window.
        random_shift: Whether the borders move in each epoch.
        seed: The shifts are determined by (seed, epoch).
        time_gaps: Whether windows also have the column `time_gaps`.

    Raises:
        DataError: There is no column `item_ids` of integer lists, no `time_gaps` although they are wanted, no history
            with two items, or `max_length` is below 1.
    """

    def __init__(
        self,
        dataset_split: Any,
        max_length: int,
        *,
        random_shift: bool = False,
        seed: int = 42,
        time_gaps: bool = False,
    ) -> None:
        check_positive(max_length=max_length)
        if "item_ids" not in dataset_split.column_names:
            raise DataError(
                f"Training windows need a column 'item_ids', but the data set has {dataset_split.column_names}."
            )
        # A selection or a shuffle is a layer of row numbers above the file, which `flatten_indices` writes out.
        self.dataset = dataset_split if dataset_split._indices is None else dataset_split.flatten_indices()
        self.max_length = max_length
        self.random_shift = random_shift
        self.seed = seed
        self.time_gaps = time_gaps
        self.epoch = 0
        self._read_column()
        self._lay_windows()
        if len(self) == 0:
            raise DataError("No training history holds two items, so there is nothing to learn from.")

    def _read_column(self) -> None:
        column = self.dataset.data.column("item_ids")
        is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
        if not (is_list and pa.types.is_integer(column.type.value_type)):
            raise DataError(f"The column 'item_ids' must hold lists of integers, but it holds {column.type}.")
        self._chunks: list[np.ndarray] = [chunk.values.to_numpy() for chunk in column.chunks]
        offsets = [chunk.offsets.to_numpy() for chunk in column.chunks]
        self._gaps: list[np.ndarray] | None = None
        if self.time_gaps:
            check_has_gaps(self.dataset)
            gaps = self.dataset.data.column("time_gaps").chunks
            pairs = zip(column.chunks, gaps, strict=False)
            if len(gaps) != len(offsets) or not all(one.offsets.equals(two.offsets) for one, two in pairs):
                raise DataError(
                    "The columns 'item_ids' and 'time_gaps' do not belong together; run glintru prepare again."
                )
            self._gaps = [chunk.values.to_numpy() for chunk in gaps]
        self._bases = np.cumsum([0] + [len(values) for values in self._chunks[:-1]])
        # Histories begin and end at these positions of the whole column, in which the chunks follow each other.
        placed = [base + of_chunk.astype(np.int64) for base, of_chunk in zip(self._bases, offsets, strict=False)]
        none = np.zeros(0, np.int64)
        begin = np.concatenate([none, *(positions[:-1] for positions in placed)])
        end = np.concatenate([none, *(positions[1:] for positions in placed)])
        useful = end - begin >= 2
        self._begin, self._end = begin[useful], end[useful]

    def _lay_windows(self) -> None:
        targets, size = self._end - self._begin - 1, self.max_length
        counts = -(-targets // size)
        shift = np.zeros_like(targets)
        if self.random_shift:
            # The newest window may become shorter by as much as the oldest one is shorter than `max_length`.
            missing = counts * size - targets
            shift = np.random.default_rng([self.seed, self.epoch]).integers(0, missing, endpoint=True)
            shift[counts == 1] = 0
        history = np.repeat(np.arange(len(counts)), counts)
        newness = np.arange(len(history)) - np.repeat(np.cumsum(counts) - counts, counts)
        # The positions of the first target of each window and one past its last target.
        last = self._end[history] + shift[history]
        stop = np.minimum(last - newness * size, self._end[history])
        first = np.maximum(last - (newness + 1) * size, self._begin[history] + 1)
        self._starts = first - 1
        self._lengths = stop - first

    @property
    def lengths(self) -> np.ndarray:
        """int64, length `len(self)`: how many targets each window of this epoch has."""
        return self._lengths

    @property
    def num_targets(self) -> int:
        """Targets of one epoch."""
        return int(self._lengths.sum())

    def set_epoch(self, epoch: int) -> None:
        """Moves the borders of the windows where `random_shift` is on; they are determined by (seed, epoch)."""
        if self.random_shift and epoch != self.epoch:
            self.epoch = epoch
            self._lay_windows()
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """One window: `item_ids`, int32, of length 2 to max_length + 1, and `time_gaps`, float32, as long."""
        start = self._starts[index]
        chunk = int(np.searchsorted(self._bases, start, side="right")) - 1
        begin = start - self._bases[chunk]
        part = slice(begin, begin + self._lengths[index] + 1)
        # These are copies, because the file is mapped read-only.
        row = {"item_ids": self._chunks[chunk][part].astype(np.int32)}
        if self._gaps is not None:
            row["time_gaps"] = self._gaps[chunk][part].astype(np.float32)
        return row

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, np.ndarray]]:
        """Windows of one batch."""
        return [self[index] for index in indices]

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes get the data set, which has the path of the mapped file, and no copy of its items.
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._read_column()
        self._lay_windows()


class TrainingPrefixes(TrainingWindows):
    """One example for each target: the items before it, and nothing of what follows it.

    Models of whole histories are trained on these examples. With a `share` below 1 each epoch draws that share of the
    targets again. Only the starts and lengths of examples are in memory (16 bytes an example).

    Args:
        dataset_split: As for `TrainingWindows`.
        max_length: The most items before a target; of longer histories the newest items are taken.
        share: Share of the targets that are drawn for an epoch, above 0 and at most 1.
        seed: The draw is determined by (seed, epoch).
        time_gaps: As for `TrainingWindows`.

    Raises:
        DataError: As for `TrainingWindows`, or `share` is out of range.
    """

    def __init__(
        self, dataset_split: Any, max_length: int, *, share: float = 1.0, seed: int = 42, time_gaps: bool = False
    ) -> None:
        if not 0 < share <= 1:
            raise DataError(f"share must be above 0 and at most 1, but got {share!r}.")
        self.share = share
        super().__init__(dataset_split, max_length, random_shift=share < 1, seed=seed, time_gaps=time_gaps)

    def _lay_windows(self) -> None:
        ends = np.cumsum(self._end - self._begin - 1)  # where each history's targets end among all targets
        total = int(ends[-1]) if len(ends) else 0
        chosen = np.arange(total)
        if self.share < 1 and total:
            draw = np.random.default_rng([self.seed, self.epoch])
            chosen = np.sort(draw.choice(total, max(1, round(self.share * total)), replace=False))
        history = np.searchsorted(ends, chosen, side="right")
        # The position of the target in the column.
        target = self._end[history] - (ends[history] - chosen)
        self._starts = np.maximum(self._begin[history], target - self.max_length)
        self._lengths = target - self._starts

    @property
    def num_targets(self) -> int:
        """Targets of one epoch, of which each example has one."""
        return len(self)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One example: `item_ids`, int32, of length 1 to max_length, `time_gaps`, and the `target` that follows."""
        row = super().__getitem__(index)
        return {name: values[:-1] for name, values in row.items()} | {"target": int(row["item_ids"][-1])}


def check_has_gaps(split: Any) -> None:
    """Refuses a split without the column `time_gaps`.

    Raises:
        DataError: There is no such column.
    """
    if "time_gaps" not in split.column_names:
        raise DataError(
            "The data was prepared without times between items, which use_time_gaps needs; prepare it with the same "
            "recipe: glintru prepare --recipe RECIPE, or --set use_time_gaps=true."
        )


def check_gaps_differ(split: Any) -> None:
    """Refuses times between items from which nothing can be learned.

    Raises:
        DataError: There is no column `time_gaps`, or all times between items are the same.
    """
    check_has_gaps(split)
    found = set(split.data.column("time_gaps").combine_chunks().flatten().unique().to_pylist()) - {UNKNOWN_GAP}
    if len(found) < 2:
        raise DataError(
            "All times between items are the same, as where a table's times count 0, 1, 2, ...: use_time_gaps has "
            "nothing to learn from; leave it out."
        )
