"""GLINT-RU (arXiv 2406.10244, KDD 2025) as a `PreTrainedModel`: every prefix of a history in one pass.

For the prefix that ends at t, everything to the right of t is absent. Only the values AT t differ from those of the
longer sequence: below, `edge` is a value at the last position of a prefix, `interior` the value once the right
neighbour is there.

A block is a list of parts. A part declares its state tensors (`has_state`), and its `forward` computes the output at
every position, from the beginning or after a history, and the state after the rows.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_glintru import GlintRUConfig, GlintRUError
from .head_glintru import NextItemHead, PrefixEncoder
from .ops_glintru import (
    Dropout,
    add_norm,
    at,
    at_least_float32,
    attention_parts,
    autocast_once,
    decayed_sums,
    full_precision,
    gated_pairs,
    gelu_gate,
    gru_prefix_states,
    gru_states,
    gru_step,
    linear_attention,
    prefix_convolution,
    selective_scan,
)
from .state_glintru import GlintRUState, StateLayout, fingerprint_of, has_state

__all__ = ["GlintRUForSequentialRecommendation", "GlintRUModel", "GlintRUPreTrainedModel"]


def is_plain(layer: nn.Module) -> bool:
    """Whether the layer's weights may be used without calling it: an adapter (LoRA) around it would be left out."""
    return type(layer) is nn.Linear


def joined(layers: list[nn.Linear], x: Tensor) -> Tensor:
    """The outputs of several linear layers side by side, as one product."""
    if not all(map(is_plain, layers)):
        return torch.cat([layer(x) for layer in layers], dim=-1)
    weight, bias = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
    return F.linear(x, weight, bias)


# ---------------------------------------------------------------------- the parts of a block


