"""What a comparison found: a table for the terminal, a Markdown page, a JSON file and a chart."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..evaluation import write_metrics_json
from .plan import flat
from .rows import MAIN, OTHER, Report, Row, verdict
from .trials import METRICS, REFERENCE

__all__ = ["draw_intervals", "markdown_table", "terminal_table", "value_cell", "write_page"]

logger = logging.getLogger(__name__)
OURS, OTHERS = "#c8553d", "#30638e"
ABOUT = """\
{size} The table was split by `{split}`, and every model ranked the same candidates for the same test users: {ranked}.
Values are means over the seeds; intervals are 95 %, from a bootstrap over users and seeds. Differences are paired, over
the same users, and a model is called better or worse only where the interval of its difference excludes zero. Every
model {settings}. Validation chose the epochs; nothing was chosen on the test users.
"""
PAGE = """\
# {title}

{about}

{main}
{chart}
## Cost

Training is the median CPU time of one run, validation included; for one user all items are scored with one thread.

{cost}
## Settings

Train one of these models again, and keep it, with `glintru train --recipe recipes/MODEL.yaml --data FILE`.

{chosen}"""


def markdown_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, with a line break at its end."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def value_cell(value: float | None) -> str:
    """Four digits behind the point; a dash where nothing was measured."""
    return "–" if value is None else f"{value:.4f}"


def signed(value: float) -> str:
    """A difference with its sign."""
    return f"{value:+.4f}"


def bounds_cell(bounds: tuple[float, float]) -> str:
    """The interval of a value."""
    return f"[{bounds[0]:.4f}, {bounds[1]:.4f}]"


def signed_bounds(low: float, high: float) -> str:
    """The interval of a difference."""
    return f"[{signed(low)}, {signed(high)}]"


def seconds_cell(seconds: float) -> str:
    """A duration in seconds."""
    return f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.1f}"


def terminal_table(report: Report, first: str) -> str:
    """The rows with their differences to the first model, in at most 80 columns.

    Args:
        report: What was found.
        first: Name of the row that the others are compared with.
    """
    lead = next((row for row in report.rows if row.name == first), None)
    metric = report.metric.upper()
    cells = [["", metric, "95 % interval", "diff.", "95 % interval", ""]]
    for row in report.rows:
        cells.append([_cut(row.title), value_cell(row.mean("test", MAIN, report.metric)),
                      bounds_cell(report.interval(row))])  # fmt: skip
        if row is lead or lead is None:
            cells[-1] += ["", "", ""]
            continue
        value, low, high = report.difference(row, lead)
        cells[-1] += [signed(value), signed_bounds(low, high), verdict(low, high)]
    text = _aligned(cells)
    if lead is None:
        return text
    return f"{text}\n\nDifferences are to {lead.title}, over the same test users."


def _cut(text: str, width: int = 16) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _aligned(cells: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def write_page(report: Report, first: str, folder: Path, settings: str) -> list[Path]:
    """Writes `comparison.md`, `comparison.json` and, where matplotlib is there, `comparison.png`.

    Args:
        report: What was found, at least one row.
        first: Name of the row that the others are compared with.
        folder: The folder that gets the files.
        settings: How the settings came about, as the end of a sentence about every model.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page, numbers, chart = (folder / f"comparison.{ending}" for ending in ("md", "json", "png"))
    drawn = draw_intervals([report], chart)
    page.write_text(_markdown(report, first, settings, chart.name if drawn else None), encoding="utf-8")
    write_metrics_json(numbers, _numbers(report, first))
    return [page, numbers, *([chart] if drawn else [])]


def _markdown(report: Report, first: str, settings: str, chart: str | None) -> str:
    counts, metric = report.counts, report.metric
    lead = next((row for row in report.rows if row.name == first), None)
    titles = ["model", f"{metric.upper()}, 95 % interval", "HR@10", "MRR@10"]
    titles += [] if lead is None else [f"minus {lead.title}", "95 % interval", "is"]
    main = []
    for row in report.rows:
        cells = [row.title, f"{value_cell(row.mean('test', MAIN, metric))} {bounds_cell(report.interval(row))}"]
        cells += [value_cell(row.mean("test", MAIN, name)) for name in ("hr@10", "mrr@10")]
        if lead is not None:
            value, low, high = report.difference(row, lead)
            cells += ["–"] * 3 if row is lead else [signed(value), signed_bounds(low, high), verdict(low, high)]
        main.append(cells)
    trained = [row for row in report.rows if row.stage != REFERENCE]
    cost = [
        [row.title, f"{row.parameters:,}", f"{seconds_cell(row.seconds)} s", f"{row.latency:.2f} ms",
         ", ".join(f"{line['best_epoch']:g} of {line['epochs']}" for line in row.lines)]
        for row in trained
    ]  # fmt: skip
    chosen = [
        [row.title, _setting(row), value_cell(row.mean("validation", MAIN, metric)),
         " ".join(str(line["seed"]) for line in row.lines)]
        for row in trained
    ]  # fmt: skip
    about = ABOUT.format(
        size=(
            f"{counts['users']:,} users, {counts['items']:,} items, {counts['interactions']:,} interactions; "
            f"{counts['test_users']:,} test users."
        ),
        split=report.comparison.data[report.name].data.split,
        ranked="all items, and the user's past items compete"
        if report.recommends_seen
        else "all items that the user has not taken yet",
        settings=settings,
    )
    return PAGE.format(
        title=f"Models compared on {report.name}",
        about=textwrap.fill(" ".join(about.split()), 118, break_on_hyphens=False, break_long_words=False),
        main=markdown_table(titles, main),
        chart=f"![{metric.upper()} with 95 % intervals]({chart})\n" if chart else "",
        cost=markdown_table(["model", "parameters", "training", "one user", "best epochs"], cost),
        chosen=markdown_table(["model", "setting", f"validation {metric.upper()}", "seeds"], chosen),
    )


