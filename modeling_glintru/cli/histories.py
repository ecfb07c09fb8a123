"""Reads the histories that a model is to recommend for."""

from __future__ import annotations

from typing import Any, TextIO


def load_like_the_training(model: str, source: str, reading: dict[str, Any], stream: TextIO) -> Any:
    """Interactions, read as those that the model was trained on as far as they can be, and as the options say.

    Args:
        model: Folder or repository; without a recipe of its own only the options count.
        source: The table.
        reading: Options of `read_interactions` that were given; they win.
        stream: Where notes on what was found go.

    Returns:
        The interactions. The rows of one time are in the order that the order column says, where there is one.
    """
    from dataclasses import replace

    from ..data import load_source
    from ..data.sources import options_for
    from ..recipe import find_model_recipe

    recipe = find_model_recipe(model)
    options = {} if recipe is None else options_for(source, recipe.data, recipe.data.source)
    interactions = load_source(source, **options | reading)
    for note in interactions.notes:
        print(f"Note      {note}", file=stream)
    if "order" in interactions.frame.columns:  # all that follows sorts by time and keeps the order of the rows
        interactions = replace(interactions, frame=interactions.frame.sort("order", maintain_order=True))
    return interactions
