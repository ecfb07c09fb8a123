"""Quality with intervals, against training time, and against latency; matplotlib is optional (`glintru[plots]`)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .rows import MAIN, DataReport, Row
from .trials import REFERENCE

__all__ = ["draw_charts"]

logger = logging.getLogger(__name__)
OURS, OTHERS = "#c8553d", "#30638e"
PANEL_WIDTH, AROUND = 340.0, 1.1  # a panel, in points, and what is above and below it, in inches; about
LETTER_WIDTH, LINE_HEIGHT = 4.4, 11.0
BESIDE, LINE_WIDTH = 5, 9  # from a point to its label, in points; and more where a line goes between them
LABEL_SHIFTS = [4, -11, *(sign * (11 + 12 * n) for n in range(1, 40) for sign in (1, -1))]


def draw_charts(reports: Sequence[DataReport], page: Path) -> list[tuple[Path, str]]:
    """Draws a panel a data set.

    Args:
        reports: One a data set.
        page: The page that shows them: `results.md` gets `results_quality.png`, `results_training_time.png` and
            `results_latency.png`.

    Returns:
        `(file, title)` of each chart; nothing, with a logged hint, without matplotlib, or where nothing has run.
    """
    shown = [report for report in reports if report.rows]
    if not shown:
        return []
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        logger.warning("No charts: matplotlib is missing; pip install 'glintru[plots]' brings it.")
        return []
    metric = shown[0].protocol.metric.upper()
    kinds = (
        ("quality", f"{metric} with 95 % intervals", _quality),
        ("training_time", f"{metric} against training time", _training_time),
        ("latency", f"{metric} against the time for one user", _latency),
    )
    charts = []
    for ending, title, draw in kinds:
        tallest = max(len(report.rows) for report in shown)
        figure = Figure(figsize=(5.5 * len(shown), 1.5 + max(3.0, 0.32 * tallest)), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title, fontsize=13, fontweight="bold")
        for panel, report in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            panel.set_title(report.name, fontsize=10)
            panel.grid(alpha=0.25)
            panel.spines[["top", "right"]].set_visible(False)
            draw(panel, report, metric)
        file = page.with_name(f"{page.stem}_{ending}.png")
        # Without the version of matplotlib in it, the same numbers give the same file.
        figure.savefig(file, dpi=110, format="png", metadata={"Software": None})
        charts.append((file, title))
    return charts


def _value(report: DataReport, row: Row) -> float:
    return row.mean("test", MAIN, report.protocol.metric) or 0.0


def _color(row: Row) -> str:
    return OURS if row.model == "glintru" else OTHERS


def _quality(panel: Any, report: DataReport, metric: str) -> None:
    for place, row in enumerate(reversed(report.rows)):
        low, high = report.interval(row)
        panel.plot([low, high], [place, place], color=_color(row), linewidth=2)
        panel.plot([_value(report, row)], [place], "o", color=_color(row), markersize=6)
    panel.set_yticks(range(len(report.rows)), [row.label for row in reversed(report.rows)])
    panel.locator_params(axis="x", nbins=6)
    panel.set_xlabel(f"test {metric}, past items excluded")


def _training_time(panel: Any, report: DataReport, metric: str) -> None:
    device = _scatter(panel, report, lambda row: row.seconds, metric)
    panel.set_xlabel(f"training, seconds of one {'core' if device == 'cpu' else 'GPU'}")


def _latency(panel: Any, report: DataReport, metric: str) -> None:
    device = _scatter(panel, report, lambda row: row.latency, metric)
    panel.set_xlabel(f"scores for one user, ms, {'one thread' if device == 'cpu' else 'on a GPU'}")


def _scatter(panel: Any, report: DataReport, x: Callable[[Row], float], metric: str) -> str:
    """The rows that are trained; where there are some on a CPU, only those. Returns the kind of device.

    The references would stretch the axis by orders of magnitude, and seconds of a GPU have no place among those of a
    core. A letter tells the machine, as in the table: only times of one machine compare.
    """
    trained = [row for row in report.rows if row.stage != REFERENCE]
    devices = {row.device for row in trained}
    device = "cpu" if "cpu" in devices or not devices else min(devices)
    rows = [row for row in trained if row.device == device]
    intervals = [report.interval(row) for row in rows]
    # From zero, so that lengths compare; room for the labels, which stand to the right.
    width = 1.45 * max(map(x, rows), default=1)
    height = max((high for _, high in intervals), default=1) - min((low for low, _ in intervals), default=0)
    points = 72 * (panel.figure.get_figheight() - AROUND) / 1.1  # of the height; the rest are margins
    taken: list[tuple[float, float, float]] = []  # begin, end and height of the labels so far, in points
    for row, (low, high) in zip(rows, intervals, strict=True):
        place, value = x(row), _value(report, row)
        panel.plot([place, place], [low, high], color=_color(row), linewidth=1, alpha=0.6)
        panel.plot([place], [value], "o", color=_color(row), markersize=6)
        label = row.label + report.machine_marks.get(row.machine, "")
        begin, up = place / width * PANEL_WIDTH, value / height * points
        end = begin + LINE_WIDTH + len(label) * LETTER_WIDTH
        # Beside its point, or above or below it with a line to it where a neighbour's label stands.
        shift = next(s for s in LABEL_SHIFTS if not any(_meets((begin, end, up + s), other) for other in taken))
        taken.append((begin, end, up + shift))
        moved = shift != LABEL_SHIFTS[0]
        line = {"arrowstyle": "-", "color": _color(row), "linewidth": 0.5, "relpos": (0, 0.5)}
        panel.annotate(
            label,
            (place, value),
            xytext=(BESIDE + LINE_WIDTH if moved else BESIDE, shift),
            textcoords="offset points",
            fontsize=8,
            arrowprops=line if moved else None,
        )
    panel.set_xlim(0, width)
    panel.set_ylabel(f"test {metric}")
    return device


def _meets(one: tuple[float, float, float], other: tuple[float, float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1] and abs(one[2] - other[2]) < LINE_HEIGHT
