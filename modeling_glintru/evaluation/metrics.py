"""Metrics of ranks (NDCG, hit rate, MRR), their bootstrap intervals, and their means for a plain `Trainer`:

    Trainer(..., compute_metrics=RankingMetrics(ks=(10,)), preprocess_logits_for_metrics=target_ranks)

gives `eval_ndcg@10`, `eval_hr@10` and `eval_mrr@10` without keeping any logits, with `batch_eval_metrics` on or off.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import DataError

__all__ = ["RankingMetrics", "bootstrap_interval", "per_user_metrics"]

MAX_DRAWN_COUNTS = 4_000_000  # The int64 counts that are in memory at one time: 32 MB.


def per_user_metrics(ranks: np.ndarray, ks: Sequence[int] = (10, 20)) -> dict[str, np.ndarray]:
    """The metrics of each target: `{"ndcg@10": float64 (num_targets,), "hr@10": …, "mrr@10": …, …}`.

    With r the rank of the target, `hr@k` = [r <= k] (which is also recall@k, since each row has one target),
    `ndcg@k` = [r <= k] / log2(r + 1) and `mrr@k` = [r <= k] / r.

    Args:
        ranks: Ranks, integer, (num_targets,); 1 is the best.
        ks: Cutoffs, each at least 1.

    Raises:
        DataError: A cutoff or a rank is below 1.
    """
    ranks = np.asarray(ranks)
    if any(k < 1 for k in ks):
        raise DataError(f"a cutoff k must be at least 1, found {min(ks)}")
    if ranks.size and ranks.min() < 1:
        raise DataError(f"a rank must be at least 1, found {ranks.min()}")
    metrics: dict[str, np.ndarray] = {}
    for k in ks:
        hit = (ranks <= k).astype(np.float64)
        metrics[f"ndcg@{k}"] = hit / np.log2(ranks + 1.0)
        metrics[f"hr@{k}"] = hit
        metrics[f"mrr@{k}"] = hit / ranks
    return metrics


def bootstrap_interval(
    values: np.ndarray,
    num_bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    users: np.ndarray | None = None,
) -> tuple[float, float]:
    """Percentile bootstrap interval `(low, high)` of the mean over targets (Efron and Tibshirani 1993, chapter 13).

    Whole users are drawn, because the targets of one user are not independent. How often each distinct value occurs
    among n users that are drawn with replacement follows a multinomial distribution. A metric at k has at most k + 1
    distinct values, so that drawing these counts is exact and cheap; it needs less than 32 MB for any input.

    Args:
        values: One number for each target, float, (num_targets,).
        num_bootstrap: Number of resamples.
        confidence: Share of the resampled means inside the interval, between 0 and 1.
        seed: The same seed gives the same interval, whatever the order of the users.
        users: The user of each target, int64, (num_targets,), counted from 0; by default each target has its own user.

    Raises:
        DataError: There is no value, or an argument is out of range.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise DataError(f"an interval needs one number for each user, at least one, found shape {values.shape}")
    if not 0 < confidence < 1 or num_bootstrap < 1:
        raise DataError(f"confidence must be in (0, 1) and num_bootstrap at least 1: {confidence}, {num_bootstrap}")
    if users is None:
        distinct, counts = np.unique(values, return_counts=True)
        targets = None
    else:
        sums = np.column_stack([np.bincount(users, weights=values), np.bincount(users)])
        pairs, counts = np.unique(sums, axis=0, return_counts=True)
        distinct, targets = pairs.T
    num_users = int(counts.sum())
    generator = np.random.default_rng(seed)
    means = np.empty(num_bootstrap)
    step = max(1, MAX_DRAWN_COUNTS // len(distinct))
    for start in range(0, num_bootstrap, step):
        size = min(step, num_bootstrap - start)
        drawn = generator.multinomial(num_users, counts / num_users, size=size)
        total = np.einsum("bn,n->b", drawn, distinct)  # Unlike @ it gives the same sums for any size of a block.
        means[start : start + size] = total / (num_users if targets is None else np.einsum("bn,n->b", drawn, targets))
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


class RankingMetrics:
    """NDCG, hit rate and MRR of the ranks that `target_ranks` gives, at the cutoffs `ks`; for `compute_metrics`.

    With `batch_eval_metrics=True` the Trainer calls it for each batch, and it remembers the ranks until the Trainer
    wants the result; otherwise the Trainer calls it once with all ranks.
    """

    def __init__(self, ks: Sequence[int] = (10,)) -> None:
        self.ks = tuple(ks)
        self._ranks: list[np.ndarray] = []

    def reset(self) -> None:
        """Forgets the batches of an evaluation that was interrupted."""
        self._ranks = []

    def __call__(self, prediction: Any, compute_result: bool = True) -> dict[str, float]:
        """The means over all ranks since the last result: `{"ndcg@10": …, "hr@10": …, "mrr@10": …}`.

        Args:
            prediction: `transformers.EvalPrediction` whose `predictions` are ranks, (B,), array or tensor.
            compute_result: False to remember the ranks of this batch and return an empty dict.

        Raises:
            DataError: The predictions are no ranks, or no row has a target.
        """
        ranks = prediction.predictions
        ranks = ranks.cpu().numpy() if isinstance(ranks, Tensor) else np.asarray(ranks)
        if ranks.ndim != 1:
            raise DataError(
                f"RankingMetrics wants one rank for each row, found predictions of shape {ranks.shape}; "
                "give the Trainer preprocess_logits_for_metrics=target_ranks"
            )
        self._ranks.append(ranks[ranks > 0])
        if not compute_result:
            return {}
        together = np.concatenate(self._ranks)
        self.reset()
        if together.size == 0:
            raise DataError("no evaluated row has a target: its labels are all -100")
        return {name: float(values.mean()) for name, values in per_user_metrics(together, self.ks).items()}
