"""Exact top-k: what a sort of all scores gives, with filters, ties and bad input."""

from __future__ import annotations

import random

import numpy as np
import pytest

from modeling_glintru import GlintRUError
from modeling_glintru.kernels import build
from modeling_glintru.serving import top_k
from modeling_glintru.serving.top_k import ExactIndex

KINDS = [
    pytest.param("compiled", marks=pytest.mark.skipif(build.library() is None, reason="no C compiler on this machine")),
    "plain",
]


@pytest.fixture(params=KINDS)
def make(request, monkeypatch):
    """Makes an index, by the kernel or without it."""
    if request.param == "plain":
        monkeypatch.setattr(build, "library", lambda: None)
        monkeypatch.setattr(top_k, "BLOCK", 400)  # few queries at once
    return ExactIndex


def sorted_scores(vectors, query, k, exclude=(), allowed=None):
    """The oracle: a sort of (-score, id) over what is allowed and not excluded."""
    scores = vectors @ query
    names = set(range(1, len(vectors))) if allowed is None else set(map(int, allowed)) - {0}
    most = min(k, len(names))
    best = sorted(names - set(map(int, exclude)), key=lambda i: (-scores[i], i))[:most]
    blanks = most - len(best)
    return best + [0] * blanks, [scores[i] for i in best] + [-np.inf] * blanks


def integers(rng, shape):
    """Small whole numbers: every inner product is exact, and many are equal."""
    return rng.integers(-2, 3, shape).astype(np.float32)


@pytest.mark.parametrize("seed", range(20))
def test_it_equals_a_sort(make, seed):
    rng, draw = np.random.default_rng(seed), random.Random(seed)
    vocab, size, users = draw.choice([2, 30, 64, 65, 129, 500]), draw.choice([1, 7, 16]), draw.choice([1, 3, 4, 37])
    vectors, queries = integers(rng, (vocab, size)), integers(rng, (users, size))
    k = draw.randint(1, vocab - 1)
    ids = lambda: rng.integers(0, vocab, draw.choice([0, 1, 5, 300]))  # noqa: E731  (with padding, with repetitions)
    exclude = [ids() for _ in range(users)] if draw.random() < 0.7 else None
    allowed = None
    kind = draw.choice(["all", "shared", "per user"])
    if kind == "shared":
        allowed = np.append(ids(), 1)
    elif kind == "per user":
        allowed = [np.append(ids(), 1) for _ in range(users)]
    found, scores = make(vectors).top_k(queries, k, exclude, allowed)
    assert found.dtype == np.int64 and scores.dtype == np.float32 and found.shape == scores.shape
    for user in range(users):
        mine = allowed[user] if kind == "per user" else allowed
        best, expected = sorted_scores(vectors, queries[user], k, () if exclude is None else exclude[user], mine)
        blanks = found.shape[1] - len(best)  # another user may be allowed more
        assert found[user].tolist() == best + [0] * blanks
        assert scores[user].tolist() == expected + [-np.inf] * blanks


def test_ties_go_to_the_lower_id(make):
    index = make(np.ones((200, 4), np.float32))
    for k in (1, 5, 70, 199):
        ids, scores = index.top_k(np.ones((2, 4), np.float32), k, exclude=[np.array([2]), np.array([], int)])
        assert ids[1].tolist() == list(range(1, k + 1))
        assert ids[0].tolist() == [i for i in range(1, 200) if i != 2][:k] + [0] * (k == 199)
        assert (scores[1] == 4).all()


def test_scores_of_a_query_do_not_depend_on_the_others():
    if build.library() is None:
        pytest.skip("no C compiler on this machine")
    rng = np.random.default_rng(0)
    index, queries = ExactIndex(rng.normal(size=(1000, 48))), rng.normal(size=(40, 48)).astype(np.float32)
    ids, scores = index.top_k(queries, 20)
    for user in range(40):
        alone = index.top_k(queries[user : user + 1], 20)
        assert (alone[0] == ids[user]).all() and (alone[1] == scores[user]).all()


def test_it_holds_a_copy(make):
    vectors = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    query = np.ones((1, 8), np.float32)
    index = make(vectors)
    before = index.top_k(query, 5)
    vectors[:] = 0
    assert (index.top_k(query, 5)[1] == before[1]).all()


def test_all_but_a_few_excluded(make):
    vectors = np.arange(100, dtype=np.float32)[:, None]
    ids, scores = make(vectors).top_k(np.ones((1, 1)), 4, exclude=[np.arange(3, 100)])
    assert ids.tolist() == [[2, 1, 0, 0]] and scores.tolist() == [[2, 1, -np.inf, -np.inf]]


def test_lists_of_plain_integers_and_no_query(make):
    index = make(np.arange(10, dtype=np.float32)[:, None])
    assert index.top_k(np.ones((1, 1)), 2, [[9, 0]], [8, 9, 3])[0].tolist() == [[8, 3]]
    assert index.top_k(np.ones((2, 1)), 2, [[9], []], [[8, 9], [1]])[0].tolist() == [[8, 0], [1, 0]]
    assert index.top_k(np.ones((0, 1)), 2, [], [1])[0].shape[0] == 0
    assert index.top_k(np.full((1, 1), np.nan), 2)[0].tolist() == [[0, 0]]


def test_arrays_that_cannot_be_written_to(make):
    index = make(np.arange(10, dtype=np.float32)[:, None])
    query, seen, allowed = np.ones((1, 1), np.float32), np.array([9, 8]), np.array([9, 7, 6])
    for x in (query, seen, allowed):
        x.flags.writeable = False
    assert index.top_k(query, 2, [seen], allowed)[0].tolist() == [[7, 6]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, r"top_k must be between 1 and the number of items \(9\), got 0"),
        ({"top_k": 10}, r"top_k must be between 1 and the number of items \(9\), got 10"),
        ({"top_k": 2.0}, "top_k must be between"),
        ({"top_k": True}, "top_k must be between"),
        ({"allowed": []}, "the list of allowed items of query 0 is empty: name an item, or give None"),
        ({"allowed": np.array([0])}, "the list of allowed items of query 0 is empty"),
        ({"allowed": [[1], []]}, "the list of allowed items of query 1 is empty"),
        ({"allowed": [1, 10]}, "allowed names item 10, but items are between 1 and 9"),
        ({"exclude": [[1], [-3]]}, "exclude names item -3, but items are between 1 and 9"),
        ({"exclude": [[1]]}, "exclude must have a list of ids for each of the 2 queries, got 1"),
        ({"exclude": [[1], ["a"]]}, "exclude must be integers"),
        ({"exclude": [[1], [1.0]]}, "exclude must be integers"),
        ({"queries": np.ones((2, 3))}, r"queries must have shape \(n, 1\), got \(2, 3\)"),
    ],
)
def test_bad_input(make, options, message):
    index = make(np.arange(10, dtype=np.float32)[:, None])
    with pytest.raises(GlintRUError, match=message):
        index.top_k(**{"queries": np.ones((2, 1)), "top_k": 3, **options})


def test_vectors_that_are_no_matrix(make):
    for shape in [(5,), (1, 4), (0, 4)]:
        with pytest.raises(GlintRUError, match="vectors must be"):
            make(np.zeros(shape, np.float32))
