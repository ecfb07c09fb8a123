"""The block of GLINT-RU, computed for every prefix of a sequence in one pass.

For the prefix that ends at t, everything to the right of t is absent. Only the values AT t differ from those of the
longer sequence: below, `edge` is the value at the last position of a prefix, `interior` the value once the right
neighbour is there. With `whole_sequence` the block is the authors' bidirectional one, padding included.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .average_glintru import GlintRUMovingAverage
from .configuration_glintru import GlintRUConfig
from .fused_glintru import (
    Dropout,
    add_norm,
    attention_parts,
    edges,
    gated_pairs,
    gelu_gate,
    linear_attention,
    pairs,
    shift_in,
    shift_right,
)
from .kernels_glintru import can_fuse, gru_scan
from .state_space_glintru import GlintRUStateSpace


def autocast_once(x: Tensor) -> Tensor:
    """`x` in the dtype of the products that read it: one cast instead of one for each of them."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if not x.is_meta and torch.is_autocast_enabled(kind) else x


def is_plain(layer: nn.Module) -> bool:
    """Whether the layer's weights may be used without calling it: an adapter (LoRA) around it would be left out."""
    return type(layer) is nn.Linear


def joined(layers: list[nn.Linear], x: Tensor) -> Tensor:
    """The outputs of several linear layers side by side, as one product."""
    if not all(map(is_plain, layers)):
        return torch.cat([layer(x) for layer in layers], dim=-1)
    weight, bias = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
    return F.linear(x, weight, bias)


def can_scan(x: Tensor, weight: Tensor) -> bool:
    """Whether the compiled recurrence serves: float32 weights, and inputs as every kernel wants them."""
    return weight.dtype == torch.float32 and can_fuse(x, width=weight.shape[1])


@torch.compiler.disable  # the kernel serves compiled models too
def gru_states(gru: nn.GRU, x: Tensor, start: Tensor | None = None) -> Tensor:
    """The state at every position of a one-layer GRU without biases. (batch, length, size) in and out.

    `start` is the state before the first position, (batch, size); zero, which the kernel wants, where it is `None`.
    """
    weight_x, weight_h = gru.all_weights[0]
    if start is not None:
        return gru(x, start.to(x.dtype)[None].contiguous())[0]
    if not can_scan(x, weight_h):
        return gru(x)[0]
    return gru_scan(F.linear(x, weight_x).float()[None], weight_h)[0]


def gru_step(gru: nn.GRU, x: Tensor, before: Tensor) -> Tensor:
    """What one step makes of each state `before` with its input `x`; all (batch, length, size)."""
    weight_x, weight_h = gru.all_weights[0]
    reset_x, update_x, new_x = F.linear(x, weight_x).chunk(3, dim=-1)
    reset_h, update_h, new_h = F.linear(before, weight_h).chunk(3, dim=-1)
    update = torch.sigmoid(update_x + update_h)
    new = torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h)
    return new + update * (before - new)


@torch.compiler.disable
def gru_prefix_states(gru: nn.GRU, inputs: Tensor) -> Tensor:
    """The states over interior inputs, and, for every t at once, what the edge input makes of the state at t - 1.

    Args:
        inputs: (2, batch, length, size), interior and edge.

    Returns:
        States and edge states, (2, batch, length, size).
    """
    weight_x, weight_h = gru.all_weights[0]
    if can_scan(inputs, weight_h):
        return gru_scan(F.linear(inputs, weight_x).float(), weight_h)
    interior, edge = inputs
    states = gru(interior)[0]
    return torch.stack((states, gru_step(gru, edge, shift_right(states))))


@dataclass(frozen=True)
class Border:
    """Where a batch of new items, each row's before its padding, meets the histories that a state stands for.

    Args:
        num_items: (batch,) int64, new items of each row.
        has_before: (batch, length, 1) in the dtype of the numbers: 1 where an item precedes the position, here or in
            the state.
        before: (batch,) int64, items of each row's history.
        fresh: Whether no row has a history.
    """

    num_items: Tensor
    has_before: Tensor
    before: Tensor
    fresh: bool

    def last(self, old: Tensor, new: Tensor) -> Tensor:
        """`new` (batch, length, size) at the last new item of each row, and `old` (batch, size) where there is none."""
        index = (self.num_items - 1).clamp_min(0)[:, None, None].expand(-1, 1, new.shape[2])
        return torch.where((self.num_items > 0)[:, None], new.gather(1, index).squeeze(1).to(old.dtype), old)


