"""How long trials will take, from those that ran, or from what the comparison declares.

What is declared was timed on another machine: it is scaled by what the models that ran took of it. Both are scaled by
the passes over the data in an epoch: a share of the prefixes, or two passes with R-Drop.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from ..models.auto import MODELS
from ..recipe import Recipe
from ..recipe.rule import DataShape
from .plan import Comparison
from .trials import Step, Trial

__all__ = ["Estimate", "declared_seconds"]

DECLARED_SIZE = 64  # the `hidden_size` that declared seconds are about
UNKNOWN = 60.0  # CPU seconds of a pass where nothing is declared
START = 10.0  # CPU seconds of a trial beside its epochs: building the model and measuring it
# CPU seconds of one target in training at `hidden_size` 64, and of each of its scores; of several models on MovieLens
# and Amazon data, on one core.
TARGET, SCORE = 1.5e-5, 8e-9


def declared_seconds(shape: DataShape) -> dict[str, float]:
    """About what one pass over data of a shape takes, in CPU seconds, by model."""
    windows = shape.targets * (TARGET + SCORE * shape.items)
    # A model of prefixes reads the history before each target, which it learns from alone.
    prefixes = windows + shape.targets * TARGET * min(shape.interactions / max(shape.users, 1), 100)
    return {name: prefixes if kind.training_examples == "prefixes" else windows for name, kind in MODELS.items()}


def _passes(recipe: Mapping[str, Any]) -> float:
    """Passes over the data in one epoch of a recipe with the sections `model`, `loss` and `training`."""
    loss = recipe.get("loss") or recipe["model"]  # where older lines have it
    both = 2 if loss.get("r_drop_alpha") else 1
    return both * recipe.get("training", {}).get("prefix_share", 1.0)


class Estimate:
    """Estimates the CPU seconds of trials.

    Args:
        comparison: The comparison that the trials belong to.
        records: Lines of trials that ran.
    """

    def __init__(self, comparison: Comparison, records: Iterable[Mapping[str, Any]]) -> None:
        self.comparison = comparison
        found: dict[tuple, list[float]] = defaultdict(list)
        for record in records:
            on_core = record.get("device", "cpu") == "cpu"  # the CPU seconds of a run on a GPU say nothing here
            if record["status"] == "done" and record.get("epochs_run") and on_core:
                seconds = record["cpu_seconds"] / record["epochs_run"] / _passes(record["recipe"])
                fields = record["recipe"]["model"]
                found[record["data"], record["model"], fields.get("hidden_size")].append(seconds)
                found[record["data"], record["model"], None].append(seconds)
        self.measured = {key: statistics.median(values) for key, values in found.items()}
        shares: dict[str, list[float]] = defaultdict(list)
        for (name, model, size), seconds in self.measured.items():
            if size and (declared := self._declared(name, model, size)):
                shares[name].append(seconds / declared)
        self.scale = {name: statistics.median(values) for name, values in shares.items()}

    def seconds_per_pass(self, data: str, model: str, hidden_size: int | None = None) -> float:
        """One pass over the data with a model, of that width or of any."""
        for size in (hidden_size, None):
            if (data, model, size) in self.measured:
                return self.measured[data, model, size]
        size = hidden_size or DECLARED_SIZE
        declared = self._declared(data, model, size)
        return UNKNOWN * size / DECLARED_SIZE if declared is None else declared * self.scale.get(data, 1.0)

    def _declared(self, data: str, model: str, hidden_size: int) -> float | None:
        seconds = self.comparison.pass_seconds.get(data, {}).get(model)
        return None if seconds is None else seconds * hidden_size / DECLARED_SIZE

    def trial(self, trial: Trial) -> float:
        """Seconds of one trial that runs to its last epoch."""
        size = trial.recipe.model.get("hidden_size")
        seconds = self.seconds_per_pass(trial.data, trial.model, size)
        return START + trial.epochs * seconds * _passes(trial.recipe.to_dict())

    def step(self, step: Step, done: Mapping[str, Any]) -> float:
        """Seconds of what is left of a step, trials that are not decided yet included."""
        seconds = sum(self.trial(trial) for trial in step.trials if trial.key not in done)
        if step.undecided:
            entry = self.comparison.rows[step.data][step.row.partition(":")[0]]
            base = entry if isinstance(entry, Recipe) else entry.base
            one = self.seconds_per_pass(step.data, base.model_name) * _passes(base.to_dict())
            seconds += step.undecided * (START + step.epochs * one)
        return seconds
