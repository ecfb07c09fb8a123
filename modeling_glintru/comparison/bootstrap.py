"""Intervals over users and over seeds, and of differences between rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import DataError

__all__ = ["RowSamples", "interval", "resampled_rows"]

RowSamples = dict[str, np.ndarray]
"""Row to its mean in each resample, float64 (num_bootstrap,)."""


def resampled_rows(rows: Mapping[str, Sequence[np.ndarray]], num_bootstrap: int = 2000, seed: int = 0) -> RowSamples:
    """Hierarchical bootstrap: each resample draws users, the same ones for all rows, and for each row its seeds.

    The difference of two rows in the same resample is a paired one: `samples["a"] - samples["b"]`. With few seeds the
    part of the interval that comes from seeds is too small (by sqrt((n - 1) / n) for n of them).

    Args:
        rows: Row to one array a seed: the metric of each user, float (users,), in the same order everywhere.
        num_bootstrap: Resamples.
        seed: Same seed, same samples.

    Raises:
        DataError: Rows of different users.
    """
    runs = [values for row in rows.values() for values in row]
    if not runs or any(values.shape != runs[0].shape or values.ndim != 1 for values in runs):
        raise DataError(f"rows are compared over the same users, found {sorted({np.shape(run) for run in runs})}")
    generator = np.random.default_rng(seed)
    stacked = np.stack(runs).astype(np.float64)
    users = stacked.shape[1]
    means = np.empty((num_bootstrap, len(runs)))
    for resample in range(num_bootstrap):
        drawn = np.bincount(generator.integers(0, users, users), minlength=users)
        means[resample] = stacked @ drawn / users
    samples: RowSamples = {}
    first = 0
    for name, row in rows.items():
        seeds = generator.integers(0, len(row), (num_bootstrap, len(row)))
        samples[name] = np.take_along_axis(means[:, first : first + len(row)], seeds, axis=1).mean(axis=1)
        first += len(row)
    return samples


def interval(samples: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """The percentile interval of resampled values."""
    low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
