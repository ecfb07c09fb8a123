"""The parts of a block between its matrix products, each as one pass over memory on CPUs."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn

from .calls import call, can_fuse, kept

__all__ = ["FORMS", "HEAD_SIZES", "Drop"]

HEAD_SIZES = (16, 32, 64)  # those that the attention kernel is compiled for


class Drop(ctypes.Structure):
    """How a kernel drops: two seeds, the share of 2^32 below which an element goes, the factor of those that stay."""

    _fields_ = (
        ("seed", ctypes.c_uint),
        ("more", ctypes.c_uint),
        ("threshold", ctypes.c_uint),
        ("scale", ctypes.c_float),
    )


def draw(p: float) -> Drop:
    """How to drop with probability p: new seeds from PyTorch's generator; a threshold of 0 where nothing is dropped."""
    if p == 0:
        return Drop(0, 0, 0, 1.0)
    seed, more = torch.randint(2**32, (2,)).tolist()
    return Drop(seed, more, round(p * 2**32), 1 / (1 - p))


class DropFunction(torch.autograd.Function):
    """Dropout whose mask is a hash that the backward pass computes again: no memory, one pass."""

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


# ---------------------------------------------------------------------- as the operations of `models/ops_glintru.py`


def _attention_serves(qkv: Tensor, mask: Tensor | None, num_heads: int) -> bool:
    width = qkv.shape[-1] // 3
    return width // num_heads in HEAD_SIZES and can_fuse(qkv, width)


def _attention(qkv: Tensor, mask: Tensor | None, num_heads: int) -> Tensor:
    return LinearAttention.apply(qkv, kept(mask), qkv.shape[-1] // 3 // num_heads)


def _convolution_serves(taps: Tensor, bias: Tensor, mask: Tensor | None, before: Tensor | None = None) -> bool:
    return before is None and bias.dtype == torch.float32 and can_fuse(taps, taps.shape[-1] // 3)


def _convolution(taps: Tensor, bias: Tensor, mask: Tensor | None, before: Any = None) -> Tensor:
    return Edges.apply(taps, bias, kept(mask))


def _pairs_serve(gate: Tensor, value: Tensor, mask: Tensor | None, p: float, before: Tensor | None = None) -> bool:
    return before is None and gate.dtype == value.dtype and can_fuse(value, value.shape[-1])


def _pairs(gate: Tensor, value: Tensor, mask: Tensor | None, p: float, before: Any = None) -> Tensor:
    return GatedPairs.apply(gate, value, kept(mask), draw(p))


def _norm_serves(a: Tensor, x: Tensor, norm: nn.LayerNorm, p: float) -> bool:
    return x.dtype == norm.weight.dtype == torch.float32 and can_fuse(a, a.shape[-1])


def _add_norm(a: Tensor, x: Tensor, norm: nn.LayerNorm, p: float) -> Tensor:
    return AddNorm.apply(a, x, norm.weight, norm.bias, draw(p), norm.eps)


def _gelu_serves(a: Tensor, gate: Tensor, b: Tensor | None = None, shares: Tensor | None = None) -> bool:
    return a.dtype == gate.dtype and (b is None or b.dtype == torch.float32) and can_fuse(a, a.shape[-1])


def _gelu(a: Tensor, gate: Tensor, b: Tensor | None = None, shares: Tensor | None = None) -> Tensor:
    return GeluGate.apply(a, b, gate, None if shares is None else shares.float())


FORMS = {
    "add_norm": (_norm_serves, _add_norm),
    "dropout": (lambda x, p: can_fuse(x, x.numel()), lambda x, p: DropFunction.apply(x, draw(p))),
    "gated_pairs": (_pairs_serve, _pairs),
    "gelu_gate": (_gelu_serves, _gelu),
    "linear_attention": (_attention_serves, _attention),
    "prefix_convolution": (_convolution_serves, _convolution),
}
