"""The recipe of `glintru train --from MODEL`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from .data import PreparedData
from .data.reading import ReadingOptions
from .data.sources import options_for
from .data_recipe import GivenSplit
from .errors import RecipeError
from .fine_tuning_recipe import FineTuningRecipe
from .loading import find_model_recipe, load_model_folder
from .presets import blank_recipe, data_shape, preset
from .recipes import NEW_WEIGHTS, Recipe, change_recipe, changed_keys, load_recipe
from .training.start import model_section

__all__ = ["fine_tuning_recipe", "gentler"]

# Chosen on validation, see docs/fine_tuning.md: where rates were as good, the smaller one, which forgets less.
LEARNING_RATE, LORA_LEARNING_RATE = 0.25, 1.0  # times that of the first training; adapters begin at zero
EPOCHS, PATIENCE = 0.25, 3


def fine_tuning_recipe(
    from_model: str | None,
    recipe: str | None,
    items: str | None,
    overrides: Sequence[str],
    source: str | None = None,
) -> tuple[Recipe, Callable[[Recipe, PreparedData], Recipe] | None]:
    """What a run that starts from a model is made of.

    The settings are those of `recipe` where one is given, and otherwise gentler ones than the model was trained with;
    for a model without a recipe, than its data would be.

    Args:
        from_model: Folder or Hub repository; None where `recipe` says it.
        recipe: Name or file.
        items: See `FineTuningRecipe`.
        overrides: `key=value` texts.
        source: The new interactions, where they are one table; what the model's recipe says on how to read its own
            counts for them too, as far as it can (see `data.sources.options_for`).

    Returns:
        The recipe, without data source unless `recipe` has one, and how to complete it from the data, if it has to be.

    Raises:
        RecipeError: See `load_recipe`.
        ModelFolderError: See `load_model_folder`.
    """
    if recipe is not None:
        chosen = load_recipe(recipe)
        return change_recipe(_starting(chosen, from_model, items), overrides), None
    if from_model is None:
        raise RecipeError("--items says what happens to the items of a model: give --from MODEL too")
    trained = find_model_recipe(from_model)
    if trained is None:
        section = model_section(load_model_folder(from_model)[0])
        chosen = replace(blank_recipe(), model=section, fine_tuning=FineTuningRecipe(from_model))
        new = (f"training.{name}=0" for name in NEW_WEIGHTS)
        given = [*overrides, *new, *(f"model.{key}=" for key in section)]
        blank = change_recipe(_starting(chosen, from_model, items), overrides)
        return blank, lambda known, data: gentler(preset(data_shape(data), known, given)[0], given)
    # Its data is another one; columns are recognised anew where the shop is another one.
    files: dict[str, Any] = dict.fromkeys(item.name for item in fields(GivenSplit))
    data = replace(trained.data, source=None, item_titles=None, title_column=None, **files)
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
        fine_tuning=FineTuningRecipe(from_model),
    )
    chosen = change_recipe(_starting(chosen, from_model, items), overrides)
    if trained.fine_tuning is None:
        chosen = gentler(chosen, overrides)
    return chosen, None


def _starting(recipe: Recipe, from_model: str | None, items: str | None) -> Recipe:
    given: dict[str, Any] = {} if from_model is None else {"from_model": from_model}
    if items is not None:
        given["items"] = items
    off: dict[str, Any] = dict.fromkeys(NEW_WEIGHTS, 0.0)  # there are embeddings already
    recipe = replace(recipe, training=replace(recipe.training, **off))
    if recipe.fine_tuning is not None:
        return replace(recipe, fine_tuning=replace(recipe.fine_tuning, **given))
    return replace(recipe, fine_tuning=FineTuningRecipe(**given))


def gentler(recipe: Recipe, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe with the settings of a fine-tuning where they are not given.

    A smaller learning rate and fewer epochs, without warm-up. Items that are learned anew take as long as ever, so
    that with `items: new` all stays as it is.
    """
    settings = recipe.fine_tuning
    if settings is None:
        raise RecipeError("a recipe without fine_tuning section is not that of a fine-tuning")
    if settings.items == "new":
        return recipe
    training = recipe.training
    factor = LORA_LEARNING_RATE if settings.lora_rank else LEARNING_RATE
    values: dict[str, Any] = {
        "learning_rate": training.learning_rate * factor,
        "num_train_epochs": math.ceil(training.num_train_epochs * EPOCHS),
        "warmup_steps": 0,
        "early_stopping_patience": PATIENCE,
    }
    given = changed_keys(recipe, overrides)
    values = {name: value for name, value in values.items() if f"training.{name}" not in given}
    return replace(recipe, training=replace(training, **values))
