"""Training losses over (representation, next item) pairs; each returns the sum over the pairs, a scalar."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .configuration_glintru import GlintRUConfig, GlintRUError
from .kernels_glintru import cross_entropy_


def at_least_float32(x: Tensor) -> Tensor:
    """Half-precision scores are widened before they are exponentiated."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


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
    """Summed cross-entropy of `hidden @ weightᵀ` that never holds the whole logits matrix.

    Scores are made a chunk of rows at a time, in the autocast dtype with float32 softmax, and turned into the
    gradient on the spot, so the exponentials are computed once and the backward pass is one scaling.
    """

    CHUNK_ELEMENTS = 1 << 21  # scores held at a time: 8 MB in float32, which stays in the cache of most CPUs
    CHUNK_ELEMENTS_GPU = 1 << 27

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, smoothing: float) -> Tensor:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        accumulate = torch.promote_types(hidden.dtype, torch.float32)
        inputs, items = hidden.to(dtype), weight.to(dtype)
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(inputs) if wants_hidden else None
        grad_weight = torch.zeros(weight.shape, dtype=accumulate, device=weight.device) if wants_weight else None
        total = torch.zeros((), dtype=accumulate, device=hidden.device)
        elements = LinearCrossEntropy.CHUNK_ELEMENTS if device == "cpu" else LinearCrossEntropy.CHUNK_ELEMENTS_GPU
        rows = max(64, elements // max(1, weight.shape[0]))
        for start in range(0, len(targets), rows):
            part, target = inputs[start : start + rows], targets[start : start + rows]
            gradient = part @ items.T
            loss = cross_entropy_(gradient, target, temperature, smoothing)
            if loss is None:
                loss, gradient = softmax_gradient(gradient.to(accumulate), target, temperature, smoothing, dtype)
            total += loss
            if grad_hidden is not None:
                torch.mm(gradient, items, out=grad_hidden[start : start + rows])
            if grad_weight is not None:
                grad_weight += gradient.T @ part
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
        return *grads, None, None, None


def full_cross_entropy(
    hidden: Tensor, targets: Tensor, weight: Tensor, temperature: float, label_smoothing: float, first_item: int
) -> Tensor:
    """Cross-entropy over the whole catalogue (paper section 3.6).

    Args:
        hidden: (targets, hidden_size) representations.
        targets: (targets,) int64 item indices.
        weight: (vocab_size, hidden_size) item embeddings.
        temperature: Divides the scores.
        label_smoothing: Share of the target's probability that is spread over all items.
        first_item: 1 leaves the padding index out of the softmax; 0 keeps it in, as the authors do.
    """
    return LinearCrossEntropy.apply(hidden, weight[first_item:], targets - first_item, temperature, label_smoothing)


def bpr(hidden: Tensor, targets: Tensor, negatives: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """Bayesian personalised ranking, `-log sigmoid(s⁺ - s⁻)` (Rendle et al. 2009), the paper's alternative.

    Args:
        negatives: (targets,) int64, one negative item for each target. Other arguments as above.
    """
    difference = (hidden * (F.embedding(targets, weight) - F.embedding(negatives, weight))).sum(-1)
    return -F.logsigmoid(at_least_float32(difference) / temperature).sum()


def sampled_scores(hidden: Tensor, targets: Tensor, negatives: Tensor, weight: Tensor, temperature: float):
    """Scores of targets (targets,) and of shared negatives (targets, negatives), and which negatives are the target."""
    positive = (hidden * F.embedding(targets, weight)).sum(-1) / temperature
    negative = F.linear(hidden, F.embedding(negatives, weight)) / temperature
    return at_least_float32(positive), at_least_float32(negative), targets[:, None] == negatives[None]


def sampled_softmax(
    hidden: Tensor, targets: Tensor, negatives: Tensor, log_q: Tensor | None, weight: Tensor, temperature: float
) -> Tensor:
    """Softmax over the target and shared negatives, each score less the log of its expected count (Yi et al. 2019).

    Args:
        negatives: (num_negatives,) int64 drawn with replacement; those that hit the target are left out.
        log_q: (vocab_size,) log-probability of drawing each item; `None` for uniform, where the correction cancels.
    """
    positive, negative, hits = sampled_scores(hidden, targets, negatives, weight, temperature)
    if log_q is not None:
        log_count = math.log(len(negatives))
        positive = positive - log_q[targets] - log_count
        negative = negative - log_q[negatives] - log_count
    negative = negative.masked_fill(hits, float("-inf"))
    return (torch.cat((positive[:, None], negative), dim=1).logsumexp(1) - positive).sum()


def gbce(
    hidden: Tensor, targets: Tensor, negatives: Tensor, weight: Tensor, temperature: float, calibration: float
) -> Tensor:
    """Generalised binary cross-entropy (Petrov and Macdonald 2023, gSASRec, equations 8 and 9).

    `-(β log σ(s⁺) + Σ log(1 - σ(s⁻))) / (K + 1)` with `β = α (t (1 - 1/α) + 1/α)` and the sampling rate
    `α = K / (items - 1)`.

    Args:
        negatives: (num_negatives,) int64; those that hit the target are left out of the sum.
        calibration: t, between 0 (plain BCE) and 1.
    """
    positive, negative, hits = sampled_scores(hidden, targets, negatives, weight, temperature)
    count = len(negatives)
    rate = min(1.0, count / max(1, weight.shape[0] - 2))
    beta = rate * (calibration * (1 - 1 / rate) + 1 / rate)
    away = F.softplus(negative).masked_fill(hits, 0.0).sum(1)
    return (away - beta * F.logsigmoid(positive)).sum() / (count + 1)


def draw_negatives(targets: Tensor, vocab_size: int) -> Tensor:
    """One uniform negative for each target, never the target itself. (targets,) int64."""
    if vocab_size < 3:
        raise GlintRUError("BPR needs at least two items to draw a negative from")
    draw = torch.randint(1, vocab_size - 1, targets.shape, device=targets.device)
    return draw + (draw >= targets)


def draw_shared_negatives(config: GlintRUConfig, item_counts: Tensor | None, device: torch.device):
    """Negatives that a batch shares, drawn with replacement.

    Returns:
        ((num_negatives,) int64 items, (vocab_size,) float32 log-probabilities or `None` when uniform).
    """
    if config.negative_sampling == "uniform":
        return torch.randint(1, config.vocab_size, (config.num_negatives,), device=device), None
    if item_counts is None:
        raise GlintRUError("negative_sampling 'popularity' needs model.set_item_counts(counts) before training")
    counts = item_counts.to(device=device, dtype=torch.float32)
    # A Laplace-smoothed count keeps log q finite for items that were never seen; the index 0 is never drawn.
    probabilities = (counts + 1).index_fill(0, torch.zeros(1, dtype=torch.long, device=device), 0.0)
    probabilities = probabilities / probabilities.sum()
    cumulative = probabilities.cumsum(0)
    draws = torch.rand(config.num_negatives, device=device) * cumulative[-1]
    negatives = torch.searchsorted(cumulative, draws, right=True).clamp(1, config.vocab_size - 1)
    return negatives, probabilities.clamp_min(torch.finfo(torch.float32).tiny).log()


def next_item_loss(
    config: GlintRUConfig, hidden: Tensor, targets: Tensor, weight: Tensor, item_counts: Tensor | None
) -> Tensor:
    """The loss that the config names, summed over the targets. Scalar."""
    temperature = float(config.temperature)
    if config.loss == "cross_entropy":
        first_item = 0 if config.padding_in_softmax else 1
        return full_cross_entropy(hidden, targets, weight, temperature, float(config.label_smoothing), first_item)
    if config.loss == "bpr":
        return bpr(hidden, targets, draw_negatives(targets, config.vocab_size), weight, temperature)
    negatives, log_q = draw_shared_negatives(config, item_counts, hidden.device)
    if config.loss == "sampled_softmax":
        return sampled_softmax(hidden, targets, negatives, log_q, weight, temperature)
    return gbce(hidden, targets, negatives, weight, temperature, float(config.gbce_t))
