"""Item rows that are a free vector and a projection of the item's features, while a model is trained.

What is trained so is saved as a plain table: nothing of it is left when a model is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel

from ..data.item_features import ItemFeatures
from ..models.head_glintru import last_item
from ..models.item_projection import ItemProjection
from ..models.processing_glintru import padded

__all__ = ["add_features", "has_features", "made_once", "materialise", "mean_query", "parameter_of", "projection_of"]


class FeaturedRows(nn.Module):
    """The table as a function of its free vectors: `free + scaled features @ projection`.

    Features are scaled by the root of their width: the numbers of a vector of length 1 are small, and AdamW, whose
    steps do not depend on that, would move what is made of them much more slowly than the free vectors.

    Args:
        features: float32 (vocab_size, width); zeros for the padding and for items without features.
        start: Where the projection begins.
    """

    def __init__(self, features: Tensor, start: ItemProjection) -> None:
        super().__init__()
        scale = features.shape[1] ** 0.5
        self.register_buffer("features", features * scale, persistent=False)
        # Contiguous, as the moments in a checkpoint are: fused optimizers take both for the same order of numbers.
        self.projection = nn.Parameter((start.weight.to(features) / scale).contiguous())

    def forward(self, free: Tensor) -> Tensor:
        with torch.autocast(free.device.type, enabled=False):  # the table itself is in full precision
            return torch.addmm(free, cast(Tensor, self.features), self.projection)


@torch.no_grad()
def add_features(
    table: nn.Embedding, features: ItemFeatures, counts: np.ndarray, start: ItemProjection | None = None
) -> None:
    """Lets each row of a new table be its free vector and a projection of the item's features.

    Args:
        table: (vocab_size, size), as the training begins with it.
        features: Of its items.
        counts: (vocab_size,) how often each item was taken.
        start: Where the projection begins. Without one it begins with what the features say of the table, which stays
            as it is: the free vectors are the rest.
    """
    matrix = torch.from_numpy(features.matrix).to(table.weight)
    if start is None:
        start = projection_of(table, features, counts)
        table.weight -= start.rows(matrix).to(table.weight)
    parametrize.register_parametrization(table, "weight", FeaturedRows(matrix, start))


def projection_of(table: nn.Embedding, features: ItemFeatures, counts: np.ndarray) -> ItemProjection:
    """What the features of the items say of a table, by which new items get rows; arguments as of `add_features`."""
    known = np.flatnonzero(features.known)
    taken, matrix = torch.from_numpy(counts[known]), torch.from_numpy(features.matrix[known])
    return ItemProjection.fit(matrix, table.weight.detach().cpu()[known], taken)


@torch.no_grad()
def mean_query(model: PreTrainedModel, histories: Dataset, max_length: int) -> Tensor:
    """The direction in which what a model asks for lies on average: (hidden_size,) float32 of length 1.

    Args:
        model: A recommender of this package, trained.
        histories: The column `item_ids`; at most 1,000 of them are read, evenly spread.
        max_length: Items of a history that the model reads.
    """
    model.eval()
    total = torch.zeros(model.config.hidden_size)
    places = np.unique(np.linspace(0, len(histories) - 1, 1000).astype(int))
    for batch in histories.select(places).iter(64):
        ids = torch.from_numpy(padded([np.asarray(row[-max_length:]) for row in batch["item_ids"]]))
        ids = ids.to(model.device)
        hidden = last_item(model(input_ids=ids).last_hidden_state, ids != 0)
        total += nn.functional.normalize(hidden.float(), dim=-1).sum(0).cpu()
    return nn.functional.normalize(total, dim=0)


def has_features(table: Any) -> bool:
    """Whether `add_features` was called with this table, and `materialise` not yet."""
    return isinstance(table, nn.Module) and parametrize.is_parametrized(table, "weight")


def parameter_of(table: nn.Embedding) -> nn.Parameter:
    """What an optimizer moves of a table: its free vectors where it has features, otherwise the table itself."""
    if not has_features(table):
        return cast(nn.Parameter, table.weight)
    return cast(Any, table).parametrizations.weight.original


@contextmanager
def made_once(table: Any) -> Iterator[None]:
    """Within the block the table is made once, not each time that somebody looks at it."""
    if has_features(table):
        with parametrize.cached():
            yield
    else:
        yield


def materialise(table: nn.Embedding) -> None:
    """Makes an ordinary table of one with features; does nothing to another one."""
    if has_features(table):
        parametrize.remove_parametrizations(table, "weight", leave_parametrized=True)
