"""What the time of the request costs: python benchmarks/time_gaps_cost.py

A training step, and a recommendation after a click, with and without it, in turns in one process on one thread;
medians, and ratios by round.
"""

from __future__ import annotations

from pathlib import Path

import torch
from measuring import Side, cosine_block, interleaved, with_and_without

from modeling_glintru import GlintRUProcessor
from modeling_glintru.serving import StreamingRecommender

RESULTS = Path(__file__).parent / "results" / "time_gaps_cost.json"
ITEMS, WINDOWS, LENGTH = 12_101, 120, 12  # a step of Beauty with 750 targets
SIDES = {"without": False, "with": True}
ANSWERS = 500


def training(rounds: int) -> dict[str, list[float]]:
    """Seconds of ten training steps by side and round."""
    ids = torch.randint(1, ITEMS + 1, (WINDOWS, LENGTH + 1))
    ids[::2, LENGTH // 2 :] = 0
    batch = {"input_ids": ids[:, :-1], "attention_mask": (ids[:, :-1] > 0).long()}
    batch["labels"] = ids[:, 1:].masked_fill(ids[:, 1:] == 0, -100)
    gaps = {"time_gaps": torch.rand(WINDOWS, LENGTH) * 1e7}
    sides = {
        name: (Side(cosine_block(ITEMS, use_time_gaps=timed), bf16=False), gaps if timed else {})
        for name, timed in SIDES.items()
    }

    def run(side: Side, further: dict[str, torch.Tensor]) -> None:
        for _ in range(10):
            side.step(batch | further)

    return interleaved({name: (lambda pair=pair: run(*pair)) for name, pair in sides.items()}, rounds)


def answers(rounds: int) -> dict[str, list[float]]:
    """Seconds of `ANSWERS` recommendations by one model, asked without and with a time."""
    timed = cosine_block(ITEMS, use_time_gaps=True).eval()
    with StreamingRecommender(timed, GlintRUProcessor(list(range(1, ITEMS + 1)))) as recommender:
        recommender.observe_many([("anna", item) for item in range(1, 21)])

        def run(gap: float | None) -> None:
            for _ in range(ANSWERS):
                recommender.recommend("anna", 10, time_gap=gap)

        return interleaved({"without": lambda: run(None), "with": lambda: run(3600.0)}, rounds)


def measure(rounds: int) -> list[tuple[str, int, dict[str, list[float]]]]:
    """A training step, and an answer."""
    return [("a training step", 10, training(rounds)), ("an answer", ANSWERS, answers(rounds))]


if __name__ == "__main__":
    with_and_without(__doc__.splitlines()[0], RESULTS, measure)
