"""The block of GLINT-RU, computed for every prefix of a sequence in one pass.

For the prefix that ends at t, everything to the right of t is absent. Only the values AT t differ from those of the
longer sequence: below, `edge` is the value at the last position of a prefix, `interior` the value once the right
neighbour is there. With `whole_sequence` the block is the authors' bidirectional one, padding included.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_glintru import GlintRUConfig
from .kernels_glintru import GRUScan, can_scan

NORM_FLOOR = 1e-6  # a zero vector stays zero instead of becoming NaN; far below any norm that occurs
ATTENTION_CHUNK = 32  # measured: 16 to 40 are equally fast, 64 takes twice the time


def shift_right(x: Tensor) -> Tensor:
    """`y[:, t] = x[:, t - 1]`, zeros at t = 0. Shape (batch, length, features)."""
    return F.pad(x, (0, 0, 1, 0))[:, :-1]


def causal_linear_attention(query: Tensor, key: Tensor, value: Tensor, chunk: int = ATTENTION_CHUNK) -> Tensor:
    """`out[t] = query[t] · Σ_{s ≤ t} key[s] valueᵀ[s]`, in chunks: linear in the length, no length × length matrix.

    Args:
        query, key, value: (batch, heads, length, features).
        chunk: Positions that attend to each other directly; earlier ones are read through the running sum.

    Returns:
        (batch, heads, length, features).
    """
    batch, heads, length, size = query.shape
    chunk = max(1, min(chunk, length))
    padding = -length % chunk
    # (batch · heads · chunks, chunk, features): plain batched products are the fastest form on CPUs
    query, key, value = (F.pad(x, (0, 0, 0, padding)).reshape(-1, chunk, size) for x in (query, key, value))
    causal = torch.ones(chunk, chunk, dtype=query.dtype, device=query.device).tril()
    out = torch.bmm(torch.bmm(query, key.transpose(1, 2)) * causal, value)
    if length > chunk:
        sums = torch.bmm(key.transpose(1, 2), value).view(batch * heads, -1, size, size)
        # The running sum is kept in float32 even where the products are in half precision.
        running = sums.to(torch.promote_types(sums.dtype, torch.float32)).cumsum(1)[:, :-1]
        before = F.pad(running, (0, 0, 0, 0, 1, 0)).to(query.dtype).flatten(0, 1)
        out = torch.baddbmm(out, query, before)
    return out.view(batch, heads, -1, size)[:, :, :length]


@torch.compiler.disable  # the kernel serves compiled models too
def gru_states(gru: nn.GRU, x: Tensor) -> Tensor:
    """The state at every position of a one-layer GRU without biases, from zero. (batch, length, size) in and out."""
    weight_x, weight_h = gru.all_weights[0]
    if not can_scan(x, weight_h):
        return gru(x)[0]
    return GRUScan.apply(F.linear(x, weight_x).float(), None, weight_h)[0]


@torch.compiler.disable
def gru_prefix_states(gru: nn.GRU, interior: Tensor, edge: Tensor) -> tuple[Tensor, Tensor]:
    """The states over `interior`, and, for every t at once, the state that `edge[:, t]` gives from the state at t - 1.

    Args:
        interior, edge: (batch, length, size).

    Returns:
        States and edge states, both (batch, length, size).
    """
    weight_x, weight_h = gru.all_weights[0]
    if can_scan(interior, weight_h):
        return GRUScan.apply(F.linear(interior, weight_x).float(), F.linear(edge, weight_x).float(), weight_h)
    states = gru(interior)[0]
    before = shift_right(states)
    reset_x, update_x, new_x = F.linear(edge, weight_x).chunk(3, dim=-1)
    reset_h, update_h, new_h = F.linear(before, weight_h).chunk(3, dim=-1)
    update = torch.sigmoid(update_x + update_h)
    new = torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h)
    return states, new + update * (before - new)


class Dropout(nn.Dropout):
    """`nn.Dropout` whose mask costs a quarter of the random numbers on CPUs: 16 bits an element instead of 64."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0 or x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        dropped = round(self.p * 65536)
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        keep = bits.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - 32768
        return x * keep.to(x.dtype).mul_(65536 / (65536 - dropped))


