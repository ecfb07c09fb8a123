"""Smoothed item embeddings, against plain counts and a training that differentiates through the smoothing."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset

from modeling_glintru.errors import RecipeError
from modeling_glintru.recipe import load_recipe
from modeling_glintru.training.cooccurrence import NeighborSmoothing, near_pairs, neighbors

from .test_cooccurrence import plain_counts

VOCAB, SIZE = 30, 4
ALONE = 29


@pytest.fixture(scope="module")
def split():
    """Histories with repeated items; item 29 is alone."""
    random = np.random.default_rng(0)
    return Dataset.from_dict({"item_ids": [*(random.integers(1, 29, n).tolist() for n in range(1, 40)), [ALONE], []]})


def plain_neighbors(split) -> np.ndarray:
    counts = plain_counts(split, VOCAB)
    np.fill_diagonal(counts, 0)
    roots = np.sqrt(np.maximum(counts.sum(1), 1e-9))
    return counts / np.outer(roots, roots)


def test_neighbors_are_counted_and_normalised(split):
    found = neighbors(near_pairs(split, VOCAB)).to_dense().numpy()
    np.testing.assert_allclose(found, plain_neighbors(split), rtol=1e-5, atol=1e-7)
    assert np.linalg.eigvalsh(found.astype(float)).max() == pytest.approx(1, abs=1e-5)
    assert not found[[0, ALONE]].any() and not found.diagonal().any()


def loss_of(weight: torch.Tensor, step: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(step)
    items, targets = torch.randint(1, VOCAB, (2, 16), generator=random)
    return F.cross_entropy(weight[items] @ weight.T, targets)


def make(split, weight: float):
    torch.manual_seed(0)
    table = torch.nn.Embedding(VOCAB, SIZE, padding_idx=0)
    return table, NeighborSmoothing(table, neighbors(near_pairs(split, VOCAB)), weight)


def optimizer_of(parameters, kind: str) -> torch.optim.Optimizer:
    if kind == "sgd":
        return torch.optim.SGD(parameters, 0.1, momentum=0.9)
    return torch.optim.AdamW(parameters, 0.05, weight_decay=0.1, fused=kind == "fused")


@pytest.mark.parametrize("kind", ["sgd", "adamw", "fused"])
@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_it_is_training_through_the_smoothing(split, kind, weight):
    table, smoothing = make(split, weight)
    optimizer = optimizer_of([table.weight], kind)
    smoothing.attach(optimizer)
    torch.manual_seed(0)
    latent = torch.nn.Parameter(torch.nn.Embedding(VOCAB, SIZE, padding_idx=0).weight.detach().clone())
    plain = optimizer_of([latent], kind)
    smooth = torch.eye(VOCAB) + weight * torch.from_numpy(plain_neighbors(split)).float()
    torch.testing.assert_close(table.weight.detach(), smooth @ latent.detach())
    for step in range(6):
        for parameter, by, made in ((table.weight, optimizer, table.weight), (latent, plain, smooth @ latent)):
            parameter.grad = None
            loss_of(made, step).backward()
            by.step()
        torch.testing.assert_close(table.weight.detach(), (smooth @ latent).detach(), rtol=1e-4, atol=1e-5)


def test_a_loaded_state_goes_on(split):
    table, smoothing = make(split, 1.0)
    optimizer = optimizer_of([table.weight], "fused")
    smoothing.attach(optimizer)

    def steps(table, optimizer, numbers):
        for step in numbers:
            optimizer.zero_grad()
            loss_of(table.weight, step).backward()
            optimizer.step()

    steps(table, optimizer, range(3))
    weights, state = copy.deepcopy(table.state_dict()), copy.deepcopy(optimizer.state_dict())
    steps(table, optimizer, range(3, 6))
    again, smoothing = make(split, 1.0)
    other = optimizer_of([again.weight], "fused")
    smoothing.attach(other)
    again.load_state_dict(weights)
    other.load_state_dict(state)
    steps(again, other, range(3, 6))
    assert torch.equal(again.weight, table.weight)


def test_an_item_without_neighbours_and_padding_stay_as_they_are(split):
    torch.manual_seed(0)
    before = torch.nn.Embedding(VOCAB, SIZE, padding_idx=0).weight
    table, _ = make(split, 1.0)
    assert torch.equal(table.weight[[0, ALONE]], before[[0, ALONE]])
    assert not torch.isclose(table.weight[1:ALONE], before[1:ALONE]).all(1).any()


def test_bad_weights():
    for weight in ("-0.1", ".nan", ".inf"):
        with pytest.raises(RecipeError, match=r"cooccurrence_smoothing must be at least 0"):
            load_recipe("demo", [f"cooccurrence_smoothing={weight}"])
