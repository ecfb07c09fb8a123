"""Parts that several baselines share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_glintru import GlintRUError
from .ops_glintru import Dropout, add_norm, heads_of


class FeedForward(nn.Module):
    """`norm(x + dropout(down(dropout_inner(GELU(up(x))))))`, the position-wise network with its norm behind it.

    Args:
        size: Width of input and output.
        inner: Width between.
        dropout: Dropout on the output.
        eps: Epsilon of the layer normalisation.
        inner_dropout: Dropout between the two layers.
    """

    def __init__(self, size: int, inner: int, dropout: float, eps: float, inner_dropout: float = 0.0) -> None:
        super().__init__()
        self.up_proj = nn.Linear(size, inner)
        self.down_proj = nn.Linear(inner, size)
        self.inner_dropout = Dropout(inner_dropout)
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(size, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) in and out."""
        inner = self.inner_dropout(F.gelu(self.up_proj(x)))
        return add_norm(self.down_proj(inner), x, self.norm, self.dropout.rate())


class SelfAttention(nn.Module):
    """`norm(x + dropout(out(softmax attention of x)))`, with the norm behind it.

    Args:
        size: Width of input and output.
        num_heads: Heads; divides `size`.
        dropout: Dropout on the output.
        eps: Epsilon of the layer normalisation.
        attention_dropout: Dropout on the attention weights.
    """

    def __init__(self, size: int, num_heads: int, dropout: float, eps: float, attention_dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_dropout = attention_dropout
        self.qkv_proj = nn.Linear(size, 3 * size)
        self.o_proj = nn.Linear(size, size)
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(size, eps=eps)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """
        Args:
            x: (batch, length, size).
            visible: bool, broadcast to (batch, heads, length, length): which keys (last) each query sees.
        """
        query, key, value = (heads_of(part, self.num_heads) for part in self.qkv_proj(x).chunk(3, dim=-1))
        dropout = self.attention_dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=visible, dropout_p=dropout)
        return add_norm(self.o_proj(attended.transpose(1, 2).flatten(2)), x, self.norm, self.dropout.rate())


def through(layers: Iterable[nn.Module], x: Tensor) -> list[Tensor]:
    """`x`, and the output of each layer in turn."""
    states = [x]
    for layer in layers:
        states.append(layer(states[-1]))
    return states


def at_least_zero(config: Any, *names: str) -> None:
    """Each named field is 0 or more."""
    for name in names:
        if getattr(config, name) < 0:
            raise GlintRUError(f"{name} must be at least 0, got {getattr(config, name)}")


def one_of(config: Any, name: str, allowed: tuple[str, ...]) -> None:
    """The field is one of the allowed names."""
    if getattr(config, name) not in allowed:
        raise GlintRUError(f"{name} must be one of {', '.join(allowed)}; got {getattr(config, name)!r}")


def check_length(length: int, longest: int) -> None:
    """A model with positions reads no more items than it has positions.

    Raises:
        GlintRUError: The history is longer.
    """
    if length > longest:
        raise GlintRUError(f"the model was made for at most {longest} items, got {length}; cut the history")


def count_items(embeds: Tensor, mask: Tensor | None) -> Tensor:
    """How many items each row has: int64 (batch, 1)."""
    if mask is None:
        return torch.full((embeds.shape[0], 1), embeds.shape[1], device=embeds.device)
    return mask.squeeze(-1).sum(1, keepdim=True).long()


def positions_from_newest(embeds: Tensor, mask: Tensor | None, longest: int) -> Tensor:
    """Numbers of the places in a row whose newest item has the place `longest - 1`: int64 (batch, length).

    That is what the left padding of the published codes amounts to. Items stand first in `embeds`; padding after them
    gets the last place.
    """
    check_length(embeds.shape[1], longest)
    places = torch.arange(embeds.shape[1], device=embeds.device) + longest - count_items(embeds, mask)
    return places.clamp_max(longest - 1)
