"""Quality against training time and against latency, one panel a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from modeling_glintru.comparison.page import draw_intervals, new_figure, save_figure
from modeling_glintru.comparison.rows import MAIN, Report, Row
from modeling_glintru.comparison.trials import REFERENCE

__all__ = ["draw_charts"]

OURS, OTHERS = "#c8553d", "#30638e"
PANEL_WIDTH, PANEL_HEIGHT, AROUND = 500.0, 4.6, 0.9  # a panel, in points and inches, and what is around it, in inches
LETTER_WIDTH, LINE_HEIGHT = 4.7, 11.0
BESIDE, LINE_WIDTH = 5, 9  # from a point to its label, in points; and more where a line goes between them
LABEL_SHIFTS = [4, -11, *(sign * (11 + 12 * n) for n in range(1, 40) for sign in (1, -1))]


def draw_charts(reports: Sequence[Report], page: Path) -> list[tuple[Path, str]]:
    """Draws the charts of a page.

    Args:
        reports: One a data set.
        page: The page that shows them: `results.md` gets `results_quality.png`, `results_training_time.png` and
            `results_latency.png`.

    Returns:
        `(file, title)` of each chart; nothing, with a logged hint, without matplotlib, or where nothing has run.
    """
    shown = [report for report in reports if report.rows]
    file = page.with_name(f"{page.stem}_quality.png")
    if not shown or not draw_intervals(shown, file):
        return []
    metric = shown[0].metric.upper()
    charts = [(file, f"{metric} with 95 % intervals")]
    for ending, title, draw in (
        ("training_time", f"{metric} against training time", _training_time),
        ("latency", f"{metric} against the time for one user", _latency),
    ):
        figure, panels = new_figure(shown, [PANEL_HEIGHT] * len(shown))
        for panel, report in zip(panels, shown, strict=True):
            draw(panel, report)
        file = page.with_name(f"{page.stem}_{ending}.png")
        save_figure(figure, title, file)
        charts.append((file, title))
    return charts


def _training_time(panel: Any, report: Report) -> None:
    device = scatter(panel, report, lambda row: row.seconds)
    panel.set_xlabel(f"training, seconds of one {'core' if device == 'cpu' else 'GPU'}")


def _latency(panel: Any, report: Report) -> None:
    device = scatter(panel, report, lambda row: row.latency)
    panel.set_xlabel(f"scores for one user, ms, {'one thread' if device == 'cpu' else 'on a GPU'}")


def scatter(panel: Any, report: Report, x: Callable[[Row], float]) -> str:
    """Draws the rows that are trained; where there are some on a CPU, only those. Returns the kind of device.

    The references would stretch the axis by orders of magnitude, and seconds of a GPU have no place among those of a
    core. A letter tells the machine, as in the table: only times of one machine compare.
    """
    trained = [row for row in report.rows if row.stage != REFERENCE]
    devices = {row.device for row in trained}
    device = "cpu" if "cpu" in devices or not devices else min(devices)
    rows = [row for row in trained if row.device == device]
    intervals = [report.interval(row) for row in rows]
    # From zero, so that lengths compare; room for the labels, which stand to the right.
    width = 1.35 * max(map(x, rows), default=1)
    height = max((high for _, high in intervals), default=1) - min((low for low, _ in intervals), default=0)
    points = 72 * (PANEL_HEIGHT - AROUND) / 1.1  # of the height; the rest are margins
    taken: list[tuple[float, float, float]] = []  # begin, end and height of the labels so far, in points
    for row, (low, high) in zip(rows, intervals, strict=True):
        place, value = x(row), row.mean("test", MAIN, report.metric) or 0.0
        color = OURS if row.model == "glintru" else OTHERS
        panel.plot([place, place], [low, high], color=color, linewidth=1, alpha=0.6)
        panel.plot([place], [value], "o", color=color, markersize=6)
        label = row.label + report.machine_marks.get(row.machine, "")
        begin, up = place / width * PANEL_WIDTH, value / height * points
        end = begin + LINE_WIDTH + len(label) * LETTER_WIDTH
        # Beside its point, or above or below it with a line to it where a neighbour's label stands.
        shift = next(s for s in LABEL_SHIFTS if not any(_meets((begin, end, up + s), other) for other in taken))
        taken.append((begin, end, up + shift))
        moved = shift != LABEL_SHIFTS[0]
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.5, "relpos": (0, 0.5)}
        panel.annotate(
            label,
            (place, value),
            xytext=(BESIDE + LINE_WIDTH if moved else BESIDE, shift),
            textcoords="offset points",
            fontsize=8.5,
            arrowprops=line if moved else None,
        )
    panel.set_xlim(0, width)
    panel.set_ylabel(f"test {report.metric.upper()}")
    return device


def _meets(one: tuple[float, float, float], other: tuple[float, float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1] and abs(one[2] - other[2]) < LINE_HEIGHT
