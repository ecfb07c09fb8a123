"""What `cooccurrence_smoothing` costs a training step: python benchmarks/smoothing_cost.py

With and without it, in turns in one process on one thread; medians, and ratios by round. The items near each other are
those of random histories, as many and as long as those of Beauty and of MovieLens-1M, some items more popular.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from measuring import STEP_SHAPES, Side, cosine_block, ten_steps, with_and_without

from modeling_glintru.training.cooccurrence import NeighborSmoothing, near_pairs, neighbors

RESULTS = Path(__file__).parent / "results" / "smoothing_cost.json"
HISTORIES = ((22_363, 7), (6_040, 164))  # how many, and their length; in the order of STEP_SHAPES


def near(items: int, users: int, length: int) -> torch.Tensor:
    """The matrix of items near each other in random histories."""
    random = np.random.default_rng(0)
    popularity = 1 / (np.arange(items) + 100)
    drawn = 1 + random.choice(items, (users, length), p=popularity / popularity.sum())
    return neighbors(near_pairs(Dataset.from_dict({"item_ids": drawn.tolist()}), items + 1))


def measure(rounds: int) -> list[tuple[str, int, dict[str, list[float]]]]:
    """Steps with and without smoothing."""
    rows = []
    for (name, items, *shape), histories in zip(STEP_SHAPES, HISTORIES, strict=True):
        matrix = near(items, *histories)

        def smooth(side: Side, matrix: torch.Tensor = matrix) -> None:
            NeighborSmoothing(side.model.get_input_embeddings(), matrix, 1.0).attach(side.optimizer)

        sides = {side: cosine_block(items, num_hidden_layers=2) for side in ("without", "with")}
        seconds = ten_steps(sides, items, *shape, rounds, prepare={"with": smooth})
        rows.append((f"{name}, {matrix._nnz() / items:,.0f} near items each", 10, seconds))
    return rows


if __name__ == "__main__":
    with_and_without(__doc__.splitlines()[0], RESULTS, measure)
