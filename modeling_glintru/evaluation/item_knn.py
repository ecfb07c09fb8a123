"""Item-to-item nearest neighbours: what people who took this item also took."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from tqdm.auto import tqdm

from ..data.histories import iterate_flat_histories
from ..errors import DataError

__all__ = ["ItemKNNScorer"]

MAX_BLOCK = 2**24  # similarities held at once: 64 MB in float32


class ItemKNNScorer:
    """Each distinct item of the history votes for its nearest neighbours with their similarity.

    With U(i) the users who took item i in training,

        similarity(i, j) = |U(i) and U(j)| / (sqrt(|U(i)| |U(j)|) + shrink),   similarity(i, i) = 0,
        s(j) = sum over the history's items i of similarity(i, j) if j is among the num_neighbors nearest of i.

    Source: Deshpande and Karypis, "Item-based top-N recommendation algorithms", ACM TOIS 2004 (cosine similarity,
    k nearest of each item); the shrink term as in Ferrari Dacrema, Cremonesi and Jannach, "Are we really making much
    progress?", RecSys 2019.

    Memory: about 40 bytes for each distinct (user, item) pair while building, 8 bytes * vocab_size * num_neighbors
    kept, and one block of at most 2**24 similarities.

    Args:
        train_split: Rows `{item_ids}`, the training histories.
        vocab_size: Number of items + 1.
        num_neighbors: Neighbours kept for each item.
        shrink: Pulls similarities that rest on few users towards 0; at least 0. The default was chosen on the
            validation splits of ML-1M, Beauty and Video Games.
        progress: Whether to show a progress bar while building.
    """

    def __init__(
        self,
        train_split: Dataset,
        vocab_size: int,
        num_neighbors: int = 100,
        shrink: float = 10.0,
        *,
        progress: bool = False,
    ) -> None:
        if vocab_size < 2 or num_neighbors < 1 or shrink < 0:
            raise DataError(
                f"item-kNN needs vocab_size >= 2, num_neighbors >= 1 and shrink >= 0, "
                f"found {vocab_size}, {num_neighbors} and {shrink}"
            )
        self.vocab_size = vocab_size
        users, items = _distinct_pairs(train_split, vocab_size)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse")  # torch calls its sparse tensors beta, every time
            self.neighbors, self.similarities = _nearest(users, items, vocab_size, num_neighbors, shrink, progress)

    def __call__(self, histories: Sequence[np.ndarray]) -> Tensor:
        """float32 (B, vocab_size); all 0 for a history without items."""
        scores = torch.zeros(len(histories), self.vocab_size)
        for row, history in enumerate(histories):
            items = torch.from_numpy(np.unique(history).astype(np.int64))
            if items.numel() and not 0 <= int(items[0]) <= int(items[-1]) < self.vocab_size:
                raise DataError(f"a history holds item index {int(items[-1])}, outside 0…{self.vocab_size - 1}")
            scores[row].index_add_(0, self.neighbors[items].flatten(), self.similarities[items].flatten())
        return scores


def _distinct_pairs(train_split: Dataset, vocab_size: int) -> tuple[Tensor, Tensor]:
    """Distinct (user number, item index) pairs, each int64 (num_pairs,), ordered by user."""
    keys, first_user = [np.zeros(0, dtype=np.int64)], 0
    for items, lengths in iterate_flat_histories(train_split):
        if items.size and not 0 < items.min() <= items.max() < vocab_size:
            wrong = items.min() if items.min() < 1 else items.max()
            raise DataError(f"a training history holds item index {wrong}, outside 1…{vocab_size - 1}")
        users = np.repeat(np.arange(first_user, first_user + len(lengths)), lengths)
        keys.append(np.unique(users * vocab_size + items))
        first_user += len(lengths)
    users, items = np.divmod(np.concatenate(keys), vocab_size)
    if users.size == 0:
        raise DataError("item-kNN has no training interaction to learn from")
    return torch.from_numpy(users), torch.from_numpy(items)


def _nearest(
    users: Tensor, items: Tensor, vocab_size: int, num_neighbors: int, shrink: float, progress: bool
) -> tuple[Tensor, Tensor]:
    """Neighbours (int32) and similarities (float32) of each item, both (vocab_size, num_neighbors)."""
    num_users = int(users[-1]) + 1
    ones = torch.ones(len(users))
    by_user = torch.sparse_coo_tensor(torch.stack([users, items]), ones, (num_users, vocab_size), is_coalesced=True)
    order = items.argsort(stable=True)
    item_rows, item_users = items[order], users[order]
    frequency = torch.bincount(items, minlength=vocab_size).float()
    num_neighbors = min(num_neighbors, vocab_size - 1)
    neighbors = torch.zeros(vocab_size, num_neighbors, dtype=torch.int32)
    similarities = torch.zeros(vocab_size, num_neighbors)
    block = max(1, MAX_BLOCK // vocab_size)
    for start in tqdm(range(0, vocab_size, block), desc="item-kNN", unit="block", disable=not progress):
        stop = min(vocab_size, start + block)
        low, high = torch.searchsorted(item_rows, torch.tensor([start, stop])).tolist()
        indices = torch.stack([item_rows[low:high] - start, item_users[low:high]])
        by_item = torch.sparse_coo_tensor(indices, ones[low:high], (stop - start, num_users), is_coalesced=True)
        together = torch.sparse.mm(by_item, by_user).to_dense()
        together /= (frequency[start:stop, None] * frequency).sqrt().add_(shrink).clamp_min_(1e-12)
        together[torch.arange(stop - start), torch.arange(start, stop)] = 0.0
        best = together.topk(num_neighbors, dim=1)
        neighbors[start:stop] = best.indices
        similarities[start:stop] = best.values
    return neighbors, similarities
