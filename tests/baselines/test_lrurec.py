"""LRURec against a plain transcription of its equations."""

from __future__ import annotations

import pytest
import torch

from modeling_glintru.models.auto import MODELS
from modeling_glintru.models.modeling_lrurec import linear_recurrence

from .helpers import feed_forward, histories, layer_norm, make


@pytest.mark.parametrize("layers", [1, 3])
def test_lrurec_is_the_paper(layers):
    model = make("lrurec", num_hidden_layers=layers)
    ids = torch.stack(histories(9, 9))
    encoder = model.model
    x = layer_norm(encoder.norm, encoder.embed_items.weight[ids])
    for block in encoder.layers:
        unit = block.recurrence
        decay = torch.exp(torch.complex(-unit.nu_log.exp(), unit.theta_log.exp()))
        matrix_b = torch.complex(*unit.in_proj.weight.split(32))
        bias_b = torch.complex(*unit.in_proj.bias.split(32))
        real_c, minus_imaginary_c = unit.out_proj.weight.split(32, dim=1)
        matrix_c = torch.complex(real_c, -minus_imaginary_c)
        state, outputs = torch.zeros(2, 32, dtype=torch.complex128), []
        for t in range(9):
            drive = x[:, t].to(torch.complex128) @ matrix_b.T + bias_b
            state = decay * state + unit.gamma_log.exp() * drive
            outputs.append((state @ matrix_c.T).real + unit.out_proj.bias)
        z = layer_norm(unit.norm, torch.stack(outputs, 1) + x)
        x = feed_forward(block.mlp, z)
    torch.testing.assert_close(encoder(ids).last_hidden_state, x, rtol=0, atol=1e-10)
    torch.testing.assert_close(
        model(ids).logits[:, 1:], (x[:, -1] @ encoder.embed_items.weight.T)[:, 1:], rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 200])
@pytest.mark.parametrize("parallel", [True, False])
def test_the_scan_is_the_recurrence(length, parallel):
    torch.manual_seed(0)
    x = torch.randn(2, length, 3, dtype=torch.complex128)
    decay = torch.polar(torch.rand(3).double(), 6 * torch.rand(3).double())
    state, states = torch.zeros(2, 3, dtype=torch.complex128), []
    for t in range(length):
        state = decay * state + x[:, t]
        states.append(state)
    torch.testing.assert_close(linear_recurrence(decay, x, parallel), torch.stack(states, 1), rtol=0, atol=1e-10)


def test_the_state_starts_on_the_ring_with_unit_gain():
    torch.manual_seed(0)
    config = MODELS["lrurec"].config_class(vocab_size=11, hidden_size=64)
    unit = MODELS["lrurec"](config).model.layers[0].recurrence
    radius = (-unit.nu_log.exp()).exp()
    assert 0.8 <= radius.min() < 0.83 and 0.97 < radius.max() <= 0.99
    torch.testing.assert_close(unit.gamma_log.exp() ** 2, 1 - radius**2)
    assert unit.theta_log.exp().max() <= 6.2832 and unit.theta_log.exp().std() > 1
    assert unit.in_proj.weight.abs().max() <= 0.04
