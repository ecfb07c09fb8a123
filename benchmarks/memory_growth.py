"""What a training process holds, step by step: python benchmarks/memory_growth.py

    python benchmarks/memory_growth.py --steps 2400
    python benchmarks/memory_growth.py --against ../older-checkout --precision bf16 --steps 300

Trains by the rule of `glintru train --data` on a generated table, a process a side, one thread each: this package, and
with `--against` at the same time the package in another checkout. `--rounds` repeats that, for the ratio of their
times. A table with a median history of 8 gives a wide model without GRU whose item embeddings are smoothed, the rule's
largest for its number of rows; `--median 30` gives one of 64 dimensions with a GRU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

RESULTS = Path(__file__).parent / "results" / "memory_growth.json"
STEPS = 1, 2, 10, 50, 100, 200, 300, 600, 1_200, 1_800, 2_400
WARM = 10  # steps that are not timed


def interactions(rows: int, items: int, median: int) -> pl.DataFrame:
    """A table of popular and rare items; lengths of histories are log-normal, and every item occurs."""
    random = np.random.default_rng(0)
    lengths = np.maximum(3, random.lognormal(np.log(median), 0.7, rows).astype(np.int64))
    users = np.repeat(np.arange(rows), lengths)[:rows]
    popularity = 1 / np.arange(1, items + 1) ** 0.8
    drawn = random.permutation(items)[random.choice(items, rows, p=popularity / popularity.sum())]
    drawn[random.permutation(rows)[:items]] = np.arange(items)
    times = 1_600_000_000 + random.integers(0, 30 * 24 * 3600, rows)[users] + 60 * np.arange(rows)
    return pl.DataFrame({"user_id": users, "item_id": drawn, "timestamp": times})


def held() -> dict[str, int]:
    """Bytes of this process: all, without mapped files, and the most so far."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    names = {"resident": "VmRSS", "own": "RssAnon", "peak": "VmHWM"}
    return {name: 1024 * int(lines[key].split()[0]) for name, key in names.items()}


class Done(Exception):
    """All steps that were wanted are done."""


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The training of one side: what it held after some steps, and its CPU seconds a step."""
    from modeling_glintru.data import read_interactions
    from modeling_glintru.data.prepare import prepare
    from modeling_glintru.evaluation import RankingMetrics, target_ranks
    from modeling_glintru.recipe import change_recipe
    from modeling_glintru.recipe.rule import blank_recipe, data_shape, preset
    from modeling_glintru.training import train
    from modeling_glintru.training.stopping import Interruptions

    torch.set_num_threads(1)
    after: dict[int, dict[str, int]] = {}
    evaluation, clock = [0.0], []

    class Watch(Interruptions):
        def on_step_end(self, args, state, control, **kwargs):
            step = state.global_step
            clock.append(time.process_time() - evaluation[0])
            if step in STEPS or step == options.steps:
                after[step] = held()
                print(step, after[step]["resident"] >> 20, file=sys.stderr, flush=True)
            if step == options.steps:
                raise Done

        def on_epoch_end(self, args, state, control, **kwargs):
            evaluation[0] -= time.process_time()

        def on_epoch_begin(self, args, state, control, **kwargs):
            if evaluation[0] < 0:
                evaluation[0] += time.process_time()

    data = prepare(read_interactions(interactions(options.rows, options.items, options.median)))
    changes = [f"precision={options.precision}"]
    recipe, _ = preset(data_shape(data), change_recipe(blank_recipe(), changes), changes)
    with tempfile.TemporaryDirectory() as folder:
        judge = {"compute_metrics": RankingMetrics((10,)), "preprocess_logits_for_metrics": target_ranks}
        with contextlib.suppress(Done):
            train(recipe, data, Path(folder), interruptions=Watch(), progress=False, say=lambda _: None, **judge)
    seconds = np.diff(clock)[WARM:]
    last = max(after, default=0)
    return {"after": after, "last": last, "peak": held()["peak"], "cpu_seconds_a_step": float(seconds.mean())}


def of_side(package: Path) -> dict[str, Any]:
    """`run` in a process of its own, with the package of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, *sys.argv[1:], "--one"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def shown(name: str, found: dict[str, Any]) -> str:
    """A side for people."""
    steps = ", ".join(f"{step} {value['resident'] / 2**20:,.0f}" for step, value in found["after"].items())
    return (
        f"{name}: MiB after step {steps}; peak {found['peak'] / 2**20:,.0f}; {found['cpu_seconds_a_step']:.3f} s a step"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--median", type=int, default=8, help="length of the median history")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run(options)))
        return
    sides = {"now": Path(__file__).resolve().parent.parent}
    if options.against is not None:
        sides["before"] = options.against.resolve()
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        with ThreadPoolExecutor(len(sides)) as pool:
            for name, each in zip(sides, pool.map(of_side, sides.values()), strict=True):
                found[name].append(each)
                print(shown(name, each), flush=True)
    write(options, found)


def write(options: argparse.Namespace, found: dict[str, list[dict[str, Any]]]) -> None:
    """Adds what was found to the report, in the place of an earlier measurement of the same training."""
    from measuring import report_header, spread, write_report

    what = {name: getattr(options, name) for name in ("rows", "items", "median", "steps", "precision")}
    report = {**report_header(), "results": []}
    if options.output.exists():
        earlier = json.loads(options.output.read_text(encoding="utf-8"))["results"]
        report["results"] = [r for r in earlier if {name: r[name] for name in what} != what]
    line: dict[str, Any] = {**what, "sides": {name: runs[0] for name, runs in found.items()}}
    if "before" in found:
        times = {name: [each["cpu_seconds_a_step"] for each in runs] for name, runs in found.items()}
        line["before / now"] = spread(times["before"], times["now"])
        print(
            f"before / now, time of a step: {statistics.median(times['before']) / statistics.median(times['now']):.3f}"
        )
    report["results"].append(line)
    write_report(options.output, report)


if __name__ == "__main__":
    main()
