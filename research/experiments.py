"""What the measurements of this folder share: a training that leaves no files, and files of one JSON object a line."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from modeling_glintru.data import PreparedData
from modeling_glintru.evaluation import ModelScorer, RankingMetrics, evaluate, target_ranks
from modeling_glintru.evaluation.metrics import per_user_metrics
from modeling_glintru.recipe import Recipe
from modeling_glintru.training import TrainingResult, train
from modeling_glintru.training.start import Start


def train_aside(
    recipe: Recipe, data: PreparedData, start: Start | None = None, metrics: RankingMetrics | None = None
) -> tuple[TrainingResult, float]:
    """A training that leaves no files, judged by ndcg@10 or by `metrics`, and its CPU seconds."""
    before = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        result = train(
            recipe,
            data,
            Path(folder),
            compute_metrics=metrics or RankingMetrics((10,)),
            preprocess_logits_for_metrics=target_ranks,
            start=start,
            progress=False,
            say=lambda _: None,
        )
    return result, time.process_time() - before


def ndcg_of_users(scorer: ModelScorer, split: Dataset, item_counts: np.ndarray) -> np.ndarray:
    """NDCG@10 of each target of a split, past items excluded."""
    ranks = evaluate(scorer, split, ks=(10,), item_counts=item_counts, progress=False).ranks["full"]
    return per_user_metrics(ranks, (10,))["ndcg@10"]


def read_lines(results: Path) -> list[dict[str, Any]]:
    """What stands in a file of one JSON object a line."""
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]


def add_line_or_page(
    parser: argparse.ArgumentParser,
    results: Path,
    needs: Sequence[str],
    measure: Callable[[argparse.Namespace], dict[str, Any]],
    table: Callable[[], str],
) -> None:
    """The command of a measurement that adds a line to its file: measures on one thread, writes, prints the table.

    Args:
        parser: With the measurement's own options; `--page`, which only prints the table, comes here.
        results: Where the line goes.
        needs: Options without which nothing is measured.
        measure: From the options to the line.
        table: All lines for people.
    """
    parser.add_argument("--page", action="store_true", help="only print the table")
    options = parser.parse_args()
    if not options.page:
        if not all(getattr(options, name) for name in needs):
            parser.error(f"give {' and '.join(f'--{name}' for name in needs)}, or --page")
        torch.set_num_threads(1)
        line = measure(options)
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    print(table())


def share(text: str) -> float:
    """A number above 0 and up to 1, for `type=` of an option."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError("a share is above 0 and up to 1")
    return value
