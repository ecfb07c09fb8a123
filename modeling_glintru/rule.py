"""The recipe of `glintru train --data FILE` without `--recipe`: sizes and settings from the shape of the data.

`choose` is the whole rule, in order; each choice carries its reason in one line. It was set to come out near the
recipes that were best on validation for their data (`ml-1m-best` and its like) and to stay in range far from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .data import PreparedData
from .data.histories import history_lengths
from .machine import num_processes
from .models.auto import MODELS
from .recipe import DEFAULT_MODEL, Recipe, changed_keys, model_fields

__all__ = ["Choice", "DataShape", "blank_recipe", "choose", "data_shape", "describe", "preset"]

NAME = "auto"

SHORTEST, SHORT, LONGEST = 20, 50, 200  # histories: read at least, read nearly all of, read at most
MANY = 500_000  # targets from which on hidden_size 128 pays, and cosine scores no longer do
ENOUGH = 100_000  # targets of sparse data from which on GLINT-RU at 256 with smoothing pays
R_DROP_TARGETS = 2_000_000  # above, there is enough to learn from without passing every batch twice
WIDE_ITEMS = 1_000_000  # above, the table of items at 128 would take 2 GB with its moments
FULL_SOFTMAX_ITEMS = 200_000  # above, a step would be spent on the softmax
NEIGHBOR_ITEMS, NEIGHBOR_INTERACTIONS = 500_000, 20_000_000  # above, item-kNN would take half a GB
FEW_VALIDATING = 300  # targets; below, validation says too little to stop by it
STEADY_EPOCH = 200  # steps; validation goes up and down more from one shorter epoch to the next
EVALUATION_SCORES = 2**26  # held at once: 256 MB
MANY_TARGETS = 30  # in an example, in the mean: small batches of them
PREFIXES = 50_000  # an epoch of the models that learn one prefix an example
TARGETS_AT_ONCE = 500, 1_000, 750  # a step, of many long histories, of few, and of short ones
MOST_AT_ONCE, SHORT_EPOCH, LONG_EPOCH = 16_000, 50, 5_000
TOTAL_STEPS, FEWEST_STEPS = (20_000, 12_000, 5_000), 1_000  # of many long histories, of others, and of sparse data
SMOOTHED_STEPS = 2_300  # of sparse data with smoothing, which learns faster and then over-fits


@dataclass(frozen=True)
class DataShape:
    """What the rule knows of the data: the training part, apart from the number of items.

    Args:
        users: Histories of at least two items, those that something is learned from.
        items: Items of the vocabulary.
        interactions: Interactions in the histories.
        median_length: Median length of the histories.
        length_90: 90 % of the histories are no longer.
        length_99: 99 % of the histories are no longer.
        validating: Targets of the validation split.
        recurring: Share of the targets whose item stood in the history before.
        recommend_seen: Whether past items are recommended again.
    """

    users: int
    items: int
    interactions: int
    median_length: float
    length_90: float
    length_99: float
    validating: int
    recurring: float = 0.0
    recommend_seen: bool = False

    @property
    def targets(self) -> int:
        """Every interaction but the first of a history is learned from."""
        return max(self.interactions - self.users, 1)


@dataclass(frozen=True)
class Choice:
    """Values of a recipe by dotted key, such as `"training.max_length"`, and the reason for them."""

    values: dict[str, Any]
    reason: str


def data_shape(data: PreparedData) -> DataShape:
    """The shape of prepared data, from its training histories."""
    lengths = history_lengths(data.dataset["train"])
    lengths = lengths[lengths >= 2]
    median, length_90, length_99 = np.quantile(lengths, [0.5, 0.9, 0.99]) if len(lengths) else (1.0, 1.0, 1.0)
    return DataShape(
        users=len(lengths),
        items=len(data.processor),
        interactions=int(lengths.sum()),
        median_length=float(median),
        length_90=float(length_90),
        length_99=float(length_99),
        validating=len(data.dataset["validation"]),
        recurring=data.recurring,
        recommend_seen=data.processor.recommend_seen,
    )


def choose(shape: DataShape, given: Mapping[str, Any] | None = None, model: str = DEFAULT_MODEL) -> list[Choice]:
    """The rule.

    Args:
        shape: Of the data.
        given: Values by dotted key that somebody chose already; they stand, and the other choices follow them.
        model: Name of the model; what it has no field for is not chosen.

    Returns:
        The choices, without the given ones.
    """
    rule = _Rule(shape, dict(given or {}), model)
    rule.choose_for_enough()
    rule.choose_sizes()
    rule.choose_dropout()
    rule.choose_loss()
    rule.choose_steps()
    rule.choose_evaluation()
    return rule.choices


class _Rule:
    """The choices so far; `known` has their values and the given ones."""

    def __init__(self, shape: DataShape, known: dict[str, Any], model: str) -> None:
        self.shape, self.known, self.model = shape, known, model
        self.fields = model_fields(model)
        self.choices: list[Choice] = []

    def take(self, reason: str, section: str, **values: Any) -> None:
        """Chooses what is not given and what the model has."""
        values = {name: value for name, value in values.items() if section != "model" or name in self.fields}
        new = {f"{section}.{name}": value for name, value in values.items() if f"{section}.{name}" not in self.known}
        if new:
            self.known |= new
            self.choices.append(Choice(new, reason))

    def choose_for_enough(self) -> None:
        """What the recipes of Amazon's data have; chosen first, it stands."""
        if self.enough():
            targets = f"{self.shape.targets:,} targets of sparse data ({ENOUGH:,} to {MANY:,})"
            reason = f"{targets}: wide, without the GRU, each item learned with those near it"
            self.take(reason, "model", hidden_size=256, use_gru=False, attention_dropout=0.1, hidden_dropout=0.3)
            self.take(reason, "training", cooccurrence_smoothing=1.0)

    def choose_sizes(self) -> None:
        shape = self.shape
        # Short histories whole, for they cost little; of long ones as much as pays.
        length = max(min(shape.length_99, SHORT), min(shape.length_90, LONGEST), SHORTEST)
        self.take(
            f"90 % of the histories have at most {shape.length_90:,.0f} items, 99 % {shape.length_99:,.0f}; "
            f"allowed are {SHORTEST} to {LONGEST}",
            "training",
            max_length=10 * math.ceil(length / 10),
        )
        wide = (shape.targets >= MANY or self.sparse()) and shape.items <= WIDE_ITEMS
        self.take(
            f"{shape.targets:,} targets, {shape.items:,} items (128 from {MANY:,} targets on, and for sparse data, up "
            f"to {WIDE_ITEMS:,} items)",
            "model",
            hidden_size=128 if wide else 64,
        )
        if self.model == DEFAULT_MODEL:
            width = self.known["model.hidden_size"]
            heads = next(heads for heads in range(min(max(width // 16, 1), 8), 0, -1) if width % heads == 0)
            self.take("16 dimensions a head, eight heads at most", "model", num_attention_heads=heads)
            blocks = 2 if self.sparse() else 1
            self.take("blocks: two for sparse data, one for other", "model", num_hidden_layers=blocks)

    def rich(self) -> bool:
        """Whether there are many targets, in long histories."""
        return self.shape.targets >= max(MANY, MANY_TARGETS * self.shape.users)

    def sparse(self) -> bool:
        """Whether over-fitting is the enemy: little to learn of an item, or of a history."""
        per_item = self.shape.interactions / self.shape.items
        return per_item < 10 or (self.shape.median_length < 20 and per_item < 100)

    def enough(self) -> bool:
        """Whether the data is sparse, but large enough for what the recipes of Amazon's data have."""
        if self.model != DEFAULT_MODEL or self.known.get("model.use_time_gaps"):
            return False
        return self.sparse() and ENOUGH <= self.shape.targets < MANY and self.shape.items <= FULL_SOFTMAX_ITEMS

    def smoothed(self) -> bool:
        """Whether it is that, and nobody gave the smoothing up."""
        return self.enough() and bool(self.known.get("training.cooccurrence_smoothing"))

    def choose_dropout(self) -> None:
        shape, sparse = self.shape, self.sparse()
        per_item = shape.interactions / shape.items
        much = per_item >= 1000 or self.rich()
        amount, others, attention = (
            ("little", 0.5, 0.5) if sparse else ("much", 0.2, 0.2) if much else ("enough", 0.3, 0.2)
        )
        names = [name for name in self.fields if name.endswith("_dropout")]
        reason = f"{per_item:,.1f} interactions an item, median history {shape.median_length:g}: {amount} to learn from"
        self.take(reason, "model", **{name: attention if name == "attention_dropout" else others for name in names})
        start = 0.5 if sparse or self.rich() else 0.0
        self.take(reason, "training", weight_decay=1e-5 if sparse else 0.0, cooccurrence_start=start)
        if self.rich() and not sparse:
            reason = f"{shape.targets:,} targets in long histories: a state space"
            self.take(reason, "model", state_space_share=0.5, use_embedding_norm=True)
        else:
            self.take(reason, "model", average_share=0.5 if sparse else 0.3)

    def choose_loss(self) -> None:
        few = self.shape.items <= FULL_SOFTMAX_ITEMS
        reason = f"{self.shape.items:,} items (sampled above {FULL_SOFTMAX_ITEMS:,})"
        self.take(reason, "loss", name="cross_entropy" if few else "sampled_softmax")
        if self.known["loss.name"] == "cross_entropy" and self.shape.targets < MANY:
            reason = f"cosine scores, for fewer than {MANY:,} targets"
            self.take(reason, "model", normalize_scores=True)
            if self.known["model.normalize_scores"]:
                self.take(reason, "model", temperature=0.07)
        if self.known["loss.name"] == "cross_entropy" and not self.known.get("loss.label_smoothing"):
            if self.shape.targets < R_DROP_TARGETS:
                reason = f"every batch twice, with other dropout, for fewer than {R_DROP_TARGETS:,} targets"
                self.take(reason, "loss", r_drop_alpha=2.0 if self.smoothed() else 1.0)
            if not self.shape.recommend_seen and not self.sparse():
                reason = f"{self.shape.recurring:.1%} of the targets recur: seen items are left out, in training too"
                self.take(reason, "loss", seen_items_in_softmax=False)
        if self.known["loss.name"] in ("sampled_softmax", "gbce"):
            reason = "half of them from the batch, half from the catalogue"
            self.take(reason, "loss", num_negatives=1024, negative_sampling="mixed")

    def choose_steps(self) -> None:
        """Many small steps; an epoch of a large set is long enough by itself."""
        shape, targets, known = self.shape, self.shape.targets, self.known
        if MODELS[self.model].training_examples == "prefixes":
            share = min(1.0, max(PREFIXES / targets, 0.02))
            self.take(
                f"an epoch of {PREFIXES:,} prefixes or 2 %", "training", prefix_share=math.ceil(100 * share) / 100
            )
            examples, per_example = max(targets * known["training.prefix_share"], 1.0), 1.0
        else:
            examples = max(self.shape.users, targets / known["training.max_length"])
            per_example = targets / examples
        many = per_example >= MANY_TARGETS
        windows = MODELS[self.model].training_examples == "windows"
        lengths = f"{per_example:,.0f} targets an example ({MANY_TARGETS} are many)"
        long = windows and many and self.rich()
        rate = 2e-3 if many else 1e-3
        if long:
            rate = 1.5e-3 if self.model == DEFAULT_MODEL else 1e-3
        if windows and num_processes() == 1 and "training.train_batch_size" not in known:
            reason = f"{lengths}, {targets:,} in all: many small steps"
            at_once = self._targets_at_once(TARGETS_AT_ONCE[0 if long else 1 if many else 2])
            self.take(reason, "training", train_batch_targets=at_once, learning_rate=rate)
        together = known.get("training.train_batch_targets")
        reason = f"{lengths}, {examples:,.0f} examples"
        if together is None:
            self.take(reason, "training", train_batch_size=_batch_size(many, examples))
        self.take(reason, "training", learning_rate=rate)
        steps = max(targets / together if together else examples / known["training.train_batch_size"], 1.0)
        reason = f"about {steps:,.0f} steps an epoch"
        total = SMOOTHED_STEPS if self.smoothed() else TOTAL_STEPS[2 if self.sparse() else 0 if long else 1]
        self.take(reason, "training", num_train_epochs=_epochs(steps, total))
        warmup = round((0.005 if long else 0.035) * steps * known["training.num_train_epochs"])
        self.take(reason, "training", warmup_steps=min(max(warmup, 10), 1_000))
        patience = None if shape.validating < FEW_VALIDATING else 5 if steps >= STEADY_EPOCH else 10
        reason = f"{shape.validating:,} targets to validate on, {reason} (never stops early below {FEW_VALIDATING})"
        self.take(reason, "training", early_stopping_patience=patience)

    def _targets_at_once(self, at_once: int) -> int:
        """A step's targets: fewer where an epoch would have few steps, more where it would have very many."""
        targets, longest = self.shape.targets, self.known["training.max_length"]
        while targets / at_once < SHORT_EPOCH and at_once > longest:
            at_once //= 2
        while at_once < MOST_AT_ONCE and targets / at_once > LONG_EPOCH:
            at_once *= 2
        return max(at_once, longest)

    def choose_evaluation(self) -> None:
        items, interactions = self.shape.items, self.shape.interactions
        self.take(
            f"scores of {items:,} items a user within {EVALUATION_SCORES * 4 // 10**6} MB",
            "training",
            eval_batch_size=min(max(EVALUATION_SCORES // items, 1), 128),
        )
        if items > NEIGHBOR_ITEMS or interactions > NEIGHBOR_INTERACTIONS:
            self.take("item-kNN would take more than half a GB", "evaluation", reference_models=["popularity"])


def _batch_size(many: bool, examples: float) -> int:
    """A step's examples, where it is not measured in targets."""
    batch, largest = (32, 128) if many else (128, 512)
    while batch > 16 and examples / batch < 100:
        batch //= 2
    while batch < largest and examples / batch > LONG_EPOCH:
        batch *= 2
    return batch


def _epochs(steps: float, total: int) -> int:
    """5 to 40 epochs of so many steps, as near to the total as they come; up to 100 where they are very short."""
    epochs = min(max(total / steps, 5), 40)
    return math.ceil(min(max(epochs, FEWEST_STEPS / steps), 100))


def blank_recipe() -> Recipe:
    """What stands before the data is read: the defaults, with heads that divide any width."""
    return Recipe(name=NAME, model={"num_attention_heads": 1})


def preset(shape: DataShape, recipe: Recipe, overrides: Sequence[str] = ()) -> tuple[Recipe, list[Choice]]:
    """A whole recipe for data of this shape.

    Args:
        shape: Of the data.
        recipe: The blank recipe with the overrides and the data source in it.
        overrides: The `key=value` texts that are in `recipe`; their keys are not chosen.

    Returns:
        The recipe, which needs no rule to run again, and the choices in it.

    Raises:
        RecipeError: A given value that does not go with the others.
    """
    content = recipe.to_dict()
    keys = changed_keys(recipe, overrides)
    given = {key: content[section].get(name) for key in keys for section, _, name in [key.partition(".")] if name}
    choices = choose(shape, given, recipe.model_name)
    for choice in choices:
        for key, value in choice.values.items():
            section, _, name = key.partition(".")
            content[section][name] = value
    if "description" not in keys:
        content["description"] = (
            f"Chosen from the data: {shape.users:,} training histories (median {shape.median_length:g}), "
            f"{shape.items:,} items, {shape.interactions:,} interactions."
        )
    return Recipe.from_dict(content), choices


def describe(choices: Sequence[Choice]) -> str:
    """The choices for people, one reason a line."""
    values: dict[str, list[str]] = {}
    for choice in choices:
        shown = [f"{_short(key)} {_shown(value)}" for key, value in choice.values.items()]
        values.setdefault(choice.reason, []).extend(shown)
    lines = [f"{', '.join(shown)}: {reason}" for reason, shown in values.items()]
    return "Chosen    " + "\n          ".join(lines or ["nothing: all of it was given"])


def _short(key: str) -> str:
    """A dotted key without its section; the name of the loss is called the loss."""
    return "loss" if key == "loss.name" else key.partition(".")[2]


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    return f"{value:g}" if isinstance(value, float) else ", ".join(value) if isinstance(value, list) else str(value)
