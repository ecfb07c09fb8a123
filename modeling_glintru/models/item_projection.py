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

__all__ = ["PROJECTION_FILE", "ItemProjection"]

PROJECTION_FILE = "item_projection.safetensors"


class ItemProjection:
    """A linear map from features to rows of the item table.

    Args:
        weight: float32 (width, hidden_size).
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

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

    def rows(self, features: Tensor) -> Tensor:
        """(n, hidden_size) rows of items with (n, width) features.

        Raises:
            GlintRUError: The features have another width.
        """
        if features.shape[-1] != len(self.weight):
            raise GlintRUError(f"item features must have width {len(self.weight)}, got {features.shape[-1]}")
        return features.to(self.weight) @ self.weight

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes `item_projection.safetensors`."""
        save_file({"weight": self.weight.contiguous()}, Path(folder) / PROJECTION_FILE)

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
            weight = load_file(file)["weight"]
        except (OSError, SafetensorError, KeyError) as error:
            raise GlintRUError(f"{file} is damaged: {error}") from error
        if weight.ndim != 2 or not weight.isfinite().all():
            raise GlintRUError(f"{file} is damaged: it must hold a finite matrix")
        return cls(weight)
