"""YAML in, checked values out: what recipes and protocols of comparisons are read with."""

from __future__ import annotations

import math
import os
import types
import typing
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ..errors import RecipeError, nearest_names
from ..models import untrusted_text

__all__ = ["at_least", "described", "find_yaml", "from_mapping", "one_of", "parse_yaml", "read_yaml", "yaml_files"]

# What people call a key elsewhere, and where it is here. A `*` stands for any name, if only one key fits.
PLAIN_NAMES = {
    **dict.fromkeys(("lr", "max_learning_rate"), "training.learning_rate"),
    **dict.fromkeys(("batch_size", "per_device_train_batch_size"), "training.train_batch_size"),
    **dict.fromkeys(("epochs", "num_epochs", "max_epochs"), "training.num_train_epochs"),
    **dict.fromkeys(("max_len", "max_seq_len", "max_seq_length", "seq_len"), "training.max_length"),
    **dict.fromkeys(("patience",), "training.early_stopping_patience"),
    **dict.fromkeys(("scheduler", "lr_scheduler"), "training.lr_scheduler_type"),
    **dict.fromkeys(("hidden_dim", "embedding_dim", "embedding_size", "d_model"), "model.hidden_size"),
    **dict.fromkeys(("num_heads", "n_heads"), "model.num_attention_heads"),
    **dict.fromkeys(("num_layers", "n_layers", "num_blocks"), "model.num_hidden_layers"),
    "dropout": "model.*_dropout",
}


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
        RecipeError: It is not YAML, or too large or too deep; the message says where.
    """
    try:
        return untrusted_text.parse_yaml(text)
    except ValueError as error:
        raise RecipeError(f"YAML error in {what}: {error}.") from error


def from_mapping(kind: type, name: str, content: Any) -> Any:
    """A dataclass from a mapping that YAML gave.

    Args:
        kind: The dataclass; every field has a default.
        name: What messages call the mapping, such as `"training"`.
        content: The mapping, or None for an empty one.

    Raises:
        RecipeError: An unknown key (the nearest are named), a wrong type, or a value that is not allowed.
    """
    return kind(**typed_section(name, content, typing.get_type_hints(kind)))


def typed_section(name: str, content: Any, hints: Mapping[str, Any]) -> dict[str, Any]:
    """A section under its true keys, each value in the type of its hint; errors as of `from_mapping`."""
    return {key: typed(f"{name}.{key}", hints[key], value) for key, value in section(name, content, hints).items()}


def section(name: str, content: Any, hints: Mapping[str, Any]) -> dict[str, Any]:
    """A section under its true keys, the values as they were read.

    Raises:
        RecipeError: It is no mapping, or holds an unknown key or the same key twice.
    """
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise RecipeError(f"{name} must be a mapping, but got {content!r}.")
    values: dict[str, Any] = {}
    for plain, value in content.items():
        found = [plain] if plain in hints else [key.partition(".")[2] for key in plain_matches(plain, name, hints)]
        if not found:
            raise RecipeError(f"There is no key {plain!r} in {name}; {nearest_names(str(plain), hints)}")
        if found[0] in values:
            raise RecipeError(f"{name} says {found[0]} twice, once under another name.")
        values[found[0]] = value
    return values


def plain_matches(plain: Any, section: str, names: Iterable[str]) -> list[str]:
    """The dotted keys of a section that a plain name such as `lr` may mean: none, or one.

    Raises:
        RecipeError: It may mean several.
    """
    found = [key for name in names if fnmatch(key := f"{section}.{name}", PLAIN_NAMES.get(plain, ""))]
    if len(found) > 1:
        raise RecipeError(f"The key {plain!r} may mean {', '.join(found)}; write which.")
    return found


# ---------------------------------------------------------------------- values

_NAMES: dict[type, str] = {str: "text", int: "an integer", float: "a number", bool: "true or false", dict: "a mapping"}
_NAMES[type(None)] = "null"


def typed(name: str, hint: Any, value: Any) -> Any:
    """The value in the type of the hint: integers pass as floats, lists become tuples, nothing else is bent.

    Raises:
        RecipeError: It has another type.
    """
    for kind in _kinds(hint):
        if typing.get_origin(kind) is tuple:
            if isinstance(value, (list, tuple)):
                return tuple(typed(name, typing.get_args(kind)[0], element) for element in value)
        elif kind is float and type(value) is int:
            return float(value)
        elif type(value) is (typing.get_origin(kind) or kind):
            return value
    raise RecipeError(f"{name} must be {described(hint)}, but got {value!r}.")


def described(hint: Any) -> str:
    """A type for people, such as `"a number or null"`."""
    names = []
    for kind in _kinds(hint):
        if typing.get_origin(kind) is tuple:
            names.append("a list such as " + ("[10, 20]" if typing.get_args(kind)[0] is int else "[one, two]"))
        else:
            names.append(_NAMES[typing.get_origin(kind) or kind])
    if "a number" in names:  # an integer is one
        names = [name for name in names if name != "an integer"]
    return " or ".join(dict.fromkeys(names))


def _kinds(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def one_of(name: str, value: str, allowed: Iterable[str]) -> None:
    """Refuses a value that is none of the allowed words.

    Raises:
        RecipeError: It is another one.
    """
    if value not in allowed:
        raise RecipeError(f"{name} must be one of {', '.join(allowed)}, but got {value!r}.")


def at_least(name: str, value: float, least: int) -> None:
    """Refuses a number below `least`, and one that is not finite.

    Raises:
        RecipeError: It is such a number.
    """
    if not least <= value < math.inf:
        raise RecipeError(f"{name} must be at least {least}, but got {value}.")
