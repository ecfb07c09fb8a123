"""How a recommender is trained: `NextItemLoss`, its settings, and where negatives come from.

A model knows the cross-entropy over all items by itself; any other loss is set in one line:

    model.training_loss = NextItemLoss("sampled_softmax", num_negatives=512)

This file does not travel to the Hub. Every loss is the sum over (representation, next item) pairs, a scalar.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .configuration_glintru import GlintRUError
from .ops_glintru import at_least_float32, cross_entropy, hide_seen, operation, unit

__all__ = ["LossConfig", "NextItemLoss", "bpr", "gbce", "r_drop", "sampled_softmax"]

LOSSES = ("cross_entropy", "bpr", "sampled_softmax", "gbce")
NEGATIVE_SAMPLING = ("uniform", "popularity", "in_batch", "mixed")


@dataclass(frozen=True)
class LossConfig:
    """What a loss is made with.

    Args:
        name: `"cross_entropy"` over all items, `"bpr"` (one uniform negative a position), `"sampled_softmax"` (shared
            negatives, log-Q corrected) or `"gbce"` (shared negatives, gSASRec).
        num_negatives: Negatives of `"sampled_softmax"` and `"gbce"`, shared by a batch.
        negative_sampling: Where those come from: `"uniform"` over the catalogue, `"popularity"` (by training count),
            `"in_batch"` (the targets of the batch) or `"mixed"` (half of both of these). All but uniform need the
            training counts. `"sampled_softmax"` corrects for each item's probability of being drawn.
        gbce_t: Calibration t of gBCE, 0 (plain BCE) to 1 (fully calibrated).
        label_smoothing: Smoothing of the full cross-entropy, in [0, 1).
        r_drop_alpha: R-Drop (Liang et al. 2021): above 0, a training step passes its batch twice, with other dropout,
            and the divergence of the two softmaxes counts with this weight beside their cross-entropy. Against
            over-fitting, at about twice the training time; 1 is a good first value.
        seen_items_in_softmax: Whether the items of the row up to a target compete with it in the cross-entropy. Off
            where they are left out of what is recommended anyway: the model then need not learn to rank them low, and
            their scores say nothing. Helps where histories are long.

    Raises:
        GlintRUError: A value, or two together, that are not allowed.
    """

    name: str = "cross_entropy"
    num_negatives: int = 256
    negative_sampling: str = "uniform"
    gbce_t: float = 0.75
    label_smoothing: float = 0.0
    r_drop_alpha: float = 0.0
    seen_items_in_softmax: bool = True

    def __post_init__(self) -> None:
        for name, allowed in (("name", LOSSES), ("negative_sampling", NEGATIVE_SAMPLING)):
            if getattr(self, name) not in allowed:
                raise GlintRUError(f"loss.{name} must be one of {', '.join(allowed)}; got {getattr(self, name)!r}")
        if self.num_negatives < 1:
            raise GlintRUError(f"loss.num_negatives must be at least 1, got {self.num_negatives}")
        if not 0 <= self.gbce_t <= 1:
            raise GlintRUError(f"loss.gbce_t must be between 0 and 1, got {self.gbce_t}")
        if not 0 <= self.label_smoothing < 1:
            raise GlintRUError(f"loss.label_smoothing must be at least 0 and below 1, got {self.label_smoothing}")
        if not 0 <= self.r_drop_alpha < float("inf"):
            raise GlintRUError(f"loss.r_drop_alpha must be 0 or above and finite, got {self.r_drop_alpha}")
        if self.label_smoothing and self.name != "cross_entropy":
            raise GlintRUError(f"loss.label_smoothing is for the loss cross_entropy only, got {self.name}")
        for name, on in (
            ("r_drop_alpha", self.r_drop_alpha),
            ("seen_items_in_softmax", not self.seen_items_in_softmax),
        ):
            if on and (self.name != "cross_entropy" or self.label_smoothing):
                raise GlintRUError(
                    f"loss.{name} {getattr(self, name)} is for the loss cross_entropy without label_smoothing, got "
                    f"{self.name} and {self.label_smoothing}"
                )


class NextItemLoss:
    """A loss for `model.training_loss`.

    Args:
        name: As of `LossConfig`.
        item_counts: How often each item occurs in training, (vocab_size,) non-negative numbers (index 0 is not used),
            for every `negative_sampling` but `"uniform"`.
        **settings: The other fields of `LossConfig`.

    Raises:
        GlintRUError: See `LossConfig`; a setting that does not exist; counts of another shape.

    Example:
        >>> model.training_loss = NextItemLoss("gbce", num_negatives=256, gbce_t=0.75)
        >>> Trainer(model, args, train_dataset=train, data_collator=collator).train()
    """

    def __init__(self, name: str = "cross_entropy", *, item_counts: Any = None, **settings: Any) -> None:
        unknown = [key for key in settings if key not in LossConfig.__dataclass_fields__]
        if unknown:
            known = ", ".join(LossConfig.__dataclass_fields__)
            raise GlintRUError(f"a loss has no setting {unknown[0]!r}; there are {known}")
        self.config = LossConfig(name, **settings)
        self.popularity = None if item_counts is None else ItemPopularity(torch.as_tensor(item_counts))

    def __repr__(self) -> str:
        return f"NextItemLoss({', '.join(f'{key}={value!r}' for key, value in asdict(self.config).items())})"

    @property
    def passes(self) -> int:
        """How often a training step passes its batch, each time with other dropout."""
        return 2 if self.config.r_drop_alpha else 1

    @property
    def wants_seen_items(self) -> bool:
        """Whether it wants to know the items of the row up to each target."""
        return not self.config.seen_items_in_softmax

    @property
    def reads_all_items(self) -> bool:
        """Whether every step reads the whole item table; otherwise its gradient may be sparse."""
        return self.config.name == "cross_entropy"

    def __call__(self, model: Any, passes: list[Tensor], targets: Tensor, seen: Tensor | None = None) -> Tensor:
        """The loss, summed over the targets. Scalar.

        Args:
            model: The recommender: its `temperature` and `normalize_scores`, and its item embeddings.
            passes: For each pass (in eval mode one) representations, (targets, hidden_size).
            targets: (targets,) int64 item indices.
            seen: (targets, any) int64 items that do not compete with the target, filled up with the target itself.

        Raises:
            GlintRUError: Counts are missing, or of another vocabulary.
        """
        config, embedding = self.config, model.get_input_embeddings()
        weight, sparse = embedding.weight, bool(embedding.sparse)
        temperature, normalize = float(model.config.temperature), bool(model.config.normalize_scores)
        if normalize:
            passes = [unit(hidden) for hidden in passes]
        if config.name == "cross_entropy":
            weight = unit_rows(weight) if normalize else weight
            if len(passes) > 1:
                return r_drop(torch.stack(passes), weight, targets, temperature, float(config.r_drop_alpha), seen)
            return cross_entropy(passes[0], weight, targets, temperature, float(config.label_smoothing), seen)
        (hidden,) = passes
        if config.name == "bpr":
            negatives = draw_other_items(targets, len(weight))
            return bpr(hidden, targets, negatives, weight, temperature, sparse, normalize)
        negatives, log_q = self._negatives(targets, len(weight))
        if config.name == "sampled_softmax":
            return sampled_softmax(hidden, targets, negatives, log_q, weight, temperature, sparse, normalize)
        return gbce(hidden, targets, negatives, weight, temperature, float(config.gbce_t), sparse, normalize)

    def _negatives(self, targets: Tensor, vocab_size: int) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
        popularity, kind = self.popularity, self.config.negative_sampling
        if kind != "uniform":
            if popularity is None:
                raise GlintRUError(f"negative_sampling {kind!r} needs the training counts: NextItemLoss(item_counts=…)")
            if popularity.counts.shape != (vocab_size,):
                found = tuple(popularity.counts.shape)
                raise GlintRUError(f"item_counts must have shape ({vocab_size},), got {found}")
        return draw_shared_negatives(self.config, popularity, targets, vocab_size)


class UnitRows(torch.autograd.Function):
    """As `unit`, for a whole table of items: its backward pass makes two tables of that size, that of `unit` eight."""

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


@operation
def r_drop(
    pair: Tensor, weight: Tensor, targets: Tensor, temperature: float, alpha: float, seen: Tensor | None = None
) -> Tensor:
    """R-Drop: `(CE(p) + CE(q) + alpha / 2 (KL(p, q) + KL(q, p))) / 2`, summed over the targets. Scalar.

    Half of the loss of Liang et al. 2021 (equations 1 to 4), so that alpha 0 is the mean cross-entropy of two passes.

    Args:
        pair: (2, targets, d) representations of the same prefixes from two passes, which give the softmaxes p and q.
        weight, targets, temperature, seen: As of `cross_entropy`.
        alpha: Weight of the divergence.
    """
    hidden_seen = None if seen is None else seen - 1
    scores = [at_least_float32(hidden @ weight[1:].to(hidden.dtype).T) / temperature for hidden in pair]
    logs = torch.stack([hide_seen(each, targets - 1, hidden_seen).log_softmax(-1) for each in scores])
    divergence = ((logs[0].exp() - logs[1].exp()) * (logs[0] - logs[1])).sum()  # of both directions
    wanted = logs.gather(2, (targets - 1)[None, :, None].expand(2, -1, 1)).sum()
    return (alpha / 2 * divergence - wanted) / 2


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


# ---------------------------------------------------------------------- negatives, at a cost apart from the catalogue


class ItemPopularity:
    """How often items occur in training, as a distribution to draw from.

    One table is made for each device, on first use; then n draws cost O(n log vocab_size) and nothing reads the whole
    catalogue.

    Args:
        counts: (vocab_size,) non-negative numbers; index 0 (padding) is never drawn.
    """

    def __init__(self, counts: Tensor) -> None:
        self.counts = counts
        self.tables: dict[torch.device, Tensor] = {}

    def table(self, device: torch.device) -> Tensor:
        """(vocab_size,) float64 running sum of the probabilities `∝ count + 1`.

        The added 1 keeps the logarithm finite for items that were never seen. In float32 the sum of millions of
        probabilities would lose the rare ones.
        """
        if device.type == "mps":  # has no float64
            device = torch.device("cpu")
        if device not in self.tables:
            weights = self.counts.to(device=device, dtype=torch.float64) + 1
            weights[0] = 0.0
            self.tables[device] = weights.cumsum(0).div_(weights.sum())
        return self.tables[device]

    def draw(self, number: int, device: torch.device) -> Tensor:
        """(number,) int64 items, drawn with replacement."""
        table = self.table(device)
        draws = torch.rand(number, dtype=table.dtype, device=table.device)
        return torch.searchsorted(table, draws, right=True).clamp_(1, len(table) - 1).to(device)

    def probability(self, items: Tensor) -> Tensor:
        """Of drawing each of `items`, float64 of their shape; items are 1 or above."""
        table = self.table(items.device)
        items = items.to(table.device)
        return table[items] - table[items - 1]


def draw_other_items(targets: Tensor, vocab_size: int) -> Tensor:
    """One uniform negative for each target, never the target itself. (targets,) int64."""
    if vocab_size < 3:
        raise GlintRUError("BPR needs at least two items to draw a negative from")
    draw = torch.randint(1, vocab_size - 1, targets.shape, device=targets.device)
    return draw + (draw >= targets)


def draw_shared_negatives(
    config: LossConfig, popularity: ItemPopularity | None, targets: Tensor, vocab_size: int
) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
    """Negatives that a batch shares, drawn with replacement.

    In-batch negatives are drawn from the targets of the batch, which come up as often as they do in training (Yi et
    al. 2019). Mixed, they stand beside draws from the catalogue, so that items the batch lacks are told apart too,
    and an item's probability is that of the mixture (Yang et al. 2020).

    Args:
        config: Its `num_negatives` and `negative_sampling`.
        popularity: Needed by all kinds but uniform.
        targets: (targets,) int64.
        vocab_size: Items and padding.

    Returns:
        Items, (num_negatives,) int64, only those from the catalogue where there are no targets; and the function from
        items to the float32 logarithm of their probability, `None` when uniform.
    """
    kind, number, device = config.negative_sampling, config.num_negatives, targets.device
    if kind == "uniform" or popularity is None:
        return torch.randint(1, vocab_size, (number,), device=device), None
    in_batch = round({"popularity": 0.0, "mixed": 0.5, "in_batch": 1.0}[kind] * number)
    negatives = popularity.draw(number - in_batch, device)
    if len(targets):
        negatives = torch.cat((negatives, targets[torch.randint(len(targets), (in_batch,), device=device)]))

    def log_q(items: Tensor) -> Tensor:
        return popularity.probability(items).log().to(device=device, dtype=torch.float32)

    return negatives, log_q
