"""How fast models train: GLINT-RU, SASRec, GRU4Rec, the paper's own computation, and the bare matrix products.

All sides run in one process, on the same batches, in interleaved rounds; ratios are taken within a round and their
median and spread are shown. Targets are real ones, padding is not counted.

    python benchmarks/train_speed.py --data interactions.parquet
    python benchmarks/train_speed.py --widths 64 --batch_sizes 8 --rounds 3     # generated histories, quick

Prints a table and writes benchmarks/results/train_speed.json.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from measuring import Side, interleaved, official, peak_bytes, report_header, spread, timed, write_report

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation
from modeling_glintru.data import (
    Interactions,
    LengthBucketSampler,
    SequenceCollator,
    TrainingWindows,
    read_interactions,
)
from modeling_glintru.data.prepare import prepare
from modeling_glintru.kernels import build
from modeling_glintru.machine import keep_freed_memory
from modeling_glintru.models.modeling_gru4rec import GRU4RecConfig, GRU4RecForSequentialRecommendation
from modeling_glintru.models.modeling_sasrec import SASRecConfig, SASRecForSequentialRecommendation

RESULTS = Path(__file__).parent / "results" / "train_speed.json"
LENGTH = 200
PREFIXES = 32  # examples a step on the side that encodes each prefix by itself


def generated(users: int = 2000, items: int = 3416) -> Interactions:
    """Histories with about ML-1M's lengths (log-normal, median 96) and a popularity tail."""
    rng = np.random.default_rng(0)
    lengths = np.clip(np.exp(rng.normal(np.log(96), 1.0, users)), 20, 2000).astype(int)
    frame = pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(users), lengths),
            "item_id": np.minimum(rng.zipf(1.2, lengths.sum()) - 1, items - 1),
            "timestamp": np.arange(lengths.sum()),
        }
    )
    return Interactions(frame, {"user": "user_id", "item": "item_id", "time": "timestamp"}, "generated histories")


@contextmanager
def without_kernel() -> Iterator[None]:
    """`nn.GRU` and plain operations instead of the compiled kernels, as in the authors' code."""
    library, build.library = build.library, lambda: None
    try:
        yield
    finally:
        build.library = library


class PerPrefix(Side):
    """The paper's computation: one example a prefix, padded to the longest, nothing shared, `nn.GRU`."""

    def step(self, batch: dict[str, torch.Tensor]) -> None:
        with without_kernel():
            super().step(batch)


