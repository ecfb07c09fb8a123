"""What the benchmarks share: sides that are timed in turns in one process, and the report that they write."""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation
from modeling_glintru.evaluation import library_versions
from modeling_glintru.hub.official import official_encode
from modeling_glintru.kernels import build
from modeling_glintru.machine import processor_name
from modeling_glintru.serving.step import Step, make_step


def timed(function: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def interleaved(runs: Mapping[Any, Callable[[], None]], rounds: int) -> dict[Any, list[float]]:
    """Seconds of each run by round; all take turns, and a first round, which warms up, is not counted."""
    seconds: dict[Any, list[float]] = {name: [] for name in runs}
    for index in range(rounds + 1):
        for name, run in runs.items():
            value = timed(run)
            if index:
                seconds[name].append(value)
    return seconds


@dataclass
class Latencies:
    """Seconds of each call, by round, and the processor's seconds a call, all threads together."""

    seconds: list[list[float]]
    cpu_seconds: float


def latencies(runs: Mapping[str, tuple[Callable[[], Any], int]], rounds: int) -> dict[str, Latencies]:
    """Each call timed alone; all runs take turns, and a first round, which warms up, is not counted.

    Args:
        runs: What to call, and how often in a round.
    """
    found = {name: Latencies([], 0.0) for name in runs}
    for index in range(rounds + 1):
        for name, (run, calls) in runs.items():
            before = time.process_time()
            seconds = [timed(run) for _ in range(calls)]
            used = time.process_time() - before
            if index:
                found[name].seconds.append(seconds)
                found[name].cpu_seconds += used / calls / rounds
    return found


def spread(over: list[float], under: list[float]) -> dict[str, float]:
    """Ratios within rounds: median, lowest, highest."""
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    return {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}


def official(model: GlintRUForSequentialRecommendation) -> GlintRUForSequentialRecommendation:
    """The model with the authors' computation: nothing masked, both directions, right for the last item of a row."""
    model.model.encode = functools.partial(official_encode, model.model)
    return model


class Side:
    """One model with its optimizer; `step` is one training step as the Trainer does it."""

    clip = staticmethod(torch.nn.utils.clip_grad_norm_)

    def __init__(self, model: torch.nn.Module, bf16: bool) -> None:
        self.model, self.bf16 = model.train(), bf16
        self.optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)

    def step(self, batch: dict[str, torch.Tensor]) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.model(**batch).loss
        loss.backward()
        self.clip(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def encoder_step(self, batch: dict[str, torch.Tensor]) -> None:
        """The encoder alone, forward and backward."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            hidden = self.model.model(batch["input_ids"], batch["attention_mask"]).last_hidden_state
        hidden.backward(torch.ones_like(hidden))
        self.optimizer.zero_grad()

    def optimizer_seconds(self) -> float:
        """Time of clipping and the optimizer alone, on gradients that are there."""
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter)

        def run() -> None:
            self.clip(self.model.parameters(), 1.0)
            self.optimizer.step()

        seconds = timed(run)
        self.optimizer.zero_grad()
        return seconds


def peak_bytes(side: Any, batch: dict[str, torch.Tensor]) -> int:
    """Most bytes that one step takes from PyTorch's allocator beside weights and optimizer state."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        side.step(batch)
    changes = [event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    return int(np.cumsum(changes).max())


def report_header(**machine: Any) -> dict:
    """Machine, versions and commit.

    Args:
        **machine: What else the machine or the set-up is described by.
    """
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {
        "machine": {
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "kernel": bool(build.library()),
            **machine,
        },
        "versions": library_versions(),
        "commit": commit,
    }


def write_report(path: Path, report: dict) -> None:
    """Writes a benchmark's JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten to {path}")


def block(items: int, **options: Any) -> GlintRUForSequentialRecommendation:
    """One block of d = 128, with some changes."""
    torch.manual_seed(0)
    config = GlintRUConfig(vocab_size=items + 1, hidden_size=128, num_attention_heads=8, **options)
    return GlintRUForSequentialRecommendation(config)


def cosine_block(items: int, **options: Any) -> GlintRUForSequentialRecommendation:
    """A block with a moving average and cosine scores, with some changes."""
    return block(items, average_share=0.5, normalize_scores=True, temperature=0.07, **options)


# Name, items, windows a step, their length: of Beauty with 750 targets a step, of ML-1M with 500.
STEP_SHAPES = (("short histories", 12_101, 120, 12), ("long histories", 3_416, 3, 170))


def ten_steps(
    models: Mapping[str, torch.nn.Module],
    items: int,
    windows: int,
    length: int,
    rounds: int,
    prepare: Mapping[str, Callable[[Side], None]] | None = None,
) -> dict[str, list[float]]:
    """Seconds of ten training steps by model and round, on random windows of which every second is half as long.

    Args:
        prepare: What is done to a side before it is timed.
    """
    ids = torch.randint(1, items + 1, (windows, length + 1))
    ids[::2, : length // 2] = 0
    batch = {"input_ids": ids[:, :-1], "attention_mask": (ids[:, :-1] > 0).long()}
    batch["labels"] = ids[:, 1:].masked_fill(ids[:, :-1] == 0, -100)
    sides = {name: Side(model, bf16=False) for name, model in models.items()}
    for name, change in (prepare or {}).items():
        change(sides[name])

    def run(side: Side) -> None:
        for _ in range(10):
            side.step(batch)

    return interleaved({name: (lambda side=side: run(side)) for name, side in sides.items()}, rounds)


class Without(torch.nn.Module):
    """A model in whose forward pass something else stands for a function of a module, as where a kernel is missing.

    Args:
        inner: The model.
        module, name: Where the function is.
        other: What stands for it.
    """

    def __init__(self, inner: torch.nn.Module, module: Any, name: str, other: Callable[..., Any]) -> None:
        super().__init__()
        self.inner, self.module, self.name, self.other = inner, module, name, other

    def forward(self, **batch: torch.Tensor) -> Any:
        with mock.patch.object(self.module, self.name, self.other):
            return self.inner(**batch)


CLICKS = 2_000


def clicks(models: Mapping[str, GlintRUForSequentialRecommendation], rounds: int) -> dict[str, list[float]]:
    """Seconds of `CLICKS` clicks of one user by model and round."""
    vocab_size = next(iter(models.values())).config.vocab_size
    stream = np.random.default_rng(0).integers(1, vocab_size, (CLICKS, 1))

    def run(step: Step) -> None:
        rows = step.empty(1)
        for count, item in enumerate(stream):
            rows = step.advance(rows, np.array([count]), item)

    steps = {name: make_step(model.eval()) for name, model in models.items()}
    return interleaved({name: (lambda step=step: run(step)) for name, step in steps.items()}, rounds)


def with_and_without(
    description: str, results: Path, measure: Callable[[int], list[tuple[str, int, dict[str, list[float]]]]]
) -> None:
    """The command of a benchmark of one part: measures on one thread, prints each ratio, writes.

    Args:
        description: For `--help`.
        results: Where to write by default.
        measure: From the rounds to rows: name, calls in a run, and seconds of each run `with` and `without` the part.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, default=results)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report = {**report_header(), "rounds": arguments.rounds, "rows": []}
    for name, calls, seconds in measure(arguments.rounds):
        ratio = spread(seconds["with"], seconds["without"])
        each = {side: statistics.median(values) / calls for side, values in seconds.items()}
        report["rows"].append({"what": name, "seconds": each, "ratio": ratio})
        print(
            f"{name:16}  without {each['without'] * 1e3:8.4f} ms, with {each['with'] * 1e3:8.4f} ms, "
            f"ratio {ratio['median']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]"
        )
    write_report(arguments.output, report)


def processor() -> str:
    """The name and vector units of the CPU."""
    return f"{processor_name()}, {torch.backends.cpu.get_cpu_capability()}"
