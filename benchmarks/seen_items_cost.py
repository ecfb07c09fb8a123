"""What leaving seen items out of the softmax costs a training step: python benchmarks/seen_items_cost.py

With it ("with") and without, in turns in one process on one thread; medians, and ratios by round.
"""

from __future__ import annotations

from pathlib import Path

from measuring import STEP_SHAPES, cosine_block, ten_steps, with_and_without

from modeling_glintru.models.losses import NextItemLoss

RESULTS = Path(__file__).parent / "results" / "seen_items_cost.json"


def measure(rounds: int) -> list[tuple[str, int, dict[str, list[float]]]]:
    """Steps that leave them out and that do not, of one pass and of R-Drop's two."""
    rows = []
    for name, items, *shape in STEP_SHAPES:
        for alpha in (0.0, 1.0):
            sides = {"without": cosine_block(items), "with": cosine_block(items)}
            for side, model in sides.items():
                model.training_loss = NextItemLoss(r_drop_alpha=alpha, seen_items_in_softmax=side == "without")
            rows.append((f"{name}, R-Drop" if alpha else name, 10, ten_steps(sides, items, *shape, rounds)))
    return rows


if __name__ == "__main__":
    with_and_without(__doc__.splitlines()[0], RESULTS, measure)
