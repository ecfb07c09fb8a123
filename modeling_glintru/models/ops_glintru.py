"""The operations of the models in plain PyTorch, and the table in which a faster form of one can take its place.

Every function marked `@operation` is the reference: it is what runs where nothing faster is registered, and what tests
hold each fast form equal to. Where the package `glintru` is installed, its kernels register themselves here, also when
this file was loaded from the Hub as remote code.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FAST_FORMS", "SIGNATURES", "Dropout", "operation"]

SIGNATURES = 1  # raised whenever the arguments of an operation change, so that other kernels are not called with them
# By the name of the operation: pairs of a condition and a function, both of the operation's arguments. The first whose
# condition holds is called.
FAST_FORMS: dict[str, list[tuple[Callable[..., bool], Callable[..., Any]]]] = {}


def operation(plain: Callable[..., Any]) -> Callable[..., Any]:
    """The function, through the table of fast forms."""
    name = plain.__name__

    @wraps(plain)
    def run(*args: Any) -> Any:
        for serves, fast in FAST_FORMS.get(name, ()):
            if serves(*args):
                return fast(*args)
        return plain(*args)

    run.plain = plain  # type: ignore[attr-defined]
    return run


# ---------------------------------------------------------------------- numbers


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision widened to float32; other dtypes as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def unit(x: Tensor) -> Tensor:
    """Rows of length one, in at least float32; zeros stay zeros."""
    return F.normalize(at_least_float32(x), dim=-1)


def autocast_once(x: Tensor) -> Tensor:
    """`x` in the dtype of the products that read it: one cast instead of one for each of them."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if not x.is_meta and torch.is_autocast_enabled(kind) else x


def full_precision(x: Tensor) -> Any:
    """A context without autocast, for what bfloat16 would lose."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def at(x: Tensor, index: Tensor, fallback: Tensor | None = None) -> Tensor:
    """`x` (batch, length, …) at one position of each row, and `fallback` (or zeros) where the index is negative."""
    if fallback is None:
        fallback = x.new_zeros(x.shape[0], *x.shape[2:])
    if x.shape[1] == 0:
        return fallback
    rest = [1] * (x.dim() - 2)
    found = x.gather(1, index.clamp(0, x.shape[1] - 1).view(-1, 1, *rest).expand(-1, 1, *x.shape[2:])).squeeze(1)
    return torch.where((index >= 0).view(-1, *rest), found.to(fallback.dtype), fallback)


def shift_in(first: Tensor | None, x: Tensor) -> Tensor:
    """`y[:, t] = x[:, t - 1]`, and at t = 0 `first` (batch, size), or zeros. (batch, length, size)."""
    if first is None:
        return F.pad(x, (0, 0, 1, 0))[:, :-1]
    return torch.cat((first[:, None].to(x.dtype), x[:, :-1]), dim=1)


def heads_of(x: Tensor, num_heads: int) -> Tensor:
    """(batch, length, size) to (batch, heads, length, size / heads)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def features(x: Tensor) -> Tensor:
    """L2-normalised ELU features (paper section 3.4). A zero vector stays zero instead of becoming NaN."""
    return F.normalize(F.elu(x), dim=-1, eps=1e-6)