class Part(nn.Module):
    """One part of a block."""

    def forward(
        self, x: Tensor, reads: Tensor, mask: Tensor | None, past: dict[str, Tensor], num_items: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """
        Args:
            x: (batch, length, size), the block's input.
            reads: The same in the dtype of the products, see `autocast_once`.
            mask: (batch, length, 1) in x's dtype, 0 at padding, which is at the ends of a row (after the items where
                there is a `past` or `num_items`); `None` where there is none.
            past: The state of the histories that the rows go on from: the tensors that the parts of the block declare,
                (batch, …) each, and `count`, (batch,) int64, the items of each history. Empty where rows begin here.
            num_items: (batch,) int64, items of each row, where the state after them is wanted.

        Returns:
            (batch, length, size), and the state tensors after the rows, by name (none without `num_items`).
        """
        raise NotImplementedError


class TemporalConvolution(nn.Conv1d):
    """Full convolution over time with taps at t-1, t, t+1 and zeros outside the sequence."""

    bias: Tensor

    def __init__(self, size: int) -> None:
        super().__init__(size, size, kernel_size=3, padding=1)

    def taps(self, projection: nn.Linear, x: Tensor) -> Tensor:
        """What each position of `projection(x)` gives to the next, to its own and to the one before. (..., 3 size).

        The projection is linear, so both are one product with weights multiplied beforehand, which takes no time.
        """
        maps = self.weight.permute(2, 0, 1).flatten(0, 1)
        if not is_plain(projection):
            return F.linear(projection(x), maps)
        with full_precision(x):
            weight, bias = maps @ projection.weight, maps @ projection.bias
        return F.linear(x, weight, bias)

    def of_pairs(self, pairs: Tensor) -> Tensor:
        """The value at the last position of a prefix, from the one before and itself. (..., 2 size) to (..., size)."""
        return F.linear(pairs, self.weight[:, :, :2].transpose(1, 2).flatten(1), self.bias)


@has_state("gru", bit=1, on=lambda config: config.use_gru, shapes=lambda d, heads: {"hidden": (d,)})
@has_state(
    "convolutions",
    bit=2,
    on=lambda config: config.use_gru and config.use_temporal_convolutions,
    shapes=lambda d, heads: {"edge": (d,), "after": (d,)},
)
class GlintRUSelectiveGRU(Part):
    """Dense selective GRU expert (paper section 3.3): convolution, GRU, selective gate, convolution.

    Its state is `hidden`, the recurrent state (with convolutions the one before the last item, whose interior value
    still lacks its right neighbour), `edge`, the last item's edge value, and `after`, what it gives to the next.
    """

    def __init__(self, config: GlintRUConfig) -> None:
        super().__init__()
        size, convolutions = config.hidden_size, config.use_temporal_convolutions
        self.in_proj = nn.Linear(size, size)
        self.conv_in = TemporalConvolution(size) if convolutions else None
        self.gru = nn.GRU(size, size, bias=False, batch_first=True)
        self.out_proj = nn.Linear(size, size)
        gate = (nn.Linear(size, size // 2), nn.SiLU(), nn.Linear(size // 2, size))
        self.gate = nn.Sequential(*gate) if config.use_selective_gate else None
        self.dropout = Dropout(config.hidden_dropout)
        self.conv_out = TemporalConvolution(size) if convolutions else None

    def _gated(self, c: Tensor, states: Tensor) -> Tensor:
        """Y = δ₂(c) ⊗ Φ(h): the projected states, gated by what the recurrence read."""
        out = self.out_proj(states)
        return out if self.gate is None else self.dropout(self.gate(c)) * out

    def forward(self, x, reads, mask, past, num_items):
        old = past.get("hidden")
        if self.conv_in is None or self.conv_out is None:
            c = self.in_proj(reads)  # U
            c = c if mask is None else c * mask
            states = gru_states(self.gru, c, old)  # G
            new = {} if num_items is None else {"hidden": at(states, num_items - 1, old)}
            return self._gated(c, states), new
        taps = self.conv_in.taps(self.in_proj, reads)  # U, through each tap of the convolution
        start = value = None  # G and Y of the history's last item, which has its right neighbour now
        if past:
            has_items = (past["count"] > 0)[:, None].to(taps.dtype)
            interior = (past["edge"].to(taps.dtype) + taps[:, 0].chunk(3, dim=-1)[2]) * has_items
            start = gru_step(self.gru, interior, past["hidden"]) * has_items
            value = self._gated(interior, start) * has_items
        c = prefix_convolution(taps, self.conv_in.bias, mask, past.get("after"))  # C₁, interior and edge
        states = gru_prefix_states(self.gru, c, start)  # G
        out = self.out_proj(states)
        gate, rate = (torch.ones_like(out), 0.0) if self.gate is None else (self.gate(c), self.dropout.rate())
        recurrent = self.conv_out.of_pairs(gated_pairs(gate, out, mask, rate, value))  # R
        if num_items is None:
            return recurrent, {}
        hidden = at(states[0], num_items - 2, start)
        if old is not None:  # a row without items leaves its state as it was
            hidden = torch.where((num_items > 0)[:, None], hidden.to(old.dtype), old)
        edge = at(c[1], num_items - 1, past.get("edge"))
        after = at(taps.chunk(3, dim=-1)[0], num_items - 1, past.get("after"))
        return recurrent, {"hidden": hidden, "edge": edge, "after": after}


@has_state(
    "attention",
    bit=0,
    on=lambda config: config.use_linear_attention,
    shapes=lambda d, heads: {"attention": (heads, d // heads, d // heads)},
)
class GlintRULinearAttention(Part):
    """Linear-attention expert (paper section 3.4): L2-normalised ELU features, no softmax, a running sum.

    Its state is the sum `Σ k vᵀ` of each head.
    """

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

    def forward(self, x, reads, mask, past, num_items):
        qkv = joined([self.q_proj, self.k_proj, self.v_proj], reads)
        context = linear_attention(qkv, mask, self.num_heads)  # C
        new: dict[str, Tensor] = {}
        if past or num_items is not None:
            query, key, value = attention_parts(qkv, self.num_heads)
            if past:
                earlier = query @ past["attention"].to(query.dtype) * query.shape[-1] ** -0.5
                context = context + earlier.transpose(1, 2).flatten(2).to(context.dtype)
            if num_items is not None:
                key, value = at_least_float32(key), at_least_float32(value)
                total = key.transpose(-1, -2) @ (value if mask is None else value * mask[:, None])
                new["attention"] = past["attention"] + total if past else total
        return add_norm(self.o_proj(context), x, self.norm, self.dropout.rate()), new  # A


@has_state(
    "average",
    bit=3,
    on=lambda config: config.average_share > 0,
    shapes=lambda d, heads: {"average": (d,)},
    settings=lambda config: (float(config.average_share), float(config.average_decay)),
)
class GlintRUMovingAverage(Part):
    """`norm(x + dropout(a * average(x) + b * x))`, with a and b for each channel; not in the paper.

    The average over items s ≤ t has weights proportional to `decay^(t - s)`. Where data is sparse the experts over-fit,
    and this filter helps: it passes the slow part of a history, and each channel learns how much of the rest it wants
    (BSARec, Shin et al., AAAI 2024: there over the whole history in the frequency domain, here causal).
    """

    def __init__(self, config: GlintRUConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.decay = float(config.average_decay)
        self.average_weight = nn.Parameter(torch.full((size,), 0.5))
        self.item_weight = nn.Parameter(torch.full((size,), 0.5))
        self.dropout = Dropout(config.hidden_dropout)
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)

    def forward(self, x, reads, mask, past, num_items):
        with full_precision(x):
            sums = decayed_sums(x if mask is None else x * mask, self.decay, past.get("average"))
        counts = torch.arange(1, x.shape[1] + 1, device=x.device)[None, :, None]
        if past:
            counts = counts + past["count"][:, None, None]
        elif mask is not None:  # padding may stand before the items
            counts = mask.cumsum(1)
        # The weights' sum, a geometric series; a position without an item has no average, and nobody reads it.
        weights = (1 - self.decay ** counts.to(x.dtype).clamp_min(1)) / (1 - self.decay)
        mixed = self.average_weight * (sums / weights) + self.item_weight * x
        new = {} if num_items is None else {"average": at(sums, num_items - 1, past.get("average"))}
        return add_norm(mixed, x, self.norm, self.dropout.rate()), new


EXPAND, STATE_SIZE, TAPS = 2, 16, 4  # as in Mamba


class SelectiveStateSpace(nn.Module):
    """The Mamba block without its norm and residual (Gu and Dao, "Mamba", 2023, algorithm 2).

        u, z = W_in x;   u = SiLU(causal depthwise convolution of u);   Δ, B, C = linear in u, Δ through softplus
        h_t = exp(Δ_t A) ⊙ h_(t-1) + Δ_t u_t Bᵀ_t,   y_t = h_t C_t + D ⊙ u_t,   out = W_out (y ⊙ SiLU(z))

    Args:
        size: Width of what comes in and goes out [d].
        expand: Channels for each of `size` [E].
        state_size: Numbers of state for each channel [N].
        taps: Of the causal convolution.
    """

    def __init__(self, size: int, expand: int = EXPAND, state_size: int = STATE_SIZE, taps: int = TAPS) -> None:
        super().__init__()
        channels = expand * size
        self.rank, self.state_size, self.taps = math.ceil(size / 16), state_size, taps
        self.in_proj = nn.Linear(size, 2 * channels, bias=False)
        self.conv = nn.Conv1d(channels, channels, taps, groups=channels)
        self.x_proj = nn.Linear(channels, self.rank + 2 * state_size, bias=False)
        self.step_proj = nn.Linear(self.rank, channels)
        self.a_log = nn.Parameter(torch.zeros(channels, state_size))
        self.skip = nn.Parameter(torch.ones(channels))
        self.out_proj = nn.Linear(channels, size, bias=False)

    def initialize(self) -> None:
        """Normal weights with 0.02, zero biases, PyTorch's own for the convolution, A = -1 … -N, D = 1."""
        for layer in (self.in_proj, self.x_proj, self.step_proj, self.out_proj):
            init.normal_(layer.weight, std=0.02)
        assert self.conv.bias is not None and self.step_proj.bias is not None
        init.zeros_(self.step_proj.bias)
        bound = self.taps**-0.5
        init.uniform_(self.conv.weight, -bound, bound)
        init.uniform_(self.conv.bias, -bound, bound)
        init.copy_(self.a_log, torch.arange(1.0, self.state_size + 1).log().expand_as(self.a_log))
        init.ones_(self.skip)

    def forward(
        self, x: Tensor, mask: Tensor | None, taps: Tensor | None = None, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """
        Args:
            x, mask: As of `Part.forward`.
            taps: (batch, channels, taps - 1), what the convolution read last; `None` where there is no history.
            state: (batch, channels, state_size), or `None`.

        Returns:
            (batch, length, size); what the convolution read at each position and before, (batch, channels, taps - 1 +
            length); and the state after the last item.
        """
        u, gate = self.in_proj(x if mask is None else x * mask).chunk(2, dim=-1)
        reads = u.transpose(1, 2)
        reads = F.pad(reads, (self.taps - 1, 0)) if taps is None else torch.cat((taps.to(u.dtype), reads), dim=2)
        u = F.silu(self.conv(reads).transpose(1, 2))
        step, b, c = self.x_proj(u).split([self.rank, self.state_size, self.state_size], dim=-1)
        step = F.softplus(at_least_float32(self.step_proj(step)))
        if mask is not None:
            step = step * mask  # the state does not move at padding
        with full_precision(x):  # bfloat16 would lose the small steps
            u, a_log, b, c = (at_least_float32(part) for part in (u, self.a_log, b, c))
            y, state = selective_scan(step, u, -a_log.exp(), b, c, state)
            y = y + self.skip * u
        return self.out_proj(y.to(gate.dtype) * F.silu(gate)), reads, state


@has_state(
    "state_space",
    bit=4,
    on=lambda config: config.state_space_share > 0,
    shapes=lambda d, heads: {"taps": (EXPAND * d, TAPS - 1), "space": (EXPAND * d, STATE_SIZE)},
    settings=lambda config: float(config.state_space_share),
)
class GlintRUStateSpace(Part):
    """`norm(x + dropout(state space of x))`; not in the paper. Helps where histories are long.

    Its state is `taps`, what the convolution read last, and `space`, h.
    """

    def __init__(self, config: GlintRUConfig) -> None:
        super().__init__()
        self.mixer = SelectiveStateSpace(config.hidden_size)
        self.dropout = Dropout(config.hidden_dropout)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x, reads, mask, past, num_items):
        out, read, state = self.mixer(x, mask, past.get("taps"), past.get("space"))
        new: dict[str, Tensor] = {}
        if num_items is not None:
            last = num_items[:, None] + torch.arange(self.mixer.taps - 1, device=x.device)
            new = {"taps": read.gather(2, last[:, None].expand(-1, read.shape[1], -1)), "space": state}
        return add_norm(out, x, self.norm, self.dropout.rate()), new


class GlintRUGatedMLP(nn.Module):
    """Gated MLP (paper section 3.5)."""

    def __init__(self, config: GlintRUConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.value_proj = nn.Linear(size, size)
        self.gate_proj = nn.Linear(size, size)
        self.out_proj = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, size) in and out."""
        reads = autocast_once(x)
        return self.out_proj(gelu_gate(self.value_proj(reads), self.gate_proj(reads)))


class GlintRUBlock(GradientCheckpointingLayer):
    """One block: two experts, their mixing, the gate of the block and the gated MLP (paper sections 3.2 to 3.5)."""

    def __init__(self, config: GlintRUConfig) -> None:
        super().__init__()
        size = config.hidden_size
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

    def parts(self) -> dict[str, Part]:
        """The parts that are on, in the order in which they are computed."""
        found = {name: getattr(self, name) for name in ("recurrence", "attention", "average", "state_space")}
        return {name: part for name, part in found.items() if part is not None}

    def _mixed(self, reads: Tensor, recurrent: Tensor | None, attended: Tensor | None) -> Tensor:
        """M ⊙ GELU(X W2 + b2): the experts with the weights α, under the gate of the block."""
        if recurrent is not None and attended is not None:
            shares = attended.new_full((2,), 0.5) if self.mixing_logits is None else self.mixing_logits.softmax(0)
            if self.gate_proj is not None:
                return gelu_gate(recurrent, self.gate_proj(reads), attended, shares)
            return shares[0] * recurrent + shares[1] * attended
        mixed = attended if recurrent is None else recurrent
        assert mixed is not None
        return mixed if self.gate_proj is None else gelu_gate(mixed, self.gate_proj(reads))

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        past: dict[str, Tensor] | None = None,
        num_items: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Arguments and results as of `Part.forward`; at t, the block's output for the prefix that ends at t."""
        reads = autocast_once(x)
        out: dict[str, Tensor] = {}
        new: dict[str, Tensor] = {}
        for name, part in self.parts().items():
            out[name], state = part(x, reads, mask, past or {}, num_items)
            new |= state
        mixed = self.mix_proj(self._mixed(reads, out.get("recurrence"), out.get("attention")))
        z = add_norm(mixed, x, self.norm, self.dropout.rate())  # Z
        if self.average is not None:
            z = torch.lerp(z, out["average"], self.average_share / (1 - self.state_space_share))
        if self.state_space is not None:
            z = torch.lerp(z, out["state_space"], self.state_space_share)
        if self.mlp is not None:
            z = add_norm(self.mlp(z), z, self.norm, self.dropout.rate())  # O
        # Gradients stop at the border between two calls.
        return z, {name: tensor.detach() for name, tensor in new.items()}


# ---------------------------------------------------------------------- the model


class GlintRUPreTrainedModel(PreTrainedModel):
    config: GlintRUConfig
    config_class = GlintRUConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ["GlintRUBlock"]  # noqa: RUF012
    state_class = GlintRUState  # so that users of remote code can reach `from_bytes`

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialisation as published: Xavier, zero biases, PyTorch's own for the convolutions."""
        super()._init_weights(module)
        if isinstance(module, nn.Embedding):
            init.xavier_normal_(module.weight)
            if not getattr(module.weight, "_is_hf_initialized", False):
                module.weight[0].zero_()
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.GRU):
            for weight in module.all_weights[0]:
                init.xavier_uniform_(weight)
        elif isinstance(module, nn.Conv1d):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            if module.bias is not None:
                bound = (module.in_channels * module.kernel_size[0]) ** -0.5
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, GlintRUBlock) and module.mixing_logits is not None:
            init.constant_(module.mixing_logits, 0.5)
        elif isinstance(module, GlintRUMovingAverage):
            init.constant_(module.average_weight, 0.5)
            init.constant_(module.item_weight, 0.5)
        elif isinstance(module, SelectiveStateSpace):
            module.initialize()


class GlintRUModel(PrefixEncoder, GlintRUPreTrainedModel):
    """Item indices in, the representation of every prefix out."""

    def __init__(self, config: GlintRUConfig) -> None:
        super().__init__(config)
        self.embed_items = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=0)
        self.dropout = Dropout(config.embedding_dropout)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.use_embedding_norm else None
        self.layers = nn.ModuleList(GlintRUBlock(config) for _ in range(config.num_hidden_layers))
        self.gradient_checkpointing = False
        self._fingerprint: tuple[Any, str] = (None, "")
        self.post_init()

    def block_input(self, embeds: Tensor) -> Tensor:
        """What the first block reads: embeddings after dropout and, with `use_embedding_norm`, their norm."""
        x = self.dropout(embeds)
        return x if self.norm is None else self.norm(x)

    def encode(self, embeds: Tensor, mask: Tensor | None) -> list[Tensor]:
        """What the first block reads, and the output of every block; see `PrefixEncoder.encode`."""
        return self.through_blocks(embeds, mask)[0]

    def advance(
        self, embeds: Tensor, mask: Tensor | None, state: GlintRUState | None
    ) -> tuple[list[Tensor], GlintRUState]:
        """The hidden states of rows that go on from `state`, and the state after them; see `PrefixEncoder.advance`."""
        batch, length = embeds.shape[:2]
        old = self.empty_state(batch) if state is None else state
        if not isinstance(old, GlintRUState):
            raise GlintRUError(f"state must be a GlintRUState, got {type(state).__name__}")
        if state is not None:
            old.check(*self._state_identity(), batch, embeds.device)
        if length == 0:
            return [embeds], old
        if torch.is_grad_enabled() and old.representation.is_inference():
            old = old.clone()
        dtype, old = old.dtype, old.to(dtype=torch.promote_types(embeds.dtype, torch.float32))
        num_items = old.count.new_full((batch,), length) if mask is None else mask.sum((1, 2), dtype=torch.int64)
        hidden, tensors = self.through_blocks(embeds, mask, None if state is None else old, num_items)
        tensors["representation"] = at(hidden[-1], num_items - 1, old.representation).detach()
        new = GlintRUState(old.layout, old.count + num_items, tensors, "" if self.training else old.fingerprint)
        return hidden, new.to(dtype=dtype)

    def through_blocks(
        self, embeds: Tensor, mask: Tensor | None, old: GlintRUState | None = None, num_items: Tensor | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The hidden states, and with `num_items` the tensors of the state after the rows but its representation.

        Args:
            embeds, mask: As of `PrefixEncoder.encode`.
            old: The state that the rows go on from; `None` where they begin here.
            num_items: (batch,) int64, items of each row.
        """
        hidden = [self.block_input(embeds)]
        tensors: dict[str, Tensor] = {}
        for index, layer in enumerate(self.layers):
            past = None if old is None else {**old.layer(index), "count": old.count}
            out, new = layer(hidden[-1], mask, past, num_items)
            hidden.append(out)
            tensors |= {f"layers.{index}.{name}": at_least_float32(tensor) for name, tensor in new.items()}
        return hidden, tensors

    @torch.compiler.disable
    def fingerprint(self) -> str:
        """16 hexadecimal digits that name the weights, computed again only when they have changed."""
        # Optimizers and `load_state_dict` raise the version; an inference tensor has none and rarely changes.
        now = [(p.data_ptr(), 0 if p.is_inference() else p._version) for p in self.parameters()]
        if self._fingerprint[0] != now:
            self._fingerprint = (now, fingerprint_of(self, StateLayout.of(self.config)))
        return self._fingerprint[1]

    def _state_identity(self) -> tuple[StateLayout, str]:
        """What a state of this model says of it; in training mode the weights move and have no fingerprint."""
        return StateLayout.of(self.config), "" if self.training else self.fingerprint()

    def empty_state(self, users: int = 1) -> GlintRUState:
        """The states of users without items, in float32, or float64 where the weights are."""
        layout, fingerprint = self._state_identity()
        weight, size = self.embed_items.weight, sum(math.prod(shape) for shape in layout.shapes().values())
        rows = weight.new_zeros(users, size, dtype=torch.promote_types(weight.dtype, torch.float32))
        return GlintRUState.from_rows(layout, rows, weight.new_zeros(users, dtype=torch.int64), fingerprint)


class GlintRUForSequentialRecommendation(NextItemHead, GlintRUPreTrainedModel):
    """GLINT-RU with scores for every item: inner products with the item embeddings, trained on the next item."""

    label = "GLINT-RU"

    def __init__(self, config: GlintRUConfig) -> None:
        super().__init__(config)
        self.model = GlintRUModel(config)
        self.post_init()
