"""Parts of the block between its matrix products, each as one pass over memory on CPUs.

Every function here gives the same numbers by PyTorch's own operations where the compiled kernels cannot serve.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .kernels_glintru import call, can_fuse

__all__ = [
    "Dropout",
    "add_norm",
    "causal_linear_attention",
    "edges",
    "gated_pairs",
    "gelu_gate",
    "linear_attention",
    "pairs",
]

NORM_FLOOR = 1e-6  # a zero vector stays zero instead of becoming NaN; far below any norm that occurs
ATTENTION_CHUNK = 32  # measured: 16 to 40 are equally fast, 64 takes twice the time
HEAD_SIZES = (16, 32, 64)  # those that the attention kernel is compiled for


class Drop(ctypes.Structure):
    """How a kernel drops: two seeds, the share of 2^32 below which an element goes, the factor of those that stay."""

    _fields_ = (
        ("seed", ctypes.c_uint),
        ("more", ctypes.c_uint),
        ("threshold", ctypes.c_uint),
        ("scale", ctypes.c_float),
    )


class Dropout(nn.Dropout):
    """`nn.Dropout` whose mask on CPUs is a hash that the backward pass computes again: no memory, one pass."""

    def draw(self) -> Drop:
        """New seeds from PyTorch's generator; a threshold of 0 where nothing is to be dropped."""
        if not self.training or self.p == 0:
            return Drop(0, 0, 0, 1.0)
        seed, more = torch.randint(2**32, (2,)).tolist()
        return Drop(seed, more, round(self.p * 2**32), 1 / (1 - self.p))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in and out."""
        if not self.training or self.p == 0 or not can_fuse(x, width=x.numel()):
            return super().forward(x)
        return DropFunction.apply(x, self.draw())


class DropFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, drop: Drop) -> Tensor:
        ctx.drop = drop
        x = x.contiguous()
        out = torch.empty_like(x)
        rows = x.shape[0] if x.dim() > 1 and x[0].numel() % 16 == 0 else 1
        call("dropout", x.dtype, rows, (x, out), (ctypes.c_long(x.numel() // rows), drop))
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        return DropFunction.forward(ctx, grad, ctx.drop), None


# ---------------------------------------------------------------------- linear attention


def causal_linear_attention(query: Tensor, key: Tensor, value: Tensor, chunk: int = ATTENTION_CHUNK) -> Tensor:
    """`out[t] = query[t] · Σ_{s ≤ t} key[s] valueᵀ[s]`, in chunks: linear in the length, no length × length matrix.

    Args:
        query, key, value: (batch, heads, length, features).
        chunk: Positions that attend to each other directly; earlier ones are read through the running sum.

    Returns:
        (batch, heads, length, features).
    """
    batch, heads, length, size = query.shape
    symbolic = isinstance(length, torch.SymInt)  # in an export the graph serves any length: no choice may depend on it
    if not symbolic:
        chunk = max(1, min(chunk, length))
    padding = -length % chunk
    # (batch · heads · chunks, chunk, features): plain batched products are the fastest form on CPUs
    query, key, value = (F.pad(x, (0, 0, 0, padding)).reshape(-1, chunk, size) for x in (query, key, value))
    causal = torch.ones(chunk, chunk, dtype=query.dtype, device=query.device).tril()
    out = torch.bmm(torch.bmm(query, key.transpose(1, 2)) * causal, value)
    if symbolic or length > chunk:
        sums = torch.bmm(key.transpose(1, 2), value).view(batch * heads, -1, size, size)
        # The running sum is kept in float32 even where the products are in half precision.
        running = sums.to(torch.promote_types(sums.dtype, torch.float32)).cumsum(1)[:, :-1]
        before = F.pad(running, (0, 0, 0, 0, 1, 0)).to(query.dtype).flatten(0, 1)
        out = torch.baddbmm(out, query, before)
    return out.view(batch, heads, -1, size)[:, :, :length]


def heads_of(x: Tensor, num_heads: int) -> Tensor:
    """(batch, length, size) to (batch, heads, length, size / heads)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def features(x: Tensor) -> Tensor:
    """L2-normalised ELU features (paper section 3.4)."""
    return F.normalize(F.elu(x), dim=-1, eps=NORM_FLOOR)


