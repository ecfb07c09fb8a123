"""GRU4Rec against a plain transcription of its equations."""

from __future__ import annotations

import pytest
import torch

from .helpers import histories, make


@pytest.mark.parametrize("layers", [1, 2])
def test_gru4rec_is_its_equations(layers):
    model = make("gru4rec", num_hidden_layers=layers)
    ids = torch.stack(histories(7, 7))
    encoder = model.model
    x = encoder.embed_items(ids)
    for layer in encoder.layers:
        weight_x, weight_h = layer.all_weights[0]
        state, states = torch.zeros(2, 16, dtype=torch.float64), []
        for t in range(7):
            rx, zx, nx = (x[:, t] @ weight_x.T).chunk(3, 1)
            rh, zh, nh = (state @ weight_h.T).chunk(3, 1)
            new = torch.tanh(nx + torch.sigmoid(rx + rh) * nh)
            update = torch.sigmoid(zx + zh)
            state = (1 - update) * new + update * state
            states.append(state)
        x = torch.stack(states, 1)
    torch.testing.assert_close(encoder(ids).last_hidden_state, encoder.out_proj(x), rtol=0, atol=1e-10)
