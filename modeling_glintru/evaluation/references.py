"""Reference models that need no training: the most popular items, and what the user took before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError

__all__ = ["OwnItemsScorer", "PopularityScorer"]

ORDERS = ("newest", "frequent")


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


class OwnItemsScorer:
    """Ranks the user's own past items first, and all others behind them by popularity.

    It does not need training, and where people come back to the same items it is hard to beat (for next baskets see Hu,
    He, Gao and Zhang, "Modeling Personalized Item Frequency Information for Next-basket Recommendation", SIGIR 2020).

    Args:
        item_counts: Occurrences in the training histories, integer, (vocab_size,); index 0 is padding.
        order: `"newest"`: the item that the user took last comes first. `"frequent"`: the item that the user took most
            often comes first, and of two that were taken as often, the one taken last.

    Raises:
        DataError: Another order, or counts of a wrong shape.
    """

    def __init__(self, item_counts: np.ndarray, order: str = "frequent") -> None:
        if order not in ORDERS:
            raise DataError(f"order must be one of {', '.join(map(repr, ORDERS))}, found {order!r}")
        self.order = order
        popularity = PopularityScorer(item_counts).scores
        # Below 1, so that an own item comes before every other one.
        self.others = (popularity / (popularity[1:].max() + 1)).double()

    def __call__(self, histories: Sequence[np.ndarray]) -> Tensor:
        """float64 (B, vocab_size), since counts and places share one number."""
        scores = self.others.repeat(len(histories), 1)
        for row, history in enumerate(histories):
            # Seen from the end, the first place of an item is its newest.
            items, places, counts = np.unique(history[::-1], return_index=True, return_counts=True)
            newness = len(history) - places.astype(np.float64)  # 1 for the oldest place
            own = newness if self.order == "newest" else counts + newness / (len(history) + 1)
            scores[row, items] = torch.from_numpy(own + 1)
        return scores
