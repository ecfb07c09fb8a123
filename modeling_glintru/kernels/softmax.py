"""Losses over all items that never hold the whole matrix of scores, on any device.

Scores are made a chunk of rows at a time and turned into their gradient on the spot, by one C kernel on CPUs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from . import build
from .calls import over_rows

__all__ = ["FORMS", "LinearCrossEntropy", "TwinCrossEntropy"]

HIDDEN_SCORE = -1e4  # in units of the softmax, in the range of float16


def autocast_dtype(x: Tensor) -> torch.dtype:
    """What a matrix product with `x` is made in."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def hide_seen_(scores: Tensor, targets: Tensor, seen: Tensor, temperature: float) -> None:
    """Takes the (rows, any) `seen` out of the softmax of (rows, items) scores, in place; targets stay in."""
    target = targets[:, None]
    kept = scores.gather(1, target)
    # Not -inf: R-Drop takes the difference of two scores. exp is 0 all the same.
    scores.scatter_(1, seen, HIDDEN_SCORE * min(temperature, 1.0)).scatter_(1, target, kept)


def cross_entropy_(scores: Tensor, targets: Tensor, temperature: float, smoothing: float) -> Tensor | None:
    """Turns `scores` (rows, items), in place, into the gradient of their summed cross-entropy with `targets`.

    Returns:
        The summed loss, float32 scalar; `None`, with `scores` as they were, where there is no kernel for them.
    """
    return _softmax_gradient("cross_entropy", [scores], targets, temperature, smoothing)


def twin_cross_entropy_(scores: Tensor, targets: Tensor, temperature: float, alpha: float) -> Tensor | None:
    """As `cross_entropy_`, for (2, rows, items) scores of two passes and the loss of `r_drop`."""
    return _softmax_gradient("twin_cross_entropy", list(scores), targets, temperature, alpha)


def _softmax_gradient(
    name: str, passes: Sequence[Tensor], targets: Tensor, temperature: float, option: float
) -> Tensor | None:
    """Calls that kernel on the (rows, items) scores of each pass; see `cross_entropy_`."""
    first = passes[0]
    kernels = build.library() if first.device.type == "cpu" and not torch.compiler.is_compiling() else None
    contiguous = all(scores.is_contiguous() for scores in passes)
    if kernels is None or first.dtype not in (torch.float32, torch.bfloat16) or not contiguous:
        return None
    losses = torch.empty(len(first), dtype=torch.float32)
    options = (
        first.shape[1],
        int(first.dtype == torch.bfloat16),
        ctypes.c_float(temperature),
        ctypes.c_float(option),
    )
    over_rows(getattr(kernels, name), len(first), (*passes, targets.contiguous(), losses), options)
    return losses.sum()


