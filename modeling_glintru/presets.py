"""The recipe of `glintru train --data FILE` without `--recipe`: sizes and settings from the shape of the data.

`choose` is the whole rule, in order; each choice carries its reason in one line. It was set to come out near the named
recipes on their data (MovieLens and Amazon) and to stay in range far from it; it is not the result of a search.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .auto import MODELS
from .data import PreparedData
from .recipes import DEFAULT_MODEL, Recipe, changed_keys, model_fields

__all__ = ["Choice", "DataShape", "blank_recipe", "choose", "data_shape", "describe", "preset"]

NAME = "auto"

SHORTEST, SHORT, LONGEST = 20, 50, 200  # histories: read at least, read nearly all of, read at most
WIDE_TARGETS = 500_000  # from here on hidden_size 128
WIDE_ITEMS = 1_000_000  # above, the table of items at 128 would take 2 GB with its moments
FULL_SOFTMAX_ITEMS = 200_000  # above, a step would be spent on the softmax
NEIGHBOR_ITEMS, NEIGHBOR_INTERACTIONS = 500_000, 20_000_000  # above, item-kNN would take more than a GB
EVALUATION_SCORES = 2**26  # held at once: 256 MB
LONG_WINDOW = 30  # targets in a window, in the mean
TOTAL_STEPS, FEWEST_STEPS = 6_000, 1_000


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
    """

    users: int
    items: int
    interactions: int
    median_length: float
    length_90: float
    length_99: float

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
    """The shape of prepared data, from the lengths of its training histories."""
    column = data.dataset["train"].data.column("item_ids")
    lengths = np.concatenate([np.zeros(0, np.int64), *(chunk.value_lengths().to_numpy() for chunk in column.chunks)])
    lengths = lengths[lengths >= 2]
    median, length_90, length_99 = np.quantile(lengths, [0.5, 0.9, 0.99]) if len(lengths) else (1.0, 1.0, 1.0)
    return DataShape(
        users=len(lengths),
        items=len(data.processor),
        interactions=int(lengths.sum()),
        median_length=float(median),
        length_90=float(length_90),
        length_99=float(length_99),
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
    choices: list[Choice] = []
    known = dict(given or {})
    fields = model_fields(model)

    def take(reason: str, **values: Any) -> None:
        """A choice of `section__key=value`; afterwards `known` has these values, or the given ones."""
        dotted = {key.replace("__", ".", 1): value for key, value in values.items()}
        of_model = {key for key in dotted if key.startswith("model.") and key.removeprefix("model.") not in fields}
        new = {key: value for key, value in dotted.items() if key not in known and key not in of_model}
        known.update(new)
        if new:
            choices.append(Choice(new, reason))

    # What the model reads and how large it is.
    length = max(min(shape.length_99, SHORT), min(shape.length_90, LONGEST), SHORTEST)
    take(
        f"90 % of the histories have at most {shape.length_90:,.0f} items, 99 % {shape.length_99:,.0f}; "
        f"all of a short one, at most {LONGEST}",
        training__max_length=10 * math.ceil(length / 10),
    )
    wide = shape.targets >= WIDE_TARGETS and shape.items <= WIDE_ITEMS
    take(
        f"{shape.targets:,} targets (128 from {WIDE_TARGETS:,} on) and {shape.items:,} items (64 above {WIDE_ITEMS:,})",
        model__hidden_size=128 if wide else 64,
    )
    if model == DEFAULT_MODEL:
        heads = max(known["model.hidden_size"] // 16, 1)
        while known["model.hidden_size"] % heads:
            heads -= 1
        take("16 dimensions a head", model__num_attention_heads=heads)
        take("the published block", model__num_hidden_layers=1)

    # Against over-fitting.
    per_item = shape.interactions / shape.items
    sparse = per_item < 10 or (shape.median_length < 20 and per_item < 100)
    dropout, attention = (0.5, 0.5) if sparse else (0.2, 0.2) if per_item >= 1000 else (0.3, 0.2)
    take(
        f"{per_item:,.1f} interactions an item, median history {shape.median_length:g} (0.5 where there is little)",
        **{
            f"model__{name}": attention if name == "attention_dropout" else dropout
            for name in fields
            if name.endswith("_dropout")
        },
        training__weight_decay=1e-5 if sparse else 0.0,
    )
    take(
        f"{shape.items:,} items (sampled above {FULL_SOFTMAX_ITEMS:,})",
        model__loss="cross_entropy" if shape.items <= FULL_SOFTMAX_ITEMS else "sampled_softmax",
    )
    if known["model.loss"] in ("sampled_softmax", "gbce"):
        take(
            "half from the batch, half from the catalogue", model__num_negatives=1024, model__negative_sampling="mixed"
        )

    # Many small steps; an epoch of a large set is long enough by itself.
    if MODELS[model].training_examples == "prefixes":
        share = min(1.0, max(50_000, shape.targets / 50) / shape.targets)
        take("an epoch of about 50,000 prefixes, or 2 %", training__prefix_share=math.ceil(100 * share) / 100)
        examples, long = shape.targets * known["training.prefix_share"], False
    else:
        examples = max(shape.users, shape.targets / known["training.max_length"])
        long = shape.targets / examples >= LONG_WINDOW
    batch, most = (32, 128) if long else (128, 512)
    while batch > 16 and examples / batch < 100:
        batch //= 2
    while batch < most and examples / batch > 5_000:
        batch *= 2
    take(
        f"{shape.targets / examples:,.0f} targets an example ({LONG_WINDOW} are many): "
        + ("small batches and a high rate" if long else "larger batches and a lower rate"),
        training__train_batch_size=batch,
        training__learning_rate=2e-3 if long else 1e-3,
    )
    if known.get("training.train_batch_targets") is not None:
        steps = max(shape.targets / known["training.train_batch_targets"], 1.0)
    else:
        steps = max(examples / known["training.train_batch_size"], 1.0)
    epochs = min(max(TOTAL_STEPS / steps, 5), 40)
    epochs = math.ceil(min(max(epochs, FEWEST_STEPS / steps), 100))
    take(
        f"about {steps:,.0f} steps an epoch, {TOTAL_STEPS:,} in all where that is 5 to 40 epochs; stops early",
        training__num_train_epochs=epochs,
        training__warmup_steps=min(max(round(0.05 * steps * known.get("training.num_train_epochs", epochs)), 10), 1000),
        training__early_stopping_patience=5 if steps >= 50 else 10,
    )

    # Memory of the evaluation.
    take(
        f"the scores of a batch for {shape.items:,} items stay within {EVALUATION_SCORES * 4 // 10**6} MB",
        training__eval_batch_size=min(max(EVALUATION_SCORES // shape.items, 1), 128),
    )
    if shape.items > NEIGHBOR_ITEMS or shape.interactions > NEIGHBOR_INTERACTIONS:
        take("item-kNN would take more than a GB", evaluation__reference_models=["popularity"])
    return choices


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
    model = content["model"].get("name", DEFAULT_MODEL)
    choices = choose(shape, given, model)
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
    """The choices for people, one a line."""
    lines = []
    for choice in choices:
        values = ", ".join(f"{key.partition('.')[2]} {_shown(value)}" for key, value in choice.values.items())
        lines.append(f"{values}: {choice.reason}")
    return "Chosen    " + "\n          ".join(lines or ["nothing: all of it was given"])


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else ", ".join(value) if isinstance(value, list) else str(value)
