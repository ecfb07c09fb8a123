"""A vocabulary that grows: room for new items in a model and in its processor.

This file does not travel to the Hub. `model.add_items` and `processor.add_items` call it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .configuration_glintru import GlintRUError
from .processing_glintru import as_list, checked_ids

__all__ = ["INITIALISATIONS", "add_ids", "add_items", "neighbour_means"]

INITIALISATIONS = ("neighbours", "mean")  # of the embeddings of new items


def add_ids(processor: Any, item_ids: Any, item_titles: Any = None) -> int:
    """Adds those of the distinct raw ids that are not there yet, behind all others, which keep their indices.

    Args:
        processor: A `GlintRUProcessor`.
        item_ids: Raw ids.
        item_titles: Mapping from raw id to title.

    Returns:
        How many ids were new, which `model.add_items` wants to know.

    Raises:
        VocabularyError: Ids of another type, or the same new id twice.
    """
    given = processor._of_own_type(checked_ids(as_list(item_ids)))
    new = [raw for raw in given if raw not in processor]
    if not new:
        return 0
    titles = [*(processor.item_titles or [None] * len(processor)), *((item_titles or {}).get(raw) for raw in new)]
    # Built anew and checked as a whole: a refused id leaves the processor as it was.
    grown = type(processor)([*processor.item_ids, *new], titles)
    counts = processor.item_counts
    for name in ("_item_ids", "_index", "_item_titles"):
        setattr(processor, name, getattr(grown, name))
    processor.item_counts = None if counts is None else np.concatenate([counts, np.zeros(len(new), np.int64)])
    return len(new)


@torch.no_grad()
def add_items(model: Any, num_new: int, init: str | Tensor, histories: Iterable[Sequence[int]] | None) -> None:
    """Makes room for items that were added to the processor: their rows come after those that are there.

    Rows of old items and representations of histories stay bit for bit, and with them the scores of old items (to the
    last bit, which the kernel of the matrix product may choose by the number of items).

    Args:
        model: Any recommender of this package.
        num_new: How many; `processor.add_items` gives the number.
        init: Where the new embeddings begin: `"neighbours"`, the mean of the known items that stand directly before and
            after the item in `histories` (of all known items where there is none); `"mean"`, the mean of all known
            items; or the embeddings themselves, (num_new, hidden_size).
        histories: For `"neighbours"`: item indices of the grown vocabulary, oldest first.

    Raises:
        GlintRUError: `num_new` below 0, an unknown `init` or one of another shape, or histories are missing.

    Example:
        >>> model.add_items(processor.add_items(["sku-17", "sku-18"]))
    """
    if num_new < 0:
        raise GlintRUError(f"num_new must be at least 0, got {num_new}")
    embedding = model.get_input_embeddings()
    rows = new_rows(embedding.weight, num_new, init, histories)
    if num_new == 0:
        return
    if hasattr(model.config, "states_vocab_size"):  # the state of a history without new items stays what it is
        model.config.states_vocab_size = model.config.states_vocab_size or embedding.num_embeddings
    # A new parameter: one whose data was exchanged would have the old shape for a graph that is still alive.
    embedding.weight = nn.Parameter(torch.cat([embedding.weight, rows]), embedding.weight.requires_grad)
    model.config.vocab_size = embedding.num_embeddings = len(embedding.weight)


def new_rows(weight: Tensor, num_new: int, init: str | Tensor, histories: Iterable[Sequence[int]] | None) -> Tensor:
    """(num_new, size) embeddings of new items; the other arguments and the errors are those of `add_items`."""
    if isinstance(init, Tensor):
        if init.shape != (num_new, weight.shape[1]):
            raise GlintRUError(
                f"init must have one row for each new item, {(num_new, weight.shape[1])}, got {tuple(init.shape)}"
            )
        if not init.isfinite().all():
            raise GlintRUError("init holds numbers that are not finite")
        return init.detach().to(weight)
    if init not in INITIALISATIONS:
        raise GlintRUError(f"init must be one of {', '.join(INITIALISATIONS)}, or a tensor; got {init!r}")
    if init == "neighbours" and histories is None:
        raise GlintRUError("init 'neighbours' needs histories=, in which the new items have neighbours; or take 'mean'")
    return neighbour_means(weight, histories if init == "neighbours" and histories is not None else [], num_new)


def neighbour_means(weight: Tensor, histories: Iterable[Sequence[int]], num_new: int) -> Tensor:
    """For each new item the mean embedding of the known items that stand directly before and after it.

    Args:
        weight: (known, size) embeddings; index 0 is padding, and the new items have the indices from `known` on.
        histories: Item indices, oldest first. An item counts as often as it is a neighbour.
        num_new: How many new items there are.

    Returns:
        (num_new, size) in the dtype of `weight`. An item without a known neighbour gets the mean of all known items.
    """
    known = len(weight)
    new, beside = [], []
    for history in histories:
        items = np.asarray(history, np.int64)
        for here, there in ((items[1:], items[:-1]), (items[:-1], items[1:])):
            pairs = (here >= known) & (there > 0) & (there < known)
            new.append(here[pairs] - known)
            beside.append(there[pairs])
    places = torch.from_numpy(np.concatenate([*new, np.zeros(0, np.int64)])).to(weight.device)
    neighbours = torch.from_numpy(np.concatenate([*beside, np.zeros(0, np.int64)])).to(weight.device)
    counts = torch.bincount(places, minlength=num_new)[:num_new, None]
    sums = torch.zeros(num_new, weight.shape[1], device=weight.device)
    for part, rows in zip(places.split(2**16), neighbours.split(2**16), strict=True):
        sums.index_add_(0, part, weight[rows].float())
    means = torch.where(counts > 0, sums / counts.clamp_min(1), weight[1:].float().mean(0))
    return means.to(weight.dtype)
