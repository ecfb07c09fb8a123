"""The prefix-parallel identity: one pass equals the paper's computation of every prefix."""

from __future__ import annotations

import random

import pytest
import torch

from modeling_glintru.models.ops_glintru import causal_linear_attention

from .helpers import gradients, random_history, small_model
from .oracle import encode_all_prefixes

PARTS = [
    "use_linear_attention",
    "use_gru",
    "use_temporal_convolutions",
    "use_selective_gate",
    "use_expert_mixing",
    "use_block_gate",
    "use_gated_mlp",
]

STATE_SPACE = {"state_space_share": 0.5, "use_embedding_norm": True}


def random_case(seed: int) -> tuple[dict, int, int]:
    """Sizes of one random model, a batch and a length."""
    draw = random.Random(seed)
    heads = draw.choice([1, 2, 4])
    options = {
        "hidden_size": heads * draw.choice([2, 3, 8]),
        "num_attention_heads": heads,
        "num_hidden_layers": draw.choice([1, 1, 2, 3]),
        "vocab_size": draw.randint(3, 60),
        "average_share": draw.choice([0.0, 0.4]),
        "state_space_share": draw.choice([0.0, 0.5]),
    }
    return options, draw.randint(1, 3), draw.randint(2, 70)


def check(options: dict, batch: int, length: int, seed: int = 0) -> None:
    model = small_model(seed, **options).double()
    ids = random_history(batch, length, model.config.vocab_size, seed)
    fast = model.model(ids).last_hidden_state
    slow = encode_all_prefixes(model.model, ids)
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-10)

    direction = torch.randn(fast.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    fast_grads = gradients((fast * direction).sum(), model)
    slow_grads = gradients((slow * direction).sum(), model)
    for name, grad in fast_grads.items():
        scale = max(1.0, slow_grads[name].abs().max().item())
        torch.testing.assert_close(grad / scale, slow_grads[name] / scale, rtol=0, atol=1e-10, msg=name)


@pytest.mark.parametrize("seed", range(12))
def test_random_sizes(seed):
    options, batch, length = random_case(seed)
    check(options, batch, length, seed)


@pytest.mark.parametrize("length", [1, 2, 3, 63, 64, 65, 129])
def test_lengths(length):
    check({}, 2, length)


@pytest.mark.slow
def test_length_200():
    check({"hidden_size": 8, "num_attention_heads": 2}, 1, 200)


@pytest.mark.parametrize("part", PARTS)
def test_every_part_can_be_switched_off(part):
    whole, without = small_model(), small_model(**{part: False})
    assert sum(p.numel() for p in without.parameters()) < sum(p.numel() for p in whole.parameters())
    check({part: False, "num_hidden_layers": 2}, 2, 9)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("length", [1, 31, 32, 33, 70])
def test_moving_average(decay, length):
    check({"average_share": 0.3, "average_decay": decay, "num_hidden_layers": 2}, 2, length)


@pytest.mark.parametrize("length", [1, 3, 4, 17, 40])
def test_state_space(length):
    check({**STATE_SPACE, "average_share": 0.2, "num_hidden_layers": 2}, 2, length)


@pytest.mark.parametrize("options", [{}, STATE_SPACE], ids=str)
def test_no_later_item_reaches_a_prefix(options):
    model = small_model(num_hidden_layers=2, **options).double()
    ids = random_history(2, 20)
    changed = ids.clone()
    changed[:, 12:] = random_history(2, 8, seed=1)
    before = model.model(ids).last_hidden_state
    after = model.model(changed).last_hidden_state
    assert torch.equal(before[:, :12], after[:, :12])
    assert not torch.allclose(before[:, 12:], after[:, 12:])


@pytest.mark.parametrize("chunk", [1, 3, 16, 64])
def test_chunked_attention_equals_the_masked_product(chunk):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 50, 4, dtype=torch.float64, generator=generator) for _ in range(3))
    plain = (q @ k.transpose(-1, -2)).tril() @ v
    torch.testing.assert_close(causal_linear_attention(q, k, v, chunk), plain, rtol=0, atol=1e-12)
