"""How long an epoch of MovieLens-1M takes with the recipe's model: the paper's computation, without the compiled
kernels, and with them.

Each form is timed on some of the epoch's batches, in one process and interleaved rounds, and scaled by their targets.

    python benchmarks/epoch_time.py --data interactions.parquet
    python benchmarks/epoch_time.py --batches 2 --rounds 1      # generated histories, quick

Prints a table and writes benchmarks/results/epoch_time.json.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import Side, interleaved, official, report_header, write_report
from train_speed import LENGTH, PREFIXES, PerPrefix, generated, prefixes, without_kernel

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation
from modeling_glintru.data import LengthBucketSampler, SequenceCollator, TrainingWindows, read_interactions
from modeling_glintru.data.prepare import prepare
from modeling_glintru.machine import keep_freed_memory
from modeling_glintru.recipe import load_recipe

RESULTS = Path(__file__).parent / "results" / "epoch_time.json"


class WithoutKernels(Side):
    """Every prefix in one pass, by PyTorch's own operations."""

    def step(self, batch: dict[str, torch.Tensor]) -> None:
        with without_kernel():
            super().step(batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="ML-1M's interactions; generated histories of the same lengths where missing")
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    keep_freed_memory()
    recipe = load_recipe("ml-1m")
    data = prepare(read_interactions(args.data) if args.data else generated())
    windows = TrainingWindows(data.dataset["train"], LENGTH)
    size = recipe.training.train_batch_size
    order, collate = list(LengthBucketSampler(windows, size)), SequenceCollator(LENGTH)
    chosen = np.random.default_rng(1).choice(len(order) // size, args.batches, replace=False)
    batches = [collate(windows.__getitems__(order[i * size : (i + 1) * size])) for i in chosen]
    targets = sum(int((b["labels"] != -100).sum()) for b in batches)
    one_per_row = prefixes(batches, np.random.default_rng(2))

    def model(**options) -> GlintRUForSequentialRecommendation:
        torch.manual_seed(0)
        return GlintRUForSequentialRecommendation(
            GlintRUConfig(vocab_size=data.processor.vocab_size, **recipe.model, **options)
        )

    paper = PerPrefix(official(model()), False)
    sides = {
        "every prefix in one pass, plain PyTorch, float32": WithoutKernels(model(), False),
        "with the compiled kernels, float32": Side(model(), False),
        "with the compiled kernels, bf16": Side(model(), True),
    }
    name = "the paper's computation, one example a prefix, float32"
    runs: dict[str, Any] = {name: lambda: paper.step(one_per_row)}
    runs |= {key: lambda side=side: [side.step(b) for b in batches] for key, side in sides.items()}
    seconds = interleaved(runs, args.rounds)
    seconds[name] = [value / PREFIXES * targets for value in seconds[name]]
    rows = [
        {"what": key, "seconds_per_epoch": statistics.median(values) / targets * windows.num_targets}
        for key, values in seconds.items()
    ]
    for row in rows:
        print(f"{row['what']:<60}{row['seconds_per_epoch']:>12,.0f} s an epoch")
    about = {"targets_per_epoch": windows.num_targets, "measured_targets": targets, "rounds": args.rounds}
    write_report(args.output, {**report_header(), **about, "rows": rows})


if __name__ == "__main__":
    main()
