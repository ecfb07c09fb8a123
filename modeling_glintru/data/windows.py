"""Training windows and prefixes over whole histories, straight from the memory-mapped column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from torch.utils.data import Dataset

from ..errors import DataError
from ..models.configuration_glintru import UNKNOWN_GAP

__all__ = ["TrainingPrefixes", "TrainingWindows", "check_gaps_differ", "check_has_gaps"]


class TrainingWindows(Dataset):
    """Cuts each history into windows so that every target is used exactly once per epoch.

    A history of n items has n - 1 targets: every item but the first. Windows of up to `max_length` targets tile them
    from the newest end, so that only the oldest window of a history may be shorter. A window holds its targets and the
    one item before them, so that inputs are `item_ids[:-1]` and targets `item_ids[1:]`.

    With `random_shift` the borders move from epoch to epoch within the room that the oldest window leaves: the same
    number of windows, still each target exactly once.

    Only the starts and lengths of windows are in memory (16 bytes a window); items stay in the memory-mapped file.

    Args:
        dataset_split: A `datasets.Dataset` with the column `item_ids` (lists of integers, oldest first).
        max_length: Most targets in a window.
        random_shift: Moves the borders per epoch.
        seed: Of the shifts, together with the epoch.
        time_gaps: Windows also hold `time_gaps`, from the column of that name; memory-mapped too.

    Raises:
        DataError: No `item_ids` column of integer lists, no `time_gaps` where they are asked for, a `max_length` below
            1, or no history with two items.
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
        if isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < 1:
            raise DataError(f"max_length must be a positive integer, but got {max_length!r}.")
        if "item_ids" not in dataset_split.column_names:
            raise DataError(
                f"Training windows need a column 'item_ids', but the data set has {dataset_split.column_names}."
            )
        # A selection or a shuffle is a layer of row numbers above the file; write it out first.
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
        if not (_is_list(column.type) and pa.types.is_integer(column.type.value_type)):
            raise DataError(f"The column 'item_ids' must hold lists of integers, but it holds {column.type}.")
        self._chunks: list[np.ndarray] = []
        starts, stops, base = [], [], 0
        for chunk in column.chunks:
            values, offsets = chunk.values.to_numpy(), chunk.offsets.to_numpy().astype(np.int64)
            self._chunks.append(values)
            starts.append(base + offsets[:-1])
            stops.append(base + offsets[1:])
            base += len(values)
        self._gaps = self._read_gaps(column) if self.time_gaps else None
        self._bases = np.cumsum([0] + [len(values) for values in self._chunks[:-1]])
        begin = np.concatenate(starts) if starts else np.zeros(0, np.int64)
        end = np.concatenate(stops) if stops else np.zeros(0, np.int64)
        useful = end - begin >= 2
        # Positions of items in the column, chunk after chunk.
        self._begin, self._end = begin[useful], end[useful]

    def _read_gaps(self, items: pa.ChunkedArray) -> list[np.ndarray]:
        """The column `time_gaps` in chunks, position by position beside those of the items."""
        check_has_gaps(self.dataset)
        column = self.dataset.data.column("time_gaps")
        pairs = list(zip(items.chunks, column.chunks, strict=False))
        if items.num_chunks != column.num_chunks or any(not one.offsets.equals(two.offsets) for one, two in pairs):
            raise DataError("The columns 'item_ids' and 'time_gaps' do not belong together; run glintru prepare again.")
        return [chunk.values.to_numpy() for chunk in column.chunks]

    def _lay_windows(self) -> None:
        targets, size = self._end - self._begin - 1, self.max_length
        counts = -(-targets // size)
        shift = np.zeros_like(targets)
        if self.random_shift:
            # The room by which the newest window may shrink in favour of the oldest.
            room = counts * size - targets
            shift = np.random.default_rng([self.seed, self.epoch]).integers(0, room, endpoint=True)
            shift[counts == 1] = 0
        history = np.repeat(np.arange(len(counts)), counts)
        newness = np.arange(len(history)) - np.repeat(np.cumsum(counts) - counts, counts)
        # Positions of the first target and one past the last target of each window.
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
        """Moves the borders of the windows where `random_shift` is on; deterministic in (seed, epoch)."""
        if self.random_shift and epoch != self.epoch:
            self.epoch = epoch
            self._lay_windows()
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """One window: `item_ids`, int32, 2 ... max_length + 1 consecutive items; `time_gaps`, float32, after each."""
        start = self._starts[index]
        chunk = int(np.searchsorted(self._bases, start, side="right")) - 1
        begin = start - self._bases[chunk]
        part = slice(begin, begin + self._lengths[index] + 1)
        # Copies: the file is mapped read-only.
        row = {"item_ids": self._chunks[chunk][part].astype(np.int32)}
        if self._gaps is not None:
            row["time_gaps"] = self._gaps[chunk][part].astype(np.float32)
        return row

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, np.ndarray]]:
        """Windows of one batch."""
        return [self[index] for index in indices]

    def __getstate__(self) -> dict[str, Any]:
        # Workers get the path of the mapped file (the data set knows it), not a copy of its items.
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._read_column()
        self._lay_windows()


