"""The rank of a target among all items, or among a seeded sample of them (a protocol)."""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import Tensor

from ..data.batches import IGNORED_LABEL
from ..errors import DataError

__all__ = ["MISSED", "NegativeSampler", "parse_protocol", "rank_among", "rank_targets", "target_ranks", "uniform_draws"]

MISSED = 2**31 - 1  # The rank of a target that cannot be recommended; it is behind every cutoff.


def rank_targets(scores: Tensor, targets: Tensor, exclude: Tensor | None = None) -> Tensor:
    """The rank of each row's target among all items; 1 is the best.

    An item comes before the target unless its score is strictly lower, so that ties and NaN count against the model.
    Index 0 (padding) is not part of the ranking.

    Args:
        scores: Scores of all items, any float dtype, (B, vocab_size). Not changed.
        targets: Item indices 1…vocab_size-1, integer, (B,).
        exclude: Item indices that are not recommended, integer, (B, S), padded with 0; repeats are allowed. A target
            among them has the rank `MISSED`.

    Returns:
        int64 ranks, (B,), on the device of `scores`.

    Raises:
        DataError: A shape does not fit, or an index is outside the columns of `scores`.
    """
    targets = _checked_targets(scores, targets)
    before = ~(scores < scores.gather(1, targets))  # "not lower" instead of "higher", because of ties and NaN
    missed = torch.zeros_like(targets, dtype=torch.bool)
    if exclude is not None and exclude.numel():
        exclude = exclude.to(scores.device, torch.int64)
        check_indices(exclude, scores.shape[1], "an excluded item")
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
    check_indices(candidates, scores.shape[1], "a sampled item")
    candidates = candidates.to(scores.device, torch.int64).sort(dim=1).values
    before = ~(scores.gather(1, candidates) < scores.gather(1, targets))
    before[:, 1:] &= candidates[:, 1:] != candidates[:, :-1]
    before &= (candidates != 0) & (candidates != targets)
    return before.sum(dim=1) + 1


def target_ranks(logits: Tensor | tuple[Tensor, ...], labels: Tensor) -> Tensor:
    """The rank of each row's target; for `Trainer(preprocess_logits_for_metrics=…)`.

    Args:
        logits: Scores of all items after the last item, float, (B, vocab_size), with -inf at items that are not
            recommended; or the Trainer's tuple of outputs that starts with them. A target with -inf has the rank
            `MISSED`.
        labels: int64 (B, L); the last label of a row that is not -100 is its target.

    Returns:
        int64 ranks, (B,), 1 is the best; 0 for a row without target, which `RankingMetrics` leaves out.
    """
    if isinstance(logits, (tuple, list)):
        logits = logits[0]
    present = labels != IGNORED_LABEL
    positions = torch.arange(labels.shape[1], device=labels.device)
    last = (present * positions).amax(dim=1, keepdim=True)
    has_target = present.any(dim=1)
    targets = labels.gather(1, last).squeeze(1)
    targets = targets.where(has_target, 1).to(logits.device)  # Item 1 takes the place of a missing target.
    ranks = rank_targets(logits, targets)
    ranks = ranks.masked_fill(logits.gather(1, targets[:, None]).squeeze(1) == -torch.inf, MISSED)
    return ranks.where(has_target.to(ranks.device), 0)


def _checked_targets(scores: Tensor, targets: Tensor) -> Tensor:
    if scores.ndim != 2 or targets.shape != scores.shape[:1]:
        raise DataError(
            f"scores must be (rows, vocab_size) and targets (rows,), not {tuple(scores.shape)} and "
            f"{tuple(targets.shape)}; give one row of scores for each target"
        )
    targets = targets.to(scores.device, torch.int64)
    check_indices(targets, scores.shape[1], "a target")
    if bool((targets == 0).any()):
        raise DataError("a target has index 0, which is padding; items are 1…vocab_size-1")
    return targets.unsqueeze(1)


