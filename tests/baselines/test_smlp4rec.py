"""SMLP4Rec against a plain transcription of its equations."""

from __future__ import annotations

import pytest
import torch

from .helpers import LONGEST, gelu, histories, layer_norm, make


def mix(mixer, values: torch.Tensor) -> torch.Tensor:
    """One vector of what is mixed."""
    return mixer.down_proj.weight @ gelu(mixer.up_proj.weight @ values)


@pytest.mark.parametrize("length", [LONGEST, 5])
@pytest.mark.parametrize("layers", [1, 2])
def test_smlp4rec_is_the_paper(length, layers):
    model = make("smlp4rec", num_hidden_layers=layers)
    (ids,) = histories(length)
    encoder = model.model
    x = torch.zeros(LONGEST, 16, dtype=torch.float64)
    x[LONGEST - length :] = encoder.embed_items.weight[ids]
    for block in encoder.layers:
        x = layer_norm(block.norm, x)
        out = torch.zeros_like(x)
        for channel in range(16):
            out[:, channel] += mix(block.time, x[:, channel])
        for place in range(LONGEST):
            out[place] += mix(block.channels, x[place])
            for channel in range(16):
                out[place, channel] += mix(block.fields, x[place, channel, None])[0]
        x = out
    expected = layer_norm(encoder.norm, x[-1])
    torch.testing.assert_close(encoder(ids[None]).last_hidden_state[0, -1], expected, rtol=0, atol=1e-10)
