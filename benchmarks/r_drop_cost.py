"""What R-Drop costs a training step: python benchmarks/r_drop_cost.py

With and without it, in turns in one process on one thread; medians, and ratios by round. Then its compiled kernel
against plain torch, with all else alike.
"""

from __future__ import annotations

from pathlib import Path

import torch
from measuring import STEP_SHAPES, Without, cosine_block, ten_steps, with_and_without

from modeling_glintru.kernels import softmax
from modeling_glintru.models.losses import NextItemLoss

RESULTS = Path(__file__).parent / "results" / "r_drop_cost.json"


def model(items: int, r_drop_alpha: float) -> torch.nn.Module:
    """With two blocks."""
    made = cosine_block(items, num_hidden_layers=2)
    made.training_loss = NextItemLoss(r_drop_alpha=r_drop_alpha)
    return made


def plain_torch(model: torch.nn.Module) -> torch.nn.Module:
    """A model whose loss is made without the kernel."""
    return Without(model, softmax, "kernel_gradient_", lambda *arguments: None)


def measure(rounds: int) -> list[tuple[str, int, dict[str, list[float]]]]:
    """Steps with and without R-Drop, and of R-Drop with and without its kernel."""
    rows = []
    for name, items, *shape in STEP_SHAPES:
        sides = {"without": model(items, 0.0), "with": model(items, 1.0)}
        rows.append((name, 10, ten_steps(sides, items, *shape, rounds)))
        sides = {"without": plain_torch(model(items, 1.0)), "with": model(items, 1.0)}
        rows.append((f"{name}, kernel", 10, ten_steps(sides, items, *shape, rounds)))
    return rows


if __name__ == "__main__":
    with_and_without(__doc__.splitlines()[0], RESULTS, measure)
