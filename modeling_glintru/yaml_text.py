"""YAML as recipes and protocols are written in it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

from .errors import RecipeError, nearest_names

__all__ = ["configuration_folder", "find_yaml", "parse_yaml", "read_yaml", "yaml_files"]


def configuration_folder() -> Path:
    """`configuration/`: inside an installed package, beside the package in a source checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "configuration"
    return inside if inside.is_dir() else package.parent / "configuration"


def yaml_files(folder: Path) -> dict[str, Path]:
    """The YAML files of a folder by their names without the ending."""
    return {file.stem: file for file in folder.glob("*.yaml")}


def find_yaml(name_or_path: str | os.PathLike[str], folder: Path, what: str) -> Path:
    """The file that somebody names: one in `folder` without its ending, or the path of a YAML file.

    Raises:
        RecipeError: There is none of that name; `what` says what was looked for.
    """
    text = os.fspath(name_or_path)
    path = Path(text)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        return path
    files = yaml_files(folder)
    if text not in files:
        raise RecipeError(f"There is no {what} named {text!r}; {nearest_names(text, files)}")
    return files[text]


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-3 as text; here it is a number, as everywhere else."""


_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> Any:
    """What a YAML file holds; `1e-3` is a number.

    Raises:
        RecipeError: The file cannot be read, or is not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"The recipe file {str(path)!r} cannot be read as text.") from error
    return parse_yaml(text, f"the recipe file {str(path)!r}")


def parse_yaml(text: str, what: str) -> Any:
    """What a YAML text holds; `what` names the text in messages.

    Raises:
        RecipeError: It is not YAML; the message says where.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark and "\n" in text else ""
        raise RecipeError(f"YAML error in {what}{where}: {getattr(error, 'problem', None) or error}.") from error
