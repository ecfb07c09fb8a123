"""What a long history costs: one training step of GLINT-RU's and SASRec's encoders against the length.

Both sides run in one process on the same histories, in interleaved rounds. Each length has about the same number of
positions a step, so linear cost is a flat line.

    python benchmarks/length_cost.py
    python benchmarks/length_cost.py --lengths 50 200 --rounds 2      # quick

Prints a table and writes benchmarks/results/length_cost.json.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch
from measuring import Side, interleaved, peak_bytes, report_header, spread, write_report

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation
from modeling_glintru.machine import keep_freed_memory
from modeling_glintru.models.modeling_sasrec import SASRecConfig, SASRecForSequentialRecommendation

RESULTS = Path(__file__).parent / "results" / "length_cost.json"
POSITIONS = 10_000  # a step
VOCAB = 3417


class EncoderSide(Side):
    """`step` is the encoder alone, forward and backward."""

    def step(self, batch: dict[str, torch.Tensor]) -> None:
        self.encoder_step(batch)


def measure(length: int, size: int, rounds: int) -> dict:
    """Both encoders at one length, float32."""
    torch.manual_seed(0)
    shape = {"vocab_size": VOCAB, "hidden_size": size}
    glint = GlintRUForSequentialRecommendation(GlintRUConfig(num_attention_heads=size // 16, **shape))
    # No dropout on the attention weights: with it PyTorch has no fused attention for CPUs and needs length² memory.
    options = {"attention_dropout": 0.0, "max_position_embeddings": length}
    sasrec = SASRecForSequentialRecommendation(SASRecConfig(**shape, **options))
    sides = {"GLINT-RU": EncoderSide(glint, False), "SASRec": EncoderSide(sasrec, False)}
    batch = {"input_ids": torch.randint(1, VOCAB, (max(1, POSITIONS // length), length))}
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    positions = batch["input_ids"].numel()
    seconds = interleaved({name: lambda side=side: side.step(batch) for name, side in sides.items()}, rounds)
    return {
        "length": length,
        "histories": len(batch["input_ids"]),
        "microseconds_per_position": {n: statistics.median(s) / positions * 1e6 for n, s in seconds.items()},
        "peak_megabytes": {name: peak_bytes(side, batch) / 1e6 for name, side in sides.items()},
        "SASRec / GLINT-RU": spread(seconds["SASRec"], seconds["GLINT-RU"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[50, 100, 200, 500, 1000, 2000, 5000, 10_000])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    keep_freed_memory()
    print(f"d = {args.width}, float32, about {POSITIONS:,} positions a step")
    print(f"{'length':>8}{'GLINT-RU':>22}{'SASRec':>22}{'SASRec / GLINT-RU':>28}")
    results = []
    for length in args.lengths:
        result = measure(length, args.width, args.rounds)
        results.append(result)
        cost, memory = result["microseconds_per_position"], result["peak_megabytes"]
        cells = "".join(f"{cost[name]:>9.2f} us {memory[name]:>6,.0f} MB" for name in cost)
        ratio = result["SASRec / GLINT-RU"]
        print(f"{length:>8}{cells}{ratio['median']:>11.2f}x [{ratio['low']:.2f}, {ratio['high']:.2f}]")
    write_report(args.output, {**report_header(), "width": args.width, "results": results})


if __name__ == "__main__":
    main()
