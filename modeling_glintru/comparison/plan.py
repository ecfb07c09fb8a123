"""What a comparison runs, in which order: a pure function of its declaration and of validation metrics.

No test metric enters here: `Comparison.plan` sees one number a trial, its validation metric, and nothing else.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

import numpy as np

from ..models.losses import LossConfig
from ..recipe import Recipe, TrainingRecipe, model_fields
from .trials import FINAL, FIXED, REFERENCE, TOP_K, TUNE, Step, Trial, reference_trial, seeded

__all__ = ["DROPOUT", "Comparison", "Search", "draw_settings", "flat", "with_setting"]

DROPOUT = "dropout"  # a key of settings: one value for every dropout of a model
Validation = Mapping[str, float | None]
"""Key of a trial that has run to its validation metric, or to None where it failed."""


def flat(setting: Mapping[str, Any]) -> dict[str, Any]:
    """A setting in which the keys of its mappings stand instead of these."""
    plain: dict[str, Any] = {}
    for key, value in setting.items():
        plain |= value if isinstance(value, Mapping) else {key: value}
    return plain


def draw_settings(space: Mapping[str, list[Any]], count: int, seed: int) -> list[dict[str, Any]]:
    """Draws the settings that a search tries.

    Each key is drawn by itself, from the seed and its own name, so that models with the same list of values get the
    same values, whatever else they have. Each value of a list occurs equally often, up to rounding (a Latin hypercube:
    McKay, Beckman and Conover 1979).

    Args:
        space: Key of a recipe to the list of its values.
        count: How many settings.
        seed: The same seed gives the same settings.
    """
    columns = {key: _spread(values, count, seed, key) for key, values in space.items()}
    return [{key: values[trial] for key, values in columns.items()} for trial in range(count)]


def _spread(values: list[Any], count: int, seed: int, key: str) -> list[Any]:
    draw = np.random.default_rng([seed, zlib.crc32(key.encode())])
    places = (draw.permutation(count) + draw.random(count)) / count
    return [values[int(place * len(values))] for place in places]


def with_setting(base: Recipe, setting: Mapping[str, Any], *, epochs: int, seed: int) -> Recipe:
    """The recipe with the values of a setting; what the model does not have is left out.

    Args:
        base: What all trials of a model share.
        setting: Key of a recipe, without its section, to value.
        epochs: Epochs of the schedule.
        seed: Seed of the run.

    Raises:
        RecipeError: A value has a wrong type or is out of range.
    """
    content = base.to_dict() | {"seed": seed}
    content["evaluation"] |= {"top_k": TOP_K, "protocols": ["full"], "reference_models": []}
    content["training"]["num_train_epochs"] = epochs
    of_training, of_model = {item.name for item in fields(TrainingRecipe)}, model_fields(base.model_name)
    for key, value in flat(setting).items():
        if key == DROPOUT:
            content["model"] |= {name: value for name in of_model if name.endswith("_dropout")}
        elif key in of_training:
            content["training"][key] = value
        elif key in of_model:
            content["model"][key] = value
        elif key == "loss" or key in LossConfig.__dataclass_fields__:
            content["loss"]["name" if key == "loss" else key] = value
    return _checked(json.dumps(content))


@lru_cache(maxsize=4096)
def _checked(content: str) -> Recipe:
    """Remembered, because the queue makes all recipes of a plan anew whenever a trial ends."""
    return Recipe.from_dict(json.loads(content))


@dataclass(frozen=True)
class Search:
    """The search for the settings of one row, by successive halving (Jamieson and Talwalkar 2016).

    All settings run for the epochs of the first rung, the best one in `keep_one_in` runs anew for those of the next
    one, and the best of the last rung is the setting of the row.

    Args:
        base: The recipe that all settings change.
        settings: What is tried, see `with_setting`.
        rungs: Epochs of each rung, rising.
        epochs: Epochs of the runs that measure the chosen setting, at most.
        keep_one_in: One in so many settings goes on to the next rung.
        seed: Seed of the trials.
    """

    base: Recipe
    settings: tuple[dict[str, Any], ...]
    rungs: tuple[int, ...]
    epochs: int
    keep_one_in: int = 3
    seed: int = 42

    def steps(self, data: str, row: str, validation: Validation, urgency: tuple[float, ...]) -> list[Step]:
        """One step a rung; a rung whose settings are not chosen yet has undecided trials."""
        steps: list[Step] = []
        settings = dict(enumerate(self.settings))
        count = len(settings)
        for rung, epochs in enumerate(self.rungs):
            if steps:
                count = math.ceil(count / self.keep_one_in)
                if not finished(steps[-1], validation):
                    steps.append(Step(data, row, TUNE, epochs, (), count, (*urgency, 0, rung)))
                    continue
                settings = {trial.index: trial.setting or {} for trial in best_trials(steps[-1], validation, count)}
            trials = [
                Trial(data, row, TUNE, self.recipe(setting, epochs), rung, index, setting)
                for index, setting in settings.items()
            ]
            # Settings that differ only in what the model does not have are one trial.
            distinct = {trial.key: trial for trial in reversed(trials)}
            in_order = sorted(distinct.values(), key=lambda trial: trial.index)
            steps.append(Step(data, row, TUNE, epochs, tuple(in_order), 0, (*urgency, 0, rung)))
        return steps

    def recipe(self, setting: Mapping[str, Any], epochs: int | None = None) -> Recipe:
        """The recipe of a setting, for a rung's epochs or for those of the runs that measure it."""
        return with_setting(self.base, setting, epochs=epochs or self.epochs, seed=self.seed)


