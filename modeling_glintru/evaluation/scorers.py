"""Scorers of all items after a history: a model, popularity, the own items of the user, nearest neighbours."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from ..data.histories import iterate_flat_histories
from ..errors import DataError, GlintRUError
from ..models.configuration_glintru import check_knows_time
from .ranking import check_indices

__all__ = ["ItemKNNScorer", "ModelScorer", "OwnItemsScorer", "PopularityScorer", "Scorer"]

ORDERS = ("newest", "frequent")
MAX_BLOCK = 2**24  # The similarities that are in memory at one time: 64 MB in float32.


class Scorer(Protocol):
    """What `evaluate` calls: a model or a baseline that scores all items after each history.

    A scorer whose attribute `needs_time_gaps` is true is also given the time from each history's last item to the
    request, float32 (B,).
    """

    def __call__(self, histories: Sequence[np.ndarray]) -> Tensor:
        """Scores of all items, float32 (B, vocab_size); column 0 is ignored.

        `histories` are B integer arrays of item indices, each the full chronological history; it may be empty.
        """
        ...


class ModelScorer:
    """Scores with a model whose `forward(input_ids, attention_mask)` returns `.logits`, (B, vocab_size).

    The model runs in eval mode without gradients on its own device, and afterwards is in training mode again if it was
    before. For autocast, wrap the call to `evaluate`.

    Args:
        model: The model, for example `GlintRUForSequentialRecommendation`.
        max_length: How many of the newest items of a history the model sees, at least 1.
        time_gaps: Whether the model is given the time of the request; by default where its config has `use_time_gaps`.

    Raises:
        GlintRUError: `max_length` is below 1, or the model knows no times.
    """

    def __init__(self, model: nn.Module, max_length: int, *, time_gaps: bool | None = None) -> None:
        if max_length < 1:
            raise GlintRUError(f"max_length must be at least 1, found {max_length}")
        self.model = model
        self.max_length = max_length
        if time_gaps:
            check_knows_time(model)
        if time_gaps is None:
            time_gaps = bool(getattr(getattr(model, "config", None), "use_time_gaps", False))
        self.needs_time_gaps = time_gaps

    def __call__(self, histories: Sequence[np.ndarray], time_gaps: np.ndarray | None = None) -> Tensor:
        """Scores as in `Scorer`; `time_gaps` are times from each last item to the request, float (B,), or None."""
        newest = [torch.from_numpy(history[-self.max_length :].astype(np.int64)) for history in histories]
        input_ids = pad_sequence([*newest, torch.zeros(1, dtype=torch.int64)], batch_first=True)[:-1]
        input_ids = input_ids.to(next(self.model.parameters()).device)
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        try:
            with torch.inference_mode():
                timed = {} if time_gaps is None else {"time_gaps": torch.from_numpy(time_gaps).to(input_ids.device)}
                output = self.model(input_ids=input_ids, attention_mask=(input_ids != 0).long(), **timed)
        finally:
            for module in training:  # One by one, because the user may have put a part of the model into eval mode.
                module.training = True
        return output.logits.float()


class PopularityScorer:
    """Scores each item with its number of occurrences in the training histories.

    Args:
        item_counts: Occurrences in the training histories alone, integer, (vocab_size,); index 0 is padding.

    Raises:
        DataError: The counts have another shape.
    """

    def __init__(self, item_counts: np.ndarray) -> None:
        counts = np.asarray(item_counts)
        if counts.ndim != 1 or len(counts) < 2:
            raise DataError(f"item_counts must be one count for each item index, found shape {counts.shape}")
        self.scores = torch.from_numpy(counts.astype(np.float32))
        self.scores[0] = -torch.inf

    def __call__(self, histories: Sequence[np.ndarray]) -> Tensor:
        """Scores as in `Scorer`; they are a view of one row and take no memory."""
        return self.scores.expand(len(histories), -1)


class OwnItemsScorer:
    """Ranks the user's own past items first, and all others behind them by popularity.

    It needs no training, and it is hard to beat where people come back to the same items (for next baskets see Hu, He,
    Gao and Zhang, "Modeling Personalized Item Frequency Information for Next-basket Recommendation", SIGIR 2020).

    Args:
        item_counts: Occurrences in the training histories, integer, (vocab_size,); index 0 is padding.
        order: With `"newest"` the item that the user took last comes first. With `"frequent"` the item that the user
            took most often comes first, and of items taken equally often the one that was taken last.

    Raises:
        DataError: The order is another one, or the counts have another shape.
    """

    def __init__(self, item_counts: np.ndarray, order: str = "frequent") -> None:
        if order not in ORDERS:
            raise DataError(f"order must be one of {', '.join(map(repr, ORDERS))}, found {order!r}")
        self.order = order
        popularity = PopularityScorer(item_counts).scores
        # These scores are below 1 and those of own items above it.
        self.others = (popularity / (popularity[1:].max() + 1)).double()

    def __call__(self, histories: Sequence[np.ndarray]) -> Tensor:
        """Scores as in `Scorer`, but float64, because one number holds both the count and the place of an item."""
        scores = self.others.repeat(len(histories), 1)
        for row, history in enumerate(histories):
            # In the reversed history the first place of an item is its newest.
            items, places, counts = np.unique(history[::-1], return_index=True, return_counts=True)
            newness = len(history) - places.astype(np.float64)  # 1 at the oldest place
            own = newness if self.order == "newest" else counts + newness / (len(history) + 1)
            scores[row, items] = torch.from_numpy(own + 1)
        return scores


class ItemKNNScorer:
    """Scores each item with the sum of its similarities to the distinct items of the history.

    With U(i) the set of users who took item i in training,

        similarity(i, j) = |U(i) and U(j)| / (sqrt(|U(i)| |U(j)|) + shrink),   similarity(i, i) = 0,
        s(j) = sum over the history's items i of similarity(i, j) if j is among the num_neighbors nearest of i.

    Source: Deshpande and Karypis, "Item-based top-N recommendation algorithms", ACM TOIS 2004 (cosine similarity,
    k nearest of each item); the shrink term as in Ferrari Dacrema, Cremonesi and Jannach, "Are we really making much
    progress?", RecSys 2019.

    Building needs about 40 bytes for each distinct pair of a user and an item and a block of at most 2**24
    similarities; the scorer then holds 8 bytes * vocab_size * num_neighbors.

    Args:
        train_split: Rows `{item_ids}`, the training histories.
        vocab_size: Number of items + 1.
        num_neighbors: How many neighbours each item has.
        shrink: Makes similarities smaller that are based on few users; at least 0. The default was chosen on the
            validation splits of ML-1M, Beauty and Video Games.
        progress: Whether to show a progress bar while building.

    Raises:
        DataError: An argument is out of range, there is no training interaction, or an item index is out of range.
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
        """Scores as in `Scorer`; all of them are 0 after a history without items."""
        scores = torch.zeros(len(histories), self.vocab_size)
        for row, history in enumerate(histories):
            items = torch.from_numpy(np.unique(history).astype(np.int64))
            check_indices(items, self.vocab_size, "an item of a history")
            scores[row].index_add_(0, self.neighbors[items].flatten(), self.similarities[items].flatten())
        return scores


def _distinct_pairs(train_split: Dataset, vocab_size: int) -> tuple[Tensor, Tensor]:
    """The distinct pairs of a user's number and an item index, each int64 (num_pairs,), in the order of the users."""
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
    """The neighbours (int32) and similarities (float32) of each item, both (vocab_size, num_neighbors)."""
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
