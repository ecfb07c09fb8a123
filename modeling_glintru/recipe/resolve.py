"""From what somebody asks for to the recipe of a run: `request` before the data is read, `resolve` after it.

A request is a recipe, and what was given in it where the rule is to choose the rest. `resolve` makes a complete recipe
of it, which the run then only reads, and which is written beside the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from os import PathLike
from pathlib import Path
from typing import Any

from ..data import PreparedData
from ..data.files import is_prepared
from ..data.reading import FILE_FORM, ReadingOptions
from ..data.sources import NAMED_SOURCES, options_for
from ..errors import DataError, RecipeError
from ..models.auto import MODELS
from ..models.loading import load_model_folder
from . import (
    NEW_WEIGHTS,
    DataRecipe,
    FineTuningRecipe,
    GivenSplit,
    Recipe,
    change_recipe,
    changed_keys,
    find_model_recipe,
    flat_loss,
    load_recipe,
    model_section,
    shown,
)
from .rule import Choice, DataShape, blank_recipe, data_shape, preset
from .schema import ITEMS

__all__ = [
    "DataFacts",
    "Request",
    "as_prepared",
    "data_facts",
    "for_another_table",
    "gentler",
    "plan",
    "request",
    "resolve",
    "told_apart",
    "trained_on",
    "with_data",
]

# What only says where the table is and how it is read: it changes no target.
HOW_TO_READ = (
    *("source", "train_data", "validation_data", "test_data", "item_titles", "title_column"),
    *("items", "item_features", "text_encoder"),
    *("user_column", "item_column", "time_column", "time_format", *FILE_FORM),
)
# Fine-tuning, chosen on validation, see docs/fine_tuning.md: where rates were as good, the smaller one, which forgets
# less. The factors are those of the first training; adapters begin at zero.
LEARNING_RATE, LORA_LEARNING_RATE, EPOCHS, PATIENCE = 0.25, 1.0, 0.25, 3
NO_FILES: dict[str, Any] = dict.fromkeys(item.name for item in fields(GivenSplit))


@dataclass(frozen=True)
class Request:
    """What a run is asked to do.

    Args:
        recipe: With all that was given, and defaults elsewhere.
        given: `key=value` texts that are in the recipe; the rule chooses every other setting from the data. None where
            the recipe itself says all of them.
    """

    recipe: Recipe
    given: tuple[str, ...] | None = None


@dataclass(frozen=True)
class DataFacts:
    """What a recipe is resolved with.

    Args:
        shape: Sizes of the training part.
        options: Fields of `DataRecipe` as the data was really read, filtered and split.
    """

    shape: DataShape
    options: Mapping[str, Any]


def data_facts(data: PreparedData) -> DataFacts:
    """The facts of prepared data."""
    options = {"hold_out": "item", **data.summary["options"], "split": data.summary["split"]}
    options["split_seed"] = options.pop("seed")
    if "reading" in data.summary:  # data that an older version prepared does not say it
        options |= asdict(ReadingOptions()) | data.summary["reading"]
    names = {item.name for item in fields(DataRecipe)}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    return DataFacts(data_shape(data), {name: value for name, value in values.items() if name in names})


def told_apart(items: Sequence[str | PathLike[str]]) -> tuple[str | None, str | None]:
    """What `--items` takes, `add`, `known` or `new`, and the file of a table of items; None for what is not there.

    Raises:
        RecipeError: There are two of a kind, or a text is neither.
    """
    words = [str(item) for item in items if str(item) in ITEMS]
    files = [str(item) for item in items if str(item) not in ITEMS]
    if len(words) > 1 or len(files) > 1:
        raise RecipeError(f"--items takes one table and, with --from, one of {', '.join(ITEMS)}; got {items}")
    for file in files:
        if not Path(file).exists():
            raise RecipeError(
                f"--items takes a table of what is known of the items, or with --from one of "
                f"{', '.join(ITEMS)}; there is no file {file!r}"
            )
    return next(iter(words), None), next(iter(files), None)


def request(
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    *,
    from_model: str | None = None,
    items: str | None = None,
    source: Any = None,
) -> Request:
    """What `glintru train` is asked for; the data source is set by `with_data`.

    The settings are those of `recipe` where one is given. A fine-tuning otherwise takes gentler ones than its model was
    trained with. What has neither, or a model without a recipe, leaves the settings to the rule.

    Args:
        recipe: Name or file.
        overrides: `key=value` texts.
        from_model: Folder or Hub repository to fine-tune; None where `recipe` says it, or for new weights.
        items: See `FineTuningRecipe`.
        source: For a fine-tuning, the new interactions where they are one table; what the model's recipe says on how to
            read its own counts for them too, as far as it can (see `data.sources.options_for`).

    Raises:
        RecipeError: See `load_recipe`.
        ModelFolderError: See `load_model_folder`.
    """
    tunes = from_model is not None or items is not None
    if recipe is not None:
        chosen = load_recipe(recipe, () if tunes else overrides)
        return Request(change_recipe(_starting(chosen, from_model, items), overrides) if tunes else chosen)
    if not tunes:
        return Request(change_recipe(blank_recipe(), overrides), tuple(overrides))
    if from_model is None:
        raise RecipeError("--items says what happens to the items of a model: give --from MODEL too")
    trained = find_model_recipe(from_model)
    if trained is None:
        section = model_section(load_model_folder(from_model)[0])
        blank = _starting(replace(blank_recipe(), model=section), from_model, items)
        given = [*overrides, *(f"training.{name}=0" for name in NEW_WEIGHTS), *(f"model.{key}=" for key in section)]
        return Request(change_recipe(blank, overrides), tuple(given))
    # Its data is another one; columns are recognised anew where the shop is another one.
    data = replace(trained.data, source=None, item_titles=None, title_column=None, items=None, **NO_FILES)
    if data.split == "given":
        data = replace(data, split="leave_one_out")
    if items == "new" or source is not None:
        fitting = {} if items == "new" else options_for(source, trained.data, trained.data.source)
        data = replace(data, **asdict(ReadingOptions()) | fitting)
    chosen = replace(
        trained,
        name=trained.name.removesuffix("-tuned") + "-tuned",
        description=f"Fine-tuned from {trained.name}.",
        data=data,
        training=replace(trained.training, refit=False),  # costs a training more, so it is asked for each time
        fine_tuning=None,
    )
    chosen = change_recipe(_starting(chosen, from_model, items), overrides)
    return Request(gentler(chosen, overrides) if trained.fine_tuning is None else chosen)


def _starting(recipe: Recipe, from_model: str | None, items: str | None) -> Recipe:
    """The recipe with a section on the model to start from, and without settings of new embeddings."""
    given: dict[str, Any] = {} if from_model is None else {"from_model": from_model}
    given |= {} if items is None else {"items": items}
    start = FineTuningRecipe(**given) if recipe.fine_tuning is None else replace(recipe.fine_tuning, **given)
    off: dict[str, Any] = dict.fromkeys(NEW_WEIGHTS, 0.0)  # there are embeddings already
    return replace(recipe, training=replace(recipe.training, **off), fine_tuning=start)


def gentler(recipe: Recipe, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe with the settings of a fine-tuning where they are not given.

    A smaller learning rate and fewer epochs, without warm-up. Items that are learned anew take as long as ever, so
    that with `items: new` all stays as it is.
    """
    settings, training = recipe.fine_tuning, recipe.training
    if settings is None:
        raise RecipeError("a recipe without fine_tuning section is not that of a fine-tuning")
    if settings.items == "new":
        return recipe
    values: dict[str, Any] = {
        "learning_rate": training.learning_rate * (LORA_LEARNING_RATE if settings.lora_rank else LEARNING_RATE),
        "num_train_epochs": math.ceil(training.num_train_epochs * EPOCHS),
        "warmup_steps": 0,
        "early_stopping_patience": PATIENCE,
    }
    given = changed_keys(recipe, overrides)
    values = {name: value for name, value in values.items() if f"training.{name}" not in given}
    return replace(recipe, training=replace(training, **values))