def prefixes(batches: list[dict[str, torch.Tensor]], rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """Some of the prefixes in the batches, each a row of its own, padded to the full length as the authors do."""
    places = [(b, *place) for b, batch in enumerate(batches) for place in (batch["labels"] != -100).nonzero().tolist()]
    input_ids = torch.zeros(PREFIXES, LENGTH, dtype=torch.long)
    labels = torch.full_like(input_ids, -100)
    for row, place in enumerate(rng.choice(len(places), PREFIXES, replace=False)):
        b, history, last = places[place]
        input_ids[row, : last + 1] = batches[b]["input_ids"][history, : last + 1]
        labels[row, last] = batches[b]["labels"][history, last]
    return {"input_ids": input_ids, "attention_mask": (input_ids > 0).long(), "labels": labels}


def floor(batch: dict[str, torch.Tensor], size: int, vocab: int, dtype: torch.dtype) -> Callable[[], None]:
    """The products of GLINT-RU's step that nothing can avoid, forward and backward, and nothing else."""
    rows, length = batch["input_ids"].shape
    targets = int((batch["labels"] != -100).sum())
    products = [
        (
            torch.randn(times * rows * length, int(width * size), dtype=dtype),
            torch.randn(int(width * size), int(out * size), dtype=dtype),
        )
        for times, width, out in PRODUCTS
    ]
    gates = torch.randn(size, 3 * size, dtype=dtype)
    x, wide = (torch.randn(rows * length, width * size, dtype=dtype) for width in (1, 3))
    state, hidden = torch.randn(rows, size, dtype=dtype), torch.randn(targets, size, dtype=dtype)
    items = torch.randn(vocab, size, dtype=dtype)

    def run() -> None:
        for inputs, weight in products:
            out = inputs @ weight
            out @ weight.T
            inputs.T @ out
        for _ in range(length):
            out = state @ gates
            out @ gates.T
        x.T @ wide
        for start in range(0, targets, 256):
            part = hidden[start : start + 256]
            scores = part @ items.T
            scores @ items
            scores.T @ part

    return run


# (multiple of the positions, width in, width out), widths in units of d: query, key and value; output; taps; input
# gates of interior and edge; gate down and up; output of the recurrence; last taps; gate of the block; mixing; the MLP.
PRODUCTS = [
    *((1, 1, 3), (1, 1, 1), (1, 1, 3), (2, 1, 3), (2, 1, 0.5), (2, 0.5, 1), (2, 1, 1), (1, 2, 1)),
    *((1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
]


def measure(windows: TrainingWindows, vocab: int, size: int, batch_size: int, rounds: int, steps: int) -> dict:
    """All sides at one width and batch size."""
    torch.manual_seed(0)
    heads = size // 16
    shape = {"vocab_size": vocab, "hidden_size": size}
    glint = lambda **o: GlintRUForSequentialRecommendation(GlintRUConfig(num_attention_heads=heads, **shape, **o))  # noqa: E731
    sasrec = lambda **o: SASRecForSequentialRecommendation(SASRecConfig(**shape, **o))  # noqa: E731
    gru4rec = lambda: GRU4RecForSequentialRecommendation(GRU4RecConfig(**shape))  # noqa: E731
    models = {
        "GLINT-RU": glint,
        # Without dropout on the attention weights PyTorch has a fused attention for CPUs, with it not.
        "SASRec": lambda: sasrec(attention_dropout=0.0),
        "SASRec 4d": lambda: sasrec(attention_dropout=0.0, intermediate_size=4 * size),
        "SASRec, attention dropout": sasrec,
        "GRU4Rec": gru4rec,
    }
    sides = {
        f"{name} {dtype}": Side(make(), dtype == "bf16") for name, make in models.items() for dtype in ("fp32", "bf16")
    }
    collate, order = SequenceCollator(LENGTH), list(LengthBucketSampler(windows, batch_size))
    rows = [order[i : i + batch_size] for i in range(0, len(order) - batch_size + 1, batch_size)]
    # Batches from short to long histories, evenly over all of the epoch's.
    rows.sort(key=lambda part: int(windows.lengths[part].sum()))
    rows = [rows[int((i + 0.5) / steps * len(rows))] for i in range(steps)]
    data_seconds = timed(lambda: [collate(windows.__getitems__(part)) for part in rows])
    batches = [collate(windows.__getitems__(part)) for part in rows]
    targets = sum(int((b["labels"] != -100).sum()) for b in batches)
    paper, paper_batch = PerPrefix(official(glint()), False), prefixes(batches, np.random.default_rng(2))
    floors = {
        f"floor {name}": [floor(b, size, vocab, dtype) for b in batches]
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }

    largest = max(batches, key=lambda batch: batch["input_ids"].numel())
    runs: dict[tuple[str, str], Callable[[], Any]] = {
        ("step", name): lambda side=side: [side.step(b) for b in batches] for name, side in sides.items()
    }
    runs["step", "per prefix"] = lambda: paper.step(paper_batch)
    runs |= {("step", name): lambda products=products: [run() for run in products] for name, products in floors.items()}
    runs |= {
        ("encoder", name): lambda side=side: [side.encoder_step(b) for b in batches] for name, side in sides.items()
    }
    found = interleaved(runs, rounds)
    seconds, encoder = ({name: v for (what, name), v in found.items() if what == part} for part in ("step", "encoder"))
    seconds["per prefix"] = [value / PREFIXES * targets for value in seconds["per prefix"]]

    shares = {}
    for name, side in sides.items():
        whole = statistics.median(seconds[name])
        parts = {
            "encoder": statistics.median(encoder[name]),
            "optimizer": side.optimizer_seconds() * steps,
            "data": data_seconds,
        }
        shares[name] = {part: value / (whole + data_seconds) for part, value in parts.items()}
        shares[name]["loss"] = max(0.0, 1 - sum(shares[name].values()))
    return {
        "width": size,
        "batch_size": batch_size,
        "targets": targets,
        "targets_per_second": {name: targets / statistics.median(values) for name, values in seconds.items()},
        "shares": shares,
        "peak_megabytes": {name: peak_bytes(side, largest) / 1e6 for name, side in sides.items()},
        "ratios": {
            "per prefix / GLINT-RU fp32": spread(seconds["per prefix"], seconds["GLINT-RU fp32"]),
            **{
                f"{name} / GLINT-RU, {part}, {dtype}": spread(of[f"{name} {dtype}"], of[f"GLINT-RU {dtype}"])
                for name in list(models)[1:]
                for part, of in (("step", seconds), ("encoder", encoder))
                for dtype in ("fp32", "bf16")
            },
            **{
                f"GLINT-RU / floor, {dtype}": spread(seconds[f"GLINT-RU {dtype}"], seconds[f"floor {dtype}"])
                for dtype in ("fp32", "bf16")
            },
        },
    }


def show(result: dict) -> None:
    """One width and batch size as a table."""
    print(f"\nd = {result['width']}, {result['batch_size']} histories a batch")
    for name, value in result["targets_per_second"].items():
        share = result["shares"].get(name)
        memory = result["peak_megabytes"].get(name)
        parts = "" if memory is None else f"{memory:>8,.0f} MB   "
        parts += "" if share is None else ", ".join(f"{part} {value:.0%}" for part, value in share.items())
        print(f"  {name:<32}{value:>10,.0f} targets/s{parts}")
    for name, ratio in result["ratios"].items():
        print(f"  {name:<52}{ratio['median']:>8.2f}x   [{ratio['low']:.2f}, {ratio['high']:.2f}]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="ML-1M's interactions; generated histories of the same lengths where missing")
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    keep_freed_memory()
    interactions = read_interactions(args.data) if args.data else generated()
    data = prepare(interactions)
    windows = TrainingWindows(data.dataset["train"], LENGTH)
    results = []
    for size in args.widths:
        for batch_size in args.batch_sizes:
            steps = max(2, 128 // batch_size)
            results.append(measure(windows, data.processor.vocab_size, size, batch_size, args.rounds, steps))
            show(results[-1])
    write_report(
        args.output, {"data": interactions.source, "items": len(data.processor), **report_header(), "results": results}
    )


if __name__ == "__main__":
    main()
