"""When one row's validation metric passed the best of another: training time at equal quality."""

from __future__ import annotations

from statistics import mean, median

from .rows import MAIN, DataReport, Row, training_seconds
from .trials import REFERENCE

__all__ = ["sooner"]


def sooner(report: DataReport, lead: Row, others: list[Row]) -> str:
    """Says when `lead` was as good as the best of the others at its best, of those that were timed on the same machine
    and see the same; empty where it never was, or where there is none.

    Args:
        report: The data set.
        lead: A row of GLINT-RU.
        others: What it is compared with.
    """
    metric = report.protocol.metric
    trained = [row for row in others if row.stage != REFERENCE]
    alike = [row for row in trained if (row.knows_time, row.machine) == (lead.knows_time, lead.machine)]
    runner_up = max(alike, key=lambda row: row.mean("validation", MAIN, metric) or 0, default=None)
    if runner_up is None:
        return ""
    goal = mean(max(point[metric] for point in line["curve"]) for line in runner_up.lines)
    passed = [_seconds_to(line, metric, goal) for line in lead.lines]
    if any(seconds is None for seconds in passed):
        return ""
    taken = median(seconds for seconds in passed if seconds is not None)
    return (
        f"On validation {lead.label} passed the best of {runner_up.label} ({goal:.4f}) after {taken:,.0f} s of its "
        f"{lead.seconds:,.0f}; {runner_up.label} was trained for {runner_up.seconds:,.0f} s.\n"
    )


def _seconds_to(line: dict, metric: str, goal: float) -> float | None:
    """Training time until the end of the first epoch that is as good; None where none is."""
    epoch = next((point["epoch"] for point in line["curve"] if point[metric] >= goal), None)
    return None if epoch is None else training_seconds(line) * epoch / line["epochs_run"]