def with_data(recipe: Recipe, source: str | None, options: Mapping[str, Any], table: Any = None) -> Recipe:
    """The recipe with another source, and other options of its `data` section, where they are given.

    Args:
        recipe: What stands where nothing is given.
        source: A file, a Hub data set or prepared data.
        options: Fields of `DataRecipe` such as `user_column` or `item_titles`; None for what is not given. With
            `train_data` the files of a given split take the place of the source.
        table: Interactions in memory, which take the place of any source.

    Raises:
        DataError: Neither the recipe nor the call names a source, or both a source and the files of a split.
    """
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if table is not None:
        if any(name in given for name in NO_FILES):
            raise DataError("interactions are one table and train_data a part of a split: give one of the two")
        return replace(recipe, data=replace(recipe.data, **NO_FILES | {"source": None} | given))
    if source is not None:
        if any(name in given for name in NO_FILES):
            raise DataError("--data is one table and --train_data a part of a split: give one of the two")
        given |= {"source": source, **NO_FILES}
    elif any(name in given for name in NO_FILES):
        if recipe.data.split not in (DataRecipe.split, "given"):
            raise DataError(f"the files of a given split are its parts: leave split={recipe.data.split} out")
        given |= {"source": None, "split": "given", "hold_out": "item"}
        if "train_data" in given:  # another split, with or without a validation file
            given.setdefault("validation_data", None)
    data = replace(recipe.data, **given)
    if data.split == "given":
        if not (data.train_data and data.test_data) and not is_prepared(data.source):
            raise DataError("a split that is given needs both --train_data FILE and --test_data FILE")
    elif data.source is None:
        raise DataError(f"the recipe {recipe.name!r} needs interactions: --data FILE (csv, tsv, parquet, jsonl, inter)")
    return replace(recipe, data=data)


