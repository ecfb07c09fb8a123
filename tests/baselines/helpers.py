"""Small baselines and histories for the tests."""

from __future__ import annotations

from typing import Any

import torch

from modeling_glintru.models.auto import MODELS
from modeling_glintru.models.whole_history_baselines import WholeHistoryHead

LONGEST = 12  # places of the models that have places
NAMES = sorted(MODELS)
WHOLE = [name for name in NAMES if issubclass(MODELS[name], WholeHistoryHead)]
CAUSAL = [name for name in NAMES if name not in WHOLE]


def small_config(name: str, **options: Any) -> Any:
    kind = MODELS[name].config_class
    sizes = {"vocab_size": 31, "hidden_size": 16, "num_attention_heads": 2, "max_position_embeddings": LONGEST}
    return kind(**{key: value for key, value in sizes.items() if hasattr(kind, key)} | options)


def make(name: str, **options: Any) -> Any:
    """A float64 model with every parameter off its initial value, so that no bias hides behind a zero."""
    torch.manual_seed(0)
    model = MODELS[name](small_config(name, **options))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.double().eval()


def histories(*lengths: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, 31, (length,), generator=generator) for length in lengths]


def next_labels(name: str, items: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and labels of (batch, length + 1) items, in the form that the model is trained with."""
    labels = items[:, 1:].clone()
    if MODELS[name].training_examples == "prefixes":
        labels[:, :-1] = -100
    return items[:, :-1], labels


def linear(layer: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return x @ layer.weight.T + (0 if layer.bias is None else layer.bias)


def layer_norm(norm: torch.nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def gelu(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def feed_forward(mlp: Any, x: torch.Tensor) -> torch.Tensor:
    return layer_norm(mlp.norm, x + linear(mlp.down_proj, gelu(linear(mlp.up_proj, x))))


def attention(layer: Any, x: torch.Tensor, visible: Any, heads: int) -> torch.Tensor:
    """One row, (places, size); `visible[i]` are the places that place i sees."""
    query, key, value = linear(layer.qkv_proj, x).split(x.shape[1], dim=1)
    out = torch.zeros_like(x)
    width = x.shape[1] // heads
    for i, places in enumerate(visible):
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            weights = torch.stack([query[i, part] @ key[j, part] / width**0.5 for j in places]).softmax(0)
            out[i, part] = sum(weight * value[j, part] for weight, j in zip(weights, places, strict=True))
    return layer_norm(layer.norm, linear(layer.o_proj, out) + x)
