"""The settings of a training that names no recipe: a table of regimes.

`RULE` asks one question after the other, such as how wide the model is. Of each question, the first row whose shape of
data holds is taken; what a person gives stands. Each row says what was measured. The rule was made to come out near the
recipes that were best on validation for their data (`ml-1m-best` and its like) and to stay in range far from it.
`glintru recipes rule` prints it.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

import numpy as np

from ..data import PreparedData
from ..data.histories import history_lengths
from ..machine import num_processes
from ..models.auto import MODELS
from . import DEFAULT_MODEL, Recipe, changed_keys, model_fields, shown

__all__ = [
    "RULE",
    "Choice",
    "DataShape",
    "Regime",
    "blank_recipe",
    "choose",
    "data_shape",
    "describe",
    "preset",
    "rule_table",
]

NAME = "auto"

MANY = 500_000  # targets from which on hidden_size 128 pays, and cosine scores no longer do
MANY_TARGETS = 30  # in an example, in the mean
FULL_SOFTMAX_ITEMS = 200_000  # above, a step would be spent on the softmax
MOST_AT_ONCE, SHORT_EPOCH, LONG_EPOCH = 16_000, 50, 5_000  # targets a step, steps an epoch


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

    @property
    def per_item(self) -> float:
        """Interactions an item, in the mean."""
        return self.interactions / self.items

    @property
    def sparse(self) -> bool:
        """Whether over-fitting is the enemy: little to learn of an item, or of a history."""
        return self.per_item < 10 or (self.median_length < 20 and self.per_item < 100)

    @property
    def rich(self) -> bool:
        """Whether there are many targets, in long histories."""
        return self.targets >= max(MANY, MANY_TARGETS * self.users)


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


class Situation:
    """What the rows of the rule look at.

    Args:
        shape: Of the data; its attributes are those of the situation too.
        known: Values by dotted key: those that were given, and those of the rows above.
        model: Name of the model.
    """

    def __init__(self, shape: DataShape, known: dict[str, Any], model: str) -> None:
        self.shape, self.known, self.model = shape, known, model
        self.fields = model_fields(model)
        self.is_glintru = model == DEFAULT_MODEL
        self.reads_windows = MODELS[model].training_examples == "windows"
        self.reads_prefixes = MODELS[model].training_examples == "prefixes"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.shape, name)

    def __getitem__(self, key: str) -> Any:
        return self.known.get(key)

    @property
    def enough(self) -> bool:
        """Whether the data is sparse, but large enough for what the recipes of Amazon's data have."""
        if not self.is_glintru or self["model.use_time_gaps"]:
            return False
        return self.sparse and 100_000 <= self.targets < MANY and self.items <= FULL_SOFTMAX_ITEMS

    @property
    def smoothed(self) -> bool:
        """Whether it is that, and nobody gave the smoothing up."""
        return self.enough and bool(self["training.cooccurrence_smoothing"])

    @property
    def sharp_softmax(self) -> bool:
        """Whether the loss is the cross-entropy without label smoothing, as R-Drop and unseen items alone need it."""
        return self["loss.name"] == "cross_entropy" and not self["loss.label_smoothing"]

    @property
    def examples(self) -> float:
        """Windows, or prefixes, of an epoch, about."""
        if self.reads_prefixes:
            return max(self.targets * self["training.prefix_share"], 1.0)
        return max(self.users, self.targets / self["training.max_length"])

    @property
    def per_example(self) -> float:
        """Targets an example, in the mean."""
        return 1.0 if self.reads_prefixes else self.targets / self.examples

    @property
    def many(self) -> bool:
        """Whether an example has many targets."""
        return self.per_example >= MANY_TARGETS

    @property
    def long(self) -> bool:
        """Whether windows with many targets are read, of many long histories."""
        return self.reads_windows and self.many and self.rich

    @property
    def steps(self) -> float:
        """Steps of an epoch, about."""
        together = self["training.train_batch_targets"]
        return max(self.targets / together if together else self.examples / self["training.train_batch_size"], 1.0)


# ---------------------------------------------------------------------- values that a row computes

