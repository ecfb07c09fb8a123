"""From ranks to NDCG, hit rate and MRR, and from targets to an interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import DataError

__all__ = ["bootstrap_interval", "per_user_metrics"]

MAX_DRAWN_COUNTS = 4_000_000  # int64 counts held at once: 32 MB


def per_user_metrics(ranks: np.ndarray, ks: Sequence[int] = (10, 20)) -> dict[str, np.ndarray]:
    """The metrics of each target.

    With r the rank of the target: `hr@k` = [r <= k] (which is also recall@k, there being one target),
    `ndcg@k` = [r <= k] / log2(r + 1), `mrr@k` = [r <= k] / r.

    Args:
        ranks: Ranks, integer, (num_targets,); 1 is the best.
        ks: Cutoffs, each at least 1.

    Returns:
        `{"ndcg@10": float64 (num_targets,), "hr@10": …, "mrr@10": …, …}`.

    Raises:
        DataError: When a cutoff or a rank is below 1.
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
    """Percentile bootstrap interval of the mean over targets (Efron and Tibshirani 1993, chapter 13).

    Users are drawn, each with all of its targets, since the targets of one user are not independent. Drawing n users
    with replacement is drawing how often each distinct value occurs, a multinomial; a metric at k has at most k + 1
    distinct values, so this is exact and nearly free. Memory stays below 32 MB for any input.

    Args:
        values: One number a target, float, (num_targets,).
        num_bootstrap: Number of resamples.
        confidence: Share of the resampled means inside the interval, between 0 and 1.
        seed: Same seed, same interval, whatever the order of the users.
        users: The user of each target, int64, (num_targets,), counted from 0; each target is a user of its own when
            not given.

    Returns:
        `(low, high)`.

    Raises:
        DataError: When there is no value, or an argument is out of range.
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
        distinct, targets = pairs[:, 0], pairs[:, 1]
    num_users = int(counts.sum())
    generator = np.random.default_rng(seed)
    probabilities = counts / num_users
    means = np.empty(num_bootstrap)
    step = max(1, MAX_DRAWN_COUNTS // len(distinct))
    for start in range(0, num_bootstrap, step):
        size = min(step, num_bootstrap - start)
        drawn = generator.multinomial(num_users, probabilities, size=size)
        total = np.einsum("bn,n->b", drawn, distinct)  # unlike @, the same for any block
        means[start : start + size] = total / (num_users if targets is None else np.einsum("bn,n->b", drawn, targets))
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
