"""What the sections of docs/performance.md share: tables, prose, pictures, and where a report comes from."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
RESULTS, DOCS = ROOT / "benchmarks" / "results", ROOT / "docs"
COLOURS = {
    "GLINT-RU": "#c0392b",
    "SASRec": "#2c6fbb",
    "SASRec 4d": "#7fb2e5",
    "SASRec, attention dropout": "#b8c7d9",
    "GRU4Rec": "#7a9e3b",
}


def read(name: str) -> dict[str, Any]:
    """A benchmark's report."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; the first column is left-aligned."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def paragraph(text: str) -> str:
    """Prose in lines of a readable length."""
    return textwrap.fill(" ".join(text.split()), 118, break_on_hyphens=False, break_long_words=False) + "\n"


def ratio(value: dict[str, float]) -> str:
    return f"{value['median']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"


def machine(report: dict[str, Any]) -> str:
    """One line on where a report comes from."""
    about, versions = report["machine"], report["versions"]
    threads = about.get("threads") or about.get("cores")
    return f"{about['processor']}, {threads} threads; torch {versions['torch']}; commit {report['commit']}."


def picture(name: str, draw: Any, width: float = 8.0, height: float = 4.2, panels: int = 1) -> str:
    """Saves what `draw` puts on new axes as docs/NAME.png; gives the Markdown for it."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    draw(*axes)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="#dddddd", linewidth=0.8)
        ax.set_axisbelow(True)
    figure.savefig(DOCS / f"{name}.png", dpi=130)
    return f"![]({name}.png)"


def log_axes(ax: Axes, x: str, y: str) -> None:
    """Logarithmic axes with these labels, and a legend."""
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.legend(frameon=False)
