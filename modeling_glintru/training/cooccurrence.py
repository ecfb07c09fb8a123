"""Item embeddings that begin where co-occurrence puts the items, for data too sparse to find that out step by step.

The factors of the positive pointwise mutual information of items that stand near each other in histories, which is
what word2vec's embeddings approximate (Levy and Goldberg, "Neural Word Embedding as Implicit Matrix Factorization",
NeurIPS 2014).
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn

from ..data.histories import arrow_view, flat_histories

__all__ = ["cooccurrence_embeddings", "near_pairs", "start_from_cooccurrence"]

REACH = 5  # places between two items that still count as near; a pair n places apart counts 1 / n
ITERATIONS = 6  # of the subspace iteration; the spectrum falls slowly


def sparse(places: Tensor, values: Tensor, size: int) -> Tensor:
    """A square matrix out of (2, n) places, those of one place added up."""
    return torch.sparse_coo_tensor(places, values, (size, size), check_invariants=False).coalesce()


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
    """
    flat, lengths = flat_histories(arrow_view(split, ["item_ids"])[:])
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
