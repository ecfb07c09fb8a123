"""Item embeddings that begin where co-occurrence puts the items, for data too sparse to find that out step by step.

The factors of the positive pointwise mutual information of items that stand near each other in histories, which is
what word2vec's embeddings approximate (Levy and Goldberg, "Neural Word Embedding as Implicit Matrix Factorization",
NeurIPS 2014).

`NeighborSmoothing` lets them lean on those near them while they are trained too.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn

from ..data.histories import arrow_view, flat_histories
from ..errors import DataError
from ..machine import one_thread
from .item_table import parameter_of

__all__ = ["NeighborSmoothing", "cooccurrence_embeddings", "near_pairs", "neighbors", "start_from_cooccurrence"]

REACH = 5  # places between two items that still count as near; a pair n places apart counts 1 / n
ITERATIONS = 6  # of the subspace iteration; the spectrum falls slowly
LATENT = "latent"  # the name of E in the optimizer's state, and so in its checkpoints


def sparse(places: Tensor, values: Tensor, size: int) -> Tensor:
    """A square matrix out of (2, n) places, those of one place added up."""
    return torch.sparse_coo_tensor(places, values, (size, size), check_invariants=True).coalesce()


def compressed(matrix: Tensor) -> Tensor:
    """A sparse matrix as it multiplies three times faster, where it can."""
    if not torch.backends.mkl.is_available():  # only MKL multiplies by compressed rows everywhere
        return matrix
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return matrix.to_sparse_csr()


def near_pairs(split: Dataset, vocab_size: int) -> Tensor:
    """How often two items stand near each other in histories.

    Args:
        split: Histories, the column `item_ids`.
        vocab_size: Rows and columns.

    Returns:
        Sparse float32 (vocab_size, vocab_size), symmetric.

    Raises:
        DataError: An item is outside the vocabulary.
    """
    flat, lengths = flat_histories(arrow_view(split, ["item_ids"])[:])
    if len(flat) and not 0 < flat.min() <= flat.max() < vocab_size:
        raise DataError(f"a history holds an item outside 1…{vocab_size - 1}: the data and the model do not fit")
    items, history = torch.from_numpy(flat), torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths))
    counts = sparse(torch.zeros(2, 0, dtype=torch.long), torch.zeros(0), vocab_size)
    for distance in range(1, REACH + 1):
        same = history[distance:] == history[:-distance]
        pairs = torch.stack((items[:-distance][same], items[distance:][same]))
        ones = torch.full((pairs.shape[1],), 1 / distance)
        counts = counts + sparse(pairs, ones, vocab_size)
    return (counts + counts.T).coalesce()


def cooccurrence_embeddings(counts: Tensor, size: int) -> Tensor:
    """Factors of the items' positive pointwise mutual information, of mean square 1 over the items that have near ones.

    Args:
        counts: Sparse (vocab_size, vocab_size), see `near_pairs`.
        size: Columns; where there are fewer items, the last are zero.

    Returns:
        float32 (vocab_size, size); the rows of items that stand near no other are about zero.
    """
    vocab_size = counts.shape[0]
    embeddings = torch.zeros(vocab_size, size)
    sums = counts.sum(1).to_dense()
    first, second = counts.indices()
    information = (counts.values() * sums.sum() / (sums[first] * sums[second])).log()
    kept = information > 0
    if not bool(kept.any()):
        return embeddings
    matrix = compressed(sparse(counts.indices()[:, kept], information[kept], vocab_size))
    with one_thread():
        left, strength, _ = torch.svd_lowrank(matrix, q=min(size, vocab_size), niter=ITERATIONS)
    embeddings[:, : left.shape[1]] = left * strength.sqrt()
    return embeddings / embeddings[sums > 0].square().mean().sqrt()  # not the deviation: signs of columns are chance


@torch.no_grad()
def start_from_cooccurrence(table: nn.Embedding, counts: Tensor, share: float) -> None:
    """Puts co-occurrence into new item embeddings, whose variance stays what it was; the padding row stays too.

    Args:
        table: (vocab_size, size), as the model made it.
        counts: Sparse (vocab_size, vocab_size), see `near_pairs`.
        share: Share of the variance that comes from co-occurrence, above 0 to 1; the rest is the random start.
    """
    weight = table.weight[1:]
    found = cooccurrence_embeddings(counts, table.embedding_dim)[1:].to(weight)
    weight.copy_(share**0.5 * weight.std() * found + (1 - share) ** 0.5 * weight)


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

    A is the matrix of near pairs divided by the root of both items' sums: one layer of LightGCN's propagation (He et
    al., "LightGCN", SIGIR 2020, equation 3) over items instead of users and items. So an item that is seldom a target
    moves with those that it stands beside. `W` is an ordinary table: nothing of this is left in the trained model, and
    serving it costs nothing.

    Args:
        table: (vocab_size, size); what it holds now is the first E, and W stands there afterwards. Of a table with
            features (`add_features`) these are the free vectors.
        matrix: A, (vocab_size, vocab_size), symmetric; see `neighbors`.
        weight: Above 0. At 1 an item's neighbours together count about as much as the item.
    """

    def __init__(self, table: nn.Embedding, matrix: Tensor, weight: float) -> None:
        self.table, self.matrix, self.weight = table, compressed(matrix), weight
        self._parameter = parameter_of(table)
        self._latent = self._parameter.detach().clone()
        with torch.no_grad():
            self._parameter.copy_(self._smooth(self._parameter))

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
        parameter = self._parameter
        # Not left in the state: an optimizer takes a parameter with a state for one that it has moved before.
        self._latent = optimizer.state[parameter].pop(LATENT, self._latent).to(parameter.device)
        parameter.copy_(self._latent)
        if parameter.grad is not None:
            parameter.grad = self._smooth(parameter.grad)

    @torch.no_grad()
    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        parameter = self._parameter
        optimizer.state[parameter][LATENT] = self._latent.copy_(parameter)
        parameter.copy_(self._smooth(parameter))
