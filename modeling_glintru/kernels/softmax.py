"""Losses over all items that never hold the whole matrix of scores, on any device.

Scores are made a chunk of rows at a time and turned into their gradient on the spot, by one C kernel on CPUs.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from . import build
from .calls import over_rows

__all__ = ["FORMS", "LinearCrossEntropy"]

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


def kernel_gradient_(name: str, scores: Tensor, targets: Tensor, temperature: float, option: float) -> Tensor | None:
    """Turns scores, in place, into the gradient of their summed loss by one C kernel.

    Args:
        name: Of the kernel: `"cross_entropy"`, or `"twin_cross_entropy"` for the loss of `r_drop`.
        scores: (passes, rows, items), of one pass or of two.
        targets: (rows,) int64.
        temperature: Divides the scores.
        option: The smoothing of the cross-entropy, or the alpha of R-Drop.

    Returns:
        The summed loss, float32 scalar; `None`, with `scores` as they were, where there is no kernel for them.
    """
    kernels = build.library() if scores.device.type == "cpu" and not torch.compiler.is_compiling() else None
    contiguous = all(side.is_contiguous() for side in scores)
    if kernels is None or scores.dtype not in (torch.float32, torch.bfloat16) or not contiguous:
        return None
    losses = torch.empty(len(targets), dtype=torch.float32)
    bf16 = int(scores.dtype == torch.bfloat16)
    options = (scores.shape[-1], bf16, ctypes.c_float(temperature), ctypes.c_float(option))
    over_rows(getattr(kernels, name), len(targets), (*scores, targets.contiguous(), losses), options)
    return losses.sum()


def softmax_gradient(
    scores: Tensor, targets: Tensor, temperature: float, smoothing: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The summed cross-entropy of (1, rows, items) scores, which are used up, and its gradient by them in `dtype`."""
    target = targets[None, :, None]
    scores /= temperature
    wanted = (1 - smoothing) * scores.gather(2, target).squeeze(2) + smoothing * scores.mean(2)
    top = scores.amax(2, keepdim=True)
    probabilities = scores.sub_(top).exp_()
    mass = probabilities.sum(2, keepdim=True)
    loss = (mass.log() + top).sum() - wanted.sum()
    gradient = probabilities.div_(mass).scatter_add_(2, target, torch.full_like(mass, smoothing - 1))
    if smoothing:
        gradient -= smoothing / scores.shape[2]
    return loss, gradient.div_(temperature).to(dtype)


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
        option: float,
        seen: Tensor | None = None,
    ) -> Tensor:
        """hidden (rows, d), with `option` the smoothing; or (2, rows, d) of two passes, with the alpha of `r_drop`."""
        twin = hidden.dim() == 3
        kernel, plain = ("twin_cross_entropy", twin_gradient) if twin else ("cross_entropy", softmax_gradient)
        device, dtype = hidden.device.type, autocast_dtype(hidden)
        accumulate = torch.promote_types(hidden.dtype, torch.float32)
        inputs, items, targets = hidden.to(dtype), weight[1:].to(dtype), targets - 1
        inputs = inputs if twin else inputs[None]
        seen = None if seen is None else seen - 1
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(inputs) if wants_hidden else None
        grad_weight = torch.zeros(weight.shape, dtype=accumulate, device=weight.device) if wants_weight else None
        total = torch.zeros((), dtype=accumulate, device=hidden.device)
        rows = max(1, LinearCrossEntropy.chunk_rows(device, len(targets), len(items)) // len(inputs))
        buffer = inputs.new_empty(len(inputs), rows, len(items))
        product = torch.empty_like(items) if wants_weight and dtype != accumulate else None
        for start in range(0, len(targets), rows):
            part, target = inputs[:, start : start + rows], targets[start : start + rows]
            scores = buffer[:, : len(target)]
            for side, into in zip(part, scores, strict=True):
                torch.mm(side, items.T, out=into)
                if seen is not None:
                    hide_seen_(into, target, seen[start : start + rows], temperature)
            loss, gradient = kernel_gradient_(kernel, scores, target, temperature, option), scores
            if loss is None:
                loss, gradient = plain(scores.to(accumulate), target, temperature, option, dtype)
            total += loss
            for number, (side, grad) in enumerate(zip(part, gradient, strict=True)):
                if grad_hidden is not None:
                    torch.mm(grad, items, out=grad_hidden[number, start : start + rows])
                if grad_weight is not None:
                    sums = grad_weight[1:]
                    if product is None:
                        sums.addmm_(grad.T, side)
                    else:
                        sums += torch.mm(grad.T, side, out=product)
        ctx.save_for_backward(None if grad_hidden is None else grad_hidden.view(hidden.shape), grad_weight)
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


FORMS = {name: (lambda *arguments: True, LinearCrossEntropy.apply) for name in ("cross_entropy", "r_drop")}
