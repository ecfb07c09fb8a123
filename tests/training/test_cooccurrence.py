"""Item embeddings that begin with co-occurrence, against a plain count and a dense factorisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset

from modeling_glintru.errors import RecipeError
from modeling_glintru.recipe import load_recipe
from modeling_glintru.training.cooccurrence import (
    REACH,
    cooccurrence_embeddings,
    near_pairs,
    start_from_cooccurrence,
)

VOCAB = 40


@pytest.fixture(scope="module")
def split():
    """Histories of two groups of items, 1 to 19 and 20 to 38, that never meet; item 39 is alone."""
    random = np.random.default_rng(0)
    rows = [(random.integers(1, 20, random.integers(1, 12)) + 19 * (user % 2)).tolist() for user in range(200)]
    return Dataset.from_dict({"item_ids": [*rows, [39], []]})


def plain_counts(split, vocab_size=VOCAB):
    counts = np.zeros((vocab_size, vocab_size))
    for history in split["item_ids"]:
        for i, first in enumerate(history):
            for j, second in enumerate(history):
                if 0 < abs(i - j) <= REACH:
                    counts[first, second] += 1 / abs(i - j)
    return counts


def test_pairs_are_counted_within_histories(split):
    np.testing.assert_allclose(near_pairs(split, VOCAB).to_dense().numpy(), plain_counts(split), rtol=1e-5)


def test_the_embeddings_are_factors_of_the_mutual_information(split):
    counts = plain_counts(split)
    sums = counts.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.nan_to_num(np.log(counts * counts.sum() / np.outer(sums, sums)), neginf=0.0).clip(0)
    left, strength, _ = np.linalg.svd(information)
    expected = left * np.sqrt(strength)
    found = cooccurrence_embeddings(near_pairs(split, VOCAB), VOCAB).double().numpy()
    assert np.square(found[sums > 0]).mean() == pytest.approx(1)
    expected /= np.sqrt(np.square(expected[sums > 0]).mean())
    np.testing.assert_allclose(
        found @ found.T, expected @ expected.T, rtol=1e-3, atol=1e-3
    )  # each column has either sign
    assert np.abs(found[[0, 39]]).max() < 0.02  # noise in directions of no strength
    cosines = torch.nn.functional.normalize(torch.from_numpy(found[1:39]), dim=1)
    cosines = cosines @ cosines.T
    assert cosines[:19, :19].mean() > 0.02 and cosines[:19, 19:].abs().max() < 1e-4


def test_more_columns_than_items_and_nothing_to_count(split):
    assert cooccurrence_embeddings(near_pairs(split, VOCAB), 64).shape == (VOCAB, 64)
    alone = Dataset.from_dict({"item_ids": [[1], [2], []]})
    assert not cooccurrence_embeddings(near_pairs(alone, VOCAB), 8).any()


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_the_start_keeps_variance_and_padding(split, share):
    torch.manual_seed(0)
    table = torch.nn.Embedding(VOCAB, 16)
    before = table.weight.detach().clone()
    torch.manual_seed(1)
    start_from_cooccurrence(table, near_pairs(split, VOCAB), share)
    torch.manual_seed(1)
    found = cooccurrence_embeddings(near_pairs(split, VOCAB), 16)
    expected = share**0.5 * before[1:].std() * found[1:] + (1 - share) ** 0.5 * before[1:]
    torch.testing.assert_close(table.weight.detach()[1:], expected)
    assert torch.equal(table.weight[0], before[0]) and table.weight.requires_grad
    assert float(table.weight.detach()[1:39].std()) == pytest.approx(float(before[1:].std()), rel=0.15)


def test_bad_shares():
    for share in ("-0.1", "1.1", ".nan"):
        with pytest.raises(RecipeError, match=r"cooccurrence_start must be between 0 and 1"):
            load_recipe("demo", [f"cooccurrence_start={share}"])