def check_indices(indices: Tensor, vocab_size: int, what: str) -> None:
    """Refuses item indices outside 0 … vocab_size - 1.

    Raises:
        DataError: An index is outside; `what` says what it is the index of.
    """
    outside = (indices < 0) | (indices >= vocab_size)
    if bool(outside.any()):
        raise DataError(
            f"{what} has index {int(indices[outside][0])}, outside 0…{vocab_size - 1}: "
            "the split and the model come from different vocabularies"
        )


def parse_protocol(name: str) -> tuple[str, int]:
    """`"full"` -> `("full", 0)`, `"pop100"` -> `("pop", 100)`, `"uni100"` -> `("uni", 100)`.

    Raises:
        DataError: For anything else.
    """
    if name == "full":
        return "full", 0
    match = re.fullmatch(r"(pop|uni)([1-9]\d{0,5})", name)
    if match is None:
        raise DataError(f"unknown protocol {name!r}: allowed are 'full', 'pop100' and 'uni100' (or another number)")
    return match[1], int(match[2])


def uniform_draws(seed: int, rows: np.ndarray, count: int) -> np.ndarray:
    """Uniform numbers in [0, 1), float64 (B, count), for integer row numbers (B,).

    They are outputs of SplitMix64 (Steele, Lea and Flood 2014) at the counter `row * count + position`, so that they
    do not depend on the batch.
    """
    counter = rows.astype(np.uint64)[:, None] * np.uint64(count) + np.arange(1, count + 1, dtype=np.uint64)
    start = _mix(np.array([seed % 2**64], dtype=np.uint64))
    return (_mix(start + counter * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(11)) * 2.0**-53


def _mix(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


class NegativeSampler:
    """Draws items with replacement and with probability proportional to integer weights, except excluded items.

    Nothing is rejected: a draw is a position in the total weight that remains without the excluded items, and the
    weights of the excluded items before that position are then added to it. The result depends on the seed and the
    row number only.

    Args:
        weights: Non-negative integers, (vocab_size,): training counts for `pop`, ones for `uni`. Index 0 is ignored.
        seed: Seed of all draws.
    """

    def __init__(self, weights: np.ndarray, seed: int) -> None:
        self.weights = torch.from_numpy(np.array(weights, dtype=np.int64))
        if self.weights.ndim != 1 or bool((self.weights < 0).any()):
            raise DataError("the weights of sampled items must be one non-negative count for each item index")
        self.weights[0] = 0
        self.cumulative = self.weights.cumsum(0)
        self.seed = seed

    def draw(self, rows: np.ndarray, excluded: Tensor, count: int) -> Tensor:
        """Draws item indices, int64 (B, count).

        Args:
            rows: Row numbers, integer, (B,); they determine the random numbers.
            excluded: Items that must not be drawn, int64, (B, S), S >= 1, padded with 0; repeats are allowed.
            count: Items to draw for each row.

        Raises:
            DataError: A row has no item left to draw.
        """
        excluded = excluded.sort(dim=1).values
        mass = self.weights[excluded]
        mass[:, :-1][excluded[:, :-1] == excluded[:, 1:]] = 0  # Of repeated items the last one counts.
        removed = mass.cumsum(1)
        remaining = self.cumulative[-1] - removed[:, -1:]
        if bool((remaining <= 0).any()):
            row = int(rows[int((remaining[:, 0] <= 0).nonzero()[0, 0])])
            raise DataError(
                f"row {row} of the split has no item left to sample, its history covers all that could be drawn; "
                "use the protocol 'full'"
            )
        uniform = torch.from_numpy(uniform_draws(self.seed, rows, count))
        position = torch.minimum((uniform * remaining).long(), remaining - 1)
        # The remaining weight before each excluded item; it never decreases along a row.
        front = self.cumulative[excluded] - self.weights[excluded] - (removed - mass)
        passed = torch.searchsorted(front, position, right=True)
        shift = torch.nn.functional.pad(removed, (1, 0)).gather(1, passed)
        return torch.searchsorted(self.cumulative, position + shift, right=True)
