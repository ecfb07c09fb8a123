"""Makes batches of rows: a collator pads the rows, and samplers choose rows of similar length for each batch."""

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


def check_positive(**values: Any) -> None:
    """Refuses what is no positive integer.

    Raises:
        DataError: Names the argument and its value.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise DataError(f"{name} must be a positive integer, but got {value!r}.")


@dataclass(frozen=True)
class SequenceCollator:
    """Makes a batch of training windows or of evaluation rows, padded to its longest row.

    For a plain `Trainer` set `remove_unused_columns=False`, because the columns have other names than the model's
    inputs.

    Args:
        max_length: The most positions of a row; of longer histories the newest items are taken.
        padding_side: `"right"` or `"left"`; the model's scores are the same either way.
        exclude_seen: Whether batches of evaluation rows also hold `exclude_item_ids`, the user's past items, which are
            then not recommended. Give `not processor.recommend_seen` to measure the ranking that is served.
        time_gaps: Whether batches hold the rows' `time_gaps`, for models with `use_time_gaps`.

    Raises:
        DataError: `max_length` is below 1, or the side is another one.
    """

    max_length: int
    padding_side: str = "right"
    exclude_seen: bool = True
    time_gaps: bool = False

    def __post_init__(self) -> None:
        check_positive(max_length=self.max_length)
        if self.padding_side not in ("left", "right"):
            raise DataError(f"padding_side must be 'left' or 'right', but got {self.padding_side!r}.")

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Pads rows to a batch.

        Args:
            rows: Each with `item_ids` (integers, oldest first), with `time_gaps` where the collator has them (the time
                from each item to the next), and for evaluation with the `target` that follows the history.

        Returns:
            int64 tensors: `input_ids` (B, L) with 0 at padding, `attention_mask` (B, L), and `labels` (B, L) with -100
            at positions without a target. With `exclude_seen` evaluation rows have `exclude_item_ids` (B, S), the
            distinct items of the whole history, padded with 0. With `time_gaps` there are float32 `time_gaps` (B, L),
            -1 at padding.

        Raises:
            DataError: Rows have no `time_gaps`, are of both kinds in one batch, or are too short to have a target.
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
        # The inputs of a training row are all items but the last, whose position has only a target.
        inputs = [history[: None if evaluation else -1][-self.max_length :] for history in histories]
        if evaluation:
            labels = [np.full(len(row), IGNORED_LABEL, np.int64) for row in inputs]
            for label, row in zip(labels, rows, strict=True):
                label[-1] = int(row["target"])
        else:
            labels = [history[1:][-self.max_length :] for history in histories]
        batch = {
            "input_ids": _padded(inputs, 0, self.padding_side),
            "attention_mask": torch.from_numpy(_filled(inputs, self.padding_side).astype(np.int64)),
            "labels": _padded(labels, IGNORED_LABEL, self.padding_side),
        }
        if self.time_gaps:
            if any("time_gaps" not in row for row in rows):
                raise DataError("The rows have no 'time_gaps'; prepare and window the data with time_gaps=True.")
            gaps = [np.asarray(row["time_gaps"], np.float32) for row in rows]
            gaps = [row[: None if evaluation else -1][-self.max_length :] for row in gaps]
            batch["time_gaps"] = _padded(gaps, UNKNOWN_GAP, self.padding_side, np.float32)
        if evaluation and self.exclude_seen:
            batch["exclude_item_ids"] = _padded([np.unique(history) for history in histories], 0, "right")
        return batch


def _padded(rows: list[np.ndarray], fill: float, side: str, dtype: type = np.int64) -> torch.Tensor:
    filled = _filled(rows, side)
    padded: np.ndarray = np.full(filled.shape, fill, dtype=dtype)
    if rows:
        padded[filled] = np.concatenate(rows)
    return torch.from_numpy(padded)


def _filled(rows: list[np.ndarray], side: str) -> np.ndarray:
    """bool (rows, longest row): where a padded batch holds values."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))[:, None]
    places = np.arange(lengths.max(initial=0))
    return places < lengths if side == "right" else places >= len(places) - lengths


@runtime_checkable
class HasLengths(Protocol):
    """Rows that have the property `lengths`, such as `TrainingWindows`."""

    @property
    def lengths(self) -> np.ndarray: ...


