"""BSARec against a plain transcription of its equations, with the discrete Fourier transform written out."""

from __future__ import annotations

import math

import pytest
import torch

from .helpers import LONGEST, attention, feed_forward, histories, layer_norm, make


def low_pass(x: torch.Tensor, cutoff: int) -> torch.Tensor:
    """The part of x (places, features) at frequencies 0 … cutoff // 2, and at their mirror images."""
    places = len(x)
    times = torch.arange(places, dtype=torch.float64)
    out = torch.zeros(x.shape, dtype=torch.complex128)
    for k in range(places):
        if min(k, places - k) <= cutoff // 2:
            wave = torch.exp(2j * math.pi * k * times / places)
            coefficient = (wave.conj()[:, None] * x).sum(0) / places
            out += wave[:, None] * coefficient
    assert out.imag.abs().max() < 1e-12
    return out.real


@pytest.mark.parametrize(("heads", "cutoff", "alpha"), [(1, 5, 0.7), (2, 1, 0.3), (1, 99, 1)])
@pytest.mark.parametrize("length", [LONGEST, 5])
def test_bsarec_is_the_paper(heads, cutoff, alpha, length):
    model = make("bsarec", num_attention_heads=heads, cutoff=cutoff, alpha=alpha)
    (ids,) = histories(length)
    encoder = model.model
    x = torch.zeros(LONGEST, 16, dtype=torch.float64)
    x[LONGEST - length :] = encoder.embed_items.weight[ids]
    x = layer_norm(encoder.norm, x + encoder.embed_positions.weight)
    first = LONGEST - length
    visible = [range(first, i + 1) if i >= first else range(LONGEST) for i in range(LONGEST)]
    for block in encoder.layers:
        low = low_pass(x, cutoff)
        filtered = layer_norm(block.filter.norm, x + low + block.filter.beta**2 * (x - low))
        mixed = alpha * filtered + (1 - alpha) * attention(block.attention, x, visible, heads)
        x = feed_forward(block.mlp, mixed)
    torch.testing.assert_close(encoder(ids[None]).last_hidden_state[0, -1], x[-1], rtol=0, atol=1e-10)


def test_the_two_ends_of_alpha_use_one_layer_each():
    ids = torch.stack(histories(9))
    for alpha, unused in ((0, "filter"), (1, "attention")):
        model = make("bsarec", alpha=alpha, num_hidden_layers=1)
        before = model(ids).logits
        with torch.no_grad():
            for parameter in getattr(model.model.layers[0], unused).parameters():
                parameter.mul_(2)
        assert torch.equal(model(ids).logits, before)