def attention_parts(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features of queries and keys, and values, of (batch, length, 3 d): each (batch, heads, length, d / heads)."""
    query, key, value = (heads_of(x, num_heads) for x in qkv.chunk(3, dim=-1))
    return features(query), features(key), value


# ---------------------------------------------------------------------- dropout, residual, gate


@operation
def dropout(x: Tensor, p: float) -> Tensor:
    """Zeros with probability p, and the rest divided by 1 - p."""
    return F.dropout(x, p, training=True)


class Dropout(nn.Dropout):
    """`nn.Dropout` through the operation `dropout`."""

    def rate(self) -> float:
        """The probability that holds now: 0 in eval mode."""
        return self.p if self.training else 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in and out."""
        return dropout(x, self.p) if self.rate() else x


@operation
def add_norm(a: Tensor, x: Tensor, norm: nn.LayerNorm, p: float) -> Tensor:
    """`norm(dropout(a) + x)`; a and x (batch, length, d)."""
    return norm((dropout(a, p) if p else a) + x)


@operation
def gelu_gate(a: Tensor, gate: Tensor, b: Tensor | None = None, shares: Tensor | None = None) -> Tensor:
    """`a * gelu(gate)`, or `(shares[0] * a + shares[1] * b) * gelu(gate)`.

    Args:
        a, gate, b: (batch, length, d).
        shares: (2,), with `b`.
    """
    if b is not None and shares is not None:
        a = shares[0] * a + shares[1] * b
    return a * F.gelu(gate)


# ---------------------------------------------------------------------- linear attention


@operation
def linear_attention(qkv: Tensor, mask: Tensor | None, num_heads: int) -> Tensor:
    """Causal linear attention: `out[t] = q[t] · Σ_{s ≤ t} k[s] v[s]ᵀ / √(d / heads)` in each head (section 3.4).

    Args:
        qkv: (batch, length, 3 d): queries, keys and values, before their features are taken.
        mask: (batch, length, 1), 0 at padding, whose values count nothing; `None` where there is none.
        num_heads: Heads; divides d.

    Returns:
        (batch, length, d) in the dtype of `qkv`.
    """
    query, key, value = attention_parts(qkv, num_heads)
    if mask is not None:
        value = value * mask[:, None]
    context = causal_linear_attention(query, key, value.to(key.dtype))
    return (context * query.shape[-1] ** -0.5).transpose(1, 2).flatten(2).to(qkv.dtype)


def causal_linear_attention(query: Tensor, key: Tensor, value: Tensor, chunk: int = 32) -> Tensor:
    """`out[t] = query[t] · Σ_{s ≤ t} key[s] value[s]ᵀ`; all (batch, heads, length, features).

    In chunks, so that the cost is linear in the length: within a chunk positions read each other directly, earlier
    chunks through their running sum.
    """
    length = query.shape[2]
    if not isinstance(length, torch.SymInt):  # an exported graph serves any length: no choice may depend on it
        chunk = max(1, min(chunk, length))
    # (batch, heads, chunks, chunk, features)
    query, key, value = (F.pad(x, (0, 0, 0, -length % chunk)).unflatten(2, (-1, chunk)) for x in (query, key, value))
    out = (query @ key.transpose(-1, -2)).tril() @ value
    running = at_least_float32(key.transpose(-1, -2) @ value).cumsum(2)[:, :, :-1]
    before = F.pad(running, (0, 0, 0, 0, 1, 0)).to(query.dtype)
    return (out + query @ before).flatten(2, 3)[:, :, :length]


# ---------------------------------------------------------------------- the recurrence of every prefix


@operation
def prefix_convolution(taps: Tensor, bias: Tensor, mask: Tensor | None, before: Tensor | None = None) -> Tensor:
    """A convolution over time with three taps: each position as an interior one, and as the last of its prefix.

    Args:
        taps: (batch, length, 3 d): what an item gives to the position after it, to its own, and to the one before it.
        bias: (d,).
        mask: (batch, length, 1), 0 at padding, which gives nothing and whose interior value is 0.
        before: (batch, d), what the item before the first position gives to it; nothing where it is `None`.

    Returns:
        (2, batch, length, d): the interior values, and the edge values, without the right neighbour.
    """
    if mask is not None:
        taps = (taps * mask).to(taps.dtype)
    after, own, to_previous = taps.chunk(3, dim=-1)
    edge = shift_in(before, after) + own + bias.to(taps.dtype)
    interior = edge + F.pad(to_previous, (0, 0, 0, 1))[:, 1:]
    return torch.stack((interior if mask is None else (interior * mask).to(edge.dtype), edge))


def gru_step(gru: nn.GRU, x: Tensor, before: Tensor) -> Tensor:
    """What one step of a GRU without biases makes of each state `before` with its input `x`; all (..., size)."""
    weight_x, weight_h = gru.all_weights[0]
    reset_x, update_x, new_x = F.linear(x, weight_x).chunk(3, dim=-1)
    reset_h, update_h, new_h = F.linear(before.to(x.dtype), weight_h).chunk(3, dim=-1)
    update = torch.sigmoid(update_x + update_h)
    new = torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h)
    return new + update * (before.to(x.dtype) - new)


@torch.compiler.disable  # a fast form serves compiled models too
@operation
def gru_states(gru: nn.GRU, x: Tensor, start: Tensor | None = None) -> Tensor:
    """The state at every position of a one-layer GRU without biases; (batch, length, size) in and out.

    `start` is the state before the first position, (batch, size), zero where it is `None`.
    """
    return gru(x, None if start is None else start.to(x.dtype)[None].contiguous())[0]


@torch.compiler.disable
@operation
def gru_prefix_states(gru: nn.GRU, inputs: Tensor, start: Tensor | None = None) -> Tensor:
    """The states over interior inputs, and, for every t at once, what the edge input makes of the state at t - 1.

    Args:
        inputs: (2, batch, length, size), interior and edge.
        start: (batch, size), the state before the first position; zero where it is `None`.

    Returns:
        States and edge states, (2, batch, length, size).
    """
    interior, edge = inputs
    states = gru_states(gru, interior, start)
    return torch.stack((states, gru_step(gru, edge, shift_in(start, states))))


