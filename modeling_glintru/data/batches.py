"""From rows to batches: a collator that pads, and samplers that put rows of similar length into one batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch.utils.data import Sampler

from ..errors import DataError
from ..models.configuration_glintru import UNKNOWN_GAP

__all__ = ["LengthBucketSampler", "SequenceCollator", "TargetBatchSampler"]

IGNORED_LABEL = -100


@dataclass(frozen=True)
class SequenceCollator:
    """Makes a batch of training windows or of evaluation rows; padded to its longest row.

    For a plain `Trainer` set `remove_unused_columns=False`: the rows' names are not those of the model's inputs.

    Args:
        max_length: Most positions of a row; the newest are kept.
        padding_side: `"right"` or `"left"`; the model's scores are the same either way.
        exclude_seen: Evaluation rows also give `exclude_item_ids`, the user's past items, which are not recommended:
            a target among them is a miss. Give `not processor.recommend_seen` to measure what is served.
        time_gaps: Whether batches hold the rows' `time_gaps`, for models with `use_time_gaps`.

    Raises:
        DataError: A `max_length` below 1, or an unknown side.
    """

    max_length: int
    padding_side: str = "right"
    exclude_seen: bool = True
    time_gaps: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.max_length, bool) or not isinstance(self.max_length, int) or self.max_length < 1:
            raise DataError(f"max_length must be a positive integer, but got {self.max_length!r}.")
        if self.padding_side not in ("left", "right"):
            raise DataError(f"padding_side must be 'left' or 'right', but got {self.padding_side!r}.")

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Pads rows to a batch.

        Args:
            rows: With `item_ids` (integers, oldest first), on request `time_gaps` (from each item to what follows it),
                and for evaluation the `target` that follows the history.

        Returns:
            int64 tensors: `input_ids` (B, L) with 0 at padding, `attention_mask` (B, L), `labels` (B, L) with -100
            where nothing is asked; for evaluation rows on request `exclude_item_ids` (B, S): the different items of
            the FULL history, padded with 0. With `time_gaps` float32 `time_gaps` (B, L), -1 at padding.

        Raises:
            DataError: Rows without `time_gaps`, of both kinds in one batch, or too short to have a target.
        """
        with_target = [row.get("target") is not None for row in rows]
        if any(with_target) and not all(with_target):
            raise DataError(
                "A batch holds training rows (without 'target') and evaluation rows (with it): use one kind."
            )
        histories = [np.asarray(row["item_ids"], dtype=np.int64) for row in rows]
        evaluation = bool(with_target) and with_target[0]
        shortest = 1 if evaluation else 2
        if any(len(history) < shortest for history in histories):
            raise DataError(
                f"{'An evaluation' if evaluation else 'A training'} row needs at least {shortest} item(s) in "
                "'item_ids', but one has fewer."
            )
        if not evaluation:
            inputs = [history[:-1][-self.max_length :] for history in histories]
            labels = [history[1:][-self.max_length :] for history in histories]
            return self._batch(inputs, labels, self._gaps(rows, slice(-1)))
        targets = [int(row["target"]) for row in rows]
        inputs = [history[-self.max_length :] for history in histories]
        labels = [np.full(len(row), IGNORED_LABEL, np.int64) for row in inputs]
        for label, target in zip(labels, targets, strict=True):
            label[-1] = target
        batch = self._batch(inputs, labels, self._gaps(rows, slice(None)))
        if self.exclude_seen:
            seen = [np.unique(history) for history in histories]
            batch["exclude_item_ids"] = torch.from_numpy(_padded(seen, 0, "right"))
        return batch

    def _gaps(self, rows: Sequence[Mapping[str, Any]], part: slice) -> list[np.ndarray] | None:
        """The times after a part of each row's items, cut like the inputs; None where they are not asked for."""
        if not self.time_gaps:
            return None
        if any("time_gaps" not in row for row in rows):
            raise DataError("The rows have no 'time_gaps'; prepare and window the data with time_gaps=True.")
        return [np.asarray(row["time_gaps"], np.float32)[part][-self.max_length :] for row in rows]

    def _batch(
        self, inputs: list[np.ndarray], labels: list[np.ndarray], gaps: list[np.ndarray] | None
    ) -> dict[str, torch.Tensor]:
        batch = {
            "input_ids": torch.from_numpy(_padded(inputs, 0, self.padding_side)),
            "attention_mask": torch.from_numpy(_filled(inputs, self.padding_side).astype(np.int64)),
            "labels": torch.from_numpy(_padded(labels, IGNORED_LABEL, self.padding_side)),
        }
        if gaps is not None:
            batch["time_gaps"] = torch.from_numpy(_padded(gaps, UNKNOWN_GAP, self.padding_side, np.float32))
        return batch


def _padded(rows: list[np.ndarray], fill: float, side: str, dtype: type = np.int64) -> np.ndarray:
    filled = _filled(rows, side)
    padded: np.ndarray = np.full(filled.shape, fill, dtype=dtype)
    if rows:
        padded[filled] = np.concatenate(rows)
    return padded


def _filled(rows: list[np.ndarray], side: str) -> np.ndarray:
    """bool (rows, longest row): where a padded batch holds values."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))[:, None]
    places = np.arange(lengths.max(initial=0))
    return places < lengths if side == "right" else places >= len(places) - lengths


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
