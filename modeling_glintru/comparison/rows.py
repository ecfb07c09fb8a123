"""The rows of the tables, out of the lines of a results file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import mean, median
from typing import Any

import numpy as np

from ..evaluation import per_user_metrics
from ..evaluation.report import REFERENCE_TITLES
from ..models.auto import MODELS, model_label
from ..recipe import Recipe
from .bootstrap import RowSamples, interval, resampled_rows
from .protocol import TOP_K, Protocol
from .results import Results, main_column
from .schedule import Selection, Step, compute_alike, plan, taken_apart
from .trials import ABLATION, FINAL, PRESET, REFERENCE

__all__ = ["MAIN", "OTHER", "DataReport", "Row", "row_label", "training_seconds"]

Line = dict[str, Any]
BORROWED_MARK = "†"
BOTH = ("full", "full_with_history")
MAIN, OTHER = "main", "other"  # of these two: the ranking that is served, and the one beside it
REFERENCE_LABELS = {name: title[0].upper() + title[1:] for name, title in REFERENCE_TITLES.items()}


def row_label(row: str, model: str) -> str:
    """What a row is called for people: `GLINT-RU`, `GLINT-RU (paper)`."""
    if model in REFERENCE_LABELS:
        return REFERENCE_LABELS[model]
    name = model_label(MODELS[model])
    return name if row == model else f"{name} ({row})"


def training_seconds(line: Line) -> float:
    """CPU seconds of one thread, or wall seconds on another device."""
    return line["cpu_seconds" if line["device"] == "cpu" else "seconds"]


@dataclass(frozen=True)
class Row:
    """The measured runs of one model, preset or ablation, one a seed.

    Args:
        name: The row in the results file.
        stage: See `Trial`.
        lines: Its lines, at least one.
        borrowed: Whether its own search has not run: its setting is that of another model's.
    """

    name: str
    stage: str
    lines: list[Line]
    borrowed: bool = False

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.lines[0]["model"]

    @property
    def base(self) -> str:
        """The row that an ablation takes apart; elsewhere the row itself."""
        return self.name.partition(": ")[0]

    @property
    def change(self) -> str:
        """What an ablation changes, as the protocol calls it; elsewhere empty."""
        return self.name.partition(": ")[2]

    @property
    def label(self) -> str:
        """The row for people, with a mark where its setting is borrowed."""
        return self.title + self.mark

    @property
    def title(self) -> str:
        """The same without the mark."""
        return row_label(self.name, self.model)

    @property
    def mark(self) -> str:
        """A dagger where its own search has not run."""
        return BORROWED_MARK if self.borrowed else ""

    def mean(self, split: str, column: str, metric: str) -> float | None:
        """Mean over seeds; None where the column was not measured.

        Args:
            split: `"validation"` or `"test"`.
            column: Of the ranking: `MAIN` for what is served, `OTHER` for the same with past items the other way.
            metric: Such as `"ndcg@10"`.
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
        """What its first run was trained on: `"cpu"`, `"cuda"`."""
        return self.lines[0]["device"]

    @property
    def machine(self) -> str:
        """What its times were taken on; times of different machines do not compare."""
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
        """Numbers that are trained."""
        return self.lines[0]["parameters"]


