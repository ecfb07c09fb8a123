"""Rows to a padded batch: the inputs of the model, and what evaluation needs beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import DataError
from ..models.configuration_glintru import UNKNOWN_GAP

__all__ = ["SequenceCollator"]

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
            rows: With `item_ids` (integers, oldest first). Without `target`: a training window, each item is the
                target of the one before it. With `target`: a history and the item that follows it. With `time_gaps`,
                where `time_gaps` is on: the time from each item to what follows it.

        Returns:
            int64 tensors: `input_ids` (B, L) with 0 at padding, `attention_mask` (B, L), `labels` (B, L) with -100
            where nothing is asked; for evaluation rows on request `exclude_item_ids` (B, S): the different items of
            the FULL history, padded with 0. With `time_gaps` float32 `time_gaps` (B, L), -1 at
            padding.

        Raises:
            DataError: Rows without the `time_gaps` that are asked for, training and evaluation rows in one batch, or a
                row too short to have a target.
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
