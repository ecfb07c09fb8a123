"""How long `prepare` takes and how much memory, for 1, 10 and 30 million interactions, and how soon training starts.

Each size is generated, prepared and opened in processes of their own, so that each peak of memory is its own. A data
set of n interactions has n / 30 users and n / 150 items (30 million: 1 million users, 200,000 items), histories and
popularity follow power laws, and rows lie in the order of time, as a log does.

    POLARS_MAX_THREADS=2 OMP_NUM_THREADS=2 python benchmarks/prepare_scale.py
    python benchmarks/prepare_scale.py --millions 1 --ids integer        # quick

Prints a table and writes benchmarks/results/prepare_scale.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "prepare_scale.json"
LENGTH, BATCH_SIZE, BATCHES = 200, 128, 250
SIZE, NEGATIVES, STEPS = 64, 256, 20
STAGES = ("read", "filter", "sequences", "split", "summary", "write", "open")


def generate(file: Path, interactions: int, ids: str) -> dict[str, Any]:
    """Writes a table of (user, item, time) and counts what is in it."""
    import polars as pl

    rng = np.random.default_rng(0)
    users, items = interactions // 30, interactions // 150
    # Lengths: a power law (exponent 2.5) from 3 on, scaled to the wanted sum; at most 5,000.
    lengths = np.minimum(3 * rng.random(users) ** (-1 / 1.5), 5000)
    lengths = np.maximum((lengths * (interactions / lengths.sum())).astype(np.int64), 3)
    user = np.repeat(rng.permutation(users), lengths)
    item = (items ** rng.random(len(user))).astype(np.int64) - 1  # density of rank r: 1 / r
    order = rng.permutation(len(user))
    names: Callable[[str, int], Any] = lambda letter, n: pl.Series(range(n)) if ids == "integer" else _names(letter, n)  # noqa: E731
    frame = pl.DataFrame(
        {
            "user_id": names("U", users).gather(user[order]),
            "item_id": names("B", items).gather(item),
            "timestamp": 1_600_000_000 + np.arange(len(user)) * 60_000_000 // len(user),
        }
    )
    frame.write_parquet(file)
    return {"interactions": len(frame), "users": users, "items": frame["item_id"].n_unique()}


def _names(letter: str, count: int) -> Any:
    """Ids of ten characters in an order that has nothing to do with popularity."""
    import polars as pl

    return letter + pl.Series(np.random.default_rng(1).permutation(count)).cast(pl.String).str.zfill(9)


def prepare_table(file: Path, folder: Path) -> dict[str, Any]:
    """Prepares a table as `glintru prepare` does, with the seconds of each stage."""
    from modeling_glintru import jobs as runs
    from modeling_glintru.data import prepare as _  # noqa: F401 (its module is changed below)
    from modeling_glintru.recipe import load_recipe

    module = sys.modules["modeling_glintru.data.prepare"]
    seconds = dict.fromkeys(STAGES, 0.0)
    for owner, name, stage in (
        (runs, "read_data", "read"),
        (module, "filter_interactions", "filter"),
        (module, "build_sequences", "sequences"),
        (module, "split_sequences", "split"),
        (module, "summarise", "summary"),
        (module, "_write", "write"),
        (module, "load_prepared", "open"),
    ):
        setattr(owner, name, _timed(getattr(owner, name), seconds, stage))
    import datasets  # noqa: F401 (imports are no part of the work)

    recipe = runs.with_data(load_recipe("ml-1m"), str(file), {})
    start, cpu = time.perf_counter(), time.process_time()
    prepared = runs.prepare_data(recipe, folder, say=lambda text: None)
    total, cpu = time.perf_counter() - start, time.process_time() - cpu
    seconds["other"] = total - sum(seconds.values())
    return {
        "seconds": total,
        "cpu_seconds": cpu,
        "stages": seconds,
        "peak_bytes": peak_bytes(),
        "train_interactions": prepared.summary["train_interactions"],
    }


def _timed(function: Callable, seconds: dict[str, float], stage: str) -> Callable:
    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[stage] += time.perf_counter() - start

    return call


def start_training(folder: Path) -> dict[str, Any]:
    """From the prepared folder to the first batch, batches from then on, and some steps of a model on them."""
    from torch.utils.data import DataLoader

    from modeling_glintru.data import LengthBucketSampler, SequenceCollator, TrainingWindows, load_prepared
    from modeling_glintru.training.run import sorted_by_length

    before, start = peak_bytes(), time.perf_counter()
    data = load_prepared(folder)
    loaded = time.perf_counter()
    windows = TrainingWindows(data.dataset["train"], LENGTH)
    cut = time.perf_counter()
    loader = DataLoader(
        windows,
        batch_size=BATCH_SIZE,
        sampler=LengthBucketSampler(windows, BATCH_SIZE),
        collate_fn=SequenceCollator(LENGTH),
    )
    batches = iter(loader)
    next(batches)
    first, peak = time.perf_counter(), peak_bytes()
    taken = [next(batches) for _ in range(min(BATCHES, len(loader) - 1))]
    fed = time.perf_counter()
    evaluated = sorted_by_length(data.dataset["validation"])
    SequenceCollator(LENGTH)(evaluated.__getitems__(list(range(BATCH_SIZE))))
    evaluation = time.perf_counter() - fed
    rows = sum(len(batch["labels"]) for batch in taken)
    targets = sum(_targets(batch) for batch in taken)
    return {
        "windows": len(windows),
        "open": loaded - start,
        "cut_windows": cut - loaded,
        "first_batch": first - cut,
        "until_first_step": first - start,
        "windows_per_second": rows / (fed - first),
        "targets_per_second": targets / (fed - first),
        "first_evaluation_batch": evaluation,
        "peak_bytes_above_imports": peak - before,
        "step": _steps(data.processor.vocab_size, taken[:STEPS]),
    }


def _targets(batch: Any) -> int:
    return int((batch["labels"] != -100).sum())


def _steps(vocab_size: int, batches: list[Any]) -> dict[str, float]:
    """Forward and backward of sampled softmax, without the optimizer: the part that no catalogue makes larger."""
    import torch

    from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation
    from modeling_glintru.models.losses import NextItemLoss

    config = GlintRUConfig(vocab_size=vocab_size, hidden_size=SIZE)
    model, seconds, rows = GlintRUForSequentialRecommendation(config).train(), [], []
    model.training_loss = NextItemLoss("sampled_softmax", num_negatives=NEGATIVES)
    for batch in batches:
        start = time.process_time()
        model(**batch).loss.backward()
        seconds.append(time.process_time() - start)
        rows.append(len(torch.cat((batch["input_ids"].ravel(), batch["labels"].clamp_min(0).ravel())).unique()) - 1)
        model.zero_grad()
    targets = sum(map(_targets, batches[1:]))  # the first step warms up
    return {
        "targets": targets / (len(batches) - 1),
        "item_rows": sum(rows[1:]) / (len(batches) - 1),
        "cpu_seconds": sum(seconds[1:]) / (len(batches) - 1),
        "targets_per_cpu_second": targets / sum(seconds[1:]),
        "encoder_parameters": sum(p.numel() for p in model.parameters()) - vocab_size * SIZE,
    }


def peak_bytes() -> int:
    """The most memory this process has had resident, mapped files included."""
    try:  # Linux hands the peak of the parent down in ru_maxrss; this one begins with the program
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def alone(name: str, *arguments: Any) -> dict[str, Any]:
    """Calls a function of this file in a process of its own."""
    command = [sys.executable, __file__, "--call", name, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def called(name: str, arguments: list[str]) -> dict[str, Any]:
    """The other side of `alone`."""
    if name == "generate":
        return generate(Path(arguments[0]), int(arguments[1]), arguments[2])
    if name == "prepare_table":
        return prepare_table(Path(arguments[0]), Path(arguments[1]))
    return start_training(Path(arguments[0]))


def measure(millions: float, ids: str, temporary: str | None) -> dict[str, Any]:
    """One size: generated, prepared, opened."""
    with tempfile.TemporaryDirectory(dir=temporary) as place:
        file, folder = Path(place) / "interactions.parquet", Path(place) / "prepared"
        counts = alone("generate", file, int(millions * 1_000_000), ids)
        prepared = alone("prepare_table", file, folder)
        started = alone("start_training", folder)
        sizes = {
            "table_bytes": file.stat().st_size,
            "prepared_bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        }
    return {"ids": ids, **counts, **sizes, "prepare": prepared, "start": started}


def show(result: dict[str, Any]) -> None:
    """One size as a few lines."""
    prepared, started, step = result["prepare"], result["start"], result["start"]["step"]
    stages = ", ".join(f"{name} {value:.1f}" for name, value in prepared["stages"].items() if value >= 0.05)
    print(
        f"{result['interactions'] / 1e6:5.1f} million, {result['ids']} ids: {prepared['seconds']:6.1f} s "
        f"({prepared['cpu_seconds']:.1f} s of CPU), peak {prepared['peak_bytes'] / 2**30:.2f} GiB; on disk "
        f"{result['table_bytes'] / 1e6:,.0f} MB -> {result['prepared_bytes'] / 1e6:,.0f} MB\n"
        f"      seconds: {stages}\n"
        f"      first batch after {started['until_first_step']:.2f} s (open {started['open']:.2f}, windows "
        f"{started['cut_windows']:.2f}, batch {started['first_batch']:.2f}), "
        f"{started['peak_bytes_above_imports'] / 2**20:,.0f} MiB above the imports; then "
        f"{started['windows_per_second']:,.0f} windows/s, {started['targets_per_second']:,.0f} targets/s; first "
        f"evaluation batch after {started['first_evaluation_batch']:.2f} s\n"
        f"      a step without its optimizer: {step['targets']:,.0f} targets of {step['item_rows']:,.0f} different "
        f"items, {step['targets_per_cpu_second']:,.0f} targets a second of CPU",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=float, nargs="+", default=[1, 10, 30])
    parser.add_argument("--ids", choices=["string", "integer"], nargs="+", default=["string", "integer"])
    parser.add_argument("--temporary", help="Folder for the data; the system's own where not given.")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--call", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.call:
        print(json.dumps(called(args.call[0], args.call[1:])))
        return
    results = []
    for ids in args.ids:
        for millions in args.millions:
            results.append(measure(millions, ids, args.temporary))
            show(results[-1])

    from measuring import report_header, write_report  # with torch, which no peak of memory is to hold

    machine = {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "polars_threads": os.environ.get("POLARS_MAX_THREADS", "all"),
    }
    write_report(args.output, {**report_header(**machine), "results": results})


if __name__ == "__main__":
    main()
