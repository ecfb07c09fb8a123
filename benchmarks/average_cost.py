"""What the moving average of a block costs: python benchmarks/average_cost.py

A training step and a click, with and without it, in turns in one process on one thread; medians, and ratios by round.
"""

from __future__ import annotations

from pathlib import Path

from measuring import CLICKS, STEP_SHAPES, block, clicks, ten_steps, with_and_without

from modeling_glintru import GlintRUForSequentialRecommendation

RESULTS = Path(__file__).parent / "results" / "average_cost.json"


def models(items: int) -> dict[str, GlintRUForSequentialRecommendation]:
    """The block without and with the average, d = 128."""
    shares = {"without": 0.0, "with": 0.5}
    return {name: block(items, average_share=share) for name, share in shares.items()}


def measure(rounds: int) -> list[tuple[str, int, dict[str, list[float]]]]:
    """Training steps of both shapes, and clicks."""
    steps = [(name, 10, ten_steps(models(shape[0]), *shape, rounds)) for name, *shape in STEP_SHAPES]
    return [*steps, ("a click", CLICKS, clicks(models(3_416), rounds))]


if __name__ == "__main__":
    with_and_without(__doc__.splitlines()[0], RESULTS, measure)
