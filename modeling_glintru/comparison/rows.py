"""The rows of a comparison's tables, with intervals over users and seeds, out of the lines of a results file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import mean, median
from typing import Any

import numpy as np

from ..errors import DataError
from ..evaluation import per_user_metrics
from ..evaluation.report import REFERENCE_TITLES
from ..models.auto import MODELS, model_label
from .plan import Comparison
from .results import USERS, Results, main_column
from .trials import FINAL, FIXED, REFERENCE, TOP_K, Step

__all__ = ["MAIN", "OTHER", "Report", "Row", "RowSamples", "interval", "resampled_rows", "row_label", "verdict"]

Line = dict[str, Any]
BOTH = ("full", "full_with_history")
MAIN, OTHER = "main", "other"  # of these two: the ranking that is served, and the one beside it
RowSamples = dict[str, np.ndarray]
"""Row to its mean in each resample, float64 (num_bootstrap,)."""


def resampled_rows(
    rows: Mapping[str, Sequence[np.ndarray]],
    num_bootstrap: int = 2000,
    seed: int = 0,
    users: np.ndarray | None = None,
) -> RowSamples:
    """Hierarchical bootstrap: each resample draws users, the same ones for all rows, and for each row its seeds.

    The difference of two rows in the same resample is a paired one: `samples["a"] - samples["b"]`. With few seeds the
    part of the interval that comes from seeds is too small (by sqrt((n - 1) / n) for n of them).

    Args:
        rows: Row to one array a seed: the metric of each target, float (targets,), in the same order everywhere.
        num_bootstrap: Number of resamples.
        seed: The same seed gives the same samples.
        users: The user of each target, integer (targets,), counted from 0; each target is a user of its own when not
            given.

    Raises:
        DataError: The rows are about different targets.
    """
    runs = [values for row in rows.values() for values in row]
    if not runs or any(values.shape != runs[0].shape or values.ndim != 1 for values in runs):
        raise DataError(f"rows are compared over the same users, found {sorted({np.shape(run) for run in runs})}")
    generator = np.random.default_rng(seed)
    stacked = np.stack(runs).astype(np.float64)
    num_users = stacked.shape[1] if users is None else int(users.max()) + 1
    means = np.empty((num_bootstrap, len(runs)))
    for resample in range(num_bootstrap):
        drawn = np.bincount(generator.integers(0, num_users, num_users), minlength=num_users)
        times = drawn if users is None else drawn[users]
        means[resample] = stacked @ times / times.sum()
    samples: RowSamples = {}
    first = 0
    for name, row in rows.items():
        seeds = generator.integers(0, len(row), (num_bootstrap, len(row)))
        samples[name] = np.take_along_axis(means[:, first : first + len(row)], seeds, axis=1).mean(axis=1)
        first += len(row)
    return samples


def interval(samples: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """The percentile interval of resampled values."""
    low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def verdict(low: float, high: float) -> str:
    """What may be said about a difference: `better` and `worse` only where its interval excludes zero."""
    return "better" if low > 0 else "worse" if high < 0 else "open"


def row_label(row: str, model: str) -> str:
    """What a row is called for people: `GLINT-RU`, `GLINT-RU (paper)`."""
    if model in REFERENCE_TITLES:
        title = REFERENCE_TITLES[model]
        return title[0].upper() + title[1:]
    name = model_label(MODELS[model])
    return name if row == model else f"{name} ({row})"


def training_seconds(line: Line) -> float:
    """CPU seconds of one thread, or wall seconds on another device."""
    return line["cpu_seconds" if line["device"] == "cpu" else "seconds"]


@dataclass(frozen=True)
class Row:
    """The measured runs of one row, one a seed.

    Args:
        name: The row in the results file.
        stage: See `Trial`.
        lines: The lines of its runs, at least one.
        mark: Stands behind the row's label.
    """

    name: str
    stage: str
    lines: list[Line]
    mark: str = ""

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.lines[0]["model"]

    @property
    def title(self) -> str:
        """The row for people, without its mark."""
        return row_label(self.name, self.model)

    @property
    def label(self) -> str:
        """The row for people, with its mark."""
        return self.title + self.mark

    def mean(self, split: str, column: str, metric: str) -> float | None:
        """Mean over seeds; None where the column was not measured.

        Args:
            split: `"validation"` or `"test"`.
            column: The ranking: `MAIN` for the one that is served, `OTHER` for the same with past items the other way.
            metric: A metric such as `"ndcg@10"`.
        """
        main = main_column(self.lines[0])
        column = {MAIN: main, OTHER: next(name for name in BOTH if name != main)}.get(column, column)
        if any(column not in line[split] for line in self.lines):
            return None
        return mean(line[split][column][metric] for line in self.lines)

    @property
    def knows_time(self) -> bool:
        """Whether its scores depend on the time of the request, which other rows do not see."""
        return bool(self.lines[0].get("recipe", {}).get("model", {}).get("use_time_gaps"))

    @property
    def seconds(self) -> float:
        """Median training time of a run: CPU seconds of one thread, or wall seconds on another device."""
        return median(map(training_seconds, self.lines))

    @property
    def device(self) -> str:
        """The device that its first run was trained on: `"cpu"`, `"cuda"`."""
        return self.lines[0]["device"]

    @property
    def machine(self) -> str:
        """The machine that its times were taken on; times of different machines do not compare."""
        names = []
        for line in self.lines:
            processor = line.get("processor", "a processor that was not written down")
            shared = line["device"] != "cpu" and line.get("workers", 1) > 1  # wall time, while others use it too
            precision = "" if self.stage == REFERENCE else f", {'bf16' if line['bf16'] else 'fp32'}"
            names.append(processor + precision + (f", {line['workers']} runs at a time" if shared else ""))
        return " and ".join(dict.fromkeys(names))

    @property
    def latency(self) -> float:
        """Median milliseconds for one user."""
        return median(line["latency_ms"] for line in self.lines)

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return self.lines[0]["parameters"]


@dataclass(frozen=True)
class Report:
    """What a comparison has found on one data set.

    Args:
        name: The data set.
        comparison: Its declaration; the setting of a row with a search is the one that validation chooses.
        results: The files of the results.
        num_bootstrap: Resamples of the intervals.
    """

    name: str
    comparison: Comparison
    results: Results
    num_bootstrap: int = 2000
    lines: dict[str, Line] = field(init=False)
    steps: list[Step] = field(init=False)

    def __post_init__(self) -> None:
        steps = self.comparison.plan(self.results.validation(self.name, self.metric))
        object.__setattr__(self, "lines", self.results.read(self.name))
        object.__setattr__(self, "steps", [step for step in steps if step.data == self.name])

    @property
    def metric(self) -> str:
        """The metric that rows are compared by."""
        return self.comparison.metric

    @property
    def counts(self) -> dict[str, int]:
        """Users, items, interactions and test users; empty before anything has run."""
        return next((line["data_counts"] for line in self.lines.values() if "data_counts" in line), {})

    @property
    def recommends_seen(self) -> bool:
        """Whether past items are recommended again on this data set, and so stand in its main ranking."""
        return any(main_column(line) != "full" for line in self.lines.values())

    @cached_property
    def rows(self) -> list[Row]:
        """Rows of the plan with at least one measured run, best test value first."""
        planned = {trial.key for step in self.steps for trial in step.trials}
        return self.by_value([row for stage in (FINAL, FIXED, REFERENCE) for row in self.rows_of(stage, planned)])

    def by_value(self, rows: list[Row]) -> list[Row]:
        """The rows with the best test value first."""
        return sorted(rows, key=lambda row: -(row.mean("test", MAIN, self.metric) or 0))

    def rows_of(self, stage: str, keys: set[str] | None = None) -> list[Row]:
        """The rows of a stage, from the runs with these keys, or else from each row's newest setting."""
        by_row: dict[str, list[Line]] = {}
        for key, line in self.lines.items():
            if line["stage"] == stage and line["status"] == "done" and (keys is None or key in keys):
                by_row.setdefault(line["row"], []).append(line)
        newest = {row: lines[-1]["group"] for row, lines in by_row.items()}
        return [
            Row(row, stage, sorted((line for line in lines if line["group"] == newest[row]), key=_seed))
            for row, lines in by_row.items()
        ]

    @cached_property
    def machine_marks(self) -> dict[str, str]:
        """` (a)` and so on for each machine that times of trained rows were taken on; empty where it is one."""
        machines = list(dict.fromkeys(row.machine for row in self.rows if row.stage != REFERENCE))
        return {machine: f" ({chr(97 + i)})" for i, machine in enumerate(machines)} if len(machines) > 1 else {}

    def user_metrics(self, row: Row) -> list[np.ndarray]:
        """The metric of each test target, ranked as the data set is served: one array a seed."""
        ranks = [self.results.ranks(self.name, line["key"])[main_column(line)] for line in row.lines]
        return [per_user_metrics(rank, TOP_K)[self.metric] for rank in ranks]

    @property
    def compared(self) -> list[Row]:
        """The rows that have intervals."""
        return self.rows

    @cached_property
    def samples(self) -> RowSamples:
        """Resampled means of the metric, of all compared rows over the same users."""
        rows = {row.name: self.user_metrics(row) for row in self.compared}
        if not rows:
            return {}
        users = self.results.ranks(self.name, self.compared[0].lines[0]["key"]).get(USERS)
        return resampled_rows(rows, self.num_bootstrap, users=users)

    def interval(self, row: Row) -> tuple[float, float]:
        """95 % interval of a row's mean, over users and seeds."""
        return interval(self.samples[row.name])

    def difference(self, row: Row, other: Row) -> tuple[float, float, float]:
        """`row` minus `other`, with its 95 % interval: value, low, high."""
        value = (row.mean("test", MAIN, self.metric) or 0) - (other.mean("test", MAIN, self.metric) or 0)
        return (value, *interval(self.samples[row.name] - self.samples[other.name]))


def _seed(line: Line) -> int:
    return line["seed"]