def for_another_table(recipe: Recipe, source: Any) -> Recipe:
    """The recipe of a trained model with those of its reading options that can hold for another table of the same shop.

    See `options_for`. Without a source, the table is the recipe's own and nothing changes.
    """
    if source is None:
        return recipe
    fitting = options_for(source, recipe.data, recipe.data.source)
    return replace(recipe, data=replace(recipe.data, **asdict(ReadingOptions()) | fitting))


def resolve(
    recipe: Recipe,
    facts: DataFacts,
    given: Sequence[str] | None = None,
    fitted: Callable[[Recipe], Recipe] = lambda recipe: recipe,
) -> tuple[Recipe, list[Choice]]:
    """The complete recipe of a run: nothing in it depends on the data any more, and the run only reads it.

    Args:
        recipe: Of the request.
        facts: Of the prepared data.
        given: As of `Request`.
        fitted: What the model that a fine-tuning starts from makes of a recipe, see `training.start.Start.fitted`.

    Returns:
        The recipe, with files by their names alone since a folder says more than it should, and the choices of the rule
        in it.

    Raises:
        RecipeError: Values that do not go together, or not with the model to start from.
    """
    choices: list[Choice] = []
    recipe = as_prepared(recipe, facts)
    if given is not None:
        recipe, choices = preset(facts.shape, recipe, given)
        if recipe.fine_tuning is not None:
            recipe, choices = gentler(recipe, given), []
    return without_folders(fitted(recipe)), choices


def as_prepared(recipe: Recipe, facts: DataFacts) -> Recipe:
    """The recipe with what the data really has: a prepared folder may be read, filtered and split in another way."""
    evaluation = replace(recipe.evaluation, recommend_seen=facts.shape.recommend_seen)
    return replace(recipe, data=replace(recipe.data, **facts.options), evaluation=evaluation)


def prepared_otherwise(wanted: DataRecipe, facts: DataFacts) -> str | None:
    """A line on what a recipe sets and a prepared folder has in another way; None where there is nothing to say."""
    differing = [
        f"{name} {found!r} (not {value!r})"
        for name, found in facts.options.items()
        if (value := getattr(wanted, name)) != found and value != getattr(DataRecipe(), name)
    ]
    if not differing:
        return None
    return (
        f"Note      {wanted.source} was prepared with {', '.join(differing)} and is used as it is: prepare it again to "
        "change that"
    )


def without_folders(recipe: Recipe) -> Recipe:
    """The recipe as it is written down: files by their names alone."""
    source = recipe.data.source
    if source is not None and source not in NAMED_SOURCES and Path(source).exists():
        source = Path(source).name
    names = {"item_titles": recipe.data.item_titles, "items": recipe.data.items, **recipe.data.split_files}
    files: dict[str, Any] = {name: None if file is None else Path(file).name for name, file in names.items()}
    start = recipe.fine_tuning
    if start is not None and Path(start.from_model).is_dir():
        start = replace(start, from_model=Path(start.from_model).resolve().name)
    return replace(recipe, data=replace(recipe.data, source=source, **files), fine_tuning=start)


def trained_on(trained: Recipe, recipe: Recipe) -> str | None:
    """Why a model of the first recipe has trained on some targets of the second; None where it has not."""
    if trained.training.refit:
        return "the model was trained once more on everything (--refit)"
    for name, value in asdict(recipe.data).items():
        before = getattr(trained.data, name)
        if value == before or name in HOW_TO_READ:
            continue
        if name.endswith("_fraction") and recipe.data.split == "leave_one_out":
            continue
        if name == "split_seed" and recipe.data.split != "user":
            continue
        return f"the model was trained with data.{name} {before!r}, and this measures with {value!r}"
    return None


def plan(recipe: Recipe) -> str:
    """What a run is about to do, for people."""
    training = recipe.training
    model = ", ".join(f"{key} {shown(value)}" for key, value in {**recipe.model, **flat_loss(recipe.loss)}.items())
    rows = MODELS[recipe.model_name].training_examples
    batch = f"{training.train_batch_size} {rows}" if training.train_batch_targets is None else rows
    targets = "" if training.train_batch_targets is None else f", {training.train_batch_targets} targets"
    return (
        f"Recipe    {recipe.name}, seed {recipe.seed}\nModel     {model}\n"
        f"Training  up to {training.num_train_epochs} epochs, {batch} of {training.max_length}{targets} a step, "
        f"learning rate {training.learning_rate:g}, best epoch by validation {training.metric}"
    )
