"""What the moving average of a block costs: python benchmarks/average_cost.py

A training step and a click, with and without it, in turns in one process on one thread; medians, and ratios by round.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from measuring import Side, interleaved, with_and_without

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation
from modeling_glintru.serving.step import make_step

RESULTS = Path(__file__).parent / "results" / "average_cost.json"
# Name, items, windows a step, their length: of Beauty with 750 targets a step, of ML-1M with 500.
SHAPES = (("short histories", 12_101, 120, 12), ("long histories", 3_416, 3, 170))
CLICKS = 2_000


def models(items: int) -> dict[str, GlintRUForSequentialRecommendation]:
    """The block without and with the average, d = 128."""
    torch.manual_seed(0)
    sizes = {"vocab_size": items + 1, "hidden_size": 128, "num_attention_heads": 8}
    shares = {"without": 0.0, "with": 0.5}
    return {n: GlintRUForSequentialRecommendation(GlintRUConfig(**sizes, average_share=s)) for n, s in shares.items()}


def training(items: int, windows: int, length: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of ten training steps by side and round."""
    ids = torch.randint(1, items + 1, (windows, length + 1))
    ids[::2, : length // 2] = 0
    batch = {"input_ids": ids[:, :-1], "attention_mask": (ids[:, :-1] > 0).long()}
    batch["labels"] = ids[:, 1:].masked_fill(ids[:, :-1] == 0, -100)
    sides = {name: Side(model, bf16=False) for name, model in models(items).items()}

    def run(side: Side) -> None:
        for _ in range(10):
            side.step(batch)

    return interleaved({name: (lambda side=side: run(side)) for name, side in sides.items()}, rounds)


def clicks(items: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of `CLICKS` clicks of one user by side and round."""
    stream = np.random.default_rng(0).integers(1, items + 1, (CLICKS, 1))

    def run(step) -> None:
        rows = step.empty(1)
        for count, item in enumerate(stream):
            rows = step.advance(rows, np.array([count]), item)

    steps = {name: make_step(model.eval()) for name, model in models(items).items()}
    return interleaved({name: (lambda step=step: run(step)) for name, step in steps.items()}, rounds)


def measure(rounds: int) -> list[tuple[str, int, dict[str, list[float]]]]:
    """Training steps of both shapes, and clicks."""
    steps = [(name, 10, training(*shape, rounds)) for name, *shape in SHAPES]
    return [*steps, ("a click", CLICKS, clicks(3_416, rounds))]


if __name__ == "__main__":
    with_and_without(__doc__.splitlines()[0], RESULTS, measure)
