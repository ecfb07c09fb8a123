"""Training losses over (representation, next item) pairs, and where their negatives come from.

Each loss returns the sum over the pairs, a scalar. Those over all items are operations of `ops_glintru.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .configuration_glintru import GlintRUError
from .ops_glintru import at_least_float32, cross_entropy, r_drop, unit

__all__ = ["ItemPopularity", "bpr", "gbce", "next_item_loss", "sampled_softmax", "seen_items"]


def seen_items(items: Tensor, seen: Tensor, targets: Tensor) -> Tensor:
    """Items that leave the softmax of their target: (targets, length) int64, the target itself where there is none.

    Args:
        items: (targets, length) int64 items of each target's row.
        seen: (targets, length) bool, which of them the target follows.
        targets: (targets,) int64 item indices.
    """
    return torch.where(seen, items, targets[:, None])


def item_rows(items: Tensor, weight: Tensor, sparse: bool, normalize: bool) -> Tensor:
    """The rows that (any,) items are scored with; with `sparse`, `weight` gets a gradient of these rows alone."""
    rows = F.embedding(items, weight, sparse=sparse)
    return unit(rows) if normalize else rows


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
    config: Any,
    hidden: Tensor,
    targets: Tensor,
    weight: Tensor,
    popularity: ItemPopularity | None,
    sparse: bool = False,
    seen: Tensor | None = None,
    again: Tensor | None = None,
) -> Tensor:
    """The loss that the config names, summed over the targets. Scalar.

    Args:
        config: Of the model.
        hidden: (targets, hidden_size) representations.
        targets: (targets,) int64 item indices.
        weight: (vocab_size, hidden_size) item embeddings.
        popularity: For every `negative_sampling` but `"uniform"`.
        sparse: Whether all losses but the full cross-entropy give a sparse gradient of `weight`.
        seen: Items that do not compete, see `seen_items`; for the cross-entropy alone.
        again: Representations of a second pass with other dropout, for R-Drop.
    """
    temperature, normalize = float(config.temperature), bool(config.normalize_scores)
    if normalize:
        hidden = unit(hidden)
    if config.loss == "cross_entropy":
        weight = unit(weight) if normalize else weight
        if again is None:
            return cross_entropy(hidden, weight, targets, temperature, float(config.label_smoothing), seen)
        pair = torch.stack((hidden, unit(again) if normalize else again))
        return r_drop(pair, weight, targets, temperature, float(config.r_drop_alpha), seen)
    if config.loss == "bpr":
        negatives = draw_other_items(targets, config.vocab_size)
        return bpr(hidden, targets, negatives, weight, temperature, sparse, normalize)
    negatives, log_q = draw_shared_negatives(config, popularity, targets)
    if config.loss == "sampled_softmax":
        return sampled_softmax(hidden, targets, negatives, log_q, weight, temperature, sparse, normalize)
    return gbce(hidden, targets, negatives, weight, temperature, float(config.gbce_t), sparse, normalize)


# ---------------------------------------------------------------------- negatives, at a cost apart from the catalogue


class ItemPopularity:
    """How often items occur in training, as a distribution to draw from.

    One table is made for each exponent and device, on first use; then n draws cost O(n log vocab_size) and nothing
    reads the whole catalogue.

    Args:
        counts: (vocab_size,) non-negative numbers; index 0 (padding) is never drawn.
    """

    def __init__(self, counts: Tensor) -> None:
        self.counts = counts
        self.tables: dict[tuple[float, torch.device], Tensor] = {}

    def table(self, exponent: float, device: torch.device) -> Tensor:
        """(vocab_size,) float64 running sum of the probabilities `∝ (count + 1) ** exponent`.

        The added 1 keeps the logarithm finite for items that were never seen. In float32 the sum of millions of
        probabilities would lose the rare ones.
        """
        if device.type == "mps":  # has no float64
            device = torch.device("cpu")
        if (exponent, device) not in self.tables:
            weights = (self.counts.to(device=device, dtype=torch.float64) + 1) ** exponent
            weights[0] = 0.0
            self.tables[exponent, device] = weights.cumsum(0).div_(weights.sum())
        return self.tables[exponent, device]

    def draw(self, number: int, exponent: float, device: torch.device) -> Tensor:
        """(number,) int64 items, drawn with replacement."""
        table = self.table(exponent, device)
        draws = torch.rand(number, dtype=table.dtype, device=table.device)
        return torch.searchsorted(table, draws, right=True).clamp_(1, len(table) - 1).to(device)

    def probability(self, items: Tensor, exponent: float) -> Tensor:
        """Of drawing each of `items`, float64 of their shape; items are 1 or above."""
        table = self.table(exponent, items.device)
        items = items.to(table.device)
        return table[items] - table[items - 1]


def draw_other_items(targets: Tensor, vocab_size: int) -> Tensor:
    """One uniform negative for each target, never the target itself. (targets,) int64."""
    if vocab_size < 3:
        raise GlintRUError("BPR needs at least two items to draw a negative from")
    draw = torch.randint(1, vocab_size - 1, targets.shape, device=targets.device)
    return draw + (draw >= targets)


def draw_shared_negatives(
    config: Any, popularity: ItemPopularity | None, targets: Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
    """Negatives that a batch shares, drawn with replacement.

    In-batch negatives are drawn from the targets of the batch, which come up as often as they do in training (Yi et
    al. 2019). Mixed, they stand beside draws from the catalogue, so that items the batch lacks are told apart too,
    and an item's probability is that of the mixture (Yang et al. 2020).

    Args:
        config: Its `num_negatives`, `negative_sampling`, `in_batch_share` and `popularity_exponent`.
        popularity: Needed by all kinds but uniform.
        targets: (targets,) int64.

    Returns:
        Items, (num_negatives,) int64, only those from the catalogue where there are no targets; and the function from
        items to the float32 logarithm of their probability, `None` when uniform.

    Raises:
        GlintRUError: `popularity` is missing.
    """
    kind, number, device = config.negative_sampling, config.num_negatives, targets.device
    if kind == "uniform":
        return torch.randint(1, config.vocab_size, (number,), device=device), None
    if popularity is None:
        raise GlintRUError(f"negative_sampling {kind!r} needs model.set_item_counts(counts) before training")
    exponent = float(config.popularity_exponent)
    in_batch = round({"popularity": 0.0, "in_batch": 1.0}.get(kind, float(config.in_batch_share)) * number)
    negatives = popularity.draw(number - in_batch, exponent, device)
    if len(targets):
        negatives = torch.cat((negatives, targets[torch.randint(len(targets), (in_batch,), device=device)]))
    # Shares of the mixture, by the exponent of each part.
    shares = {exponent: 1 - in_batch / number}
    shares[1.0] = shares.get(1.0, 0.0) + in_batch / number

    def log_q(items: Tensor) -> Tensor:
        parts = [share * popularity.probability(items, power) for power, share in shares.items() if share]
        return torch.stack(parts).sum(0).log().to(device=device, dtype=torch.float32)

    return negatives, log_q