NOTHING = object()  # what a function gives where its key is not chosen


def window_length(s: Situation) -> int:
    """99 % of the histories whole up to 50 items, 90 % of them up to 200, at least 20"""
    return 10 * math.ceil(max(min(s.length_99, 50), min(s.length_90, 200), 20) / 10)


def heads(s: Situation) -> int:
    """16 dimensions a head, eight heads at most"""
    width = s["model.hidden_size"]
    return next(count for count in range(min(max(width // 16, 1), 8), 0, -1) if width % count == 0)


def temperature(s: Situation) -> Any:
    """0.07 with cosine scores"""
    return 0.07 if s["model.normalize_scores"] else NOTHING


def prefix_share(s: Situation) -> Any:
    """50,000 prefixes an epoch but at least 2 %, for models that learn from prefixes"""
    if not s.reads_prefixes:
        return NOTHING
    return math.ceil(100 * min(1.0, max(50_000 / s.targets, 0.02))) / 100


def targets_at_once(count: int) -> Callable[[Situation], Any]:
    """Targets a step."""

    def targets(s: Situation) -> Any:
        # Batches of targets are made in one process, and a given number of windows stands.
        if not s.reads_windows or num_processes() > 1 or "training.train_batch_size" in s.known:
            return NOTHING
        at_once, longest = count, s["training.max_length"]
        while s.targets / at_once < SHORT_EPOCH and at_once > longest:
            at_once //= 2
        while at_once < MOST_AT_ONCE and s.targets / at_once > LONG_EPOCH:
            at_once *= 2
        return max(at_once, longest)

    targets.__doc__ = f"{count}; fewer where an epoch would have under 50 steps, more where it would have over 5,000"
    return targets


def batch_size(s: Situation) -> int:
    """32 examples with many targets or 128 others; fewer or more of them by the steps of an epoch"""
    batch, largest = (32, 128) if s.many else (128, 512)
    while batch > 16 and s.examples / batch < 100:
        batch //= 2
    while batch < largest and s.examples / batch > LONG_EPOCH:
        batch *= 2
    return batch


def epochs(total: int) -> Callable[[Situation], int]:
    """Epochs of a training of so many steps."""

    def count(s: Situation) -> int:
        return math.ceil(min(max(min(max(total / s.steps, 5), 40), 1_000 / s.steps), 100))

    count.__doc__ = f"as near to {total:,} steps as 5 to 40 epochs come; up to 100 epochs for the first 1,000 steps"
    return count


def warmup(share: float) -> Callable[[Situation], int]:
    """Steps until the peak learning rate."""

    def steps(s: Situation) -> int:
        return min(max(round(share * s.steps * s["training.num_train_epochs"]), 10), 1_000)

    steps.__doc__ = f"{100 * share:g} % of all steps, 10 to 1,000"
    return steps


def users_at_once(s: Situation) -> int:
    """as many users as have their scores in 268 MB, 128 at most"""
    return min(max(2**26 // s.items, 1), 128)


def references(s: Situation) -> Any:
    """popularity alone over 500,000 items or 20,000,000 interactions"""
    return ["popularity"] if s.items > 500_000 or s.interactions > 20_000_000 else NOTHING


# ---------------------------------------------------------------------- the rule


@dataclass(frozen=True)
class Regime:
    """One row of the rule.

    Args:
        when: The shape of data, in words.
        holds: The same as code.
        settings: Values by dotted key, or functions of the situation whose docstring says what they compute. A `*`
            stands for any name; keys that the model does not have are passed over.
        reason: What a run prints beside its settings; `{s...}` are attributes of the situation.
        evidence: What was measured, and where that is written: Markdown files are in docs/ or research/.
    """

    when: str
    holds: Callable[[Situation], Any]
    settings: Mapping[str, Any]
    reason: str
    evidence: str


WIDTH = (
    "{s.targets:,} targets, {s.items:,} items (128 from 500,000 targets on, and for sparse data, up to 1,000,000 items)"
)
PER_ITEM = "{s.per_item:,.1f} interactions an item, median history {s.median_length:g}: "
PER_EXAMPLE = "{s.per_example:,.0f} targets an example (30 are many), {s.targets:,} in all"
PER_STEP = "about {s.steps:,.0f} steps an epoch"
PATIENCE = "{s.validating:,} targets to validate on, " + PER_STEP + " (never stops early below 300)"

RULE: dict[str, tuple[Regime, ...]] = {
    "How much of a history is read?": (
        Regime(
            "All data",
            lambda s: True,
            {"training.max_length": window_length},
            "90 % of the histories have at most {s.length_90:,.0f} items, 99 % {s.length_99:,.0f}; allowed are 20 to "
            "200",
            "On MovieLens-1M, where histories are long, windows of 400 items bring nothing (tuning.md).",
        ),
    ),
    "How wide is the model?": (
        Regime(
            "100,000 to 500,000 targets of sparse data, up to 200,000 items; GLINT-RU without use_time_gaps",
            lambda s: s.enough,
            {
                **{"model.hidden_size": 256, "model.use_gru": False, "training.cooccurrence_smoothing": 1.0},
                **{"model.attention_dropout": 0.1, "model.hidden_dropout": 0.3},
            },
            "{s.targets:,} targets of sparse data (100,000 to 500,000): wide, without the GRU, each item learned with "
            "those near it",
            "Against the other rows they bring 0.0018 NDCG@10 on validation with 109,000 targets (Toys and Games) and "
            "0.0007 with 190,000 (Sports) in less time, and cost 0.006 with 49,000 (LastFM): tuning.md, The default "
            "rule elsewhere.",
        ),
        Regime(
            "500,000 targets or more, or sparse data; up to 1,000,000 items",
            lambda s: (s.targets >= MANY or s.sparse) and s.items <= 1_000_000,
            {"model.hidden_size": 128},
            WIDTH,
            "Width 128 helps on Beauty, with cosine scores (tuning.md). Above 1,000,000 items their table and its "
            "moments would take more than 1.5 GB (computed).",
        ),
        Regime(
            "All other data",
            lambda s: True,
            {"model.hidden_size": 64},
            WIDTH,
            "The width of ml-100k-best; no other width was compared there.",
        ),
    ),
    "How many blocks and heads does GLINT-RU have?": (
        Regime(
            "Sparse data: under 10 interactions an item, or under 100 and a median history under 20",
            lambda s: s.is_glintru and s.sparse,
            {"model.num_attention_heads": heads, "model.num_hidden_layers": 2},
            "16 dimensions a head, eight heads at most; two blocks for sparse data, one for other",
            "A second block brings 0.0009 on Beauty (tuning.md, A validation like the test) and, on a fifth of Video "
            "Games' users, 0.0598 instead of 0.0579 (The default rule elsewhere).",
        ),
        Regime(
            "All other data",
            lambda s: s.is_glintru,
            {"model.num_attention_heads": heads, "model.num_hidden_layers": 1},
            "16 dimensions a head, eight heads at most; two blocks for sparse data, one for other",
            "On MovieLens-100K two blocks have 0.1221 and 0.1172 with two seeds, one has 0.1193 and 0.1220 (tuning.md, "
            "ml-100k). The number of heads was not compared.",
        ),
    ),
    "What is done against over-fitting?": (
        Regime(
            "Sparse data",
            lambda s: s.sparse,
            {
                **{"model.*_dropout": 0.5, "training.weight_decay": 1e-5, "training.cooccurrence_start": 0.5},
                "model.average_share": 0.5,
            },
            PER_ITEM + "little to learn from",
            "On Beauty the start from co-occurrence is after three epochs where training without it is after six, and "
            "further in the end; the moving average helps at two widths (tuning.md).",
        ),
        Regime(
            "500,000 targets or more, and 30 or more a history",
            lambda s: s.rich,
            {
                **{"model.*_dropout": 0.2, "training.weight_decay": 0.0, "training.cooccurrence_start": 0.5},
                **{"model.state_space_share": 0.5, "model.use_embedding_norm": True},
            },
            PER_ITEM + "much to learn from, and {s.targets:,} targets in long histories: a state space",
            "On MovieLens-1M the state space has 0.213 after ten epochs, the moving average 0.207; on a fifth of its "
            "users they have 0.179 and 0.184 (tuning.md).",
        ),
        Regime(
            "1,000 interactions an item or more",
            lambda s: s.per_item >= 1_000,
            {
                **{"model.*_dropout": 0.2, "training.weight_decay": 0.0, "training.cooccurrence_start": 0.0},
                "model.average_share": 0.3,
            },
            PER_ITEM + "much to learn from",
            "Not measured on its own: a value between the regimes beside it.",
        ),
        Regime(
            "All other data",
            lambda s: True,
            {
                **{"model.attention_dropout": 0.2, "model.*_dropout": 0.3, "training.weight_decay": 0.0},
                **{"training.cooccurrence_start": 0.0, "model.average_share": 0.3},
            },
            PER_ITEM + "enough to learn from",
            "On MovieLens-100K more dropout has 0.1228 and 0.1185 with two seeds, this one 0.1193 and 0.1220, and a "
            "start from co-occurrence costs (tuning.md, ml-100k and ml-100k-best).",
        ),
    ),
    "Which loss?": (
        Regime(
            "Up to 200,000 items",
            lambda s: s.items <= FULL_SOFTMAX_ITEMS,
            {"loss.name": "cross_entropy"},
            "{s.items:,} items (sampled above 200,000)",
            "With 100,000 items a step takes 1.2 s with the cross-entropy over all of them and 0.05 s with a sampled "
            "softmax (performance.md, Large catalogues).",
        ),
        Regime(
            "More items",
            lambda s: True,
            {"loss.name": "sampled_softmax"},
            "{s.items:,} items (sampled above 200,000)",
            "With 1,000,000 items a step with a sampled softmax takes 0.17 s (performance.md, Large catalogues).",
        ),
    ),
    "Are scores cosines?": (
        Regime(
            "Fewer than 500,000 targets, with the cross-entropy",
            lambda s: s["loss.name"] == "cross_entropy" and s.targets < MANY,
            {"model.normalize_scores": True, "model.temperature": temperature},
            "cosine scores, for fewer than 500,000 targets",
            "They help where there is little data; on MovieLens-1M they have 0.1920 and inner products 0.1930. On "
            "Beauty a temperature of 0.09 is no better (tuning.md).",
        ),
    ),
    "Does a step pass its batch twice?": (
        Regime(
            "Data of the first row of all, with its smoothing and the cross-entropy",
            lambda s: s.sharp_softmax and s.smoothed,
            {"loss.r_drop_alpha": 2.0},
            "every batch twice, with other dropout, for fewer than 2,000,000 targets",
            "On Beauty, with smoothing and a schedule of twelve epochs, twice the weight of R-Drop has 0.0801 and once "
            "the weight 0.0796 (tuning.md).",
        ),
        Regime(
            "Fewer than 2,000,000 targets, with the cross-entropy",
            lambda s: s.sharp_softmax and s.targets < 2_000_000,
            {"loss.r_drop_alpha": 1.0},
            "every batch twice, with other dropout, for fewer than 2,000,000 targets",
            "On a fifth of MovieLens-1M's users R-Drop brings 0.003 on validation and 0.010 on test, at twice the time "
            "(tuning.md, The default rule elsewhere).",
        ),
    ),
    "Do seen items compete in the loss?": (
        Regime(
            "Past items are not recommended again, and the data is not sparse; with the cross-entropy",
            lambda s: s.sharp_softmax and not s.recommend_seen and not s.sparse,
            {"loss.seen_items_in_softmax": False},
            "{s.recurring:.1%} of the targets recur: seen items are left out, in training too",
            "Without them one block ends at 0.2287 to 0.2302 on MovieLens-1M, with them at 0.2195, 0.2178; on Beauty "
            "it changes nothing (tuning.md).",
        ),
    ),
    "Which items are drawn as negatives?": (
        Regime(
            "A sampled loss",
            lambda s: s["loss.name"] in ("sampled_softmax", "gbce"),
            {"loss.num_negatives": 1024, "loss.negative_sampling": "mixed"},
            "half of them from the batch, half from the catalogue",
            "Not measured.",
        ),
    ),
    "How large is a step, and at which learning rate?": (
        Regime(
            "500,000 targets or more, 30 or more a history and a window; GLINT-RU",
            lambda s: s.long and s.is_glintru,
            {"training.learning_rate": 1.5e-3, "training.train_batch_targets": targets_at_once(500)},
            PER_EXAMPLE + ": many small steps",
            "On MovieLens-1M steps of 2,000 targets have 0.2059, windows 0.1930 (tuning.md, ml-1m); 500 and the rate "
            "are those of ml-1m-best.",
        ),
        Regime(
            "The same; other models that read windows",
            lambda s: s.long,
            {"training.learning_rate": 1e-3, "training.train_batch_targets": targets_at_once(500)},
            PER_EXAMPLE + ": many small steps",
            "The default rate, which was not compared for them.",
        ),
        Regime(
            "30 or more targets a window",
            lambda s: s.many,
            {"training.learning_rate": 2e-3, "training.train_batch_targets": targets_at_once(1_000)},
            PER_EXAMPLE + ": many small steps",
            "On MovieLens-100K steps of 1,000 targets have 0.1247 and 0.1253 with two seeds, windows 0.1210 and 0.1196 "
            "(tuning.md, ml-100k); the rate is that of ml-100k-best.",
        ),
        Regime(
            "All other data; models of prefixes learn from 50,000 of them an epoch",
            lambda s: True,
            {
                **{"training.prefix_share": prefix_share, "training.learning_rate": 1e-3},
                "training.train_batch_targets": targets_at_once(750),
            },
            PER_EXAMPLE + ": many small steps",
            "Small batches of targets help on all three data sets (tuning.md); 750 and the rate are those of "
            "amazon-beauty-best. The prefixes were not compared.",
        ),
    ),
    "How large is a step that is not measured in targets?": (
        Regime(
            "Several processes, models of prefixes, or train_batch_targets null",
            lambda s: s["training.train_batch_targets"] is None,
            {"training.train_batch_size": batch_size},
            PER_EXAMPLE + ", {s.examples:,.0f} examples",
            "Not measured.",
        ),
    ),
    "How long is the training?": (
        Regime(
            "Data of the first row of all, with its smoothing",
            lambda s: s.smoothed,
            {"training.num_train_epochs": epochs(2_300)},
            PER_STEP,
            "With smoothing Beauty is learned faster and then over-fitted: its best epoch is the eleventh of twenty "
            "(tuning.md).",
        ),
        Regime(
            "Other sparse data",
            lambda s: s.sparse,
            {"training.num_train_epochs": epochs(5_000)},
            PER_STEP,
            "On a fifth of Video Games' users a schedule of 15 epochs has 0.0599 and one of 40 has 0.0598 (tuning.md, "
            "The default rule elsewhere).",
        ),
        Regime(
            "500,000 targets or more, 30 or more a history and a window",
            lambda s: s.long,
            {"training.num_train_epochs": epochs(20_000)},
            PER_STEP,
            "The length of ml-1m-best, ten epochs.",
        ),
        Regime(
            "All other data",
            lambda s: True,
            {"training.num_train_epochs": epochs(12_000)},
            PER_STEP,
            "Longer than ml-100k-best; a training may stop early, see below.",
        ),
    ),
    "How long is the warm-up?": (
        Regime(
            "500,000 targets or more, 30 or more a history and a window",
            lambda s: s.long,
            {"training.warmup_steps": warmup(0.005)},
            PER_STEP,
            "The 100 steps of ml-1m-best.",
        ),
        Regime(
            "All other data",
            lambda s: True,
            {"training.warmup_steps": warmup(0.035)},
            PER_STEP,
            "Near the 100 steps of ml-100k-best and the 200 of amazon-beauty-best.",
        ),
    ),
    "When does it stop early?": (
        Regime(
            "Fewer than 300 targets to validate on: never",
            lambda s: s.validating < 300,
            {"training.early_stopping_patience": None},
            PATIENCE,
            "Where 80 users of MovieLens-100K choose the epoch, the others have 0.1262 without early stopping and "
            "0.1224 with a patience of 5 (tuning.md, Stopping early where few validate).",
        ),
        Regime(
            "200 steps an epoch or more",
            lambda s: s.steps >= 200,
            {"training.early_stopping_patience": 5},
            PATIENCE,
            "Where 640 users of a fifth of Video Games choose, the others have 0.0585 with a patience of 5 and 0.0584 "
            "with 10 (tuning.md, the same section).",
        ),
        Regime(
            "Shorter epochs, from one to the next of which validation goes up and down more",
            lambda s: True,
            {"training.early_stopping_patience": 10},
            PATIENCE,
            "Where 320 users of MovieLens-100K choose, the others have 0.1268 with a patience of 10 and 0.1243 with 5 "
            "(tuning.md, the same section).",
        ),
    ),
    "How is the model measured?": (
        Regime(
            "All data; over 500,000 items or 20,000,000 interactions without item-kNN",
            lambda s: True,
            {"training.eval_batch_size": users_at_once, "evaluation.reference_models": references},
            "scores of {s.items:,} items a user within 268 MB; item-kNN up to half a GB",
            "Computed: four bytes a score, and the pairs of item-kNN.",
        ),
    ),
}


@dataclass(frozen=True)
class Choice:
    """Values of a recipe by dotted key, such as `"training.max_length"`, and the reason for them."""

    values: dict[str, Any]
    reason: str


def choose(shape: DataShape, given: Mapping[str, Any] | None = None, model: str = DEFAULT_MODEL) -> list[Choice]:
    """Reads the rule.

    Args:
        shape: Of the data.
        given: Values by dotted key that somebody chose already; they stand, and the other choices follow them.
        model: Name of the model; what it has no field for is not chosen.

    Returns:
        The choices, without the given ones.
    """
    situation = Situation(shape, dict(given or {}), model)
    choices = []
    for rows in RULE.values():
        row = next((row for row in rows if row.holds(situation)), None)
        new = {}
        for pattern, value in row.settings.items() if row is not None else ():
            for key in _matching(pattern, situation):
                chosen = value(situation) if callable(value) and key not in situation.known else value
                if key not in situation.known and chosen is not NOTHING:
                    new[key] = situation.known[key] = chosen
        if row is not None and new:
            choices.append(Choice(new, row.reason.format(s=situation)))
    return choices


def _matching(pattern: str, situation: Situation) -> list[str]:
    """The keys of a row that the model has."""
    section, _, name = pattern.partition(".")
    if section != "model":
        return [pattern]
    return [f"model.{field}" for field in situation.fields if fnmatch(field, name)]


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
        settings = [f"{_short(key)} {shown(value)}" for key, value in choice.values.items()]
        values.setdefault(choice.reason, []).extend(settings)
    lines = [f"{', '.join(settings)}: {reason}" for reason, settings in values.items()]
    return "Chosen    " + "\n          ".join(lines or ["nothing: all of it was given"])


def rule_table(width: int = 80) -> str:
    """The rule for people, in lines of at most `width`: each row's shape of data, its settings, and the evidence."""
    lines = textwrap.wrap(
        "How settings are chosen where no recipe is named. Of each question, the first row whose shape of data holds "
        "is taken; what you give, by --set or otherwise, stands. Values are NDCG@10 on validation unless a row says "
        "another thing. The files named in it are in docs/ or research/ of the repository.",
        width,
    )
    for question, rows in RULE.items():
        lines += ["", question]
        for row in rows:
            settings = [
                f"{_short(key)} {getattr(value, '__doc__', '') if callable(value) else shown(value)}"
                for key, value in row.settings.items()
            ]
            for mark, text in (("  ", row.when), ("    -> ", ", ".join(settings)), ("       ", row.evidence)):
                lines += textwrap.wrap(text, width, initial_indent=mark, subsequent_indent=" " * len(mark))
    return "\n".join(lines)


def _short(key: str) -> str:
    """A dotted key without its section; the name of the loss is called the loss."""
    return "loss" if key == "loss.name" else key.partition(".")[2]