def attention_parts(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features of queries and keys, and values, of (batch, length, 3 d): each (batch, heads, length, d / heads)."""
    query, key, value = (heads_of(x, num_heads) for x in qkv.chunk(3, dim=-1))
    return features(query), features(key), value


def linear_attention(qkv: Tensor, mask: Tensor | None, num_heads: int) -> Tensor:
    """Causal linear attention of every head, scaled by the root of the head's size (paper section 3.4).

    Args:
        qkv: (batch, length, 3 d): queries, keys and values.
        mask: (batch, length, 1), 0 at padding, whose values count nothing; `None` where there is none.
        num_heads: Heads; divides d.

    Returns:
        (batch, length, d) in qkv's dtype.
    """
    size = qkv.shape[-1] // 3 // num_heads
    if size in HEAD_SIZES and can_fuse(qkv, width=qkv.shape[-1] // 3):
        return LinearAttention.apply(qkv, kept(mask), size)
    query, key, value = attention_parts(qkv, num_heads)
    if mask is not None:
        value = (value * mask[:, None]).to(value.dtype)
    context = causal_linear_attention(query, key, value.to(key.dtype))
    return (context * size**-0.5).transpose(1, 2).flatten(2).to(qkv.dtype)


class LinearAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv: Tensor, keep: Tensor | None, size: int) -> Tensor:
        qkv = qkv.contiguous()
        ctx.save_for_backward(qkv, keep)
        ctx.size = size
        batch, length, width = qkv.shape
        out = qkv.new_empty(batch, length, width // 3)
        call("attention", qkv.dtype, batch, (qkv, keep, out), (length, width // 3, size, ctypes.c_float(size**-0.5)))
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        qkv, keep = ctx.saved_tensors
        batch, length, width = qkv.shape
        out, sizes = torch.empty_like(qkv), (length, width // 3, ctx.size, ctypes.c_float(ctx.size**-0.5))
        call("attention_back", qkv.dtype, batch, (grad.contiguous(), qkv, keep, out), sizes)
        return out, None, None


# ---------------------------------------------------------------------- convolutions and gate of the recurrence


def kept(mask: Tensor | None) -> Tensor | None:
    """A mask as the kernels take it: float32, contiguous."""
    return None if mask is None else mask.detach().float().contiguous()


def shift_right(x: Tensor) -> Tensor:
    """`y[:, t] = x[:, t - 1]`, zeros at t = 0. Shape (batch, length, features)."""
    return F.pad(x, (0, 0, 1, 0))[:, :-1]


def shift_in(first: Tensor, x: Tensor) -> Tensor:
    """`x` one position later, with `first` (batch, size) at position 0. (batch, length, size)."""
    return torch.cat((first[:, None].to(x.dtype), x[:, :-1]), dim=1)


def edges(taps: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
    """A convolution over time with three taps, for every position as an interior one and as the last of its prefix.

    Args:
        taps: (batch, length, 3 d): what an item gives to the position after it, to its own, and to the one before it.
        bias: (d,).
        mask: (batch, length, 1), 0 at padding, which gives nothing and whose interior value is 0.

    Returns:
        (2, batch, length, d): the interior values, and the edge values, without the right neighbour.
    """
    if can_fuse(taps, width=taps.shape[-1] // 3) and bias.dtype == torch.float32:
        return Edges.apply(taps, bias, kept(mask))
    if mask is not None:
        taps = (taps * mask).to(taps.dtype)
    after, own, before = taps.chunk(3, dim=-1)
    edge = shift_right(after) + own + bias.to(taps.dtype)
    interior = edge + F.pad(before, (0, 0, 0, 1))[:, 1:]
    return torch.stack((interior if mask is None else (interior * mask).to(edge.dtype), edge))


class Edges(torch.autograd.Function):
    @staticmethod
    def forward(ctx, taps: Tensor, bias: Tensor, keep: Tensor | None) -> Tensor:
        taps, bias = taps.contiguous(), bias.contiguous()
        ctx.save_for_backward(keep)
        batch, length, width = taps.shape
        out = taps.new_empty(2, batch, length, width // 3)
        call("taps", taps.dtype, batch, (taps, bias, keep, out[0], out[1]), (length, width // 3))
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        (keep,) = ctx.saved_tensors
        grad = grad.contiguous()
        _, batch, length, width = grad.shape
        out, bias = grad.new_empty(batch, length, 3 * width), torch.empty(batch, width)
        call("taps_back", grad.dtype, batch, (grad[0], grad[1], keep, out, bias), (length, width))
        return out, bias.sum(0), None


def gated_pairs(gate: Tensor, value: Tensor, mask: Tensor | None, dropout: Dropout) -> Tensor:
    """What the second convolution reads for a prefix: the interior value before its last position, and its edge value.

    Args:
        gate, value: (2, batch, length, d), interior and edge; the result is `dropout(gate) * value`.
        mask: (batch, length, 1), 0 at padding; `None` where there is none.

    Returns:
        (batch, length, 2 d).
    """
    if can_fuse(value, width=value.shape[-1]) and gate.dtype == value.dtype:
        return GatedPairs.apply(gate, value, kept(mask), dropout.draw())
    return pairs(dropout(gate) * value, mask)


def pairs(values: Tensor, mask: Tensor | None) -> Tensor:
    """The interior value before each position and its edge value: (2, batch, length, d) to (batch, length, 2 d)."""
    interior, edge = values
    if mask is not None:
        interior = (interior * mask).to(edge.dtype)
    return torch.cat((shift_right(interior), edge), dim=-1)


class GatedPairs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate: Tensor, value: Tensor, keep: Tensor | None, drop: Drop) -> Tensor:
        gate, value = gate.contiguous(), value.contiguous()
        ctx.save_for_backward(gate, value, keep)
        ctx.drop = drop
        _, batch, length, width = gate.shape
        out = gate.new_empty(batch, length, 2 * width)
        sizes = (length, width, drop, ctypes.c_long(gate[0].numel()))
        call("gate", gate.dtype, batch, (gate[0], gate[1], value[0], value[1], keep, out), sizes)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        gate, value, keep = ctx.saved_tensors
        dgate, dvalue = torch.empty_like(gate), torch.empty_like(value)
        _, batch, length, width = gate.shape
        tensors = (grad.contiguous(), *gate, *value, keep, *dgate, *dvalue)
        call("gate_back", gate.dtype, batch, tensors, (length, width, ctx.drop, ctypes.c_long(gate[0].numel())))
        return dgate, dvalue, None, None


# ---------------------------------------------------------------------- residual, normalisation, gated products


def add_norm(a: Tensor, x: Tensor, dropout: Dropout, norm: nn.LayerNorm) -> Tensor:
    """`norm(dropout(a) + x)`; all (batch, length, d)."""
    if can_fuse(a, width=a.shape[-1]) and x.dtype == norm.weight.dtype == torch.float32:
        return AddNorm.apply(a, x, norm.weight, norm.bias, dropout.draw(), norm.eps)
    return norm(dropout(a) + x)


class AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a: Tensor, x: Tensor, weight: Tensor, bias: Tensor, drop: Drop, eps: float) -> Tensor:
        a, x = a.contiguous(), x.contiguous()
        batch, length, width = x.shape
        out, stats = torch.empty_like(x), x.new_empty(batch, length, 2)
        sizes = (length, width, drop, ctypes.c_float(eps))
        call("add_norm", a.dtype, batch, (a, x, weight, bias, out, stats), sizes)
        ctx.save_for_backward(a, x, weight, stats)
        ctx.drop = drop
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        a, x, weight, stats = ctx.saved_tensors
        batch, length, width = x.shape
        da, dx = torch.empty_like(a), torch.empty_like(x)
        dweight, dbias = x.new_empty(2, batch, width)
        tensors = (grad.contiguous(), a, x, weight, stats, da, dx, dweight, dbias)
        call("add_norm_back", a.dtype, batch, tensors, (length, width, ctx.drop))
        return da, dx, dweight.sum(0), dbias.sum(0), None, None


def gelu_gate(a: Tensor, gate: Tensor, b: Tensor | None = None, shares: Tensor | None = None) -> Tensor:
    """`a * gelu(gate)`, or `(shares[0] * a + shares[1] * b) * gelu(gate)`.

    Args:
        a, gate, b: (batch, length, d).
        shares: (2,), with `b`.
    """
    if can_fuse(a, width=a.shape[-1]) and a.dtype == gate.dtype and (b is None or b.dtype == torch.float32):
        return GeluGate.apply(a, b, gate, None if shares is None else shares.float())
    if b is not None and shares is not None:
        a = shares[0] * a + shares[1] * b
    return a * F.gelu(gate)


class GeluGate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor | None, gate: Tensor, shares: Tensor | None) -> Tensor:
        a, gate, b = a.contiguous(), gate.contiguous(), None if b is None else b.contiguous()
        ctx.save_for_backward(a, b, gate, shares)
        out = torch.empty_like(a)
        call("gelu_gate", a.dtype, a.shape[0], (a, b, gate, shares, out), a.shape[1:])
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        a, b, gate, shares = ctx.saved_tensors
        da, dgate, db = torch.empty_like(a), torch.empty_like(gate), None if b is None else torch.empty_like(b)
        dshares = None if shares is None else shares.new_empty(a.shape[0], 2)
        tensors: tuple[Any, ...] = (grad.contiguous(), a, b, gate, shares, da, db, dgate, dshares)
        call("gelu_gate_back", a.dtype, a.shape[0], tensors, a.shape[1:])
        return da, db, dgate, None if dshares is None else dshares.sum(0)
