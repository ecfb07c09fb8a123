"""Training losses over (representation, next item) pairs; each returns the sum over the pairs, a scalar."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .configuration_glintru import GlintRUConfig
from .kernels_glintru import cross_entropy_
from .negatives_glintru import ItemPopularity, draw_other_items, draw_shared_negatives
from .seen_items_glintru import hide_seen_

__all__ = ["bpr", "full_cross_entropy", "gbce", "next_item_loss", "sampled_softmax"]


def at_least_float32(x: Tensor) -> Tensor:
    """Half-precision scores are widened before they are exponentiated."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def unit(x: Tensor) -> Tensor:
    """Rows of length one, in at least float32; zeros stay zeros."""
    return F.normalize(at_least_float32(x), dim=-1)


class UnitRows(torch.autograd.Function):
    """As `unit`, for a whole table of items: its backward pass makes two tables of that size, that of `unit` seven."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        lengths = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(1e-12)
        rows = x / lengths
        ctx.save_for_backward(rows, lengths)
        return rows

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        rows, lengths = ctx.saved_tensors
        along = (grad * rows).sum(-1, keepdim=True)  # lengthening a row does not change its unit row
        return torch.addcmul(grad, rows, along, value=-1).div_(lengths)


def unit_rows(table: Tensor) -> Tensor:
    """As `unit`, with less memory where a gradient comes back for every row."""
    return UnitRows.apply(at_least_float32(table))


def autocast_dtype(x: Tensor) -> torch.dtype:
    """What a matrix product with `x` is made in."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def item_rows(items: Tensor, weight: Tensor, sparse: bool, normalize: bool) -> Tensor:
    """The rows that (any,) items are scored with; with `sparse`, `weight` gets a gradient of these rows alone."""
    rows = F.embedding(items, weight, sparse=sparse)
    return unit(rows) if normalize else rows


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
    """Summed cross-entropy of `hidden @ weight[first_item:]ᵀ` that never holds the whole logits matrix.

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
        first_item: int,
        seen: Tensor | None = None,
    ) -> Tensor:
        device, dtype = hidden.device.type, autocast_dtype(hidden)
        accumulate = torch.promote_types(hidden.dtype, torch.float32)
        inputs, items, targets = hidden.to(dtype), weight[first_item:].to(dtype), targets - first_item
        seen = None if seen is None else seen - first_item
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
                sums = grad_weight[first_item:]
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
        return *grads, None, None, None, None, None


def full_cross_entropy(
    hidden: Tensor,
    targets: Tensor,
    weight: Tensor,
    temperature: float,
    label_smoothing: float,
    first_item: int,
    seen: Tensor | None = None,
) -> Tensor:
    """Cross-entropy over the whole catalogue (paper section 3.6).

    Args:
        hidden: (targets, hidden_size) representations.
        targets: (targets,) int64 item indices.
        weight: (vocab_size, hidden_size) item embeddings.
        temperature: Divides the scores.
        label_smoothing: Share of the target's probability that is spread over all items.
        first_item: 1 leaves the padding index out of the softmax; 0 keeps it in, as the authors do.
        seen: (targets, any) int64 items that do not compete with the target, see `seen_items`.
    """
    return LinearCrossEntropy.apply(hidden, weight, targets, temperature, label_smoothing, first_item, seen)


def bpr(
    hidden: Tensor,
    targets: Tensor,
    negatives: Tensor,
    weight: Tensor,
    temperature: float,
    sparse: bool = False,
    normalize: bool = False,
) -> Tensor:
    """Bayesian personalised ranking, `-log sigmoid(s⁺ - s⁻)` (Rendle et al. 2009), the paper's alternative.

    Args:
        negatives: (targets,) int64, one negative item for each target.
        sparse: Whether the gradient of `weight` is sparse: the rows that were used.
        normalize: Whether the rows of `weight` are divided by their lengths. Other arguments as above.
    """
    rows = item_rows(targets, weight, sparse, normalize) - item_rows(negatives, weight, sparse, normalize)
    return -F.logsigmoid(at_least_float32((hidden * rows).sum(-1)) / temperature).sum()


def sampled_scores(
    hidden: Tensor,
    targets: Tensor,
    negatives: Tensor,
    weight: Tensor,
    temperature: float,
    sparse: bool,
    normalize: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of targets (targets,) and of shared negatives (targets, negatives), and which negatives are the target."""
    positive = (hidden * item_rows(targets, weight, sparse, normalize)).sum(-1) / temperature
    negative = F.linear(hidden, item_rows(negatives, weight, sparse, normalize)) / temperature
    return at_least_float32(positive), at_least_float32(negative), targets[:, None] == negatives[None]


