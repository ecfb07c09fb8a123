"""Where recipes lie: the named ones of `configuration/`, files of one's own, and those in the folders of models."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import ModelFolderError, RecipeError
from ..models.loading import local_folder
from .keys import changed
from .reading import find_yaml, read_yaml, yaml_files
from .schema import Recipe

__all__ = ["configuration_folder", "find_model_recipe", "list_recipes", "load_model_recipe", "load_recipe"]


def configuration_folder() -> Path:
    """`configuration/`: inside an installed package, beside the package in a source checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "configuration"
    return inside if inside.is_dir() else package.parent / "configuration"


def list_recipes() -> list[str]:
    """Names of the recipes that come with the package, in alphabetical order."""
    return sorted(yaml_files(configuration_folder()))


def load_recipe(name_or_path: str | os.PathLike, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe and changes single values of it.

    Args:
        name_or_path: A name of `list_recipes()`, or the path of a YAML file (with a slash or `.yaml` in it).
        overrides: `key=value` texts; the key is a dotted path (`training.learning_rate`), its last part where that is
            clear (`learning_rate`), or a usual name of it (`lr`, see `reading.PLAIN_NAMES`); the value is YAML (`2e-3`,
            `null`, `[10, 50]`). Another `model.name` leaves of the recipe's model only what all models share, such as
            the width: the rest is the new model's default.

    Returns:
        The checked recipe.

    Raises:
        RecipeError: An unknown recipe or key (the nearest names are given), a wrong type, or a value out of range.
    """
    path = find_yaml(name_or_path, configuration_folder(), "recipe")
    if not path.is_file():
        raise RecipeError(f"There is no recipe file {os.fspath(name_or_path)!r}.")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise RecipeError(
            f"The recipe {os.fspath(name_or_path)!r} must be a YAML mapping with 'name', 'data', ... in it."
        )
    return changed(content, overrides)


def find_model_recipe(name_or_path: str | Path, *, revision: str | None = None) -> Recipe | None:
    """The recipe that a model was trained with, or None where its folder or repository holds none.

    Raises:
        ModelFolderError: There is no such folder.
        HubError: The repository cannot be had.
    """
    file = local_folder(str(name_or_path), revision, ("recipe.yaml",)) / "recipe.yaml"
    return load_recipe(file) if file.is_file() else None


def load_model_recipe(name_or_path: str | Path, *, revision: str | None = None) -> Recipe:
    """As `find_model_recipe`, for what cannot do without.

    Raises:
        ModelFolderError: The folder or repository holds none.
        HubError: The repository cannot be had.
    """
    recipe = find_model_recipe(name_or_path, revision=revision)
    if recipe is None:
        raise ModelFolderError(f"{name_or_path} has no recipe.yaml, which says how its data was split")
    return recipe
