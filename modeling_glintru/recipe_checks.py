"""Checks of single values of a recipe."""

from __future__ import annotations

import math
from collections.abc import Iterable

from .errors import RecipeError

__all__ = ["at_least", "one_of"]


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