def sampled_softmax(
    hidden: Tensor,
    targets: Tensor,
    negatives: Tensor,
    log_q: Callable[[Tensor], Tensor] | None,
    weight: Tensor,
    temperature: float,
    sparse: bool = False,
    normalize: bool = False,
) -> Tensor:
    """Softmax over the target and shared negatives, each score less the log of its probability (Yi et al. 2019).

    Args:
        negatives: (num_negatives,) int64 drawn with replacement; those that hit the target are left out.
        log_q: From items to the log-probability of drawing each; `None` for uniform, where the correction cancels.
        sparse, normalize: As in `bpr`.
    """
    positive, negative, hits = sampled_scores(hidden, targets, negatives, weight, temperature, sparse, normalize)
    if log_q is not None:
        positive, negative = positive - log_q(targets), negative - log_q(negatives)
    negative = negative.masked_fill(hits, float("-inf"))
    return (torch.cat((positive[:, None], negative), dim=1).logsumexp(1) - positive).sum()


def gbce(
    hidden: Tensor,
    targets: Tensor,
    negatives: Tensor,
    weight: Tensor,
    temperature: float,
    calibration: float,
    sparse: bool = False,
    normalize: bool = False,
) -> Tensor:
    """Generalised binary cross-entropy (Petrov and Macdonald 2023, gSASRec, equations 8 and 9).

    `-(β log σ(s⁺) + Σ log(1 - σ(s⁻))) / (K + 1)` with `β = α (t (1 - 1/α) + 1/α)` and the sampling rate
    `α = K / (items - 1)`.

    Args:
        negatives: (num_negatives,) int64; those that hit the target are left out of the sum.
        calibration: t, between 0 (plain BCE) and 1.
        sparse, normalize: As in `bpr`.
    """
    positive, negative, hits = sampled_scores(hidden, targets, negatives, weight, temperature, sparse, normalize)
    count = max(1, len(negatives))
    rate = min(1.0, count / max(1, weight.shape[0] - 2))
    beta = rate * (calibration * (1 - 1 / rate) + 1 / rate)
    away = F.softplus(negative).masked_fill(hits, 0.0).sum(1)
    return (away - beta * F.logsigmoid(positive)).sum() / (count + 1)


def next_item_loss(
    config: GlintRUConfig,
    hidden: Tensor,
    targets: Tensor,
    weight: Tensor,
    popularity: ItemPopularity | None,
    sparse: bool = False,
    seen: Tensor | None = None,
) -> Tensor:
    """The loss that the config names, summed over the targets. Scalar.

    With `sparse`, all losses but the full cross-entropy give a sparse gradient of `weight`; that one alone knows of
    items `seen` before, see `seen_items`.
    """
    temperature, normalize = float(config.temperature), bool(config.normalize_scores)
    if normalize:
        hidden = unit(hidden)
    if config.loss == "cross_entropy":
        first_item = 0 if config.padding_in_softmax else 1
        weight = unit_rows(weight) if normalize else weight
        return full_cross_entropy(hidden, targets, weight, temperature, float(config.label_smoothing), first_item, seen)
    if config.loss == "bpr":
        negatives = draw_other_items(targets, config.vocab_size)
        return bpr(hidden, targets, negatives, weight, temperature, sparse, normalize)
    negatives, log_q = draw_shared_negatives(config, popularity, targets)
    if config.loss == "sampled_softmax":
        return sampled_softmax(hidden, targets, negatives, log_q, weight, temperature, sparse, normalize)
    return gbce(hidden, targets, negatives, weight, temperature, float(config.gbce_t), sparse, normalize)
