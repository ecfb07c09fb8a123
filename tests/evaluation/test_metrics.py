"""Formulas on hand-picked ranks, and the bootstrap against theory."""

from __future__ import annotations

import math

import numpy as np
import pytest

import modeling_glintru.evaluation.metrics as metrics_module
from modeling_glintru.errors import DataError
from modeling_glintru.evaluation import RankingMetrics, bootstrap_interval, per_user_metrics


def test_formulas_on_ranks_by_hand() -> None:
    found = per_user_metrics(np.array([1, 2, 3, 11]), ks=(2, 10))
    assert list(found) == ["ndcg@2", "hr@2", "mrr@2", "ndcg@10", "hr@10", "mrr@10"]
    assert found["hr@2"].tolist() == [1, 1, 0, 0]
    assert found["mrr@10"].tolist() == [1, 1 / 2, 1 / 3, 0]
    assert found["ndcg@10"] == pytest.approx([1, 1 / math.log2(3), 0.5, 0])


@pytest.mark.parametrize(("ranks", "ks"), [([1, 0], (10,)), ([1], (0,))])
def test_impossible_ranks_and_cutoffs_are_refused(ranks: list[int], ks: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="at least 1"):
        per_user_metrics(np.array(ranks), ks)


@pytest.mark.parametrize("kind", ["two values", "continuous"])
def test_interval_is_near_the_normal_approximation(kind: str) -> None:
    rng = np.random.default_rng(1)
    values = (rng.random(3000) < 0.3).astype(float) if kind == "two values" else rng.normal(2.0, 3.0, 3000)
    low, high = bootstrap_interval(values, num_bootstrap=4000, seed=3)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    samples = rng.random((300, 400)) < 0.2
    intervals = [bootstrap_interval(row, num_bootstrap=400, seed=i) for i, row in enumerate(samples)]
    covered = np.mean([low <= 0.2 <= high for low, high in intervals])
    assert 0.91 <= covered <= 0.985  # 0.95, with four standard errors for 300 samples downwards


def test_interval_equals_a_plain_bootstrap() -> None:
    """Resampling users one by one has the same distribution of means."""
    rng = np.random.default_rng(5)
    values = rng.choice([0.0, 0.3, 0.5, 1.0], 50, p=[0.7, 0.1, 0.1, 0.1])
    plain = values[rng.integers(0, 50, (20_000, 50))].mean(axis=1)
    low, high = bootstrap_interval(values, num_bootstrap=20_000, seed=1)
    assert (low, high) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.006)


def test_interval_draws_users_with_all_their_targets() -> None:
    rng = np.random.default_rng(5)
    users = np.repeat(np.arange(40), rng.integers(1, 9, 40))
    values = (rng.random(len(users)) < rng.random(40)[users]).astype(float)  # targets of one user are alike
    drawn = rng.integers(0, 40, (20_000, 40))
    sums, counts = np.bincount(users, weights=values), np.bincount(users)
    plain = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    found = bootstrap_interval(values, num_bootstrap=20_000, seed=1, users=users)
    assert found == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.006)
    alone = bootstrap_interval(values, num_bootstrap=20_000, seed=1)
    assert found[1] - found[0] > 1.2 * (alone[1] - alone[0])
    single = np.arange(len(values))
    assert bootstrap_interval(values, seed=2, users=single) == pytest.approx(bootstrap_interval(values, seed=2))


def test_interval_depends_on_the_seed_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(200)
    first = bootstrap_interval(values, seed=4)
    assert first == bootstrap_interval(values[::-1].copy(), seed=4)
    assert first != bootstrap_interval(values, seed=5)
    for most in (700, 10):  # three resamples at once instead of all, and one although it has more counts
        monkeypatch.setattr(metrics_module, "MAX_DRAWN_COUNTS", most)
        assert first == bootstrap_interval(values, seed=4)
    assert all(type(bound) is float for bound in first)


def test_higher_confidence_is_wider_and_one_user_has_no_width() -> None:
    values = np.random.default_rng(0).random(100)
    narrow, wide = bootstrap_interval(values, confidence=0.5), bootstrap_interval(values, confidence=0.99)
    assert wide[0] < narrow[0] < values.mean() < narrow[1] < wide[1]
    assert bootstrap_interval(np.array([0.25])) == (0.25, 0.25)


def test_no_more_counts_are_drawn_at_once_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    class Generator:
        def __init__(self, seed: int) -> None:
            self.generator = np.random.Generator(np.random.PCG64(seed))

        def multinomial(self, *arguments, size: int) -> np.ndarray:
            counts = self.generator.multinomial(*arguments, size=size)
            drawn.append(counts.size)
            return counts

    monkeypatch.setattr(np.random, "default_rng", Generator)
    monkeypatch.setattr(metrics_module, "MAX_DRAWN_COUNTS", 700)
    bootstrap_interval(np.arange(200.0), num_bootstrap=10)
    assert drawn == [600, 600, 600, 200]


def test_what_is_computed_where_nothing_is_said() -> None:
    """Cutoffs 10 and 20 for a file of metrics, 10 for the Trainer, and 1,000 resamples at 95 % from the seed 0."""
    ranks = np.arange(1, 30)
    assert list(per_user_metrics(ranks)) == list(per_user_metrics(ranks, (10, 20)))
    assert RankingMetrics().ks == (10,)
    values = np.random.default_rng(0).random(50)
    assert bootstrap_interval(values) == bootstrap_interval(values, 1000, 0.95, 0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"values": []},
        {"values": [[1.0]]},
        {"values": [1.0], "confidence": 1.0},
        {"values": [1.0], "confidence": 0.0},
        {"values": [1.0], "num_bootstrap": 0},
    ],
)
def test_bad_arguments_are_refused(arguments: dict) -> None:
    with pytest.raises(DataError):
        bootstrap_interval(np.array(arguments.pop("values")), **arguments)
