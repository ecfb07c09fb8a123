"""Mamba4Rec against a plain transcription of its equations."""

from __future__ import annotations

import pytest
import torch
from transformers import MambaConfig
from transformers.models.mamba.modeling_mamba import MambaMixer

from modeling_glintru.auto import MODELS
from modeling_glintru.baselines.selective_scan import selective_scan

from .helpers import feed_forward, histories, layer_norm, linear, make


def silu(x: torch.Tensor) -> torch.Tensor:
    return x / (1 + torch.exp(-x))


def mamba(mixer, x: torch.Tensor) -> torch.Tensor:
    """One row, (length, size)."""
    u, gate = linear(mixer.in_proj, x).split(32, dim=1)
    taps = mixer.conv.weight[:, 0]  # (channels, taps), the newest last
    width = taps.shape[1]
    convolved = torch.zeros_like(u)
    for t in range(len(u)):
        for back in range(min(width, t + 1)):
            convolved[t] += taps[:, width - 1 - back] * u[t - back]
    u = silu(convolved + mixer.conv.bias)
    state, outputs = torch.zeros(32, mixer.state_size, dtype=torch.float64), []
    for u_t in u:
        step, b, c = linear(mixer.x_proj, u_t).split([mixer.rank, mixer.state_size, mixer.state_size])
        step = torch.log(1 + torch.exp(linear(mixer.step_proj, step)))
        decay = torch.exp(step[:, None] * -torch.exp(mixer.a_log))
        state = decay * state + (step * u_t)[:, None] * b[None, :]
        outputs.append(state @ c + mixer.skip * u_t)
    return linear(mixer.out_proj, torch.stack(outputs) * silu(gate))


@pytest.mark.parametrize("layers", [1, 2])
def test_mamba4rec_is_the_paper(layers):
    model = make("mamba4rec", num_hidden_layers=layers, state_size=5)
    ids = histories(23)[0]
    encoder = model.model
    x = layer_norm(encoder.norm, encoder.embed_items.weight[ids])
    for block in encoder.layers:
        mixed = mamba(block.mixer, x)
        x = feed_forward(block.mlp, layer_norm(block.norm, mixed if layers == 1 else mixed + x))
    torch.testing.assert_close(encoder(ids[None]).last_hidden_state[0], x, rtol=0, atol=1e-10)


def plain_scan(step, u, a, b, c):
    state, outputs = torch.zeros(step.shape[0], *a.shape, dtype=step.dtype), []
    for t in range(step.shape[1]):
        drive = torch.einsum("bc,bn->bcn", step[:, t] * u[:, t], b[:, t])
        state = torch.exp(step[:, t, :, None] * a) * state + drive
        outputs.append(torch.einsum("bcn,bn->bc", state, c[:, t]))
    return torch.stack(outputs, dim=1)


@pytest.mark.parametrize("chunk", [0, 1, 4, 11, 100])
def test_the_scan_and_its_gradients_are_those_of_a_plain_loop(chunk):
    torch.manual_seed(0)
    shapes = [(2, 11, 3), (2, 11, 3), (3, 4), (2, 11, 4), (2, 11, 4)]
    inputs = [torch.rand(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    weight = torch.rand(2, 11, 3, dtype=torch.float64)
    results = []
    for scan in (plain_scan, lambda *tensors: selective_scan(*tensors, chunk)):
        out = scan(inputs[0], inputs[1], -inputs[2], inputs[3], inputs[4])
        results.append([out, *torch.autograd.grad((out * weight).sum(), inputs)])
    with torch.no_grad():
        without_gradients = selective_scan(inputs[0], inputs[1], -inputs[2], inputs[3], inputs[4], chunk)
    for tensor, expected in zip([*results[1], without_gradients], [*results[0], results[0][0]], strict=True):
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-12)


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
    torch.testing.assert_close(mixer(x), theirs(x), rtol=0, atol=1e-6)  # theirs is in part in float32
