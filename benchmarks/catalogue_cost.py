"""What a large catalogue costs: one training step of GLINT-RU against the number of items, by loss and optimizer.

All sides run in one process on the same batch shape, in interleaved rounds: the full cross-entropy; sampled softmax
(mixed negatives) and gBCE with `LazyAdamW`, which touches only the rows that a step uses; and sampled softmax with the
dense AdamW. Then the full cross-entropy alone against the logits matrix, `F.cross_entropy` and torch's own
`F.linear_cross_entropy`, and at 51,200 targets x 100,000 items.

    python benchmarks/catalogue_cost.py
    python benchmarks/catalogue_cost.py --quick     # small catalogues, few targets

Prints tables and writes benchmarks/results/catalogue_cost.json.
"""

from __future__ import annotations

import argparse
import gc
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from measuring import Side, interleaved, peak_bytes, report_header, spread, write_report

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation
from modeling_glintru.machine import keep_freed_memory
from modeling_glintru.models.losses import NextItemLoss
from modeling_glintru.models.ops_glintru import cross_entropy
from modeling_glintru.training.optimizer import LazyAdamW, clip_grad_norm_

RESULTS = Path(__file__).parent / "results" / "catalogue_cost.json"
WIDTH, HISTORIES, LENGTH, NEGATIVES = 64, 64, 50, 256
FULL_LIMIT = 100_000  # items; the cost grows in proportion
DENSE_LIMIT = 1_000_000  # items; weights, gradient and two moments of ten times more are 10 GB
TOGETHER_LIMIT = 1_000_000

Batch = dict[str, torch.Tensor]


class LazySide(Side):
    """A step as `GlintRUTrainer` does it where the loss is sampled."""

    clip = staticmethod(clip_grad_norm_)

    def __init__(self, model: torch.nn.Module, bf16: bool) -> None:
        super().__init__(model, bf16)
        self.model.get_input_embeddings().sparse = True
        self.optimizer = LazyAdamW(model.parameters(), 1e-3, fused=True)


class LossStep:
    """The cross-entropy alone, forward and backward; `seconds` is the time of the last step."""

    seconds = 0.0

    def __init__(self, loss: Callable[..., torch.Tensor], targets: int, items: int, bf16: bool) -> None:
        torch.manual_seed(0)
        self.loss, self.bf16 = loss, bf16
        self.hidden = torch.randn(targets, WIDTH, requires_grad=True)
        self.weight = torch.randn(items + 1, WIDTH).mul_(0.1).requires_grad_()
        self.targets = torch.randint(1, items + 1, (targets,))

    def step(self, batch: Batch | None = None) -> None:
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            self.loss(self.hidden, self.weight, self.targets).backward()
        self.seconds = time.perf_counter() - start
        self.hidden.grad = self.weight.grad = None


