"""The rank of a target among all items, or among a sample of them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import DataError

__all__ = ["MISSED", "rank_among", "rank_targets"]

MISSED = 2**31 - 1  # the rank of a target that cannot be recommended, behind every cutoff


def rank_targets(scores: Tensor, targets: Tensor, exclude: Tensor | None = None) -> Tensor:
    """The rank of each row's target among all items; 1 is the best.

    An item stands before the target unless its score is strictly lower. Hence ties count against the model, and so
    does NaN, on either side. Index 0 (padding) never stands in the ranking.

    Args:
        scores: Scores of all items, any float dtype, (B, vocab_size). Not changed.
        targets: Item indices 1…vocab_size-1, integer, (B,).
        exclude: Item indices that are not recommended, integer, (B, S), padded with 0; repeats are harmless. A target
            among them is never recommended, so its rank is `MISSED`.

    Returns:
        int64 ranks, (B,), on the device of `scores`.

    Raises:
        DataError: When a shape does not fit, or an index is outside the columns of `scores`.
    """
    targets = _checked_targets(scores, targets)
    before = ~(scores < scores.gather(1, targets))  # not (a < b), so that ties and NaN land here
    missed = torch.zeros_like(targets, dtype=torch.bool)
    if exclude is not None and exclude.numel():
        exclude = _checked_indices(scores, exclude, "an excluded item")
        before.scatter_(1, exclude, False)
        missed = (exclude == targets).any(dim=1, keepdim=True)
    before[:, 0] = False
    before.scatter_(1, targets, False)
    return (before.sum(dim=1, keepdim=True) + 1).masked_fill(missed, MISSED).squeeze(1)


def rank_among(scores: Tensor, targets: Tensor, candidates: Tensor) -> Tensor:
    """The rank of each row's target among a sample of items; 1 is the best.

    A candidate that was drawn twice counts once, as in RecBole, which writes the sample into one row of scores.
    Ties, NaN and index 0 are treated as in `rank_targets`.

    Args:
        scores: Scores of all items, any float dtype, (B, vocab_size).
        targets: Item indices, integer, (B,).
        candidates: Item indices, integer, (B, N); 0 is padding.

    Returns:
        int64 ranks, (B,), from 1 to N + 1.
    """
    targets = _checked_targets(scores, targets)
    candidates = _checked_indices(scores, candidates, "a sampled item").sort(dim=1).values
    before = ~(scores.gather(1, candidates) < scores.gather(1, targets))
    before[:, 1:] &= candidates[:, 1:] != candidates[:, :-1]
    before &= (candidates != 0) & (candidates != targets)
    return before.sum(dim=1) + 1


def _checked_targets(scores: Tensor, targets: Tensor) -> Tensor:
    if scores.ndim != 2 or targets.shape != scores.shape[:1]:
        raise DataError(
            f"scores must be (rows, vocab_size) and targets (rows,), not {tuple(scores.shape)} and "
            f"{tuple(targets.shape)}; give one row of scores for each target"
        )
    targets = _checked_indices(scores, targets, "a target")
    if bool((targets == 0).any()):
        raise DataError("a target has index 0, which is padding; items are 1…vocab_size-1")
    return targets.unsqueeze(1)


def _checked_indices(scores: Tensor, indices: Tensor, what: str) -> Tensor:
    indices = indices.to(device=scores.device, dtype=torch.int64)
    outside = (indices < 0) | (indices >= scores.shape[1])
    if bool(outside.any()):
        raise DataError(
            f"{what} has index {int(indices[outside][0])}, outside 0…{scores.shape[1] - 1}: "
            "the split and the model come from different vocabularies"
        )
    return indices