def finished(step: Step, validation: Validation) -> bool:
    """Whether all trials of a step have run or failed."""
    return not step.undecided and all(trial.key in validation for trial in step.trials)


def best_trials(step: Step, validation: Validation, count: int) -> list[Trial]:
    """The best trials of a step that did not fail; of equal ones the earlier."""
    scored = [(value, trial) for trial in step.trials if (value := validation.get(trial.key)) is not None]
    return [trial for _, trial in sorted(scored, key=lambda pair: (-pair[0], pair[1].index))[:count]]


def best_setting(last: Step, validation: Validation) -> dict[str, Any] | None:
    """What a search has chosen; None before its last rung is done, or where all of it failed."""
    best = best_trials(last, validation, 1) if finished(last, validation) else []
    return best[0].setting if best else None


@dataclass(frozen=True)
class Comparison:
    """The rows of a table for each data set, and the runs that fill them.

    Args:
        data: Name of a data set to a recipe whose `data` and `evaluation` sections say how it is read and ranked.
        rows: Name of a data set to its rows: a recipe with fixed settings, or a search for them.
        references: Name of a data set to the references, rows that are not trained.
        seeds: Seeds of the runs that are measured.
        metric: The validation metric that chooses epochs and settings.
        counts: Name of a data set to its users, items, interactions and test users, where they are known.
        pass_seconds: Name of a data set to CPU seconds that one pass over it takes, by model, at `hidden_size` 64.
        model_files: Models in files of the user's own, as `file.py:Class`; a process that runs trials registers them.
    """

    data: dict[str, Recipe]
    rows: dict[str, dict[str, Recipe | Search]]
    references: dict[str, tuple[str, ...]] = field(default_factory=dict)
    seeds: tuple[int, ...] = (1, 2, 3)
    metric: str = "ndcg@10"
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    pass_seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    model_files: tuple[str, ...] = ()

    def plan(self, validation: Validation) -> list[Step]:
        """All steps, most urgent first.

        What decides most comes first: the references; each row's search and its first seed; then the other seeds, best
        rows first, since close rows need them most.

        Args:
            validation: The validation metric of each trial that has run.
        """
        return sorted(self._steps(validation), key=lambda step: step.urgency)

    def _steps(self, validation: Validation) -> Iterator[Step]:
        for d, (data, source) in enumerate(self.data.items()):
            for r, reference in enumerate(self.references.get(data, ())):
                trial = reference_trial(data, source, reference)
                yield Step(data, reference, REFERENCE, 0, (trial,), urgency=(0, d, r))
            for r, row in enumerate(self.rows[data]):
                yield from self.row_steps(data, row, validation, (d, r))

    def row_steps(self, data: str, row: str, validation: Validation, place: tuple[int, int]) -> list[Step]:
        """The search of a row, where it has one, and the runs that measure it.

        Args:
            data, row: Which row.
            validation: What has run.
            place: Number of the data set and of the row.
        """
        entry = self.rows[data][row]
        if isinstance(entry, Recipe):
            return self._measuring(data, row, FIXED, entry, entry.training.num_train_epochs, validation, place)
        search = entry.steps(data, row, validation, (1, *place))
        setting = best_setting(search[-1], validation)
        if setting is None and finished(search[-1], validation):
            return search  # all of it failed
        recipe = None if setting is None else entry.recipe(setting)
        return search + self._measuring(data, row, FINAL, recipe, entry.epochs, validation, place, setting)

    def row_recipe(self, data: str, row: str, validation: Validation) -> Recipe | None:
        """The recipe that a row is measured with; None while its search has not chosen one."""
        entry = self.rows[data][row]
        if isinstance(entry, Recipe):
            return entry
        setting = best_setting(entry.steps(data, row, validation, ())[-1], validation)
        return None if setting is None else entry.recipe(setting)

    def _measuring(
        self,
        data: str,
        row: str,
        stage: str,
        recipe: Recipe | None,
        epochs: int,
        validation: Validation,
        place: tuple[int, int],
        setting: dict[str, Any] | None = None,
    ) -> list[Step]:
        """The first seed by itself, then the others; `recipe` is None where it is not decided."""
        d, r = place
        trials = () if recipe is None else seeded(data, row, stage, recipe, self.seeds, setting)
        score = (validation.get(trials[0].key) or 0.0) if trials else None
        urgencies = ((1, d, r, 1), (2, d, 0, r) if score is None else (2, d, -score, r))
        parts = ((self.seeds[:1], trials[:1]), (self.seeds[1:], trials[1:]))
        return [
            Step(data, row, stage, epochs, ran, 0 if trials else len(seeds), urgency)
            for (seeds, ran), urgency in zip(parts, urgencies, strict=True)
            if seeds
        ]