def _setting(row: Row) -> str:
    """What a search chose, or what the recipe of the row says of its size and steps."""
    line = row.lines[0]
    setting = line["setting"]
    if setting is None:
        recipe = line["recipe"]
        model = {key: value for key, value in recipe["model"].items() if key != "name"}
        training = {key: recipe["training"][key] for key in ("learning_rate", "max_length")}
        setting = model | {"loss": recipe["loss"].get("name", "cross_entropy")} | training
    return ", ".join(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
                     for key, value in flat(setting).items())  # fmt: skip


def _numbers(report: Report, first: str) -> dict[str, Any]:
    """Everything of the page, and more metrics, for programs."""
    lead = next((row for row in report.rows if row.name == first), None)
    found: dict[str, Any] = {}
    for row in report.rows:
        entry: dict[str, Any] = {"model": row.model, "seeds": [line["seed"] for line in row.lines]}
        for split in ("validation", "test"):
            entry[split] = {name: row.mean(split, MAIN, name) for name in METRICS}
        entry["test_past_items_the_other_way"] = {name: row.mean("test", OTHER, name) for name in METRICS}
        entry["interval"] = list(report.interval(row))
        if lead is not None and row is not lead:
            value, low, high = report.difference(row, lead)
            entry["difference"] = {"to": first, "value": value, "low": low, "high": high, "is": verdict(low, high)}
        entry |= {"parameters": row.parameters, "training_seconds": row.seconds, "one_user_ms": row.latency}
        entry |= {"device": row.device, "setting": row.lines[0]["setting"], "recipe": row.lines[0]["recipe"]}
        found[row.name] = entry
    head: Mapping[str, Any] = {"data": report.name, "counts": report.counts, "metric": report.metric}
    return {**head, "recommend_seen": report.recommends_seen, "first": first, "models": found}


def draw_intervals(reports: Sequence[Report], file: Path) -> bool:
    """Draws each row's metric with its interval, one panel a data set, two panels beside each other.

    Args:
        reports: One a data set, each with at least one row.
        file: The picture.

    Returns:
        Whether it was drawn: False, with a logged hint, without matplotlib.
    """
    figure, panels = new_figure(reports, [0.22 * len(report.rows) + 1.0 for report in reports])
    if figure is None:
        return False
    for panel, report in zip(panels, reports, strict=True):
        for place, row in enumerate(reversed(report.rows)):
            low, high = report.interval(row)
            panel.plot([low, high], [place, place], color=_color(row), linewidth=2)
            panel.plot([row.mean("test", MAIN, report.metric) or 0.0], [place], "o", color=_color(row), markersize=5)
        panel.set_yticks(range(len(report.rows)), [row.label for row in reversed(report.rows)])
        panel.locator_params(axis="x", nbins=5)
    save_figure(figure, f"Test {reports[0].metric.upper()} with 95 % intervals", file)
    return True


def new_figure(reports: Sequence[Report], heights: Sequence[float]) -> tuple[Any, list[Any]]:
    """A figure as wide as a page with one panel for each report; None, with a logged hint, without matplotlib.

    Args:
        reports: What the panels are about.
        heights: Height of each panel, in inches.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        logger.warning("No chart: matplotlib is missing; pip install 'glintru[plots]' brings it.")
        return None, []
    figure = Figure(figsize=(8, 0.4 + sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(reports), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for panel, report in zip(panels, reports, strict=True):
        panel.set_title(report.name, fontsize=11)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=9)
    return figure, list(panels)


def save_figure(figure: Any, title: str, file: Path) -> None:
    """Writes the picture; without matplotlib's version in it, the same numbers give the same file."""
    figure.suptitle(title, fontsize=12, fontweight="bold")
    figure.savefig(file, dpi=110, format="png", metadata={"Software": None})


def _color(row: Row) -> str:
    return OURS if row.model == "glintru" else OTHERS
