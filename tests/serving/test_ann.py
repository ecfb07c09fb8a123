"""The approximate index: nearly the exact answer, with the same filters and errors."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from modeling_glintru import GlintRUError
from modeling_glintru.serving.ann import ApproximateIndex

VOCAB, SIZE, QUERIES = 40_001, 32, 20


@pytest.fixture(scope="module")
def index():
    pytest.importorskip("faiss", reason="the extra [ann] is not installed")
    return ApproximateIndex(np.random.default_rng(0).normal(size=(VOCAB, SIZE)).astype(np.float32))


@pytest.fixture(scope="module")
def queries():
    return np.random.default_rng(1).normal(size=(QUERIES, SIZE)).astype(np.float32)


@pytest.fixture
def searches(index, monkeypatch):
    """How often the exact index searched everything."""
    calls, exact = [], index.exact.top_k

    def top_k(queries, top_k, exclude=None, allowed=None):
        if not isinstance(allowed, list):
            calls.append(top_k)
        return exact(queries, top_k, exclude, allowed)

    monkeypatch.setattr(index.exact, "top_k", top_k)
    return calls


def recall(found, best):
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), best.tolist(), strict=True)])


def close_to_exact(index, queries, searches, *filters):
    ids, scores = index.top_k(queries, 10, *filters)
    assert not searches
    best, highest = index.exact.top_k(queries, 10, *filters)
    assert ids.shape == best.shape and ids.all() and recall(ids, best) > 0.9
    same = ids == best
    assert (scores[same] == highest[same]).all() and (np.diff(scores) <= 0).all()
    return ids


def test_it_finds_nearly_all_with_exact_scores(index, queries, searches):
    close_to_exact(index, queries, searches)


def test_a_thousand_excluded(index, queries, searches):
    """Among them the best fifty of each query, and padding."""
    best = index.exact.top_k(queries, 50)[0]
    exclude = [np.append(row, np.arange(0, 650)) for row in best]
    searches.clear()
    ids = close_to_exact(index, queries, searches, exclude)
    for row, seen in zip(ids.tolist(), exclude, strict=True):
        assert not set(row) & set(seen.tolist())


@pytest.mark.parametrize("per_user", [False, True])
def test_an_allow_list(index, queries, searches, per_user):
    rng = np.random.default_rng(2)
    lists = [rng.choice(np.arange(1, VOCAB), VOCAB * 3 // 4, replace=False) for _ in range(QUERIES)]
    ids, _ = index.top_k(queries, 10, [[1]] * QUERIES, lists if per_user else lists[0])
    best, _ = index.exact.top_k(queries, 10, [[1]] * QUERIES, lists if per_user else lists[0])
    assert recall(ids, best) > 0.9
    for row, allowed in zip(ids.tolist(), lists if per_user else [lists[0]] * QUERIES, strict=True):
        assert set(row) <= set(allowed.tolist())


def test_it_is_exact_where_too_few_candidates_remain(index, queries, searches):
    for options in (
        {"top_k": 500},
        {"top_k": 10, "allowed": np.arange(1, 100)},
        {"top_k": 10, "allowed": np.arange(1, 7)},
        {"top_k": 10, "exclude": [np.arange(1, VOCAB - 3)] * QUERIES},
    ):
        searches.clear()
        ids, scores = index.top_k(queries, **options)
        assert len(searches) == 1
        best, highest = index.exact.top_k(queries, **options)
        assert (ids == best).all() and (scores == highest).all()


def test_candidates_that_the_filter_all_but_removes(index, queries, searches):
    """An allow-list that is long, but holds none of the best."""
    worst = index.exact.top_k(-queries[:1], VOCAB // 2)[0][0]
    searches.clear()
    ids, _ = index.top_k(queries[:1], 10, None, worst)
    assert searches == [10]
    assert (ids == index.exact.top_k(queries[:1], 10, None, worst)[0]).all()


def test_small_catalogues_and_odd_sizes():
    pytest.importorskip("faiss", reason="the extra [ann] is not installed")
    for vocab, size in [(2, 4), (300, 7), (5000, 2)]:
        index = ApproximateIndex(np.random.default_rng(0).normal(size=(vocab, size)).astype(np.float32))
        query = np.ones((3, size), np.float32)
        ids, _ = index.top_k(query, 1)
        assert ids.all() and index.num_items == vocab - 1
        assert index.top_k(query[:0], 1)[0].shape == (0, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": VOCAB}, "top_k must be between 1 and the number of items"),
        ({"allowed": []}, "the list of allowed items of query 0 is empty"),
        ({"allowed": np.array([VOCAB] * 30_000)}, f"allowed names item {VOCAB}, but items are between 1"),
        ({"exclude": [[-1]] * QUERIES}, "exclude names item -1, but items are between 1"),
        ({"exclude": [[1]]}, "exclude must have a list"),
        ({"queries": np.ones((1, 3), np.float32)}, "queries must have shape"),
    ],
)
def test_bad_input(index, queries, options, message):
    with pytest.raises(GlintRUError, match=message):
        index.top_k(**{"queries": queries, "top_k": 10, **options})


def test_an_oversample_of_nothing():
    pytest.importorskip("faiss", reason="the extra [ann] is not installed")
    with pytest.raises(GlintRUError, match="oversample must be at least 1, got 0"):
        ApproximateIndex(np.ones((9, 4), np.float32), oversample=0)


def test_without_faiss(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(GlintRUError, match=r"pip install glintru\[ann\]"):
        ApproximateIndex(np.ones((9, 4), np.float32))
