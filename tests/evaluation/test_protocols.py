"""Sampled items: what can be drawn, how often, and what it depends on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modeling_glintru.errors import DataError
from modeling_glintru.evaluation.ranking import NegativeSampler, parse_protocol, uniform_draws


def test_names() -> None:
    assert [parse_protocol(name) for name in ("full", "pop100", "uni7")] == [("full", 0), ("pop", 100), ("uni", 7)]
    for name in ("pop", "uni0", "pop-5", "Full", ""):
        with pytest.raises(DataError, match="allowed are"):
            parse_protocol(name)


def test_draws_follow_the_weights_of_what_is_not_barred() -> None:
    weights = np.array([99, 5, 0, 3, 10, 1, 7, 4])
    barred = torch.tensor([[4, 1, 4, 0, 0], [7, 6, 5, 5, 5], [0, 0, 0, 0, 0], [2, 0, 3, 3, 2]])
    drawn = NegativeSampler(weights, seed=1).draw(np.arange(4), barred, 40_000)
    for row in range(4):
        allowed = weights.copy()
        allowed[[0, *barred[row].tolist()]] = 0
        share = np.bincount(drawn[row].numpy(), minlength=8) / 40_000
        assert share[allowed == 0].sum() == 0
        assert share == pytest.approx(allowed / allowed.sum(), abs=0.012)


def test_every_position_of_the_mass_maps_to_the_right_item(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random bars and weights; walk through the remaining mass one unit at a time, no chance involved."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        weights = rng.integers(0, 4, 9)
        barred = rng.integers(0, 9, 5)
        expected = [item for item in range(1, 9) if item not in barred for _ in range(weights[item])]
        if not expected:
            continue
        grid = (np.arange(len(expected)) + 0.5)[None] / len(expected)
        monkeypatch.setattr(
            "modeling_glintru.evaluation.ranking.uniform_draws", lambda seed, rows, count, grid=grid: grid
        )
        drawn = NegativeSampler(weights, 0).draw(np.array([0]), torch.tensor(barred[None]), len(expected))
        assert drawn[0].tolist() == expected


def test_draws_depend_on_seed_and_row_only() -> None:
    sampler = NegativeSampler(np.arange(50), seed=3)
    barred = torch.randint(0, 50, (20, 6), generator=torch.Generator().manual_seed(0))
    together = sampler.draw(np.arange(20), barred, 30)
    alone = torch.cat([sampler.draw(np.array([row]), barred[row : row + 1], 30) for row in range(20)])
    padded = sampler.draw(np.arange(20), torch.nn.functional.pad(barred, (0, 9)), 30)
    assert torch.equal(together, alone)
    assert torch.equal(together, padded)
    assert not torch.equal(together, NegativeSampler(np.arange(50), seed=4).draw(np.arange(20), barred, 30))


def test_uniform_draws_look_uniform_and_independent() -> None:
    draws = uniform_draws(42, np.arange(2000), 100)
    assert draws.min() >= 0
    assert draws.max() < 1
    shares = np.histogram(draws, bins=20, range=(0, 1))[0] / draws.size
    assert shares == pytest.approx(np.full(20, 0.05), abs=0.003)
    neighbours = [
        (draws[:, :-1], draws[:, 1:]),
        (draws[:-1], draws[1:]),
        (draws, uniform_draws(43, np.arange(2000), 100)),
    ]
    for left, right in neighbours:
        assert abs(np.corrcoef(left.ravel(), right.ravel())[0, 1]) < 0.012
    assert len(np.unique(draws)) == draws.size


def test_draws_are_those_of_splitmix64() -> None:
    """The first outputs for the seed 0, as its authors' program prints them; two draws for each of two rows."""
    published = np.array([[0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4], [0x06C45D188009454F, 0xF88BB8A8724C81EC]], "u8")
    assert np.array_equal(uniform_draws(0, np.arange(2), 2), (published >> np.uint64(11)) / 2.0**53)
    assert np.array_equal(uniform_draws(-1, np.arange(2), 2), uniform_draws(2**64 - 1, np.arange(2), 2))


def test_weights_are_one_non_negative_count_for_each_item() -> None:
    for weights in ([[1, 2]], [1, -1]):
        with pytest.raises(DataError, match="one non-negative count"):
            NegativeSampler(np.array(weights), 0)


def test_a_row_with_nothing_left_is_named() -> None:
    barred = torch.tensor([[1, 0], [1, 2]])
    with pytest.raises(DataError, match="row 8 of the split has no item left"):
        NegativeSampler(np.array([0, 3, 4]), 0).draw(np.array([7, 8]), barred, 5)
    only_one = NegativeSampler(np.array([0, 3, 4]), 0).draw(np.array([7]), barred[:1], 5)
    assert only_one.tolist() == [[2] * 5]
