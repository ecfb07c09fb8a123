"""What a selective state space costs, and what its kernel saves: python benchmarks/state_space_cost.py

A training step and a click of GLINT-RU with and without it, and a training step of Mamba4Rec (two blocks) with and
without the compiled scan, in turns in one process on one thread; medians, and ratios by round.
"""

from __future__ import annotations

from pathlib import Path

import torch
from measuring import CLICKS, STEP_SHAPES, Without, block, clicks, ten_steps, with_and_without

from modeling_glintru import GlintRUForSequentialRecommendation
from modeling_glintru.kernels import scan
from modeling_glintru.models.auto import MODELS

RESULTS = Path(__file__).parent / "results" / "state_space_cost.json"


def models(items: int) -> dict[str, GlintRUForSequentialRecommendation]:
    """The block without and with the state space, d = 128."""
    shares = {"without": 0.0, "with": 0.5}
    return {name: block(items, use_embedding_norm=True, state_space_share=share) for name, share in shares.items()}


def plain_scan(model: torch.nn.Module) -> torch.nn.Module:
    """A model whose scans, forward and backward, are PyTorch's."""
    return Without(model, scan, "can_fuse", lambda *arguments, **options: False)


def mamba4rec(items: int) -> torch.nn.Module:
    """Two blocks at d = 128, as the comparison on MovieLens-1M has it."""
    torch.manual_seed(0)
    config = MODELS["mamba4rec"].config_class(vocab_size=items + 1, hidden_size=128, num_hidden_layers=2)
    return MODELS["mamba4rec"](config)


def measure(rounds: int) -> list[tuple[str, int, dict[str, list[float]]]]:
    """All rows."""
    rows = [(name, 10, ten_steps(models(shape[0]), *shape, rounds)) for name, *shape in STEP_SHAPES]
    rows.append(("a click", CLICKS, clicks(models(3_416), rounds)))
    for name, *shape in STEP_SHAPES:
        sides = {"without": plain_scan(mamba4rec(shape[0])), "with": mamba4rec(shape[0])}
        rows.append((f"{name}, Mamba4Rec with the kernel", 10, ten_steps(sides, *shape, rounds)))
    return rows


if __name__ == "__main__":
    with_and_without(__doc__.splitlines()[0], RESULTS, measure)
