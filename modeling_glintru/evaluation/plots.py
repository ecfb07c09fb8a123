"""Draws learning curves with matplotlib, which is optional (`pip install glintru[plots]`)."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

__all__ = ["plot_learning_curves"]

logger = logging.getLogger(__name__)


def plot_learning_curves(
    log_history: Sequence[dict[str, Any]],
    path: str | os.PathLike[str],
    *,
    metric: str = "eval_ndcg@10",
    title: str = "Learning curves",
) -> bool:
    """Writes a PNG of the training loss and the validation metric against the epoch.

    Args:
        log_history: `trainer.state.log_history`.
        path: The file to write.
        metric: Key of the metric in the log.
        title: Title above both panels.

    Returns:
        Whether a picture was written. Without matplotlib or points to draw a warning is logged instead.
    """
    loss, scores = _points(log_history, "loss"), _points(log_history, metric)
    if not loss and not scores:
        logger.warning("No learning curves: the log has neither 'loss' nor %r; set logging_steps lower.", metric)
        return False
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        logger.warning("No learning curves: matplotlib is missing; pip install 'glintru[plots]' brings it.")
        return False
    figure = Figure(figsize=(7.5, 6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=13, fontweight="bold")
    upper, lower = figure.subplots(2, 1, sharex=True)
    name = metric.removeprefix("eval_").upper()
    _draw(upper, loss, "Training loss", "#30638e")
    _draw(lower, scores, f"Validation {name}", "#2a7f62")
    if scores:
        epoch, best = max(scores, key=lambda point: point[1])
        for panel in (upper, lower):
            panel.axvline(epoch, color="#c8553d", linestyle="--", linewidth=1, zorder=0)
        lower.plot([epoch], [best], "o", color="#c8553d", markersize=7)
        lower.set_title(f"best: {best:.4f} at epoch {epoch:g}", loc="right", fontsize=10, color="#c8553d")
    lower.set_xlabel("Epoch")
    figure.align_ylabels()
    figure.savefig(os.fspath(path), dpi=150, format="png")
    return True


def _points(log_history: Sequence[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    """The first value at each epoch; a later one is that of the best checkpoint, which was evaluated again."""
    points: dict[float, float] = {}
    for entry in log_history:
        if key in entry and "epoch" in entry:
            points.setdefault(entry["epoch"], entry[key])
    return list(points.items())


def _draw(panel: Any, points: list[tuple[float, float]], label: str, color: str) -> None:
    panel.set_ylabel(label)
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
    if points:
        marker = "o" if len(points) <= 60 else ""
        panel.plot(*zip(*points, strict=True), color=color, linewidth=1.8, marker=marker, markersize=3.5)
    else:
        panel.text(0.5, 0.5, "not logged", transform=panel.transAxes, ha="center", color="gray")
