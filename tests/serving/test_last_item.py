"""The last representation alone, against the whole pass."""

from __future__ import annotations

import pytest
import torch

from modeling_glintru.kernels.build import library
from modeling_glintru.models.auto import MODELS
from modeling_glintru.models.head_glintru import last_item
from modeling_glintru.serving import last_item as last_item_module
from modeling_glintru.serving.last_item import LastItemEncoder

from ..model.helpers import random_history, small_model
from ..model.test_identity import STATE_SPACE

needs_kernel = pytest.mark.skipif(library() is None, reason="no C compiler on this machine")
SWITCHES = [
    {},
    {"num_hidden_layers": 3},
    {"use_temporal_convolutions": False},
    {"use_linear_attention": False},
    {"use_gru": False},
    {"use_selective_gate": False, "use_block_gate": False, "use_gated_mlp": False, "use_expert_mixing": False},
    {"normalize_scores": True, "hidden_size": 64, "num_attention_heads": 2},
    {"average_share": 0.4},
    {"average_share": 0.4, "num_hidden_layers": 2},
    STATE_SPACE,
    {**STATE_SPACE, "num_hidden_layers": 2},
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", SWITCHES, ids=[" ".join(options) or "published" for options in SWITCHES])
def test_it_equals_the_whole_pass(options, dtype):
    model = small_model(**options).to(dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    for length in (1, 2, 3, 4, 9):
        ids = random_history(10, length, seed=length)
        ids = ids * (torch.arange(length) < torch.arange(10)[:, None])  # rows of all lengths, none too
        with torch.no_grad():
            expected = last_item(model.model(ids).last_hidden_state, ids != 0)
        for num_positions in (0, 10**6):  # without and with tables
            encoder = LastItemEncoder(model, num_positions)
            torch.testing.assert_close(encoder(ids), expected, rtol=0, atol=tolerance)
            assert not encoder(ids)[0].any()


WIDE = {"hidden_size": 32, "num_attention_heads": 2}


@needs_kernel
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hidden_size": 64, "num_attention_heads": 1},
        {"hidden_size": 128, "num_attention_heads": 4},
        {"use_linear_attention": False},
        {"use_gru": False},
        {"average_share": 0.4},
        STATE_SPACE,
    ],
    ids=str,
)
def test_tables_equal_the_whole_pass(options, threads):
    model = small_model(**{**WIDE, **options})
    encoder = LastItemEncoder(model, 10**6)
    assert encoder.tables is not None
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for batch, length in ((1, 1), (3, 2), (5, 3), (30, 21)):
            ids = random_history(batch, length, seed=length)
            ids = ids * (torch.arange(length) < torch.randperm(batch)[:, None])
            with torch.no_grad():
                expected = last_item(model.model(ids).last_hidden_state, ids != 0)
            torch.testing.assert_close(encoder(ids), expected, rtol=1e-4, atol=1e-4)
    finally:
        torch.set_num_threads(before)


@needs_kernel
def test_tables_are_made_where_they_pay(monkeypatch):
    assert LastItemEncoder(small_model(**WIDE), 31).tables is not None
    assert LastItemEncoder(small_model(**WIDE), 30).tables is None
    assert LastItemEncoder(small_model(**WIDE, num_hidden_layers=2), 10**6).tables is None
    assert LastItemEncoder(small_model(**WIDE, use_temporal_convolutions=False), 10**6).tables is None
    assert LastItemEncoder(small_model(**WIDE).double(), 10**6).tables is None
    monkeypatch.setattr(last_item_module, "TABLE_BYTES", 11 * 4 * 31 * 32 - 1)
    assert LastItemEncoder(small_model(**WIDE), 31).tables is None


@pytest.mark.parametrize("name", ["sasrec", "fmlprec"])
def test_other_models_give_their_last_hidden_state(name):
    kind = MODELS[name]
    model = kind(kind.config_class(vocab_size=31, hidden_size=16)).eval()
    ids = random_history(4, 5) * (torch.arange(5) < torch.tensor([5, 1, 3, 0])[:, None])
    with torch.no_grad():
        expected = last_item(model.model(ids).last_hidden_state, ids != 0)
    torch.testing.assert_close(LastItemEncoder(model, 10**6)(ids), expected)
