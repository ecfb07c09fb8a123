"""One trial: a recipe, and what the comparison wants with it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..recipe import NEW_WEIGHTS, Recipe, flat_loss

__all__ = ["ABLATION", "FINAL", "PRESET", "REFERENCE", "TUNE", "Trial"]

REFERENCE, TUNE, FINAL, PRESET, ABLATION = "reference", "tune", "final", "preset", "ablation"


# Where the file lies, what it calls its columns and the titles change no number.
NO_NUMBERS = ("source", "user_column", "item_column", "time_column", "item_titles", "title_column")
OLDEST = (
    *("duplicates", "min_user_interactions", "min_item_interactions"),
    *("split", "validation_fraction", "test_fraction", "split_seed"),
)


@dataclass(frozen=True)
class Trial:
    """
    Args:
        data: Name of the data set.
        row: The row of the table that it belongs to: a model, a preset, or what an ablation changes (`row: change`).
        stage: `TUNE` (chooses a setting), `FINAL`, `PRESET` and `ABLATION` (fill a row, one run a seed), `REFERENCE`
            (a row that is not trained).
        recipe: All that the run depends on.
        rung: Number of the rung, from 0, in the stage `TUNE`.
        index: Number of the draw in `TUNE`, of the seed elsewhere.
        setting: What was drawn, for people.
        setting_of: The model whose search chose the draw, for a row whose own search has not run.
    """

    data: str
    row: str
    stage: str
    recipe: Recipe
    rung: int = 0
    index: int = 0
    setting: dict[str, Any] | None = None
    setting_of: str | None = None

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.row if self.stage == REFERENCE else self.recipe.model_name

    @property
    def epochs(self) -> int:
        """The length of the schedule; none where nothing is trained."""
        return 0 if self.stage == REFERENCE else self.recipe.training.num_train_epochs

    @cached_property
    def group(self) -> str:
        """The same for all seeds of a setting."""
        return self._digest(seeded=False)

    @cached_property
    def key(self) -> str:
        """Twelve characters that follow from what is computed: the same trial has the same key in every session."""
        return self._digest(seeded=True)

    def _digest(self, seeded: bool) -> str:
        content = self.recipe.to_dict()
        for name in ("name", "description", "evaluation", *(() if seeded else ("seed",))):
            content.pop(name)
        content["data"] = {name: value for name, value in content["data"].items() if _counts(name, value)}
        del content["training"]["refit"]  # a comparison only measures
        for name in NEW_WEIGHTS:
            if not content["training"][name]:  # keys are older than these settings
                del content["training"][name]
        content["model"] |= flat_loss(content.pop("loss"))  # where it stood when the first keys were made
        stage = TUNE if self.stage == TUNE else "measured"
        text = json.dumps([self.data, self.row, stage, content], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def __str__(self) -> str:
        if self.stage == TUNE:
            what = f"trial {self.index + 1}, {self.epochs} epochs"
        else:
            what = self.stage if self.stage == REFERENCE else f"{self.stage}, seed {self.recipe.seed}"
        return f"{self.data} {self.row} ({what})"


def _counts(name: str, value: Any) -> bool:
    """Whether a field of the recipe's data is a part of the key; keys are older than most, so not at its default."""
    is_default = value in (None, False, []) or (name == "hold_out" and value == "item")
    return name in OLDEST or not (name in NO_NUMBERS or is_default)
