"""What R-Drop costs a training step: python benchmarks/r_drop_cost.py

With and without it, in turns in one process on one thread; medians, and ratios by round. Then its compiled kernel
against plain torch, with all else alike.
"""

from __future__ import annotations

from pathlib import Path

import torch
from measuring import STEP_SHAPES, ten_steps, with_and_without

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation, r_drop_glintru

RESULTS = Path(__file__).parent / "results" / "r_drop_cost.json"


def model(items: int, r_drop_alpha: float) -> GlintRUForSequentialRecommendation:
    """The two blocks of `amazon-beauty-best`."""
    torch.manual_seed(0)
    config = GlintRUConfig(
        vocab_size=items + 1,
        hidden_size=128,
        num_attention_heads=8,
        num_hidden_layers=2,
        average_share=0.5,
        normalize_scores=True,
        temperature=0.07,
        r_drop_alpha=r_drop_alpha,
    )
    return GlintRUForSequentialRecommendation(config)


class PlainTorch(torch.nn.Module):
    """A model whose loss is made without the kernel."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, **batch: torch.Tensor):
        kernel = r_drop_glintru.twin_cross_entropy_
        r_drop_glintru.twin_cross_entropy_ = lambda *arguments: None
        try:
            return self.inner(**batch)
        finally:
            r_drop_glintru.twin_cross_entropy_ = kernel


def measure(rounds: int) -> list[tuple[str, int, dict[str, list[float]]]]:
    """Steps with and without R-Drop, and of R-Drop with and without its kernel."""
    rows = []
    for name, items, *shape in STEP_SHAPES:
        sides = {"without": model(items, 0.0), "with": model(items, 1.0)}
        rows.append((name, 10, ten_steps(sides, items, *shape, rounds)))
        sides = {"without": PlainTorch(model(items, 1.0)), "with": model(items, 1.0)}
        rows.append((f"{name}, kernel", 10, ten_steps(sides, items, *shape, rounds)))
    return rows


if __name__ == "__main__":
    with_and_without(__doc__.splitlines()[0], RESULTS, measure)
