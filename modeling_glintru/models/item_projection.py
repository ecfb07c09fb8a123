"""From the features of an item to its row in the item table: what recommends an item that nobody has taken yet.

This file does not travel to the Hub: what is saved with a model is a plain table, and this beside it for new items.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .configuration_glintru import GlintRUError

__all__ = ["BOOST", "PROJECTION_FILE", "ItemProjection"]

PROJECTION_FILE = "item_projection.safetensors"
BOOST = 0.05  # known items lose 3 % to new ones that compete with them (docs/items.md has a table)


class ItemProjection:
    """A linear map from features to rows of the item table.

    Args:
        weight: float32 (width, hidden_size).
        query: float32 (hidden_size,), the direction of the representations of histories on average; None where it is
            not known.
    """

    def __init__(self, weight: Tensor, query: Tensor | None = None) -> None:
        self.weight, self.query = weight, query

    @classmethod
    @torch.no_grad()
    def fit(cls, features: Tensor, table: Tensor, counts: Tensor) -> ItemProjection:
        """The ridge regression of a trained table on the features of its items.

        An item weighs as much as it was taken, since the row of an item that is seldom taken is mostly chance. The
        ridge is as strong as the features' mean square: without it, directions in which features hardly differ would
        decide (`benchmarks/cold_items.py`).

        Args:
            features: (n, width).
            table: (n, hidden_size).
            counts: (n,) how often each item was taken.
        """
        x, y, weights = features.double(), table.double(), counts.double()[:, None] / counts.double().mean()
        moments = x.T @ (weights * x)
        ridge = moments.diagonal().mean().clamp_min(1e-12) * torch.eye(len(moments), dtype=torch.float64)
        return cls(torch.linalg.solve(moments + ridge, x.T @ (weights * y)).float())

    def rows(self, features: Tensor, boost: float = 0.0) -> Tensor:
        """(n, hidden_size) rows of items.

        Args:
            features: (n, width).
            boost: How much they are turned to what histories ask for on average, as a share of their length. A row
                that was never trained is too far from it: with 0 the new items are rarely among the first.

        Raises:
            GlintRUError: The features have another width, or `boost` is not between 0 and 1.
        """
        if features.shape[-1] != len(self.weight):
            raise GlintRUError(f"item features must have width {len(self.weight)}, got {features.shape[-1]}")
        if not 0 <= boost <= 1:
            raise GlintRUError(f"boost must be between 0 and 1, got {boost}")
        rows = features.to(self.weight) @ self.weight
        if self.query is None:
            return rows
        return rows + boost * rows.norm(dim=-1, keepdim=True) * self.query

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes `item_projection.safetensors`."""
        tensors = {"weight": self.weight} | ({} if self.query is None else {"query": self.query})
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, Path(folder) / PROJECTION_FILE)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> ItemProjection | None:
        """What `save` wrote, None where there is no such file.

        Raises:
            GlintRUError: The file is damaged.
        """
        file = Path(folder) / PROJECTION_FILE
        if not file.is_file():
            return None
        try:
            tensors = load_file(file)
            weight, query = tensors["weight"], tensors.get("query")
        except (OSError, SafetensorError, KeyError) as error:
            raise GlintRUError(f"{file} is damaged: {error}") from error
        fits = weight.ndim == 2 and (query is None or query.shape == weight.shape[1:])
        if not fits or not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise GlintRUError(f"{file} is damaged: it must hold a finite matrix and a vector of its rows' size")
        return cls(weight, query)