def ours(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return cross_entropy(hidden, weight, targets, 1.0, 0.0, None)


def plain(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The logits matrix and `F.cross_entropy`."""
    return F.cross_entropy(hidden @ weight[1:].T, targets - 1, reduction="sum")


def torchs(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """torch's own chunked loss, new in 2.13."""
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(hidden, weight[1:], targets - 1, reduction="sum", options=options)


def batch_of(items: int) -> Batch:
    """Histories whose items follow a power law (log-uniform ranks), the same shape for every catalogue."""
    ranks = torch.rand(HISTORIES, LENGTH + 1, generator=torch.Generator().manual_seed(0)) * math.log(items)
    ids = ranks.exp().long().clamp(1, items)
    return {"input_ids": ids[:, :-1], "labels": ids[:, 1:]}


def model_of(items: int, loss: str, negative_sampling: str = "uniform") -> GlintRUForSequentialRecommendation:
    config = GlintRUConfig(vocab_size=items + 1, hidden_size=WIDTH, num_attention_heads=WIDTH // 16)
    model, counts = GlintRUForSequentialRecommendation(config), 1e6 / torch.arange(1, items + 2)
    sampling = {"num_negatives": NEGATIVES, "negative_sampling": negative_sampling}
    model.training_loss = NextItemLoss(loss, item_counts=counts, **sampling)
    return model


def measure(items: int, rounds: int, full_limit: int, dense_limit: int) -> dict:
    """All sides that make sense at one size."""
    torch.manual_seed(0)
    batch = batch_of(items)
    makers: dict[str, Callable[[], Side]] = {
        "full CE, AdamW": lambda: Side(model_of(items, "cross_entropy"), False),
        "sampled softmax, lazy": lambda: LazySide(model_of(items, "sampled_softmax", "mixed"), False),
        "gBCE, lazy": lambda: LazySide(model_of(items, "gbce"), False),
        "sampled softmax, AdamW": lambda: Side(model_of(items, "sampled_softmax", "mixed"), False),
    }
    if items > full_limit:
        del makers["full CE, AdamW"]
    if items > dense_limit:
        del makers["sampled softmax, AdamW"]
    seconds: dict[str, list[float]] = {}
    peaks: dict[str, float] = {}
    # Interleaved while all fit in memory, one after the other above that.
    for group in [list(makers)] if items <= TOGETHER_LIMIT else [[name] for name in makers]:
        sides = {name: makers[name]() for name in group}
        # The first round also makes states and tables.
        seconds |= interleaved({name: lambda side=side: side.step(batch) for name, side in sides.items()}, rounds)
        peaks |= {name: peak_bytes(side, batch) / 1e6 for name, side in sides.items()}
        del sides
        gc.collect()
    lazy = seconds["sampled softmax, lazy"]
    return {
        "items": items,
        "milliseconds": {name: statistics.median(values) * 1e3 for name, values in seconds.items()},
        "peak_megabytes": peaks,
        "ratios": {
            f"{name} / sampled softmax, lazy": spread(values, lazy)
            for name, values in seconds.items()
            if name != "sampled softmax, lazy"
        },
    }


def show(results: list[dict]) -> None:
    """A line for each number of items, and how much each side grew from the first."""
    names = list(results[0]["milliseconds"])
    print(f"d = {WIDTH}, {HISTORIES} histories of {LENGTH}, {NEGATIVES} negatives, float32: ms a step, peak MB beside")
    print("weights and optimizer state, and time against the first line\n")
    print(f"{'items':>12}" + "".join(f"{name:>32}" for name in names))
    for result in results:
        cells = [f"{result['items']:>12,}"]
        for name in names:
            if name not in result["milliseconds"]:
                cells.append(f"{'-':>32}")
                continue
            value, memory = result["milliseconds"][name], result["peak_megabytes"][name]
            cells.append(f"{value:>10,.1f} ms {memory:>8,.0f} MB {value / results[0]['milliseconds'][name]:>6.1f}x")
        print("".join(cells))
    print()
    for result in results:
        for name, ratio in result["ratios"].items():
            span = f"[{ratio['low']:.2f}, {ratio['high']:.2f}]"
            print(f"{result['items']:>12,}  {name:<48}{ratio['median']:>8.2f}x   {span}")


def compare_losses(targets: int, items: int, rounds: int) -> dict:
    """The cross-entropy alone where the logits matrix fits: ours, the plain one, and torch's own where it is."""
    losses = {"ours": ours, "plain": plain}
    if hasattr(F, "linear_cross_entropy"):
        losses["torch"] = torchs
    kinds = [(name, bf16) for name in losses for bf16 in (False, True)]
    sides = {f"{n} {'bf16' if b else 'fp32'}": LossStep(losses[n], targets, items, b) for n, b in kinds}
    seconds = interleaved({name: side.step for name, side in sides.items()}, rounds)
    result = {
        "targets": targets,
        "items": items,
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "peak_megabytes": {name: peak_bytes(side, {}) / 1e6 for name, side in sides.items()},
        "ratios": {
            f"{name} / ours, {dtype}": spread(seconds[f"{name} {dtype}"], seconds[f"ours {dtype}"])
            for name in list(losses)[1:]
            for dtype in ("fp32", "bf16")
        },
    }
    print(f"\nfull cross-entropy alone, {targets:,} targets x {items:,} items, forward and backward")
    for name, value in result["seconds"].items():
        print(f"  {name:<14}{value:>9.2f} s {result['peak_megabytes'][name]:>8,.0f} MB")
    for name, ratio in result["ratios"].items():
        print(f"  {name:<22}{ratio['median']:>8.2f}x   [{ratio['low']:.2f}, {ratio['high']:.2f}]")
    return result


def large_loss(targets: int, items: int) -> dict:
    """Time and memory of ours where the logits matrix would not fit."""
    result: dict = {"targets": targets, "items": items, "seconds": {}, "peak_megabytes": {}}
    print(f"\nfull cross-entropy alone, {targets:,} targets x {items:,} items, forward and backward")
    for dtype in ("fp32", "bf16"):
        side = LossStep(ours, targets, items, dtype == "bf16")
        LossStep(ours, 64, items, dtype == "bf16").step()  # warms up
        result["peak_megabytes"][dtype] = peak_bytes(side, {}) / 1e6
        result["seconds"][dtype] = side.seconds
        print(f"  ours {dtype:<9}{side.seconds:>9.2f} s {result['peak_megabytes'][dtype]:>8,.0f} MB")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[10**n for n in range(3, 8)])
    parser.add_argument("--full_limit", type=int, default=FULL_LIMIT, help="most items for the full cross-entropy")
    parser.add_argument("--dense_limit", type=int, default=DENSE_LIMIT, help="most items for the dense AdamW")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="1,000 to 100,000 items, 2 rounds, small loss shapes")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    keep_freed_memory()
    items, rounds = ([10**3, 10**4, 10**5], 2) if args.quick else (args.items, args.rounds)
    results = [measure(n, rounds, 10_000 if args.quick else args.full_limit, args.dense_limit) for n in items]
    show(results)
    comparison = compare_losses(256, 20_000, 2) if args.quick else compare_losses(1024, 100_000, 2)
    large = large_loss(2048, 20_000) if args.quick else large_loss(51_200, 100_000)
    report = {**report_header(), "width": WIDTH, "histories": HISTORIES, "length": LENGTH, "negatives": NEGATIVES}
    write_report(args.output, {**report, "results": results, "full_cross_entropy": [comparison, large]})


if __name__ == "__main__":
    main()