def softmax_gradient(
    scores: Tensor, targets: Tensor, temperature: float, smoothing: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The summed cross-entropy of (rows, items) scores, which are used up, and its gradient by them in `dtype`."""
    target = targets[:, None]
    scores /= temperature
    wanted = (1 - smoothing) * scores.gather(1, target).squeeze(1) + smoothing * scores.mean(1)
    top = scores.amax(1, keepdim=True)
    probabilities = scores.sub_(top).exp_()
    mass = probabilities.sum(1, keepdim=True)
    loss = (mass.log() + top).sum() - wanted.sum()
    gradient = probabilities.div_(mass).scatter_add_(1, target, torch.full_like(mass, smoothing - 1))
    if smoothing:
        gradient -= smoothing / scores.shape[1]
    return loss, gradient.div_(temperature).to(dtype)


class LinearCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy of `hidden @ weight[1:]ᵀ` that never holds the whole logits matrix.

    Scores are made a chunk of rows at a time, in the autocast dtype with float32 softmax, and turned into the
    gradient on the spot, so the exponentials are computed once and the backward pass is one scaling. Chunks share
    their buffers: fresh ones of this size would be paged in anew each time.
    """

    # Rows of scores held at a time: 256 took at most 9 % more than the best of 32 ... 1,024, both dtypes, from 1,682
    # to 100,000 items (d = 64; to 12,000 with 128). Fewer where they would fill CHUNK_ELEMENTS, 256 MB in float32.
    CHUNK_ROWS = 256
    LEAST_ROWS = 64
    CHUNK_ELEMENTS = 1 << 26
    CHUNK_ELEMENTS_GPU = 1 << 27

    @staticmethod
    def chunk_rows(device: str, targets: int, items: int) -> int:
        """How many rows of scores are made at a time."""
        cls = LinearCrossEntropy
        most, elements = (cls.CHUNK_ROWS, cls.CHUNK_ELEMENTS) if device == "cpu" else (targets, cls.CHUNK_ELEMENTS_GPU)
        return max(1, min(targets, most, max(cls.LEAST_ROWS, elements // max(1, items))))

    @staticmethod
    def forward(
        ctx,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        temperature: float,
        smoothing: float,
        seen: Tensor | None = None,
    ) -> Tensor:
        device, dtype = hidden.device.type, autocast_dtype(hidden)
        accumulate = torch.promote_types(hidden.dtype, torch.float32)
        inputs, items, targets = hidden.to(dtype), weight[1:].to(dtype), targets - 1
        seen = None if seen is None else seen - 1
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(inputs) if wants_hidden else None
        grad_weight = torch.zeros(weight.shape, dtype=accumulate, device=weight.device) if wants_weight else None
        total = torch.zeros((), dtype=accumulate, device=hidden.device)
        rows = LinearCrossEntropy.chunk_rows(device, len(targets), len(items))
        scores = inputs.new_empty(rows, len(items))
        product = torch.empty_like(items) if wants_weight and dtype != accumulate else None
        for start in range(0, len(targets), rows):
            part, target = inputs[start : start + rows], targets[start : start + rows]
            gradient = torch.mm(part, items.T, out=scores[: len(part)])
            if seen is not None:
                hide_seen_(gradient, target, seen[start : start + rows], temperature)
            loss = cross_entropy_(gradient, target, temperature, smoothing)
            if loss is None:
                loss, gradient = softmax_gradient(gradient.to(accumulate), target, temperature, smoothing, dtype)
            total += loss
            if grad_hidden is not None:
                torch.mm(gradient, items, out=grad_hidden[start : start + rows])
            if grad_weight is not None:
                sums = grad_weight[1:]
                if product is None:
                    sums.addmm_(gradient.T, part)
                else:
                    sums += torch.mm(gradient.T, part, out=product)
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.dtypes = hidden.dtype, weight.dtype
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_total: Tensor):
        grads = [
            None if grad is None else (grad * grad_total.to(grad.dtype)).to(dtype)
            for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return *grads, None, None, None, None


def twin_gradient(
    scores: Tensor, targets: Tensor, temperature: float, alpha: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The summed loss of (2, rows, items) scores, see the operation `r_drop`, and its gradient by them in `dtype`."""
    logs = (scores / temperature).log_softmax(-1)
    probabilities = logs.exp()
    difference = logs[0] - logs[1]
    divergence = (probabilities * difference).sum(-1, keepdim=True)  # KL(first, second), and less KL(second, first)
    index = targets[None, :, None].expand(2, -1, 1)
    loss = (alpha / 2 * (divergence[0] - divergence[1]).sum() - logs.gather(2, index).sum()) / 2
    sign = torch.tensor([1.0, -1.0], dtype=scores.dtype, device=scores.device)[:, None, None]
    pull = probabilities * (difference - divergence) + (probabilities[0] - probabilities[1])
    gradient = probabilities + alpha / 2 * sign * pull
    gradient.scatter_add_(2, index, torch.full_like(divergence, -1.0))
    return loss, (gradient / (2 * temperature)).to(dtype)


class TwinCrossEntropy(LinearCrossEntropy):
    """`r_drop` that never holds the whole logits matrices; the backward pass is the same scaling."""

    @staticmethod
    def forward(
        ctx,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        temperature: float,
        alpha: float,
        seen: Tensor | None = None,
    ) -> Tensor:
        dtype = autocast_dtype(hidden)
        accumulate = torch.promote_types(hidden.dtype, torch.float32)
        inputs, items, targets = hidden.to(dtype), weight[1:].to(dtype), targets - 1
        seen = None if seen is None else seen - 1
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(inputs) if wants_hidden else None
        grad_weight = torch.zeros(weight.shape, dtype=accumulate, device=weight.device) if wants_weight else None
        total = torch.zeros((), dtype=accumulate, device=hidden.device)
        rows = max(1, TwinCrossEntropy.chunk_rows(hidden.device.type, len(targets), len(items)) // 2)
        scores = inputs.new_empty(2, rows, len(items))
        for start in range(0, len(targets), rows):
            part, target = inputs[:, start : start + rows], targets[start : start + rows]
            pair = scores[:, : len(target)]
            for one, into in zip(part, pair, strict=True):
                torch.mm(one, items.T, out=into)
                if seen is not None:
                    hide_seen_(into, target, seen[start : start + rows], temperature)
            loss = twin_cross_entropy_(pair, target, temperature, alpha)
            gradient = pair
            if loss is None:
                loss, gradient = twin_gradient(pair.to(accumulate), target, temperature, alpha, dtype)
            total += loss
            for side, (one, grad) in enumerate(zip(part, gradient, strict=True)):
                if grad_hidden is not None:
                    torch.mm(grad, items, out=grad_hidden[side, start : start + rows])
                if grad_weight is not None:
                    sums = grad_weight[1:]
                    if dtype == accumulate:
                        sums.addmm_(grad.T, one)
                    else:
                        sums += torch.mm(grad.T, one)
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.dtypes = hidden.dtype, weight.dtype
        return total


FORMS = {
    "cross_entropy": (lambda *arguments: True, LinearCrossEntropy.apply),
    "r_drop": (lambda *arguments: True, TwinCrossEntropy.apply),
}
