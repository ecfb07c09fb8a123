"""Evaluations as tables and metrics.json, and whether a model beats what needs no training."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .._version import __version__
from ..errors import DataError
from ..whole_files import whole_file
from .evaluate import Evaluation, MetricTable
from .metrics import bootstrap_interval, per_user_metrics

__all__ = [
    "REFERENCE_TITLES",
    "against",
    "collect_metrics",
    "format_table",
    "library_versions",
    "no_better_than",
    "write_metrics_json",
]

# What people read for the names of the reference models.
REFERENCE_TITLES = {
    "popularity": "popularity",
    "item_knn": "item-kNN",
    "own_newest": "own items, newest first",
    "own_frequent": "own items, most often first",
}


def against(model: Evaluation, references: Mapping[str, Evaluation]) -> dict[str, dict[str, float]]:
    """The model's NDCG minus that of each reference, in the ranking that is served, with paired 95 % intervals.

    Args:
        model: Of the model.
        references: Of other scorers by name, over the same targets in the same order.

    Returns:
        For each name `{"value": ..., "low": ..., "high": ...}`: the mean difference, and its interval over users.

    Raises:
        DataError: A reference was measured over another number of targets.
    """
    k = min(model.ks)
    found = {}
    for name, reference in references.items():
        if reference.num_targets != model.num_targets:
            raise DataError(
                f"{name} was measured over {reference.num_targets} targets, the model over {model.num_targets}"
            )
        ours, theirs = (per_user_metrics(each.ranks[model.main], [k])[f"ndcg@{k}"] for each in (model, reference))
        low, high = bootstrap_interval(ours - theirs, model.num_bootstrap, seed=model.seed, users=model.users)
        found[name] = {"value": float(np.mean(ours - theirs)), "low": low, "high": high}
    return found


def no_better_than(differences: Mapping[str, Mapping[str, float]], k: int) -> str | None:
    """A sentence that names each reference which the model does not surely beat; None where it beats all.

    Args:
        differences: From `against`, or the entry `against` of a `metrics.json`.
        k: Cutoff of the NDCG in them.
    """
    worst = {name: entry for name, entry in differences.items() if name in REFERENCE_TITLES and entry["low"] <= 0}
    if not worst:
        return None
    said = "; ".join(
        f"{REFERENCE_TITLES[name]} (difference of NDCG@{k} {entry['value']:+.4f} [{entry['low']:+.4f}, "
        f"{entry['high']:+.4f}])"
        for name, entry in worst.items()
    )
    return f"This model is not better than {said}: the 95 % interval of the paired difference is not above zero."


def library_versions() -> dict[str, str]:
    """Versions that a number depends on: python, torch, transformers, datasets, glintru."""
    names = ("torch", "transformers", "datasets")
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in names},
        "glintru": __version__,
    }


def collect_metrics(
    measured: Evaluation,
    split: str = "test",
    *,
    validation: Evaluation | None = None,
    baselines: Mapping[str, Evaluation] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Everything that `metrics.json` holds.

    Args:
        measured: The model on a split, the test split for example: gives `test`, `test_with_history`, `test_pop100`, …
        split: `"test"` or `"validation"`.
        validation: The model on the validation split too; gives `validation`, …
        baselines: Evaluations of the same split by name; each gives `{name: {"test": …, "test_with_history": …}}`, and
            its paired difference from the model under `against`.
        fields: More entries that JSON can hold: `recipe`, `seed`, …

    Returns:
        One dict, `versions` included. `main` names the table of the ranking that is served, `recurring_targets` is the
        share of the targets that stand in the history before them.
    """
    metrics: dict[str, Any] = {"main": measured.main_table(split), "recurring_targets": measured.recurring}
    metrics.update(measured.tables(split))
    if validation is not None:
        metrics.update(validation.tables("validation"))
    metrics.update({name: evaluation.tables(split) for name, evaluation in (baselines or {}).items()})
    metrics["against"] = against(measured, baselines or {})
    counts = {f"num_{split}_users": measured.num_users, f"num_{split}_targets": measured.num_targets}
    return {**counts, **metrics, **fields, "versions": library_versions()}


def write_metrics_json(path: str | os.PathLike[str], metrics: Mapping[str, Any]) -> None:
    """Write `metrics` as strict, indented JSON; the file appears whole or not at all.

    NumPy numbers become plain ones.

    Raises:
        ValueError: For NaN or infinity, which JSON does not have.
    """
    text = json.dumps(metrics, indent=2, allow_nan=False, default=_plain)
    with whole_file(Path(path)) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8")


def format_table(
    rows: Mapping[str, MetricTable],
    metrics: Sequence[str] = ("ndcg@10", "hr@10", "mrr@10"),
    *,
    title: str | None = None,
    width: int = 100,
) -> str:
    """A table of plain text: a row for each model, a column for each metric with its interval.

    Args:
        rows: Metric tables by the model's name, in the order to print.
        metrics: Columns; more than fit side by side go into a second block below.
        title: A line above.
        width: Longest line, in characters (one name and one column are always printed).

    Returns:
        The table, without a line break at the end.
    """
    names = max(len(name) for name in ["model", *rows])
    cells = {metric: [_label(metric), *(_cell(table.get(metric)) for table in rows.values())] for metric in metrics}
    blocks: list[list[str]] = [[]]
    used = names
    for metric in metrics:
        column = 2 + max(map(len, cells[metric]))
        if blocks[-1] and used + column > width:
            blocks.append([])
            used = names
        blocks[-1].append(metric)
        used += column
    lines = [title] if title else []
    for number, block in enumerate(blocks):
        lines += [""] if number else []
        for index, name in enumerate(["model", *rows]):
            parts = [name.ljust(names), *(cells[metric][index].ljust(max(map(len, cells[metric]))) for metric in block)]
            lines.append("  ".join(parts).rstrip())
        lines.insert(-len(rows), "-" * max(len(line) for line in lines[-len(rows) - 1 :]))
    return "\n".join(lines)


def _label(metric: str) -> str:
    return metric.upper()


def _cell(entry: Mapping[str, float] | None) -> str:
    return "-" if entry is None else f"{entry['value']:.4f} [{entry['low']:.4f}, {entry['high']:.4f}]"


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"JSON cannot hold a {type(value).__name__}")
