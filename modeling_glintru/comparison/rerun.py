"""The command that runs one line of a results file again."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, fields
from typing import Any

from ..data.sources import NAMED_SOURCES
from ..models.losses import LossConfig
from ..recipe import DataRecipe, Recipe, TrainingRecipe, flat_loss, list_recipes, load_recipe, model_fields

__all__ = ["train_command"]

NOT_SET = ("name", "max_position_embeddings", "source", "item_titles")  # `max_length` says how many positions
KEEP = {"duplicates": "keep"}  # what the comparisons say; the data sets of the recipes have no copies


def train_command(line: dict[str, Any]) -> str | None:
    """`glintru train …` with the same recipe and seed; None where no recipe has the name of the data set."""
    data, model = line["data"], line["model"]
    if data not in list_recipes():
        return None
    recipe, base = Recipe.from_dict(line["recipe"]), load_recipe(data, [f"model.name={model}"])
    words = ["glintru", "train", "--recipe", data]
    words += ["--model", model] if model != "glintru" else []
    words += [] if data in NAMED_SOURCES else ["--data", "FILE"]
    words += ["--seed", str(recipe.seed), "--output_dir", f"outputs/{data}-{line['row']}"]
    for change in overrides(recipe, base):
        words += ["--set", change]
    return shlex.join(words)


def overrides(recipe: Recipe, base: Recipe) -> list[str]:
    """What `--set` has to say so that `base` computes what `recipe` does."""
    pairs = []
    config, base_config = recipe.config(2), base.config(2)
    for name in model_fields(config.model_type):
        if name not in NOT_SET:
            pairs.append((name, getattr(config, name), getattr(base_config, name)))
    loss, base_loss = (flat_loss(asdict(LossConfig(**part.loss))) for part in (recipe, base))
    pairs += [(name, value, base_loss[name]) for name, value in loss.items()]
    for section, kind in (("training", TrainingRecipe), ("data", DataRecipe)):
        for item in fields(kind):
            if item.name not in NOT_SET:
                values = (getattr(getattr(part, section), item.name) for part in (recipe, base))
                pairs.append((item.name, *values))
    return [
        f"{name}={json.dumps(value)}" for name, value, before in pairs if value != before and value != KEEP.get(name)
    ]
