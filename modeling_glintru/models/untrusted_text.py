"""Reads YAML and JSON that a stranger may have written: what is too large, too deep or too entangled is refused.

Nothing of the content is built before it was measured. Every refusal is a `ValueError` whose text says what is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

__all__ = ["MOST_CHARACTERS", "MOST_DEPTH", "MOST_VALUES", "check_integers", "parse_json", "parse_yaml"]

MOST_CHARACTERS = 50_000_000  # a JSON file with the names of a million items has less
MOST_YAML_CHARACTERS = 1_000_000  # a recipe has some thousand
MOST_DEPTH = 50
MOST_INTEGER = 1_000_000  # in a model's config, but for these
MOST_OF = {"vocab_size": 2**31 - 1, "num_hidden_layers": 1000, "num_labels": 1000}
MOST_VALUES = 100_000  # of a YAML text, after each alias was replaced by what it stands for


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-3 as text; here it is a number, as everywhere else."""


_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_yaml(text: str) -> Any:
    """What a YAML text holds; `1e-3` is a number.

    Raises:
        ValueError: It is not YAML, or beyond the limits of this file; the message says what and, where it is known, in
            which line.
    """
    _check_size(text, MOST_YAML_CHARACTERS)
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {}, 1)
        return loader.construct_document(node)
    except RecursionError as error:
        raise ValueError(f"it is nested more than {MOST_DEPTH} levels deep") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        where = f"line {mark.line + 1}: " if mark and "\n" in text else ""
        raise ValueError(f"{where}{problem}") from error
    finally:
        if loader is not None:
            loader.dispose()


def _measure(node: yaml.Node, known: dict[int, int | None], depth: int) -> int:
    """How many values a node holds, each alias counted as often as it is used."""
    if depth > MOST_DEPTH:
        raise ValueError(f"it is nested more than {MOST_DEPTH} levels deep")
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in known:
        size = known[id(node)]
        if size is None:
            raise ValueError("an alias stands for something that holds the alias itself")
        return size
    known[id(node)] = None
    children = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
    size = 1
    for child in children:
        size += _measure(child, known, depth + 1)
        if size > MOST_VALUES:
            raise ValueError(f"its aliases unfold to more than {MOST_VALUES:,} values")
    known[id(node)] = size
    return size


def parse_json(text: str | bytes) -> Any:
    """What a JSON text holds.

    Raises:
        ValueError: It is not JSON, or beyond the limits of this file.
    """
    _check_size(text, MOST_CHARACTERS)
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"it is nested more than {MOST_DEPTH} levels deep") from error
    level, depth = [content], 0
    while level:
        if depth > MOST_DEPTH:
            raise ValueError(f"it is nested more than {MOST_DEPTH} levels deep")
        containers = [value for value in level if isinstance(value, (dict, list))]
        level = [part for value in containers for part in (value.values() if isinstance(value, dict) else value)]
        depth += 1
    return content


def check_integers(config: Mapping[str, Any]) -> None:
    """Refuses a config whose sizes would take for ever to build, or to print.

    Args:
        config: The fields of a model's config by name.

    Raises:
        ValueError: An integer is beyond what any model has; the message names it.
    """
    for name, value in config.items():
        most = MOST_OF.get(name, MOST_INTEGER)
        if isinstance(value, int) and abs(value) > most:
            shown = value if abs(value) < 10**20 else "a longer number"
            raise ValueError(f"{name} must be at most {most:,}, but got {shown}")


def _check_size(text: str | bytes, most: int) -> None:
    if len(text) > most:
        raise ValueError(f"it has {len(text):,} characters, more than {most:,}")
