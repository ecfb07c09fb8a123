"""Scorers are callables from histories to scores: of a model, of popularity, of past items, and of neighbours."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..data.histories import iterate_flat_histories
from ..errors import DataError, GlintRUError
from ..models.configuration_glintru import check_knows_time

__all__ = ["ItemKNNScorer", "ModelScorer", "OwnItemsScorer", "PopularityScorer", "Scorer"]

ORDERS = ("newest", "frequent")
MAX_BLOCK = 2**24  # similarities held at once: 64 MB in float32


class Scorer(Protocol):
    """Anything that scores all items after each history; models and baselines alike.

    One with a true `needs_time_gaps` is called with a further float32 array, (B,): the time from each history's last
    item to the request.
    """

    def __call__(self, histories: Sequence[np.ndarray]) -> Tensor:
        """Scores of all items.

        Args:
            histories: B integer arrays of item indices, each the full chronological history; one may be empty.

        Returns:
            float32 (B, vocab_size); column 0 is ignored.
        """
        ...


class ModelScorer:
    """Scores with a model whose `forward(input_ids, attention_mask)` returns `.logits`, (B, vocab_size).

    The model runs in eval mode without gradients, on the device where it is, and gets its training mode back.
    Autocast is the caller's: wrap the call to `evaluate` in it.

    Args:
        model: The model, for example `GlintRUForSequentialRecommendation`.
        max_length: The newest items of a history that the model sees, at least 1.
        time_gaps: Whether `evaluate` is to give the time of the request; by default where the model has
            `use_time_gaps`. False measures such a model without.
    """

    def __init__(self, model: nn.Module, max_length: int, *, time_gaps: bool | None = None) -> None:
        if max_length < 1:
            raise GlintRUError(f"max_length must be at least 1, found {max_length}")
        self.model = model
        self.max_length = max_length
        if time_gaps:
            check_knows_time(model)
        able = bool(getattr(getattr(model, "config", None), "use_time_gaps", False))
        self.needs_time_gaps = able if time_gaps is None else time_gaps

    def __call__(self, histories: Sequence[np.ndarray], time_gaps: np.ndarray | None = None) -> Tensor:
        """See `Scorer`; rows are padded with 0 on the right, a row without items is all padding.

        Args:
            histories: As `Scorer`.
            time_gaps: float (B,), from each last item to the request; None where nothing is known of it.
        """
        input_ids = torch.from_numpy(self._pad([history[-self.max_length :] for history in histories]))
        input_ids = input_ids.to(next(self.model.parameters()).device)
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        try:
            with torch.inference_mode():
                timed = {} if time_gaps is None else {"time_gaps": torch.from_numpy(time_gaps).to(input_ids.device)}
                output = self.model(input_ids=input_ids, attention_mask=(input_ids != 0).long(), **timed)
        finally:
            for module in training:  # each by itself: a part may have been in eval mode on purpose
                module.training = True
        return output.logits.float()

    @staticmethod
    def _pad(histories: list[np.ndarray]) -> np.ndarray:
        """int64 (B, longest), at least one column."""
        padded = np.zeros((len(histories), max([1, *(len(history) for history in histories)])), dtype=np.int64)
        for row, history in enumerate(histories):
            padded[row, : len(history)] = history
        return padded


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
