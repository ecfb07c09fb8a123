"""Mamba4Rec against a plain transcription of its equations."""

from __future__ import annotations

import pytest
import torch
from transformers import MambaConfig
from transformers.models.mamba.modeling_mamba import MambaMixer

from modeling_glintru.models.auto import MODELS

from ..model.oracle import mamba
from .helpers import feed_forward, histories, layer_norm, make


@pytest.mark.parametrize("layers", [1, 2])
def test_mamba4rec_is_the_paper(layers):
    model = make("mamba4rec", num_hidden_layers=layers, state_size=5)
    ids = histories(23)[0]
    encoder = model.model
    x = layer_norm(encoder.norm, encoder.embed_items.weight[ids])
    for block in encoder.layers:
        mixed = mamba(block.mixer, x[None])[0]
        x = feed_forward(block.mlp, layer_norm(block.norm, mixed if layers == 1 else mixed + x))
    torch.testing.assert_close(encoder(ids[None]).last_hidden_state[0], x, rtol=0, atol=1e-10)


def test_a_new_model_decays_at_the_rates_of_mamba():
    config = MODELS["mamba4rec"].config_class(vocab_size=11, hidden_size=16, state_size=4)
    mixer = MODELS["mamba4rec"](config).model.layers[0].mixer
    torch.testing.assert_close(mixer.a_log.exp(), torch.tensor([1.0, 2, 3, 4]).expand(32, 4))
    assert torch.equal(mixer.skip, torch.ones(32)) and mixer.conv.weight.std() > 0.1


def test_the_mixer_is_that_of_transformers():
    """An independent implementation of Mamba's published code."""
    mixer = make("mamba4rec", state_size=5).model.layers[0].mixer
    config = MambaConfig(hidden_size=16, state_size=5, conv_kernel=4, expand=2, time_step_rank=1, use_bias=False)
    theirs = MambaMixer(config, layer_idx=0).double().eval()
    names = {"conv": "conv1d", "step_proj": "dt_proj", "a_log": "A_log", "skip": "D"}
    state = {
        ".".join(names.get(part, part) for part in name.split(".")): tensor
        for name, tensor in mixer.state_dict().items()
    }
    theirs.load_state_dict(state)
    x = torch.randn(2, 23, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mixer(x, None)[0], theirs(x), rtol=0, atol=1e-6)  # theirs is in part in float32
