"""Settings: drawn once for all models, and made into recipes."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any

import numpy as np

from ..models.losses import LossConfig
from ..recipe import EvaluationRecipe, Recipe, TrainingRecipe, model_fields
from .protocol import DROPOUT, TOP_K, DataProtocol, Protocol, flat

__all__ = ["draw_settings", "make_recipe", "reference_recipe"]


def draw_settings(protocol: Protocol, data: DataProtocol, model: str) -> list[dict[str, Any]]:
    """The settings that are tried: the same draws for every model.

    Each key is drawn by itself, from the protocol's seed and its own name, so that models with the same list of values
    get the same values, whatever else they have. Each value of a list occurs equally often, up to rounding (a Latin
    hypercube: McKay, Beckman and Conover 1979).

    Returns:
        One setting a trial; the first ones take the values of `data.start` that are in the space instead of drawn ones.
    """
    space = protocol.settings(data, model).space
    columns = {key: _spread(values, data.trials, protocol.seed, key) for key, values in space.items()}
    settings = [{key: values[trial] for key, values in columns.items()} for trial in range(data.trials)]
    for setting, given in zip(settings, data.start, strict=False):
        setting |= {key: value for key, value in given.items() if value in space.get(key, ())}
    return settings


def _spread(values: list[Any], count: int, seed: int, key: str) -> list[Any]:
    draw = np.random.default_rng([seed, zlib.crc32(key.encode())])
    places = (draw.permutation(count) + draw.random(count)) / count
    return [values[int(place * len(values))] for place in places]


def make_recipe(
    protocol: Protocol,
    data: DataProtocol,
    model: str,
    setting: Mapping[str, Any],
    *,
    epochs: int,
    seed: int,
    protocols: tuple[str, ...] = ("full",),
) -> Recipe:
    """The recipe of one trial.

    Args:
        protocol: Gives the values that are not drawn.
        data: The data set.
        model: A name of `auto.MODELS`.
        setting: One of `draw_settings`; what the model does not have is left out.
        epochs: The length of the schedule.
        seed: Of the run.
        protocols: Of the evaluation.

    Raises:
        RecipeError: A value of a wrong type or out of range.
    """
    values = {**protocol.settings(data, model).fixed, **flat(setting)}
    of_training = {item.name for item in fields(TrainingRecipe)}
    of_model = model_fields(model)
    training: dict[str, Any] = {"num_train_epochs": epochs, "metric": protocol.metric}
    chosen: dict[str, Any] = {"name": model}
    loss: dict[str, Any] = {}
    for key, value in values.items():
        if key == DROPOUT:
            chosen |= {name: value for name in of_model if name.endswith("_dropout")}
        elif key in of_training:
            training[key] = value
        elif key in of_model:
            chosen[key] = value
        elif key == "loss" or key in LossConfig.__dataclass_fields__:
            loss["name" if key == "loss" else key] = value
    content = {
        "name": model,
        "seed": seed,
        "data": data.interactions,
        "model": chosen,
        "loss": loss,
        "training": training,
        "evaluation": {"top_k": TOP_K, "protocols": protocols, "reference_models": []},
    }
    return _checked(json.dumps(content))


@lru_cache(maxsize=4096)
def _checked(content: str) -> Recipe:
    """Remembered: the queue makes all recipes of a plan anew whenever a trial ends."""
    return Recipe.from_dict(json.loads(content))


def reference_recipe(data: DataProtocol, name: str) -> Recipe:
    """What a row that is not trained is measured with."""
    return Recipe(
        name=name,
        data=data.recipe,
        evaluation=EvaluationRecipe(top_k=TOP_K, protocols=("full", "pop100"), reference_models=(name,)),
    )
