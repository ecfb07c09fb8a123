"""The most popular items, for everyone the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError

__all__ = ["PopularityScorer"]


class PopularityScorer:
    """Scores item j with its number of occurrences in the training histories: s(j) = count(j).

    Args:
        item_counts: Occurrences in TRAINING histories only, integer, (vocab_size,); index 0 is padding.
    """

    def __init__(self, item_counts: np.ndarray) -> None:
        counts = np.asarray(item_counts)
        if counts.ndim != 1 or len(counts) < 2:
            raise DataError(f"item_counts must be one count for each item index, found shape {counts.shape}")
        self.scores = torch.from_numpy(counts.astype(np.float32))
        self.scores[0] = -torch.inf

    def __call__(self, histories: Sequence[np.ndarray]) -> Tensor:
        """float32 (B, vocab_size); a view of one row, so it takes no memory."""
        return self.scores.expand(len(histories), -1)