@dataclass(frozen=True)
class DataReport:
    """All that is known about one data set.

    Args:
        name: The data set.
        protocol, selection: What is tuned; the setting of a tuned row is the one that validation chooses.
        results: The files.
        num_bootstrap: Resamples of the intervals.
    """

    name: str
    protocol: Protocol
    selection: Selection
    results: Results
    num_bootstrap: int = 2000
    lines: dict[str, Line] = field(init=False)
    steps: list[Step] = field(init=False)

    def __post_init__(self) -> None:
        done = self.results.validation(self.name, self.protocol.metric)
        steps = plan(self.protocol, self.selection, done)
        object.__setattr__(self, "lines", self.results.read(self.name))
        object.__setattr__(self, "steps", [step for step in steps if step.data == self.name])

    @property
    def counts(self) -> dict[str, int]:
        """Users, items, interactions, test users; empty before anything has run."""
        return next((line["data_counts"] for line in self.lines.values() if "data_counts" in line), {})

    @property
    def recommends_seen(self) -> bool:
        """Whether past items are recommended again on this data set, and so stand in its main ranking."""
        return any(main_column(line) != "full" for line in self.lines.values())

    @cached_property
    def rows(self) -> list[Row]:
        """Models, presets and references that have at least one measured run, best test value first."""
        chosen = {trial.key for step in self.steps if step.stage == FINAL for trial in step.trials}
        rows = [*self._rows(FINAL, chosen), *self._rows(PRESET), *self._rows(REFERENCE)]
        searched = {row.name for row in rows}
        looks = {key for key, line in self.lines.items() if line.get("setting_of") and line["row"] not in searched}
        rows += [replace(row, borrowed=True) for row in self._rows(FINAL, looks)]
        return sorted(rows, key=lambda row: -(row.mean("test", MAIN, self.protocol.metric) or 0))

    @cached_property
    def machine_marks(self) -> dict[str, str]:
        """` (a)` and so on for each machine that times of trained rows were taken on; nothing where it is one."""
        machines = list(dict.fromkeys(row.machine for row in self.rows if row.stage != REFERENCE))
        return {machine: f" ({chr(97 + i)})" for i, machine in enumerate(machines)} if len(machines) > 1 else {}

    @cached_property
    def ablations(self) -> list[Row]:
        """Those of the rows' settings as they are now, in the order of the protocol, the others after them."""
        order = list(self.protocol.ablations)

        def place(row: Row) -> tuple[str, int]:
            return row.base, order.index(row.change) if row.change in order else len(order)

        return sorted(filter(self._is_current, self._rows(ABLATION)), key=place)

    def base(self, ablation: Row) -> Row | None:
        """The row that an ablation takes apart; None where it has not run."""
        return next((row for row in self.rows if row.name == ablation.base), None)

    def _is_current(self, ablation: Row) -> bool:
        """Whether an ablation takes its row's setting apart as it is now, and not one that the row had before."""
        row, overrides = self.base(ablation), self.protocol.ablations.get(ablation.change)
        if row is None or overrides is None:
            return True
        now, then = (Recipe.from_dict(lines[0]["recipe"]) for lines in (row.lines, ablation.lines))
        due = taken_apart(now, overrides)
        if due is None:
            return False
        return compute_alike(replace(then, data=due.data, model=due.model, training=due.training), then)

    def _rows(self, stage: str, keys: set[str] | None = None) -> list[Row]:
        """Rows of a stage: only the given runs, or each row's newest setting."""
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
    def leads(self) -> list[tuple[Row, list[Row]]]:
        """The row of GLINT-RU that is best on validation, and those that it is compared with; maybe empty.

        Rows that see the time of the request have a lead of their own, which is compared with all; the other lead is
        compared with the rows that see no more than it does.
        """
        found = []
        for knows_time in (False, True):
            ours = [row for row in self.rows if row.model == "glintru" and row.knows_time == knows_time]
            if ours:
                lead = max(ours, key=lambda row: row.mean("validation", MAIN, self.protocol.metric) or 0)
                seen = [row for row in self.rows if row is not lead and (knows_time or not row.knows_time)]
                found.append((lead, seen))
        return [(lead, others) for lead, others in found if others]

    def user_metrics(self, row: Row, metric: str) -> list[np.ndarray]:
        """The metric of each test user, ranked as the data set is served: one array a seed."""
        ranks = [self.results.ranks(self.name, line["key"])[main_column(line)] for line in row.lines]
        return [per_user_metrics(rank, TOP_K)[metric] for rank in ranks]

    @cached_property
    def samples(self) -> RowSamples:
        """Resampled means of the protocol's metric, of all rows and ablations over the same users."""
        rows = {row.name: self.user_metrics(row, self.protocol.metric) for row in [*self.rows, *self.ablations]}
        return resampled_rows(rows, self.num_bootstrap) if rows else {}

    def interval(self, row: Row) -> tuple[float, float]:
        """95 % interval of a row's mean, over users and seeds."""
        return interval(self.samples[row.name])

    def difference(self, row: Row, other: Row) -> tuple[float, float, float]:
        """`row` minus `other`, with its 95 % interval: value, low, high."""
        metric = self.protocol.metric
        value = (row.mean("test", MAIN, metric) or 0) - (other.mean("test", MAIN, metric) or 0)
        return (value, *interval(self.samples[row.name] - self.samples[other.name]))


def verdict(low: float, high: float) -> str:
    """What may be said about a difference: `better` and `worse` only where its interval excludes zero."""
    return "better" if low > 0 else "worse" if high < 0 else "open"


def _seed(line: Line) -> int:
    return line["seed"]
