"""Ranks against torchmetrics, and each corner against a double loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR, RetrievalNormalizedDCG, RetrievalRecall

from modeling_glintru.errors import DataError
from modeling_glintru.evaluation import per_user_metrics, rank_among, rank_targets
from modeling_glintru.evaluation.ranking import MISSED

from .helpers import naive_rank


@pytest.mark.parametrize("k", [1, 5, 10, 30])
@pytest.mark.parametrize("exclude_past", [False, True])
def test_metrics_equal_torchmetrics(k: int, exclude_past: bool) -> None:
    generator = torch.Generator().manual_seed(k)
    users, vocab_size = 64, 41
    scores = torch.randn(users, vocab_size, generator=generator)
    targets = torch.randint(1, vocab_size, (users,), generator=generator)
    past = torch.randint(0, vocab_size, (users, 15), generator=generator)
    assert (past == targets[:, None]).any()
    ours = per_user_metrics(rank_targets(scores, targets, past if exclude_past else None).numpy(), [k])

    keep = torch.ones_like(scores, dtype=torch.bool)
    if exclude_past:
        keep.scatter_(1, past, False)
    keep[:, 0] = False
    relevant = torch.zeros_like(keep).scatter_(1, targets[:, None], True)
    chances = scores.sigmoid()  # torchmetrics' MRR takes nothing below 0 for relevant
    served = (keep & relevant).any(dim=1)  # the other users are not served their target, and count as 0
    keep &= served[:, None]
    indexes = torch.arange(users)[:, None].expand_as(scores)
    for name, metric in {
        "ndcg": RetrievalNormalizedDCG(top_k=k),
        "mrr": RetrievalMRR(top_k=k),
        "hr": RetrievalHitRate(top_k=k),
    }.items():
        theirs = metric(chances[keep], relevant[keep], indexes=indexes[keep])
        assert ours[f"{name}@{k}"].mean() == pytest.approx(float(theirs) * served.float().mean().item(), abs=1e-6)
    recall = RetrievalRecall(top_k=k)(chances[keep], relevant[keep], indexes=indexes[keep])
    assert ours[f"hr@{k}"].mean() == pytest.approx(float(recall) * served.float().mean().item(), abs=1e-6)


CORNERS = {
    "ties": ([0.0, 2.0, 1.0, 1.0, 1.0, 0.5], 3, []),
    "all equal": ([1.0] * 6, 2, []),
    "nan among the others": ([0.0, float("nan"), 1.0, 2.0, float("nan"), 0.5], 2, []),
    "nan at the target": ([0.0, 1.0, float("nan"), 2.0, -1.0, 0.5], 2, [3]),
    "all nan": ([float("nan")] * 6, 1, []),
    "target among the excluded": ([0.0, 5.0, 1.0, 2.0, -1.0, 0.5], 2, [1, 2, 3]),
    "padding with a huge score": ([1e30, 5.0, 1.0, 2.0, -1.0, 0.5], 2, []),
    "padding with a nan": ([float("nan"), 5.0, 1.0, 2.0, -1.0, 0.5], 2, [0]),
    "-inf elsewhere": ([0.0, -torch.inf, 1.0, -torch.inf, 2.0, 0.5], 2, []),
    "-inf everywhere": ([-torch.inf] * 6, 4, [1]),
    "+inf twice": ([0.0, torch.inf, 1.0, torch.inf, 2.0, 0.5], 3, []),
    "repeats among the excluded": ([0.0, 5.0, 1.0, 2.0, -1.0, 0.5], 2, [1, 1, 3, 3]),
}


@pytest.mark.parametrize("name", CORNERS)
def test_corners_equal_the_double_loop(name: str) -> None:
    scores, target, excluded = CORNERS[name]
    exclude = torch.tensor([excluded + [0] * (5 - len(excluded))])
    expected = naive_rank(scores, target, set(excluded))
    assert rank_targets(torch.tensor([scores]), torch.tensor([target]), exclude).tolist() == [expected]


def test_the_corners_cost_the_model_what_they_should() -> None:
    """The same corners with ranks written by hand: the double loop could share a mistake."""
    hand = {"ties": 4, "all equal": 5, "nan among the others": 4, "nan at the target": 4, "all nan": 5}
    hand |= {
        "target among the excluded": MISSED,
        "padding with a huge score": 3,
        "-inf elsewhere": 2,
        "-inf everywhere": 4,
    }
    for name, rank in hand.items():
        scores, target, excluded = CORNERS[name]
        found = rank_targets(torch.tensor([scores]), torch.tensor([target]), torch.tensor([excluded or [0]]))
        assert found.tolist() == [rank], name


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 8))
def test_random_rows_equal_the_double_loop(seed: int, vocab_size: int, users: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.array([-np.inf, -1, 0, 0.5, 1, np.inf, np.nan], dtype=np.float32)
    scores = rng.choice(values, (users, vocab_size))
    targets = rng.integers(1, vocab_size, users)
    past = rng.integers(0, vocab_size, (users, 4))
    found = rank_targets(torch.tensor(scores), torch.tensor(targets), torch.tensor(past))
    expected = [naive_rank(scores[u].tolist(), int(targets[u]), set(past[u].tolist())) for u in range(users)]
    assert found.tolist() == expected


def test_ranking_leaves_its_inputs_alone() -> None:
    scores = torch.tensor([[9.0, 3.0, 2.0, 1.0]])
    copy = scores.clone()
    rank_targets(scores, torch.tensor([3]), torch.tensor([[1, 2]], dtype=torch.int32))
    assert torch.equal(scores, copy)


def test_a_sample_counts_each_candidate_once_and_never_padding_or_target() -> None:
    scores = torch.tensor([[9.0, 3.0, 2.0, 1.0, 2.0]])
    candidates = torch.tensor([[1, 1, 1, 3, 0, 2, 4, 4]])
    assert rank_among(scores, torch.tensor([2]), candidates).tolist() == [3]  # behind 1 and, tied, 4


def test_a_sample_of_everything_is_the_full_ranking() -> None:
    scores = torch.randn(20, 30, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    targets = torch.arange(1, 21)
    everything = torch.arange(30).expand(20, -1)
    assert torch.equal(rank_among(scores, targets, everything), rank_targets(scores, targets))


@pytest.mark.parametrize(
    ("targets", "exclude", "message"),
    [([5], [[1]], "a target has index 5"), ([0], [[1]], "padding"), ([1], [[-1]], "excluded item has index -1")],
)
def test_wrong_indices_are_named(targets: list[int], exclude: list[list[int]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        rank_targets(torch.zeros(1, 5), torch.tensor(targets), torch.tensor(exclude))


@pytest.mark.parametrize(("scores", "targets"), [((2, 5), (1,)), ((1, 5), (2,)), ((2,), (2,)), ((2, 5), (2, 1))])
def test_wrong_shapes_are_named(scores: tuple[int, ...], targets: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="one row of scores for each target"):
        rank_targets(torch.zeros(scores), torch.ones(targets, dtype=torch.int64))
