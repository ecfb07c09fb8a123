"""What the moving average of a block costs: python benchmarks/average_cost.py

A training step and a click, with and without it, in turns in one process on one thread; medians, and ratios by round.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from measuring import STEP_SHAPES, interleaved, ten_steps, with_and_without

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation
from modeling_glintru.serving.step import make_step

RESULTS = Path(__file__).parent / "results" / "average_cost.json"
CLICKS = 2_000


def models(items: int) -> dict[str, GlintRUForSequentialRecommendation]:
    """The block without and with the average, d = 128."""
    torch.manual_seed(0)
    sizes = {"vocab_size": items + 1, "hidden_size": 128, "num_attention_heads": 8}
    shares = {"without": 0.0, "with": 0.5}
    return {n: GlintRUForSequentialRecommendation(GlintRUConfig(**sizes, average_share=s)) for n, s in shares.items()}


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
    steps = [(name, 10, ten_steps(models(shape[0]), *shape, rounds)) for name, *shape in STEP_SHAPES]
    return [*steps, ("a click", CLICKS, clicks(3_416, rounds))]


if __name__ == "__main__":
    with_and_without(__doc__.splitlines()[0], RESULTS, measure)