class _EpochSampler:
    """What both samplers share: their order is determined by (seed, epoch)."""

    def __init__(self, rows: Any, seed: int, bucket_batches: int) -> None:
        check_positive(bucket_batches=bucket_batches)
        self._rows, self.seed, self.bucket_batches, self.epoch = rows, seed, bucket_batches, 0

    @property
    def _lengths(self) -> np.ndarray:
        return np.asarray(self._rows.lengths if isinstance(self._rows, HasLengths) else self._rows)

    def set_epoch(self, epoch: int) -> None:
        """The next pass uses the order of this epoch, and its windows where these move."""
        self.epoch = epoch
        # Accelerate calls only the sampler's `set_epoch` where batches are split over processes or skipped.
        if hasattr(self._rows, "set_epoch"):
            self._rows.set_epoch(epoch)


class LengthBucketSampler(_EpochSampler, Sampler[int]):
    """Shuffles the rows, sorts them by length inside groups of `bucket_batches` batches, and shuffles the batches.

    It yields single indices, and each `batch_size` consecutive ones form a batch, so that it fits any `DataLoader`
    (`sampler=...` with the same `batch_size`). An incomplete batch comes last.

    Args:
        lengths: Length of each row, or an object with the property `lengths`, which is read again in each epoch,
            because windows may move.
        batch_size: Rows per batch.
        seed: The order is determined by (seed, epoch).
        bucket_batches: Batches that are sorted together; more of them mean less padding and less mixing.
        drop_last: Whether to leave out an incomplete last batch.

    Raises:
        DataError: `batch_size` or `bucket_batches` is below 1, or there are no rows.
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
        check_positive(batch_size=batch_size)
        super().__init__(lengths, seed, bucket_batches)
        self.batch_size = batch_size
        self.drop_last = drop_last
        if len(self._lengths) == 0:
            raise DataError("A sampler needs at least one row, but there are none.")

    def __len__(self) -> int:
        rows = len(self._lengths)
        return rows - rows % self.batch_size if self.drop_last else rows

    def __iter__(self) -> Iterator[int]:
        lengths = self._lengths
        rng = np.random.default_rng([self.seed, self.epoch])
        shuffled = rng.permutation(len(lengths))
        bucket = np.arange(len(lengths)) // (self.batch_size * self.bucket_batches)
        # Sorted by bucket, then by length; the sort is stable, so that equal lengths stay shuffled.
        order = shuffled[np.lexsort((lengths[shuffled], bucket))]
        full = len(order) - len(order) % self.batch_size
        batches = rng.permutation(order[:full].reshape(-1, self.batch_size))
        for batch in batches:  # One at a time, because Python's integers take five times the memory of the array.
            yield from batch.tolist()
        if not self.drop_last:
            yield from order[full:].tolist()


class TargetBatchSampler(_EpochSampler, Sampler[list[int]]):
    """Batches of windows with about the same number of targets, whatever their lengths; for `batch_sampler=...`.

    Windows of similar length share a batch as in `LengthBucketSampler`, and every window is in exactly one batch. The
    number of batches is the same in each epoch. A batch has less than one window more or less than its share of the
    targets.

    Args:
        windows: `TrainingWindows`, or other rows with the property `lengths`, whose sum does not change.
        batch_targets: The least number of targets in a batch; at least that of the longest window, so that no batch is
            empty.
        seed: Batches and their order are determined by (seed, epoch).
        bucket_batches: Batches that are sorted together; more of them mean less padding and less mixing.

    Raises:
        DataError: `batch_targets` is below the longest window, or `bucket_batches` below 1.
    """

    def __init__(self, windows: HasLengths, batch_targets: int, *, seed: int = 42, bucket_batches: int = 50) -> None:
        super().__init__(windows, seed, bucket_batches)
        longest = max(int(windows.lengths.max()), getattr(windows, "max_length", 1))
        if isinstance(batch_targets, bool) or not isinstance(batch_targets, int) or batch_targets < longest:
            raise DataError(f"batch_targets must be at least {longest} (max_length), not {batch_targets!r}.")
        self.batch_targets = batch_targets

    def __len__(self) -> int:
        return max(1, int(self._lengths.sum()) // self.batch_targets)

    def __iter__(self) -> Iterator[list[int]]:
        lengths, count = self._lengths, len(self)
        rng = np.random.default_rng([self.seed, self.epoch])
        shuffled = rng.permutation(len(lengths))
        bucket = np.cumsum(lengths[shuffled]) // (self.batch_targets * self.bucket_batches)
        # Lengths rise in one bucket and fall in the next, so that a batch across their border has similar lengths too.
        order = shuffled[np.lexsort((np.where(bucket % 2, -1, 1) * lengths[shuffled], bucket))]
        before = np.cumsum(lengths[order]) - lengths[order]
        cuts = np.searchsorted(before * count // int(lengths.sum()), np.arange(count + 1))
        for batch in rng.permutation(count):
            yield order[cuts[batch] : cuts[batch + 1]].tolist()