@operation
def gated_pairs(gate: Tensor, value: Tensor, mask: Tensor | None, p: float, before: Tensor | None = None) -> Tensor:
    """What the second convolution reads for a prefix: the interior value before its last position, and its edge value.

    Args:
        gate, value: (2, batch, length, d), interior and edge; they are multiplied after a dropout of `gate` with p.
        mask: (batch, length, 1), 0 at padding; `None` where there is none.
        before: (batch, d), the product before the first position; zero where it is `None`.

    Returns:
        (batch, length, 2 d).
    """
    interior, edge = (dropout(gate, p) if p else gate) * value
    if mask is not None:
        interior = (interior * mask).to(edge.dtype)
    return torch.cat((shift_in(before, interior), edge), dim=-1)


# ---------------------------------------------------------------------- running sums and the selective state space


def decay_matrix(age: Tensor, decay: float, dtype: torch.dtype) -> Tensor:
    """`decay ** age`, and 0 for what is still to come (an age below 0); the shape of `age`."""
    return torch.where(age >= 0, decay ** age.clamp_min(0).to(dtype), 0.0)


@operation
def decayed_sums(x: Tensor, decay: float, before: Tensor | None = None) -> Tensor:
    """`y[t] = Σ_{s ≤ t} decay^(t - s) x[s]`, as one product with a (length, length) matrix.

    Args:
        x: (batch, length, size).
        decay: 0 (the item alone) to below 1.
        before: (batch, size), the sum before the first position.

    Returns:
        (batch, length, size).
    """
    steps = torch.arange(x.shape[-2], device=x.device)
    sums = decay_matrix(steps[:, None] - steps, decay, x.dtype) @ x
    if before is None:
        return sums
    return sums + (decay ** (steps + 1).to(x.dtype))[:, None] * before[..., None, :].to(x.dtype)


@torch.compiler.disable
@operation
def selective_scan(
    step: Tensor, u: Tensor, a: Tensor, b: Tensor, c: Tensor, start: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`h[t] = exp(step[t] a) h[t - 1] + step[t] u[t] b[t]ᵀ`, giving `h[t] c[t]` and the last state (Mamba).

    Args:
        step, u: (batch, length, channels); where a step is 0, the state stays as it is.
        a: (channels, state_size), negative.
        b, c: (batch, length, state_size).
        start: (batch, channels, state_size), the state before the first position; zero where it is `None`. No gradient
            goes to it, nor comes from the last state.

    Returns:
        (batch, length, channels) and (batch, channels, state_size).
    """
    state = step.new_zeros(step.shape[0], *a.shape) if start is None else start.detach().to(step.dtype)
    outputs = []
    for step_t, drive, b_t, c_t in zip(*(x.unbind(1) for x in (step, step * u, b, c)), strict=True):
        state = torch.exp(step_t[..., None] * a) * state + drive[..., None] * b_t[:, None]
        outputs.append((state @ c_t[..., None]).squeeze(-1))
    return torch.stack(outputs, dim=1), state.detach()


# ---------------------------------------------------------------------- losses over all items


def hide_seen(scores: Tensor, targets: Tensor, seen: Tensor | None) -> Tensor:
    """(targets, items) scores with the (targets, any) `seen` items out of the softmax; targets stay in."""
    if seen is None:
        return scores
    target = targets[:, None]
    # Not -inf: R-Drop takes the difference of two scores. exp is 0 all the same.
    return scores.scatter(1, seen, -1e4).scatter(1, target, scores.gather(1, target))


@operation
def cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: float,
    smoothing: float,
    seen: Tensor | None = None,
) -> Tensor:
    """Cross-entropy over the whole catalogue (paper section 3.6), summed over the targets. Scalar.

    Args:
        hidden: (targets, d) representations.
        weight: (vocab_size, d) item embeddings; index 0, padding, does not compete.
        targets: (targets,) int64 item indices.
        temperature: Divides the scores.
        smoothing: Share of the target's probability that is spread over all items.
        seen: (targets, any) int64 items that do not compete with the target, which may be among them.
    """
    scores = at_least_float32(hidden @ weight[1:].to(hidden.dtype).T) / temperature
    scores = hide_seen(scores, targets - 1, None if seen is None else seen - 1)
    return F.cross_entropy(scores, targets - 1, label_smoothing=smoothing, reduction="sum")


def find_kernels() -> None:
    """Lets the kernels of an installed `glintru` register themselves, whatever this module is called here."""
    try:
        kernels = import_module("modeling_glintru.kernels")
    except ImportError:
        return
    kernels.register(FAST_FORMS, SIGNATURES)


find_kernels()
