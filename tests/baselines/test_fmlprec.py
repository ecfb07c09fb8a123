"""FMLP-Rec against a plain transcription of its equations, with the discrete Fourier transform written out."""

from __future__ import annotations

import math

import pytest
import torch

from .helpers import feed_forward, histories, layer_norm, make


def filtered(layer, x: torch.Tensor) -> torch.Tensor:
    """IDFT(W ⊙ DFT(x)); the weights of the negative frequencies are the conjugates of those of the positive ones."""
    places = len(x)
    weight = torch.complex(layer.weight_real, layer.weight_imag)
    times = torch.arange(places, dtype=torch.float64)
    out = torch.zeros(x.shape, dtype=torch.complex128)
    for k in range(places):
        w = weight[k] if k <= places // 2 else weight[places - k].conj()
        if k == 0 or 2 * k == places:
            w = w.real  # these waves are their own mirror images, and the output is real
        wave = torch.exp(2j * math.pi * k * times / places)
        out += wave[:, None] * (w * (wave.conj()[:, None] * x).sum(0) / places)
    assert out.imag.abs().max() < 1e-12
    return out.real


@pytest.mark.parametrize("places", [12, 11])
@pytest.mark.parametrize("length", [11, 4])
def test_fmlprec_is_the_paper(places, length):
    model = make("fmlprec", max_position_embeddings=places)
    (ids,) = histories(length)
    encoder = model.model
    x = torch.zeros(places, 16, dtype=torch.float64)
    x[places - length :] = encoder.embed_items.weight[ids]
    x = layer_norm(encoder.norm, x + encoder.embed_positions.weight)
    for block in encoder.layers:
        x = feed_forward(block.mlp, layer_norm(block.filter.norm, x + filtered(block.filter, x)))
    torch.testing.assert_close(encoder(ids[None]).last_hidden_state[0, -1], x[-1], rtol=0, atol=1e-10)
