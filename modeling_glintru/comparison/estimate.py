"""How long trials will take: from those that ran, else from what the protocol declares.

What is declared was timed on one machine, with one batch: it is scaled by what the models that ran took of it. Both
are scaled by the passes over the data in an epoch: a share of the prefixes, or two passes with R-Drop.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from .protocol import DataProtocol
from .schedule import Step
from .trials import Trial

__all__ = ["Estimate"]

DECLARED_SIZE = 64  # the width that a protocol's `seconds_per_epoch` is about
UNKNOWN = 60.0  # CPU seconds an epoch where nobody has said anything
START = 10.0  # seconds of a trial beside its epochs: building, measuring


def _passes(recipe: Mapping[str, Any]) -> float:
    """Over the data, in one epoch of a recipe with the sections `model`, `loss` and `training`."""
    loss = recipe.get("loss") or recipe["model"]  # where older lines have it
    both = 2 if loss.get("r_drop_alpha") else 1
    return both * recipe.get("training", {}).get("prefix_share", 1.0)


class Estimate:
    """
    Args:
        data: Data set to its protocol.
        records: Lines of trials that ran.
    """

    def __init__(self, data: Mapping[str, DataProtocol], records: Iterable[Mapping[str, Any]]) -> None:
        self.data = data
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
        seconds = self.data[data].seconds_per_epoch.get(model) if data in self.data else None
        return None if seconds is None else float(seconds) * hidden_size / DECLARED_SIZE / self._share(data, model)

    def _share(self, data: str, model: str) -> float:
        """Of the prefixes, in an epoch of the protocol."""
        own = self.data[data].models.get(model) if data in self.data else None
        return (own or {}).get("prefix_share", 1.0)

    def trial(self, trial: Trial) -> float:
        """Seconds of one trial that runs to its last epoch."""
        size = trial.recipe.model.get("hidden_size")
        seconds = self.seconds_per_pass(trial.data, trial.model, size)
        return START + trial.epochs * seconds * _passes(trial.recipe.to_dict())

    def step(self, step: Step, done: Mapping[str, Any]) -> float:
        """Seconds of what is left of a step, trials that are not decided yet included."""
        model = step.trials[0].model if step.trials else step.row.partition(":")[0]
        undecided = START + step.epochs * self.seconds_per_pass(step.data, model) * self._share(step.data, model)
        return step.undecided * undecided + sum(self.trial(t) for t in step.trials if t.key not in done)
