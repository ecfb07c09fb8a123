"""Drawn negatives come as often as they should, and the log-Q of each is that of how it was drawn."""

from __future__ import annotations

import pytest
import torch

from modeling_glintru import GlintRUError
from modeling_glintru.models import losses as drawing
from modeling_glintru.models.losses import LossConfig, sampled_softmax

DRAWS = 40_000
COUNTS = torch.tensor([99, 0, 9, 39, 49])  # index 0 must not matter
POPULARITY = torch.tensor([0.0, 1, 10, 40, 50]) / 101


def draw(targets=None, counts=COUNTS, number=DRAWS, **options):
    torch.manual_seed(0)
    config = LossConfig("sampled_softmax", num_negatives=number, **options)
    targets = torch.tensor([1, 1, 1, 2]) if targets is None else targets
    return drawing.draw_shared_negatives(config, drawing.ItemPopularity(counts), targets, len(counts))


def share(negatives, items: int = 5):
    return torch.bincount(negatives, minlength=items) / len(negatives)


def check(options, drawn, corrected):
    negatives, log_q = draw(**options)
    assert len(negatives) == DRAWS
    torch.testing.assert_close(share(negatives), drawn, rtol=0, atol=0.01)
    items = torch.tensor([[1, 2], [3, 4]])
    torch.testing.assert_close(log_q(items).exp(), corrected[items], rtol=1e-5, atol=0)


def test_an_own_negative_is_never_the_target_nor_padding():
    targets = torch.arange(1, 5).repeat(500)
    draws = drawing.draw_other_items(targets, 5)
    assert draws.min() == 1 and draws.max() == 4
    assert (draws != targets).all()
    counts = torch.stack([torch.bincount(draws[targets == t], minlength=5) for t in range(1, 5)])
    assert (counts[:, 1:][~torch.eye(4, dtype=torch.bool)] > 100).all()  # 167 expected


def test_an_own_negative_needs_two_items():
    assert drawing.draw_other_items(torch.tensor([1, 2, 2]), 3).tolist() == [2, 1, 1]
    with pytest.raises(GlintRUError, match="BPR needs at least two items"):
        drawing.draw_other_items(torch.tensor([1]), 2)


def test_uniform():
    negatives, log_q = draw(negative_sampling="uniform")
    torch.testing.assert_close(share(negatives), torch.tensor([0, 0.25, 0.25, 0.25, 0.25]), rtol=0, atol=0.01)
    assert log_q is None


def test_popularity():
    check({"negative_sampling": "popularity"}, POPULARITY, POPULARITY)


def test_in_batch():
    """Drawn from the targets, corrected by the popularity in training."""
    check({"negative_sampling": "in_batch"}, torch.tensor([0, 0.75, 0.25, 0, 0]), POPULARITY)


def test_mixed():
    """Half from the targets, half from the catalogue."""
    drawn = 0.5 * torch.tensor([0, 0.75, 0.25, 0, 0]) + 0.5 * POPULARITY
    check({"negative_sampling": "mixed"}, drawn, POPULARITY)


def test_rare_items_of_a_large_catalogue_are_drawn():
    """In float32 a running sum over millions of items would step over them."""
    counts = torch.ones(2_000_000)
    counts[1] = 1e9
    popularity = drawing.ItemPopularity(counts)
    device = torch.device("cpu")
    table = popularity.table(device)
    assert (table.diff() > 0).all()
    assert popularity.table(device) is table  # made once
    rare = popularity.probability(torch.tensor([2, 1_999_999]))
    expected = torch.full_like(rare, 2 / (1e9 + 1 + 2 * 1_999_998))
    torch.testing.assert_close(rare, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["popularity", "in_batch", "mixed"])
def test_the_correction_moves_the_optimum_to_that_of_the_full_softmax(kind):
    """With the right log-Q the gradient vanishes where the full softmax has its own: at the log of the frequencies."""
    weights = torch.arange(1, 301).double() ** -0.5
    frequencies = weights / weights.sum()
    counts = torch.cat((torch.zeros(1), frequencies * 1e9))
    targets = torch.repeat_interleave(torch.arange(1, 301), (frequencies * 20_000).round().long())
    scores = torch.cat((torch.zeros(1), frequencies.log()))[:, None].requires_grad_()
    hidden = torch.ones(len(targets), 1, dtype=torch.float64)
    config = LossConfig("sampled_softmax", num_negatives=24, negative_sampling=kind)
    popularity, pull = drawing.ItemPopularity(counts), {}
    for name in ("corrected", "plain"):
        torch.manual_seed(0)
        total = torch.zeros_like(scores)
        for _ in range(40):
            negatives, log_q = drawing.draw_shared_negatives(config, popularity, targets, 301)
            loss = sampled_softmax(hidden, targets, negatives, log_q if name == "corrected" else None, scores, 1.0)
            total += torch.autograd.grad(loss, scores)[0]
        pull[name] = total[1:31].sum().abs()  # of the 30 most popular items together: less noise than of each
    assert pull["corrected"] < 0.2 * pull["plain"]
