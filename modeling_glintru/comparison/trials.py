"""One trial of a comparison: a recipe, the row that its result belongs to, and a key of what it computes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ..recipe import NEW_WEIGHTS, EvaluationRecipe, Recipe, flat_loss

__all__ = ["FINAL", "FIXED", "METRICS", "REFERENCE", "TOP_K", "TUNE", "Step", "Trial", "ready", "seeded"]

REFERENCE, TUNE, FINAL, FIXED = "reference", "tune", "final", "preset"
TOP_K = (10, 20)
METRICS = tuple(f"{metric}@{k}" for metric in ("ndcg", "hr", "mrr") for k in TOP_K)
MEASURED = ("full", "pop100")  # the protocols by which the rows of a table are evaluated

# These fields of a recipe's data change no number: where the file lies, what it calls its columns, and the titles.
FILES = ("source", "train_data", "validation_data", "test_data", "item_titles", "items")
NO_NUMBERS = (*FILES, "user_column", "item_column", "time_column", "title_column")
OLDEST = (
    *("duplicates", "min_user_interactions", "min_item_interactions"),
    *("split", "validation_fraction", "test_fraction", "split_seed"),
)


@dataclass(frozen=True)
class Trial:
    """One run of a comparison.

    Args:
        data: Name of the data set.
        row: Name of the row of the table that the trial belongs to.
        stage: `TUNE` (a search tries a setting), `FINAL` (measures what a search chose, one run a seed), `FIXED`
            (measures a recipe that was given, one run a seed) or `REFERENCE` (a row that is not trained).
        recipe: Everything that the run depends on.
        rung: Number of the rung of the search, from 0, in the stage `TUNE`.
        index: Number of the setting in `TUNE`, of the seed in the other stages.
        setting: The setting of the search, for people.
        setting_of: The row whose search chose the setting, where it is not the trial's own row.
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
        """Name of the model, or of the reference."""
        return self.row if self.stage == REFERENCE else self.recipe.model_name

    @property
    def epochs(self) -> int:
        """Epochs of the schedule; 0 where nothing is trained."""
        return 0 if self.stage == REFERENCE else self.recipe.training.num_train_epochs

    @cached_property
    def group(self) -> str:
        """A digest that is the same for all seeds of a setting."""
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
            what = f"setting {self.index + 1} of the search, {self.epochs} epochs"
        else:
            what = "reference" if self.stage == REFERENCE else f"seed {self.recipe.seed}"
        return f"{self.data} {self.row} ({what})"


def _counts(name: str, value: Any) -> bool:
    """Whether a field of the recipe's data is a part of the key; keys are older than most, so not at its default."""
    is_default = value in (None, False, []) or (name, value) in (("hold_out", "item"), ("text_encoder", "tfidf"))
    return name in OLDEST or not (name in NO_NUMBERS or is_default)


@dataclass(frozen=True)
class Step:
    """Trials that are decided together.

    Args:
        data, row, stage, epochs: See `Trial`.
        trials: Those that are known already.
        undecided: How many more there will be, when earlier steps are done.
        urgency: Order of the steps, lower first.
    """

    data: str
    row: str
    stage: str
    epochs: int
    trials: tuple[Trial, ...]
    undecided: int = 0
    urgency: tuple[float, ...] = ()


def ready(steps: Sequence[Step], validation: Mapping[str, float | None]) -> list[Trial]:
    """The trials that can start now, most urgent first; `validation` has the keys of those that have run."""
    return [trial for step in steps for trial in step.trials if trial.key not in validation]


def seeded(
    data: str, row: str, stage: str, recipe: Recipe, seeds: Sequence[int], setting: dict[str, Any] | None = None
) -> tuple[Trial, ...]:
    """One trial a seed, evaluated as the rows of a table are."""
    evaluation = _measured(recipe.evaluation)
    return tuple(
        Trial(data, row, stage, replace(recipe, seed=seed, evaluation=evaluation), index=index, setting=setting)
        for index, seed in enumerate(seeds)
    )


def reference_trial(data: str, source: Recipe, name: str) -> Trial:
    """The one trial of a row that is not trained; `source` says how the data set is read and ranked."""
    evaluation = replace(_measured(source.evaluation), reference_models=(name,))
    return Trial(data, name, REFERENCE, Recipe(name=name, data=source.data, evaluation=evaluation))


def _measured(evaluation: EvaluationRecipe) -> EvaluationRecipe:
    """`recommend_seen` stays as it is given: it decides which ranking is the main one."""
    return EvaluationRecipe(
        top_k=TOP_K, protocols=MEASURED, reference_models=(), recommend_seen=evaluation.recommend_seen
    )
