"""What `compare_commits.py` runs in a process of its own, with the package of one of the two commits.

    python benchmarks/commit_worker.py FOLDER prepare          makes the model folders, the table and the kernels
    python benchmarks/commit_worker.py FOLDER step click       measures, and writes FOLDER/measured.json

Only the front door of the package is used, in its present form and in earlier ones, and all data are made here, so that
one worker serves commits with the package laid out differently.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import io
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ITEMS = 3_416  # of MovieLens-1M
# The published block as for MovieLens-1M, and one with the optional parts that the best recipes turn on.
MODELS: dict[str, dict[str, Any]] = {
    "plain": {"hidden_size": 128, "num_attention_heads": 8, "num_hidden_layers": 1},
    "best": {
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "average_share": 0.3,
        "state_space_share": 0.3,
        "use_embedding_norm": True,
    },
}
TABLE = "interactions.parquet"
TOP_K = 10


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Args:
        windows, length: Of a batch of the training step.
        steps: Training steps, beside three that warm up.
        clicks: Clicks in a group.
        groups: Groups of clicks, beside one that warms up.
        users: Of the table that everybody gets recommendations from.
        repeats: Calls of what is measured as a whole, beside one that warms up.
    """

    windows: int = 8
    length: int = 200
    steps: int = 7
    clicks: int = 200
    groups: int = 7
    users: int = 300
    repeats: int = 2


FULL = Sizes()
QUICK = Sizes(windows=2, length=50, steps=3, clicks=20, groups=2, users=50, repeats=1)


def public(name: str) -> Any:
    """A public name of the package: from the front door, or from the room where it was before."""
    for module in ("modeling_glintru", "modeling_glintru.serving"):
        found = getattr(importlib.import_module(module), name, None)
        if found is not None:
            return found
    raise SystemExit(f"the package has no {name}, neither at its front door nor in serving")


def timed(run: Callable[[], Any], repeats: int, calls: int = 1, warm_ups: int = 1) -> dict[str, float]:
    """Median seconds of one call, on the clock and of the processor.

    Args:
        run: Makes `calls` calls.
        repeats: How often it is timed.
        calls: What its time is divided by.
        warm_ups: How often it runs before.
    """
    for _ in range(warm_ups):
        run()
    clock, processor = [], []
    for _ in range(repeats):
        before, start = time.process_time(), time.perf_counter()
        run()
        clock.append((time.perf_counter() - start) / calls)
        processor.append((time.process_time() - before) / calls)
    return {"seconds": statistics.median(clock), "cpu": statistics.median(processor)}


def new_model(name: str) -> Any:
    """One of `MODELS` with random weights, the same in every process of a commit."""
    import torch

    torch.manual_seed(0)
    config = public("GlintRUConfig")(vocab_size=ITEMS + 1, **MODELS[name])
    return public("GlintRUForSequentialRecommendation")(config)


