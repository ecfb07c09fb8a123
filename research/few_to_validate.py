"""What early stopping is worth where few users validate.

    python -m research.few_to_validate --data ml-100k
    python -m research.few_to_validate --page

The first line trains once with the rule of `glintru train --data FILE`, to the end of the schedule, and keeps NDCG@10
of each validation user after each epoch. Then some of the users are drawn, again and again, to choose the epoch, with a
patience or without, and the others say what it is worth. It adds a line to
records/exploration/few_to_validate.jsonl; `--page` prints the table of research/tuning.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from modeling_glintru.comparison.page import markdown_table, value_cell
from modeling_glintru.comparison.run_trial import commit
from modeling_glintru.evaluation import RankingMetrics
from modeling_glintru.evaluation.metrics import per_user_metrics

from .default_rule import by_rule, of_data, what
from .experiments import add_line_or_page, read_lines, share, train_aside

RESULTS = Path(__file__).parent / "records" / "exploration" / "few_to_validate.jsonl"
VALIDATING = (40, 80, 160, 320, 640)
PATIENCES = (5, 10, None)
DRAWS = 2_000


class RememberingMetrics(RankingMetrics):
    """Also keeps NDCG@10 of each user, an array an epoch."""

    def __init__(self) -> None:
        super().__init__((10,))
        self.epochs: list[np.ndarray] = []

    def __call__(self, prediction: Any, compute_result: bool = True) -> dict[str, float]:
        found = super().__call__(prediction, compute_result=False)
        if compute_result:
            self.epochs.append(per_user_metrics(np.concatenate(self._ranks), (10,))["ndcg@10"])
            self.reset()
            found = {"ndcg@10": float(self.epochs[-1].mean())}
        return found


def stopped_at(values: np.ndarray, patience: int | None) -> tuple[int, int]:
    """The epoch that is kept, from 0, and how many are run, when these are its validation metrics."""
    best = 0
    for epoch, value in enumerate(values):
        if value > values[best]:
            best = epoch
        if patience is not None and epoch - best >= patience:
            return best, epoch + 1
    return best, len(values)


def simulate(users: np.ndarray, draws: int = DRAWS) -> list[dict[str, Any]]:
    """What the other users get, and the epochs that are run: a row for each number of users that choose and patience.

    Args:
        users: NDCG@10, (epochs, users).
        draws: Times that the users who choose are drawn.
    """
    generator = np.random.default_rng(0)
    rows = []
    for count in VALIDATING:
        if 2 * count > users.shape[1]:
            continue
        kept: dict[int | None, list[tuple[float, int]]] = {patience: [] for patience in PATIENCES}
        for _ in range(draws):
            choosing = np.zeros(users.shape[1], bool)
            choosing[generator.permutation(users.shape[1])[:count]] = True
            means, others = users[:, choosing].mean(1), users[:, ~choosing].mean(1)
            for patience in PATIENCES:
                best, epochs = stopped_at(means, patience)
                kept[patience].append((float(others[best]), epochs))
        for patience, pairs in kept.items():
            value, epochs = np.mean(pairs, axis=0)
            worst = float(np.quantile([pair[0] for pair in pairs], 0.05))
            row = {"validating": count, "patience": patience, "ndcg@10": round(float(value), 5)}
            rows.append(row | {"lowest 5 %": round(worst, 5), "epochs": round(float(epochs), 1)})
    return rows


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Trains once, and gives the line."""
    data, _, recipe = by_rule(options, ["early_stopping_patience=null"])
    metrics = RememberingMetrics()
    _, seconds = train_aside(recipe, data, metrics=metrics)
    users = np.stack(metrics.epochs)
    return {
        **of_data(options),
        "commit": commit(),
        **{"cpu_seconds": round(seconds), "curve": [round(float(value), 5) for value in users.mean(1)]},
        "rows": simulate(users),
    }


def table() -> str:
    """All that was simulated."""
    rows = []
    for line in read_lines(RESULTS):
        for row in line["rows"]:
            patience = "none" if row["patience"] is None else str(row["patience"])
            values = [value_cell(row["ndcg@10"]), value_cell(row["lowest 5 %"]), f"{row['epochs']:g}"]
            rows.append([what(line), str(row["validating"]), patience, *values])
    return markdown_table(
        ["data", "users that choose", "patience", "NDCG@10 of the others", "lowest 5 %", "epochs"], rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="NAME[=FILE]")
    parser.add_argument("--users", type=share, default=1.0, help="share of the users")
    parser.set_defaults(newest=1.0, split="leave_one_out")
    add_line_or_page(parser, RESULTS, ("data",), measure, table)


if __name__ == "__main__":
    main()
