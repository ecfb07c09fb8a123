"""R-Drop (Liang et al., NeurIPS 2021): two passes of a batch with other dropout, whose answers are drawn together."""

from __future__ import annotations

import torch
from torch import Tensor

from .configuration_glintru import GlintRUConfig
from .kernels_glintru import twin_cross_entropy_
from .losses_glintru import LinearCrossEntropy, autocast_dtype, unit, unit_rows
from .seen_items_glintru import hide_seen_

__all__ = ["r_drop"]


def twin_gradient(
    scores: Tensor, targets: Tensor, temperature: float, alpha: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The summed loss of (2, rows, items) scores, see `r_drop`, and its gradient by them in `dtype`."""
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
        first_item: int,
        seen: Tensor | None = None,
    ) -> Tensor:
        dtype = autocast_dtype(hidden)
        accumulate = torch.promote_types(hidden.dtype, torch.float32)
        inputs, items, targets = hidden.to(dtype), weight[first_item:].to(dtype), targets - first_item
        seen = None if seen is None else seen - first_item
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
                    sums = grad_weight[first_item:]
                    if dtype == accumulate:
                        sums.addmm_(grad.T, one)
                    else:
                        sums += torch.mm(grad.T, one)
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.dtypes = hidden.dtype, weight.dtype
        return total


def r_drop(
    config: GlintRUConfig, hidden: Tensor, again: Tensor, targets: Tensor, weight: Tensor, seen: Tensor | None = None
) -> Tensor:
    """Half of the paper's loss (equations 1 to 4), so that `r_drop_alpha` 0 is the mean cross-entropy of two passes.

    `(CE(p) + CE(q) + alpha / 2 * (KL(p, q) + KL(q, p))) / 2` for the softmaxes p and q of the two passes, summed over
    the targets. Scalar.

    Args:
        config: Of the model.
        hidden, again: (targets, hidden_size) representations of the same prefixes from the two passes.
        targets: (targets,) int64 item indices.
        weight: (vocab_size, hidden_size) item embeddings.
        seen: (targets, any) int64 items in neither softmax, see `seen_items`.
    """
    pair = torch.stack((hidden, again))
    if config.normalize_scores:
        pair, weight = unit(pair), unit_rows(weight)
    first_item = 0 if config.padding_in_softmax else 1
    return TwinCrossEntropy.apply(
        pair, weight, targets, float(config.temperature), float(config.r_drop_alpha), first_item, seen
    )
