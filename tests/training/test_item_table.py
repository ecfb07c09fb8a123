"""Rows that are a free vector and a projection of features while they are trained, and a plain table afterwards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import nn

from modeling_glintru import GlintRUError
from modeling_glintru.data.item_features import ItemFeatures
from modeling_glintru.models.item_projection import ItemProjection
from modeling_glintru.training.cooccurrence import NeighborSmoothing
from modeling_glintru.training.item_table import (
    add_features,
    has_features,
    made_once,
    materialise,
    mean_query,
    parameter_of,
)

from ..model.helpers import small_model

ITEMS, WIDTH, SIZE = 12, 5, 4
COUNTS = np.arange(ITEMS + 1)


@pytest.fixture
def features() -> ItemFeatures:
    matrix = np.random.default_rng(0).normal(size=(ITEMS + 1, WIDTH)).astype(np.float32)
    known = np.ones(ITEMS + 1, bool)
    known[[0, 7]] = False
    matrix[~known] = 0
    return ItemFeatures(matrix, known, encoder=None)  # type: ignore[arg-type]


@pytest.fixture
def table() -> nn.Embedding:
    torch.manual_seed(0)
    return nn.Embedding(ITEMS + 1, SIZE, padding_idx=0)


def projection_in(table):
    """Of features as they are, not scaled."""
    return table.parametrizations.weight[0].projection * WIDTH**0.5


def test_a_row_is_its_free_vector_and_its_projection(table, features):
    """The table begins as it was; what its features say of it is in the projection."""
    before = table.weight.detach().clone()
    add_features(table, features, COUNTS)
    projection, matrix = projection_in(table), torch.from_numpy(features.matrix)
    torch.testing.assert_close(table.weight, before)
    torch.testing.assert_close(table.weight, parameter_of(table) + matrix @ projection)
    known = np.flatnonzero(features.known)
    expected = ItemProjection.fit(matrix[known], before[known], torch.from_numpy(COUNTS[known]))
    torch.testing.assert_close(projection, expected.weight)
    assert torch.equal(table.weight[0], torch.zeros(SIZE)) and torch.equal(table.weight[7], before[7])
    assert has_features(table) and table.parametrizations.weight[0].projection.is_contiguous()


def test_gradients_reach_both(table, features):
    add_features(table, features, COUNTS)
    gradient = torch.randn(ITEMS + 1, SIZE, generator=torch.Generator().manual_seed(1))
    (table.weight * gradient).sum().backward()
    torch.testing.assert_close(parameter_of(table).grad, gradient)
    expected = WIDTH**0.5 * torch.from_numpy(features.matrix).T @ gradient
    torch.testing.assert_close(table.parametrizations.weight[0].projection.grad, expected)


def test_a_plain_table_is_left(table, features):
    add_features(table, features, COUNTS)
    trained = table.weight.detach().clone()
    materialise(table)
    assert torch.equal(table.weight, trained) and isinstance(table.weight, nn.Parameter)
    assert type(table) is nn.Embedding and list(table.state_dict()) == ["weight"]
    materialise(table)  # nothing is left to do
    assert torch.equal(table.weight, trained) and parameter_of(table) is table.weight


def test_within_a_step_the_table_is_made_once(table, features):
    add_features(table, features, COUNTS)
    made = []
    table.parametrizations.weight[0].register_forward_hook(lambda *_: made.append(1))
    with made_once(table):
        assert table.weight is table.weight
        table(torch.tensor([1, 2]))
    assert made == [1]
    assert table.weight is not table.weight
    with made_once(nn.Linear(2, 2)), made_once(None):
        """Anything else is left alone."""


def test_the_table_stays_in_full_precision_under_autocast(table, features):
    add_features(table, features, COUNTS)
    with torch.autocast("cpu", torch.bfloat16):
        assert table.weight.dtype == torch.float32


def test_a_projection_to_begin_with(table, features):
    free, start = table.weight.detach().clone(), ItemProjection(torch.randn(WIDTH, SIZE))
    add_features(table, features, COUNTS, start)
    torch.testing.assert_close(table.weight, free + torch.from_numpy(features.matrix) @ start.weight)


def test_smoothing_moves_the_free_vectors(table, features):
    """`W = (I + A) E + features @ projection`, and a step of plain gradient descent by hand."""
    matrix = torch.zeros(ITEMS + 1, ITEMS + 1)
    matrix[1, 2] = matrix[2, 1] = 0.5
    add_features(table, features, COUNTS)
    first, smooth = parameter_of(table).detach().clone(), torch.eye(ITEMS + 1) + matrix
    smoothing = NeighborSmoothing(table, matrix.to_sparse_coo(), 1.0)
    torch.testing.assert_close(parameter_of(table).detach(), smooth @ first)
    optimizer = torch.optim.SGD([parameter_of(table)], lr=0.1)
    smoothing.attach(optimizer)
    gradient = torch.randn(ITEMS + 1, SIZE)
    (table.weight * gradient).sum().backward()
    optimizer.step()
    torch.testing.assert_close(parameter_of(table).detach(), smooth @ (first - 0.1 * smooth @ gradient))


def test_the_projection_is_a_weighted_ridge_regression():
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    features, rows, counts = rng.normal(size=(40, WIDTH)), rng.normal(size=(40, SIZE)), rng.integers(1, 30, 40)
    weights = counts / counts.mean()
    strength = (weights[:, None] * features**2).sum(0).mean()
    expected = linear_model.Ridge(strength, fit_intercept=False).fit(features, rows, weights).coef_.T
    found = ItemProjection.fit(torch.from_numpy(features), torch.from_numpy(rows), torch.from_numpy(counts))
    np.testing.assert_allclose(found.weight.numpy(), expected, rtol=1e-5, atol=1e-7)
    new = torch.from_numpy(rng.normal(size=(3, WIDTH))).float()
    torch.testing.assert_close(found.rows(new), new @ found.weight)


def test_a_projection_is_a_file(tmp_path):
    assert ItemProjection.load(tmp_path) is None
    projection = ItemProjection(torch.randn(WIDTH, SIZE))
    projection.save(tmp_path)
    loaded = ItemProjection.load(tmp_path)
    assert loaded is not None and torch.equal(loaded.weight, projection.weight)
    with pytest.raises(GlintRUError, match="item features must have width 5, got 6"):
        projection.rows(torch.zeros(1, 6))
    for weight in (torch.tensor([1.0]), torch.full((2, 2), torch.nan)):
        ItemProjection(weight).save(tmp_path)
        with pytest.raises(GlintRUError, match="is damaged"):
            ItemProjection.load(tmp_path)
    (tmp_path / "item_projection.safetensors").write_bytes(b"\x00")
    with pytest.raises(GlintRUError, match="is damaged"):
        ItemProjection.load(tmp_path)


def test_a_boost_turns_rows_to_the_mean_query():
    weight, query = torch.randn(WIDTH, SIZE), torch.nn.functional.normalize(torch.randn(SIZE), dim=0)
    features = torch.randn(6, WIDTH)
    plain = features @ weight
    found = ItemProjection(weight, query).rows(features, 0.5)
    for row, before in zip(found, plain, strict=True):
        torch.testing.assert_close(row, before + 0.5 * before.square().sum().sqrt() * query)
    assert torch.equal(ItemProjection(weight).rows(features, 0.5), plain)


def test_the_mean_query(tmp_path):
    model = small_model()
    rows = [[1, 2, 3], [4], [5, 6, 7, 8, 9]]
    found = mean_query(model, Dataset.from_dict({"item_ids": rows}), max_length=3)
    queries = [model(torch.tensor([row[-3:]])).last_hidden_state[0, -1] for row in rows]
    expected = sum(query / query.norm() for query in queries)
    torch.testing.assert_close(found, (expected / expected.norm()).detach())
