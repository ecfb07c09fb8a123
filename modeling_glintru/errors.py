"""Errors that a person can act on: one sentence, no traceback on the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from .models.configuration_glintru import GlintRUError
from .models.loading import HubError, ModelFolderError

__all__ = [
    "DataError",
    "GlintRUError",
    "HubError",
    "ModelFolderError",
    "RecipeError",
    "StateError",
    "StoreBusyError",
    "StoreError",
    "StoreFullError",
    "StoreReadOnlyError",
    "TrainingDivergedError",
    "nearest_names",
]


class DataError(GlintRUError):
    """The interactions cannot be used as they are."""


class RecipeError(GlintRUError):
    """A recipe, or an override of one, says something that is not understood."""


class StoreError(GlintRUError):
    """A store of user states cannot do what was asked; nothing was written."""


class StoreBusyError(StoreError):
    """Another process or thread holds the store's lock for too long."""


class StoreFullError(StoreError):
    """The disk has no room left, or the store has reached its largest size."""


class StoreReadOnlyError(StoreError):
    """The store cannot be written."""


class StateError(StoreError):
    """A stored state is damaged, or of other weights than the model's."""


class TrainingDivergedError(GlintRUError):
    """The loss or a weight of a training is no longer a finite number."""


def nearest_names(name: str, known: Iterable[str], *, otherwise: str | None = None) -> str:
    """The end of a sentence, with its mark, that offers the nearest known names.

    Args:
        name: What was typed.
        known: What exists.
        otherwise: What stands there when nothing is near; the whole list (`"known: a, b."`) where it is None.

    Returns:
        Such as `"did you mean 'a' or 'b'?"`, with three names at most.
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(repr(n) for n in near) + "?"
    return otherwise or "known: " + ", ".join(known) + "."