class GlintRULinearAttention(nn.Module):
    """Linear-attention expert (paper section 3.4): L2-normalised ELU features, no softmax, a running sum."""

    def __init__(self, config: GlintRUConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.scale = (size // self.num_heads) ** -0.5
        self.q_proj = nn.Linear(size, size)
        self.k_proj = nn.Linear(size, size)
        self.v_proj = nn.Linear(size, size)
        self.o_proj = nn.Linear(size, size)
        self.dropout = Dropout(config.attention_dropout)
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _features(self, x: Tensor) -> Tensor:
        return F.normalize(F.elu(self._heads(x)), dim=-1, eps=NORM_FLOOR)

    def forward(self, x: Tensor, mask: Tensor | None, whole_sequence: bool) -> Tensor:
        query, key = self._features(self.q_proj(x)), self._features(self.k_proj(x))
        value = self.v_proj(x)
        value = self._heads(value if mask is None else value * mask)
        if whole_sequence:
            context = query @ (key.transpose(-1, -2) @ value.to(key.dtype))
        else:
            context = causal_linear_attention(query, key, value.to(key.dtype))
        context = (context * self.scale).transpose(1, 2).flatten(2)
        return self.norm(self.dropout(self.o_proj(context.to(x.dtype))) + x)


class TemporalConvolution(nn.Conv1d):
    """Full convolution over time with taps at t-1, t, t+1 and zeros outside the sequence."""

    def __init__(self, size: int) -> None:
        super().__init__(size, size, kernel_size=3, padding=1)

    def edge(self, previous: Tensor, current: Tensor) -> Tensor:
        """The value at the last position of a prefix: the tap at t+1 is absent. (batch, length, size)."""
        return F.linear(previous, self.weight[:, :, 0]) + F.linear(current, self.weight[:, :, 1], self.bias)

    def right_tap(self, current: Tensor) -> Tensor:
        """What the right neighbour adds to an edge value. (batch, length, size)."""
        following = F.pad(current, (0, 0, 0, 1))[:, 1:]
        return F.linear(following, self.weight[:, :, 2])


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
            nn.Sequential(
                nn.Linear(size, size // 2), nn.SiLU(), nn.Linear(size // 2, size), Dropout(config.hidden_dropout)
            )
            if config.use_selective_gate
            else None
        )
        self.conv_out = TemporalConvolution(size) if convolutions else None

    def _output(self, x: Tensor, state: Tensor) -> Tensor:
        out = self.out_proj(state)
        return out if self.gate is None else self.gate(x) * out

    def forward(self, x: Tensor, mask: Tensor | None, whole_sequence: bool) -> Tensor:
        u = self.in_proj(x)
        if mask is not None:
            u = u * mask
        if self.conv_in is None or self.conv_out is None:
            return self._output(u, gru_states(self.gru, u))
        edge = self.conv_in.edge(shift_right(u), u)
        interior = edge + self.conv_in.right_tap(u)
        if mask is not None:
            interior = interior * mask  # keeps the state of a left-padded row at zero until its first item
        if whole_sequence:
            y = self._output(interior, gru_states(self.gru, interior))
            return self.conv_out.edge(shift_right(y), y) + self.conv_out.right_tap(y)
        state, edge_state = gru_prefix_states(self.gru, interior, edge)
        y = self._output(interior, state)
        if mask is not None:
            y = y * mask
        return self.conv_out.edge(shift_right(y), self._output(edge, edge_state))


class GlintRUGatedMLP(nn.Module):
    """Gated MLP (paper section 3.5)."""

    def __init__(self, config: GlintRUConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.value_proj = nn.Linear(size, size)
        self.gate_proj = nn.Linear(size, size)
        self.out_proj = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_proj(self.value_proj(x) * F.gelu(self.gate_proj(x)))


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

    def _mix(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if self.recurrence is None:
            assert self.attention is not None
            return self.attention(x, mask, self.whole_sequence)
        recurrent = self.recurrence(x, mask, self.whole_sequence)
        if self.attention is None:
            return recurrent
        attended = self.attention(x, mask, self.whole_sequence)
        if self.mixing_logits is None:
            return (recurrent + attended) / 2
        weights = self.mixing_logits.softmax(0)
        return weights[0] * recurrent + weights[1] * attended

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """
        Args:
            x: (batch, length, hidden_size).
            mask: (batch, length, 1) in x's dtype, 1 at items and 0 at padding; `None` where there is no padding.

        Returns:
            (batch, length, hidden_size): at t, the block's output for the prefix that ends at t.
        """
        mixed = self._mix(x, mask)
        if self.gate_proj is not None:
            mixed = mixed * F.gelu(self.gate_proj(x))
        z = self.norm(self.dropout(self.mix_proj(mixed)) + x)
        if self.mlp is None:
            return z
        return self.norm(self.dropout(self.mlp(z)) + z)
