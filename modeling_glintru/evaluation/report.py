"""Writes evaluations as tables and as metrics.json, and compares a model with references that need no training."""

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
from ..terminal import WIDTH, printable
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

NAME_WIDTH = 30  # of a model in a table
# The names of the reference models as they are printed.
REFERENCE_TITLES = {
    "popularity": "popularity",
    "item_knn": "item-kNN",
    "own_newest": "own items, newest first",
    "own_frequent": "own items, most often first",
}


def against(model: Evaluation, references: Mapping[str, Evaluation]) -> dict[str, dict[str, float]]:
    """The model's NDCG minus that of each reference, in the ranking that is served, with paired 95 % intervals.

    Args:
        model: The evaluation of the model.
        references: By name the evaluations of other scorers over the same targets in the same order.

    Returns:
        For each name `{"value": ..., "low": ..., "high": ...}`: the mean difference and its interval over users.

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
    """A sentence that names each reference that the model does not surely beat, or None where it beats all of them.

    `differences` is what `against` gave, or the entry `against` of a `metrics.json`; `k` is the cutoff of its NDCG.
    """
    worst = {name: entry for name, entry in differences.items() if name in REFERENCE_TITLES and entry["low"] <= 0}
    if not worst:
        return None
    named = "; ".join(
        f"{REFERENCE_TITLES[name]} (difference of NDCG@{k} {entry['value']:+.4f} [{entry['low']:+.4f}, "
        f"{entry['high']:+.4f}])"
        for name, entry in worst.items()
    )
    return f"This model is not better than {named}: the 95 % interval of the paired difference is not above zero."


def library_versions() -> dict[str, str]:
    """Versions that a number depends on: python, torch, transformers, datasets, glintru."""
    libraries = {name: metadata.version(name) for name in ("torch", "transformers", "datasets")}
    return {"python": platform.python_version(), **libraries, "glintru": __version__}


def collect_metrics(
    measured: Evaluation,
    split: str = "test",
    *,
    validation: Evaluation | None = None,
    baselines: Mapping[str, Evaluation] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Everything that `metrics.json` holds, with the versions of the libraries.

    `main` names the table of the ranking that is served, and `recurring_targets` is the share of the targets that stand
    in the history before them.

    Args:
        measured: The model on a split; its tables are named `test`, `test_with_history`, `test_pop100`, ….
        split: `"test"` or `"validation"`.
        validation: The model on the validation split too; its tables are named `validation`, ….
        baselines: By name the evaluations of other scorers on the same split; each gives an entry
            `{name: {"test": …, "test_with_history": …}}` and a paired difference from the model under `against`.
        fields: Further entries that JSON can hold, such as `recipe` and `seed`.
    """
    baselines = baselines or {}
    return {
        f"num_{split}_users": measured.num_users,
        f"num_{split}_targets": measured.num_targets,
        "main": measured.table_name(split),
        "recurring_targets": measured.recurring,
        **measured.tables(split),
        **({} if validation is None else validation.tables("validation")),
        **{name: evaluation.tables(split) for name, evaluation in baselines.items()},
        "against": against(measured, baselines),
        **fields,
        "versions": library_versions(),
    }


def write_metrics_json(path: str | os.PathLike[str], metrics: Mapping[str, Any]) -> None:
    """Writes `metrics` as indented JSON, with NumPy numbers and arrays as plain ones.

    The file is written under another name and then renamed, so that nobody reads half of it.

    Raises:
        ValueError: There is a NaN or an infinity, which JSON does not have.
    """
    text = json.dumps(metrics, indent=2, allow_nan=False, default=_plain)
    with whole_file(Path(path)) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8")


def format_table(
    rows: Mapping[str, MetricTable],
    metrics: Sequence[str] = ("ndcg@10", "hr@10", "mrr@10"),
    *,
    title: str | None = None,
    width: int = WIDTH,
) -> str:
    """A table of plain text: a row for each model, and a column for each metric with its interval.

    Args:
        rows: Metric tables by the model's name, in the order to print.
        metrics: Columns; those that do not fit side by side follow in another block.
        title: A line above the table.
        width: Longest line in characters, but the names and one column are always printed. Of a long name, such as a
            path, the end is printed.
    """
    ends = (name if len(name) <= NAME_WIDTH else "…" + name[1 - NAME_WIDTH :] for name in map(printable, rows))
    names = _aligned(["model", *ends])
    columns = [_aligned([metric.upper(), *(_cell(table.get(metric)) for table in rows.values())]) for metric in metrics]
    blocks = [[names]]
    for column in columns:
        used = sum(2 + len(cells[0]) for cells in blocks[-1])
        if len(blocks[-1]) > 1 and used + len(column[0]) > width:
            blocks.append([names])
        blocks[-1].append(column)
    texts = []
    for block in blocks:
        head, *body = ("  ".join(cells).rstrip() for cells in zip(*block, strict=True))
        texts.append("\n".join([head, "-" * max(map(len, [head, *body])), *body]))
    return (f"{title}\n" if title else "") + "\n\n".join(texts)


def _aligned(cells: list[str]) -> list[str]:
    """The cells, filled with blanks to one width."""
    return [cell.ljust(max(map(len, cells))) for cell in cells]


def _cell(entry: Mapping[str, float] | None) -> str:
    """Without the zeros before the points of the interval, so that three metrics fit side by side."""
    if entry is None:
        return "-"
    low, high = (f"{entry[end]:.4f}".removeprefix("0") for end in ("low", "high"))
    return f"{entry['value']:.4f} [{low}, {high}]"


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"JSON cannot hold a {type(value).__name__}")
