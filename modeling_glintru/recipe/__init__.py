"""Recipes: one YAML file is one reproducible run.

`load_recipe("ml-1m", ["lr=1e-3"])` reads a recipe by name or path, changes single values and checks all of it, so that
a run fails at its start and not after an hour.

`schema` has the sections with their keys, `keys` finds and changes single ones, `files` finds recipes, and `reading`
reads YAML into checked values. `rule` is the table by which settings are chosen from data, and `resolve` makes the
complete recipe of a run.
"""

from .files import configuration_folder, find_model_recipe, list_recipes, load_model_recipe, load_recipe
from .keys import change_recipe, changed_keys, flat_loss, key_help, shown
from .reading import at_least, find_yaml, from_mapping, one_of, parse_yaml, read_yaml, yaml_files
from .schema import (
    DEFAULT_MODEL,
    ITEMS,
    NEW_WEIGHTS,
    REFERENCE_MODELS,
    DataRecipe,
    EvaluationRecipe,
    FineTuningRecipe,
    GivenSplit,
    Recipe,
    TrainingRecipe,
    model_fields,
    model_section,
)

__all__ = [
    "DEFAULT_MODEL",
    "ITEMS",
    "NEW_WEIGHTS",
    "REFERENCE_MODELS",
    "DataRecipe",
    "EvaluationRecipe",
    "FineTuningRecipe",
    "GivenSplit",
    "Recipe",
    "TrainingRecipe",
    "at_least",
    "change_recipe",
    "changed_keys",
    "configuration_folder",
    "find_model_recipe",
    "find_yaml",
    "flat_loss",
    "from_mapping",
    "key_help",
    "list_recipes",
    "load_model_recipe",
    "load_recipe",
    "model_fields",
    "model_section",
    "one_of",
    "parse_yaml",
    "read_yaml",
    "shown",
    "yaml_files",
]