class TrainingPrefixes(TrainingWindows):
    """One example for each target: the items before it, and nothing of what follows.

    This is the form in which models of whole histories are trained. An epoch with every target costs as many examples
    as there are targets; with a `share` it draws that share of them anew, which costs the same for each step.

    Only the starts and lengths of examples are in memory (16 bytes an example).

    Args:
        dataset_split: As for `TrainingWindows`.
        max_length: Most items before a target; the newest are kept.
        share: Share of the targets in an epoch, above 0 and at most 1.
        seed: Of the draw, together with the epoch.
        time_gaps: As for `TrainingWindows`.

    Raises:
        DataError: As for `TrainingWindows`, or a `share` out of range.
    """

    def __init__(
        self, dataset_split: Any, max_length: int, *, share: float = 1.0, seed: int = 42, time_gaps: bool = False
    ) -> None:
        if not 0 < share <= 1:
            raise DataError(f"share must be above 0 and at most 1, but got {share!r}.")
        self.share = share
        super().__init__(dataset_split, max_length, random_shift=share < 1, seed=seed, time_gaps=time_gaps)

    def _lay_windows(self) -> None:
        ends = np.cumsum(self._end - self._begin - 1)  # of each history's targets, counted over all histories
        total = int(ends[-1]) if len(ends) else 0
        chosen = np.arange(total)
        if self.share < 1 and total:
            draw = np.random.default_rng([self.seed, self.epoch])
            chosen = np.sort(draw.choice(total, max(1, round(self.share * total)), replace=False))
        history = np.searchsorted(ends, chosen, side="right")
        # Distance of the target from the end of its history, at least 1; then its position in the column.
        target = self._end[history] - (ends[history] - chosen)
        self._starts = np.maximum(self._begin[history], target - self.max_length)
        self._lengths = target - self._starts

    @property
    def num_targets(self) -> int:
        """Targets of one epoch: one an example."""
        return len(self)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One example: `item_ids`, int32, 1 ... max_length items, `time_gaps`, and the `target` that follows them."""
        row = super().__getitem__(index)
        return {name: values[:-1] for name, values in row.items()} | {"target": int(row["item_ids"][-1])}


def check_has_gaps(split: Any) -> None:
    """Refuses rows without times where they are needed.

    Raises:
        DataError: There is no column `time_gaps`.
    """
    if "time_gaps" not in split.column_names:
        raise DataError(
            "The data was prepared without times between items, which use_time_gaps needs; prepare it with the same "
            "recipe: glintru prepare --recipe RECIPE, or --set use_time_gaps=true."
        )


def check_gaps_differ(split: Any) -> None:
    """Refuses times that say nothing.

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


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)
