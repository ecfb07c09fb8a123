"""LinRec against a plain transcription of its equations."""

from __future__ import annotations

import pytest
import torch

from .helpers import LONGEST, feed_forward, histories, layer_norm, linear, make


def elu(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x > 0, x, torch.exp(x) - 1)


def linear_attention(layer, x: torch.Tensor, heads: int, causal: bool) -> torch.Tensor:
    """One row, (length, size)."""
    query, key, value = linear(layer.qkv_proj, x).split(x.shape[1], dim=1)
    width = x.shape[1] // heads
    out = torch.zeros_like(x)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        q, k = elu(query[:, part]), elu(key[:, part])
        q, k = q / q.pow(2).sum(1, keepdim=True).sqrt(), k / k.pow(2).sum(1, keepdim=True).sqrt()
        for t in range(len(x)):
            for s in range(t + 1 if causal else len(x)):
                out[t, part] += (q[t] @ k[s]) * value[s, part] / width**0.5
    return layer_norm(layer.norm, linear(layer.o_proj, out) + x)


def transcribed(model, ids: torch.Tensor, causal: bool) -> torch.Tensor:
    encoder = model.model
    x = encoder.embed_items.weight[ids] + encoder.embed_positions.weight[LONGEST - len(ids) :]
    x = layer_norm(encoder.norm, x)
    for block in encoder.layers:
        x = feed_forward(block.mlp, linear_attention(block.attention, x, model.config.num_attention_heads, causal))
    return x


@pytest.mark.parametrize(("heads", "layers"), [(1, 2), (4, 1)])
def test_linrec_is_its_equations(heads, layers):
    model = make("linrec", num_attention_heads=heads, num_hidden_layers=layers)
    (ids,) = histories(9)
    states = model.model(ids[None]).last_hidden_state[0]
    torch.testing.assert_close(states, transcribed(model, ids, causal=True), rtol=0, atol=1e-10)


def test_one_layer_is_the_authors_attention_over_the_whole_prefix():
    model = make("linrec", num_hidden_layers=1)
    (ids,) = histories(9)
    last = model.model(ids[None]).last_hidden_state[0, -1]
    torch.testing.assert_close(last, transcribed(model, ids, causal=False)[-1], rtol=0, atol=1e-10)