class GlintRULinearAttention(nn.Module):
    """Linear-attention expert (paper section 3.4): L2-normalised ELU features, no softmax, a running sum."""

    def __init__(self, config: GlintRUConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.q_proj = nn.Linear(size, size)
        self.k_proj = nn.Linear(size, size)
        self.v_proj = nn.Linear(size, size)
        self.o_proj = nn.Linear(size, size)
        self.dropout = Dropout(config.attention_dropout)
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)

    def _whole_sequence(self, qkv: Tensor) -> Tensor:
        """Each position reads all of them, padding included."""
        query, key, value = attention_parts(qkv, self.num_heads)
        context = query @ (key.transpose(-1, -2) @ value.to(key.dtype))
        return (context * query.shape[-1] ** -0.5).transpose(1, 2).flatten(2).to(qkv.dtype)

    def forward(self, x: Tensor, reads: Tensor, mask: Tensor | None, whole_sequence: bool) -> Tensor:
        qkv = joined([self.q_proj, self.k_proj, self.v_proj], reads)
        context = self._whole_sequence(qkv) if whole_sequence else linear_attention(qkv, mask, self.num_heads)
        return add_norm(self.o_proj(context), x, self.dropout, self.norm)

    def advance(self, x: Tensor, reads: Tensor, mask: Tensor | None, total: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, after items whose sum `k̂ᵀ v` is `total` (batch, heads, size, size); also the new sum."""
        qkv = joined([self.q_proj, self.k_proj, self.v_proj], reads)
        query, key, value = attention_parts(qkv, self.num_heads)
        past = (query @ total.to(query.dtype) * query.shape[-1] ** -0.5).transpose(1, 2).flatten(2)
        context = linear_attention(qkv, mask, self.num_heads) + past.to(qkv.dtype)
        key, value = key.to(total.dtype), value.to(total.dtype)
        total = total + key.transpose(-1, -2) @ (value if mask is None else value * mask[:, None])
        return add_norm(self.o_proj(context), x, self.dropout, self.norm), total


class TemporalConvolution(nn.Conv1d):
    """Full convolution over time with taps at t-1, t, t+1 and zeros outside the sequence."""

    def __init__(self, size: int) -> None:
        super().__init__(size, size, kernel_size=3, padding=1)

    def whole_sequence(self, x: Tensor) -> Tensor:
        """Every position has its right neighbour. (batch, length, size)."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)

    def taps(self, projection: nn.Linear, x: Tensor) -> Tensor:
        """What each position of `projection(x)` gives to the next, to its own and to the one before. (..., 3 size).

        The projection is linear, so both are one product with weights multiplied beforehand, which takes no time.
        """
        kind = x.device.type
        maps = self.weight.permute(2, 0, 1).flatten(0, 1)
        if not is_plain(projection):
            return F.linear(projection(x), maps)
        with torch.autocast(kind, enabled=False) if not x.is_meta else nullcontext():
            weight, bias = maps @ projection.weight, maps @ projection.bias
        return F.linear(x, weight, bias)

    def of_pairs(self, pairs: Tensor) -> Tensor:
        """The value at the last position of a prefix, from the one before and itself. (..., 2 size) to (..., size)."""
        return F.linear(pairs, self.weight[:, :, :2].transpose(1, 2).flatten(1), self.bias)


class GlintRUSelectiveGRU(nn.Module):
    """Dense selective GRU expert (paper section 3.3): convolution, GRU, selective gate, convolution."""

    def __init__(self, config: GlintRUConfig) -> None:
        super().__init__()
        size = config.hidden_size
        convolutions = config.use_temporal_convolutions
        self.in_proj = nn.Linear(size, size)
        self.conv_in = TemporalConvolution(size) if convolutions else None
        self.gru = nn.GRU(size, size, bias=False, batch_first=True)
        self.out_proj = nn.Linear(size, size)
        self.gate = (
            nn.Sequential(nn.Linear(size, size // 2), nn.SiLU(), nn.Linear(size // 2, size))
            if config.use_selective_gate
            else None
        )
        self.dropout = Dropout(config.hidden_dropout)
        self.conv_out = TemporalConvolution(size) if convolutions else None

    def _output(self, x: Tensor, states: Tensor) -> Tensor:
        """The projected states, gated by what the recurrence read."""
        out = self.out_proj(states)
        return out if self.gate is None else self.dropout(self.gate(x)) * out

    def _one_state(self, x: Tensor) -> Tensor:
        """Without edges: no convolution, or the whole sequence for every position."""
        return self._output(x, gru_states(self.gru, x))

    def forward(self, x: Tensor, mask: Tensor | None, whole_sequence: bool) -> Tensor:
        if self.conv_in is None or self.conv_out is None:
            u = self.in_proj(x)
            return self._one_state(u if mask is None else u * mask)
        if whole_sequence:
            return self.conv_out.whole_sequence(self._one_state(self.conv_in.whole_sequence(self.in_proj(x))))
        # Interior values are zero at padding: the state of a left-padded row stays zero until its first item.
        assert self.conv_in.bias is not None
        inputs = edges(self.conv_in.taps(self.in_proj, x), self.conv_in.bias, mask)
        out = self.out_proj(gru_prefix_states(self.gru, inputs))
        if self.gate is None:
            return self.conv_out.of_pairs(pairs(out, mask))
        return self.conv_out.of_pairs(gated_pairs(self.gate(inputs), out, mask, self.dropout))

    def advance(self, x: Tensor, memory: dict[str, Tensor], border: Border) -> tuple[Tensor, dict[str, Tensor]]:
        """As `forward`, after a history. No mask: items come before padding, so nothing of it reaches them.

        Args:
            x: (batch, length, size).
            memory: `hidden` and, with convolutions, `edge` and `after`; each (batch, size), see `state_glintru.py`.
            border: The rows' new items.

        Returns:
            (batch, length, size), and the new memory.
        """
        start = None if border.fresh else memory["hidden"]
        if self.conv_in is None or self.conv_out is None:
            u = self.in_proj(x)
            states = gru_states(self.gru, u, start)
            return self._output(u, states), {"hidden": border.last(memory["hidden"], states)}
        assert self.conv_in.bias is not None
        after, own, before = self.conv_in.taps(self.in_proj, x).chunk(3, dim=-1)
        edge = shift_in(memory["after"], after) + own + self.conv_in.bias.to(own.dtype)
        # At t, the interior value of the item before t, which only now has its right neighbour.
        interior = ((shift_in(memory["edge"], edge) + before) * border.has_before).to(edge.dtype)
        states = gru_states(self.gru, interior, start)
        both = torch.stack((states, gru_step(self.gru, edge, states)))
        values = self._output(torch.stack((interior, edge)), both)
        pair = torch.cat(((values[0] * border.has_before).to(values.dtype), values[1]), dim=-1)
        new = {"hidden": states, "edge": edge, "after": after}
        return self.conv_out.of_pairs(pair), {name: border.last(memory[name], x) for name, x in new.items()}


class GlintRUGatedMLP(nn.Module):
    """Gated MLP (paper section 3.5)."""

    def __init__(self, config: GlintRUConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.value_proj = nn.Linear(size, size)
        self.gate_proj = nn.Linear(size, size)
        self.out_proj = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        reads = autocast_once(x)
        return self.out_proj(gelu_gate(self.value_proj(reads), self.gate_proj(reads)))


@dataclass(frozen=True)
class Experts:
    """What the parts of a block made of its input, each (batch, length, size); None where a part is off."""

    recurrent: Tensor | None
    attended: Tensor | None
    averaged: Tensor | None
    spaced: Tensor | None


class GlintRUBlock(GradientCheckpointingLayer):
    """One block: two experts, their mixing, the gate of the block and the gated MLP (paper sections 3.2 to 3.5)."""

    def __init__(self, config: GlintRUConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.whole_sequence = config.padding_mode == "official"
        self.attention = GlintRULinearAttention(config) if config.use_linear_attention else None
        self.recurrence = GlintRUSelectiveGRU(config) if config.use_gru else None
        both = config.use_linear_attention and config.use_gru
        self.mixing_logits = nn.Parameter(torch.full((2,), 0.5)) if both and config.use_expert_mixing else None
        self.gate_proj = nn.Linear(size, size) if config.use_block_gate else None
        self.mix_proj = nn.Linear(size, size)
        self.mlp = GlintRUGatedMLP(config) if config.use_gated_mlp else None
        self.dropout = Dropout(config.hidden_dropout)
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)  # shared by the mixing and the MLP, as published
        self.average_share = config.average_share
        self.average = GlintRUMovingAverage(config) if config.average_share else None
        self.state_space_share = config.state_space_share
        self.state_space = GlintRUStateSpace(config) if config.state_space_share else None

    def _experts(self, x: Tensor, reads: Tensor, mask: Tensor | None) -> Experts:
        recurrent = attended = averaged = spaced = None
        if self.recurrence is not None:
            recurrent = self.recurrence(reads, mask, self.whole_sequence)
        if self.attention is not None:
            attended = self.attention(x, reads, mask, self.whole_sequence)
        if self.average is not None:
            averaged = self.average(x, mask)
        if self.state_space is not None:
            spaced = self.state_space(x, mask)
        return Experts(recurrent, attended, averaged, spaced)

    def _advance(
        self, x: Tensor, reads: Tensor, mask: Tensor | None, memory: dict[str, Tensor], border: Border
    ) -> tuple[Experts, dict[str, Tensor]]:
        """The experts after a history, and what the next items need of it."""
        recurrent = attended = averaged = spaced = None
        new: dict[str, Tensor] = {}
        if self.recurrence is not None:
            recurrent, new = self.recurrence.advance(reads, memory, border)
        if self.attention is not None:
            attended, new["attention"] = self.attention.advance(x, reads, mask, memory["attention"])
        if self.average is not None:
            averaged, sums = self.average.advance(x, mask, memory["average"], border.before)
            new["average"] = border.last(memory["average"], sums)
        if self.state_space is not None:
            spaced, memories = self.state_space.advance(x, mask, memory["taps"], memory["space"], border.num_items)
            new |= memories
        # Gradients stop at the border between two calls.
        return Experts(recurrent, attended, averaged, spaced), {name: tensor.detach() for name, tensor in new.items()}

    def _mix(self, x: Tensor, reads: Tensor, recurrent: Tensor | None, attended: Tensor | None) -> Tensor:
        """The experts, mixed and gated."""
        if recurrent is not None and attended is not None:
            shares = x.new_full((2,), 0.5) if self.mixing_logits is None else self.mixing_logits.softmax(0)
            if self.gate_proj is not None:
                return gelu_gate(recurrent, self.gate_proj(reads), attended, shares)
            return shares[0] * recurrent + shares[1] * attended
        mixed = attended if recurrent is None else recurrent
        assert mixed is not None
        return mixed if self.gate_proj is None else gelu_gate(mixed, self.gate_proj(reads))

    def finish(self, x: Tensor, reads: Tensor, experts: Experts) -> Tensor:
        """The block's output from its input (`reads`: as the products read it) and what the experts made of it."""
        mixed = self.mix_proj(self._mix(x, reads, experts.recurrent, experts.attended))
        z = add_norm(mixed, x, self.dropout, self.norm)
        if experts.averaged is not None:
            z = torch.lerp(z, experts.averaged, self.average_share / (1 - self.state_space_share))
        if experts.spaced is not None:
            z = torch.lerp(z, experts.spaced, self.state_space_share)
        return z if self.mlp is None else add_norm(self.mlp(z), z, self.dropout, self.norm)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        memory: dict[str, Tensor] | None = None,
        border: Border | None = None,
    ) -> Any:
        """
        Args:
            x: (batch, length, hidden_size).
            mask: (batch, length, 1) in x's dtype, 1 at items and 0 at padding; `None` where there is no padding.
            memory: What the block keeps of the histories before `x`, by name, see `state_glintru.py`; with `border`.
            border: The rows' new items, where `x` goes on from `memory`.

        Returns:
            (batch, length, hidden_size): at t, the block's output for the prefix that ends at t. With `memory` a pair
            of it and the new memory.
        """
        reads = autocast_once(x)
        new = None
        if memory is None or border is None:
            experts = self._experts(x, reads, mask)
        else:
            experts, new = self._advance(x, reads, mask, memory, border)
        out = self.finish(x, reads, experts)
        return out if new is None else (out, new)
