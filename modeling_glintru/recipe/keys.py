"""The keys of recipes: finding the one that somebody means, changing values, and the help on all of them."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

from ..errors import RecipeError, nearest_names
from ..models.auto import MODELS
from ..models.configuration_glintru import GlintRUConfig, NextItemConfig
from ..models.losses import LossConfig
from .reading import PLAIN_NAMES, described, parse_yaml, plain_matches
from .schema import DEFAULT_MODEL, OLD_KEYS, SECTIONS, Recipe, declared_fields, model_name, section_hints

__all__ = ["Key", "change_recipe", "changed_keys", "flat_loss", "key_help", "recipe_keys"]


@dataclass(frozen=True)
class Key:
    """One value of a recipe.

    Args:
        section: Such as `"training"`; `""` at the top of a recipe.
        name: Within the section.
        hint: Its type.
        default: Its value where nothing is said; `MISSING` where it must be said.
        help: One sentence.
    """

    section: str
    name: str
    hint: Any
    default: Any
    help: str

    @property
    def dotted(self) -> str:
        """Such as `"training.learning_rate"`."""
        return f"{self.section}.{self.name}" if self.section else self.name


def recipe_keys(model: str = DEFAULT_MODEL) -> list[Key]:
    """All keys of a recipe for this model, in the order of the sections."""
    kinds: dict[str, type] = {"": Recipe, **SECTIONS, "model": MODELS[model].config_class, "loss": LossConfig}
    keys = []
    for section, kind in kinds.items():
        defaults = {item.name: item.default for item in fields(kind)}
        defaults |= {"name": model} if section == "model" else {}
        texts = {"name": "The model, as of `--model`."} if section == "model" else {}
        texts |= argument_texts(kind)
        for name, hint in section_hints(section, model).items():
            keys.append(Key(section, name, hint, defaults[name], texts.get(name, "")))
    return keys


def argument_texts(kind: type) -> dict[str, str]:
    """The first sentence on each field of a dataclass: from its metadata, or from the `Args` of its docstrings."""
    texts: dict[str, str] = {}
    shared = [GlintRUConfig] if issubclass(kind, NextItemConfig) else []  # it describes what all models have
    for base in [*shared, *reversed(kind.__mro__)]:
        _, _, block = (inspect.getdoc(base) or "").partition("Args:\n")
        block = re.split(r"\n(?=\S)", block)[0]
        for entry in re.split(r"\n(?=    \S)", "\n" + block):
            names, _, text = " ".join(entry.split()).partition(": ")
            for name in re.sub(r" \(.*\)", "", names).split(", "):
                texts[name] = re.split(r"(?<=[.])\s(?=[A-Z`])", text)[0]
    return texts | {item.name: item.metadata["help"] for item in fields(kind) if "help" in item.metadata}


def key_help(model: str = DEFAULT_MODEL, width: int = 80) -> str:
    """All keys by section, each with type, default, other names and one sentence, in lines of at most `width`.

    Raises:
        RecipeError: There is no such model.
    """
    model = model_name({"model": {"name": model}})
    lines = [
        f"The keys of a recipe for the model {model}, as --set KEY=VALUE changes them.",
        "The section may be left out: training.lr=1e-3 is lr=1e-3.",
    ]
    section = None
    for key in recipe_keys(model):
        if key.section != section:
            section = key.section
            lines += ["", f"{section}:" if section else "recipe:"]
        plain = [name for name, meant in PLAIN_NAMES.items() if meant == key.dotted]
        also = f"; also {', '.join(plain)}" if plain else ""
        default = "no default" if key.default is MISSING else f"default {shown(key.default)}"
        head = f"{key.name}  ({described(key.hint)}; {default}{also})"
        lines += textwrap.wrap(head, width, initial_indent="  ", subsequent_indent="      ")
        text = re.sub(r"\bNone\b", "null", key.help.replace("`", ""))
        lines += textwrap.wrap(text, width, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def shown(value: Any) -> str:
    """A value as YAML has it."""
    if value is None:
        return "null"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(shown, value))}]"
    if value == "":
        return "empty"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def flat_loss(loss: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a loss under the keys that `--set` takes without a section: its name is `loss`."""
    return {"loss" if name == "name" else name: value for name, value in loss.items()}


def find_key(text: str, model: str) -> tuple[str, str]:
    """The section and the name of the key that somebody means.

    Args:
        text: A dotted key, its last part where that is clear, an old name of it, or one of `PLAIN_NAMES`.
        model: The model of the recipe.

    Raises:
        RecipeError: There is no such key (the nearest are named), or several.
    """
    text = OLD_KEYS.get(text, text)
    within, _, last = text.rpartition(".")
    keys = [(section, name) for section in ("", *SECTIONS) for name in section_hints(section, model)]
    if (within, last) in keys:
        return within, last
    found = [(section, name) for section, name in keys if name == last and not within]
    section = PLAIN_NAMES.get(last, "").partition(".")[0]
    if not found and section and within in ("", section):
        matches = plain_matches(last, section, section_hints(section, model))
        found = [(section, match.partition(".")[2]) for match in matches]
    if len(found) > 1:
        raise RecipeError(f"The key {text!r} is in more than one section; write {' or '.join(map('.'.join, found))}.")
    if not found:
        known = {".".join(key) for key in keys if key[0]} if within else {*PLAIN_NAMES, *(name for _, name in keys)}
        advice = nearest_names(text, known, otherwise="glintru train --set help lists all of them.")
        raise RecipeError(f"There is no recipe key {text!r}; {advice}")
    return found[0]


def change_recipe(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """The recipe with single values changed; arguments and errors as of `load_recipe`."""
    return changed(recipe.to_dict(), overrides)


def changed_keys(recipe: Recipe, overrides: Sequence[str]) -> list[str]:
    """The dotted keys that overrides, already in the recipe, have changed."""
    pairs = (find_key(override.partition("=")[0].strip(), recipe.model_name) for override in overrides)
    return [f"{section}.{key}" if section else key for section, key in pairs]


def changed(content: dict[str, Any], overrides: Sequence[str]) -> Recipe:
    """A recipe's content with single values changed, see `load_recipe`."""
    pairs = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise RecipeError(f"An override is written key=value, but got {override!r}.")
        pairs.append((key.strip(), text))
    # The name of the model first: it decides which keys there are.
    for key, text in sorted(pairs, key=lambda pair: pair[0] != "model.name"):
        value = parse_yaml(text, f"the value of {key}")
        if key == "model.name" and value != model_name(content):
            shared = declared_fields(NextItemConfig)
            given = content.get("model") or {}
            content = content | {"model": {name: given[name] for name in given if name in shared}}
        section, last = find_key(key, model_name(content))
        target = content
        if section:
            if content.get(section) is None:
                content[section] = {}
            target = content[section]
            if not isinstance(target, dict):
                raise RecipeError(f"{section} must be a mapping, but got {target!r}.")
            hints = section_hints(section, model_name(content))
            for other in [name for name in target if name not in hints]:  # the file may have it under a usual name
                if f"{section}.{last}" in plain_matches(other, section, hints):
                    del target[other]
        target[last] = value
    return Recipe.from_dict(content)