def write_table(path: Path, sizes: Sizes) -> None:
    """Writes random histories with about the lengths of MovieLens-1M's."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(1)
    lengths = np.clip(np.exp(rng.normal(np.log(60), 0.9, sizes.users)), 5, 1000).astype(np.int64)
    rows = int(lengths.sum())
    columns = {
        "user_id": np.repeat(np.arange(sizes.users), lengths),
        "item_id": np.minimum(rng.zipf(1.2, rows), ITEMS),
        "timestamp": np.arange(rows),
    }
    pq.write_table(pa.table(columns), path)


def prepare(folder: Path, sizes: Sizes) -> None:
    """Makes all that is measured later, and runs each piece once, so that its compiled kernels are there."""
    processor = public("GlintRUProcessor")(list(range(1, ITEMS + 1)))
    for name in MODELS:
        target = folder / name
        new_model(name).save_pretrained(target)
        processor.save_pretrained(target)
    write_table(folder / TABLE, sizes)
    for measure in MEASURES.values():
        measure(folder, QUICK)


def step(folder: Path, sizes: Sizes) -> dict[str, dict[str, float]]:
    """A training step: forward, backward, clipping and AdamW."""
    import torch

    rng = torch.Generator().manual_seed(0)
    ids = torch.randint(1, ITEMS + 1, (sizes.windows, sizes.length + 1), generator=rng)
    ids[::2, : sizes.length // 2] = 0  # every second window is half as long
    inputs = ids[:, :-1].contiguous()
    batch = {"input_ids": inputs, "attention_mask": (inputs > 0).long()}
    batch["labels"] = ids[:, 1:].masked_fill(inputs == 0, -100)
    found = {}
    for name in MODELS:
        model = new_model(name).train()
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)

        def run(model: Any = model, optimizer: Any = optimizer) -> None:
            model(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

        found[f"step, {name}"] = timed(run, sizes.steps, warm_ups=3)
    return found


def click(folder: Path, sizes: Sizes) -> dict[str, dict[str, float]]:
    """One click: `observe`, then `recommend`, of users in turns."""
    items = iter(np.random.default_rng(2).integers(1, ITEMS + 1, 1_000_000).tolist())
    found = {}
    for name in MODELS:
        with public("StreamingRecommender").from_pretrained(folder / name) as recommender:
            parameters = inspect.signature(recommender.recommend).parameters
            number = {"top_k" if "top_k" in parameters else "k": TOP_K}

            def run(recommender: Any = recommender, number: dict[str, int] = number) -> None:
                for user in range(sizes.clicks):
                    recommender.observe(user, next(items))
                    recommender.recommend(user, **number)

            found[f"click, {name}"] = timed(run, sizes.groups, sizes.clicks)
    return found


def offline(folder: Path, sizes: Sizes) -> dict[str, dict[str, float]]:
    """`glintru recommend --all` within this process: a user, reading and writing included."""
    glintru = importlib.import_module("modeling_glintru.cli").main
    found = {}
    for name in MODELS:
        where = ["--data", str(folder / TABLE), "--output", str(folder / "recommended.parquet"), "--overwrite"]
        command = ["glintru", "recommend", str(folder / name), "--all", *where, "--top_k", str(TOP_K), "--quiet"]

        def run(command: list[str] = command) -> None:
            quietly(glintru, command)

        found[f"offline, {name}"] = timed(run, sizes.repeats, sizes.users)
    return found


def quietly(main: Callable[[], None], command: list[str]) -> None:
    """Runs a command of the package in this process; what it prints is shown only where it fails."""
    before, said = sys.argv, io.StringIO()
    sys.argv = command
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            main()
    except SystemExit as end:
        if end.code:
            raise SystemExit(f"{' '.join(command)} ended with code {end.code}:\n{said.getvalue()}") from None
    finally:
        sys.argv = before


def load(folder: Path, sizes: Sizes) -> dict[str, dict[str, float]]:
    """`Recommender.from_pretrained`, in a process that has loaded a model before."""
    recommender = public("Recommender")
    return {f"load, {name}": timed(lambda name=name: recommender.from_pretrained(folder / name), 3) for name in MODELS}


MEASURES: dict[str, Callable[[Path, Sizes], dict[str, dict[str, float]]]] = {
    "step": step,
    "click": click,
    "offline": offline,
    "load": load,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the model folders and the table are, or will be")
    parser.add_argument("what", nargs="+", choices=["prepare", *MEASURES])
    parser.add_argument("--quick", action="store_true", help="sizes that only show that everything runs")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    # As the command does, before torch is loaded: threads that wait for work leave the cores to others.
    sys.argv[0] = "glintru"
    package = importlib.import_module("modeling_glintru")
    import torch

    torch.set_num_threads(options.threads)
    sizes = QUICK if options.quick else FULL
    options.folder.mkdir(parents=True, exist_ok=True)
    if "prepare" in options.what:
        prepare(options.folder, sizes)
    rows: dict[str, dict[str, float]] = {}
    for name in options.what:
        if name != "prepare":
            rows |= MEASURES[name](options.folder, sizes)
    report = {"package": str(Path(str(package.__file__)).parent), "rows": rows}
    (options.folder / "measured.json").write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main()
