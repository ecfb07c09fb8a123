"""Item embeddings that lean on those of the items near them, for data too sparse to learn each item by itself.

The model has `W = (I + weight * A) E` and training moves `E`, where A is the matrix of near pairs divided by the root
of both items' sums: one layer of LightGCN's propagation (He et al., "LightGCN", SIGIR 2020, equation 3) over items
instead of users and items. So an item that is seldom a target moves with those that it stands beside. `W` is an
ordinary table: nothing of this is left in the trained model, and serving it costs nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .cooccurrence import compressed, sparse

__all__ = ["NeighborSmoothing", "neighbors"]

LATENT = "latent"  # the name of E in the optimizer's state, and so in its checkpoints


def neighbors(counts: Tensor) -> Tensor:
    """A: near pairs of different items, symmetrically normalised; its largest eigenvalue is 1.

    Args:
        counts: Sparse (vocab_size, vocab_size), see `cooccurrence.near_pairs`.

    Returns:
        Sparse float32 (vocab_size, vocab_size); zero for items that stand near no other.
    """
    vocab_size = counts.shape[0]
    places = counts.indices()
    others = places[0] != places[1]
    places, values = places[:, others], counts.values()[others]
    roots = torch.zeros(vocab_size).index_add_(0, places[0], values).sqrt()
    return sparse(places, values / (roots[places[0]] * roots[places[1]]), vocab_size)


class NeighborSmoothing:
    """Keeps `W = (I + weight * A) E` in an embedding, while an optimizer moves E by the gradient that E has.

    Args:
        table: (vocab_size, size); what it holds now is the first E, and W stands there afterwards.
        matrix: A, (vocab_size, vocab_size), symmetric; see `neighbors`.
        weight: Above 0. At 1 an item's neighbours together count about as much as the item.
    """

    def __init__(self, table: nn.Embedding, matrix: Tensor, weight: float) -> None:
        self.table, self.matrix, self.weight = table, compressed(matrix), weight
        self._latent = table.weight.detach().clone()
        with torch.no_grad():
            table.weight.copy_(self._smooth(table.weight))

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Lets the optimizer move E. Its state gets the tensor `"latent"`, so that a loaded state goes on with it."""
        optimizer.register_step_pre_hook(self._before_step)
        optimizer.register_step_post_hook(self._after_step)

    def _smooth(self, x: Tensor) -> Tensor:
        """`(I + weight * A) x`; A is symmetric, so this takes values forward and gradients back."""
        if self.matrix.device != x.device:
            self.matrix = self.matrix.to(x.device)
        # In place: tables of this size are most of what a step holds.
        return (self.matrix @ x.float()).mul_(self.weight).to(x.dtype).add_(x)

    @torch.no_grad()
    def _before_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        parameter = self.table.weight
        # Not left in the state: an optimizer takes a parameter with a state for one that it has moved before.
        self._latent = optimizer.state[parameter].pop(LATENT, self._latent).to(parameter.device)
        parameter.copy_(self._latent)
        if parameter.grad is not None:
            parameter.grad = self._smooth(parameter.grad)

    @torch.no_grad()
    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        parameter = self.table.weight
        optimizer.state[parameter][LATENT] = self._latent.copy_(parameter)
        parameter.copy_(self._smooth(parameter))
