"""`PlainStep`: clicks one by one equal the full pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modeling_glintru import GlintRUError
from modeling_glintru.models.auto import MODELS
from modeling_glintru.serving.step import PlainStep, rows_of_state, state_of_rows

from ..model.helpers import random_history, small_model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", [{}, {"num_hidden_layers": 2}, {"use_gru": False}, {"normalize_scores": True}])
def test_clicks_equal_the_full_pass(options, dtype):
    model = small_model(**options).to(dtype)
    step = PlainStep(model)
    ids = random_history(3, 7)
    rows, counts = step.empty(3), np.zeros(3, np.int64)
    assert rows.shape == (3, step.row_size) and rows.dtype == np.float32
    for t in range(7):
        before = rows.copy()
        after = step.advance(rows, counts, ids[:, t].numpy())
        np.testing.assert_array_equal(rows, before)
        rows, counts = after, counts + 1
    output = model(ids, use_cache=True)
    scores = step.queries(rows) @ model.item_vectors().detach().float().numpy().T
    np.testing.assert_allclose(scores[:, 1:], output.logits.detach().float()[:, 1:], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(rows, rows_of_state(output.state), rtol=1e-4, atol=1e-5)


def test_rows_are_the_numbers_of_the_bytes():
    model = small_model(num_hidden_layers=2)
    state = model(random_history(3, 4), use_cache=True).state
    rows = rows_of_state(state)
    assert [blob[-rows[0].nbytes :] for blob in state.to_bytes()] == [row.tobytes() for row in rows]
    again = state_of_rows(state.layout, rows, state.count.numpy(), state.fingerprint)
    assert again.to_bytes() == state.to_bytes()


def test_users_at_different_lengths():
    model = small_model()
    step = PlainStep(model)
    ids = random_history(1, 5)
    rows = np.concatenate((step.empty(1), rows_of_state(model(ids[:, :4], use_cache=True).state)))
    rows = step.advance(rows, np.array([0, 4]), np.array([7, int(ids[0, 4])]))
    expected = rows_of_state(model(torch.tensor([[7]]), use_cache=True).state)
    np.testing.assert_allclose(rows[:1], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(rows[1:], rows_of_state(model(ids, use_cache=True).state), rtol=1e-4, atol=1e-5)


def test_nobody():
    step = PlainStep(small_model())
    assert step.advance(step.empty(0), np.zeros(0, np.int64), np.zeros(0, np.int64)).shape == (0, step.row_size)
    assert step.queries(step.empty(0)).shape == (0, 16)


def test_models_without_a_state():
    sasrec = MODELS["sasrec"]
    with pytest.raises(GlintRUError, match="keeps no state"):
        PlainStep(sasrec(sasrec.config_class(vocab_size=31, hidden_size=16, num_attention_heads=2)))
    with pytest.raises(GlintRUError, match="'official'"):
        PlainStep(small_model(padding_mode="official"))
