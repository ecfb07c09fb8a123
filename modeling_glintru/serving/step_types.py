"""What advances the states of users by one item each: the interface that every implementation keeps."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ..models.state_glintru import StateLayout

__all__ = ["Step"]


class Step(Protocol):
    """One item more for each of n users, whose states are rows of one float32 array.

    A row is the numbers of one `GlintRUState.to_bytes` string: the tensors of `layout.shapes()` one after the other,
    the representation last. How many items it holds is kept beside it.

    Attributes:
        layout: Names and sizes of the tensors.
        fingerprint: Of the weights, taken once at construction: weights must not change afterwards.
        row_size: Numbers in one row.
    """

    layout: StateLayout
    fingerprint: str
    row_size: int

    def empty(self, users: int = 1) -> np.ndarray:
        """(users, row_size) float32 zeros: the states of users without items."""
        ...

    def advance(self, rows: np.ndarray, counts: np.ndarray, item_ids: np.ndarray) -> np.ndarray:
        """The states after one more item each.

        Args:
            rows: (n, row_size) float32; not changed.
            counts: (n,) int64, the items that each row holds; 0 for a new user.
            item_ids: (n,) int64 item indices from 1 to vocab_size - 1.

        Returns:
            (n, row_size) float32.
        """
        ...

    def queries(self, rows: np.ndarray) -> np.ndarray:
        """(n, d) float32 vectors whose inner products with `model.item_vectors()` are the scores of the next item."""
        ...
