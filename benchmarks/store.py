"""Clicks through the store on disk: how many a second, how long one takes, how much room a user takes.

All sides run in one process, in turns: one caller and eight (as threads), eight that do not share transactions, and
callers that do not wait. What bounds them is the disk: one wait for it (fsync) is timed beside them.

    OMP_NUM_THREADS=1 python benchmarks/store.py

Prints a table and writes benchmarks/results/store.json.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import report_header, spread, write_report

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation, GlintRUProcessor
from modeling_glintru.serving import Event, StreamingRecommender, rebuild_all

RESULTS = Path(__file__).parent / "results" / "store.json"
ITEMS = 3416  # of ML-1M
PROCESSOR = GlintRUProcessor(list(range(1, ITEMS + 1)))


def model(size: int, seed: int = 0) -> GlintRUForSequentialRecommendation:
    torch.manual_seed(seed)
    config = GlintRUConfig(vocab_size=ITEMS + 1, hidden_size=size, num_attention_heads=size // 16)
    return GlintRUForSequentialRecommendation(config).eval()


def fill(recommender: StreamingRecommender, users: int, events: int) -> None:
    """Gives each of the users so many clicks."""
    draw = np.random.default_rng(0)
    for start in range(0, users, 500):
        items = draw.integers(1, ITEMS + 1, (500, events)).tolist()
        recommender.observe_many([(start + n, item) for n, row in enumerate(items) for item in row])


def percentiles(seconds: list[float]) -> dict[str, float]:
    milliseconds = 1e3 * np.array(seconds)
    return {f"p{p}_ms": float(np.percentile(milliseconds, p)) for p in (50, 99)}


def callers(number: int, clicks: int, users: int, click: Callable[[int, int], Any]) -> dict[str, float]:
    """Threads that each send `clicks` clicks, the next one when the last is acknowledged."""
    seconds: list[float] = []

    def work(caller: int) -> None:
        draw = np.random.default_rng((caller, time.monotonic_ns()))
        for user, item in zip(draw.integers(users, size=clicks), draw.integers(1, ITEMS + 1, clicks), strict=True):
            start = time.perf_counter()
            click(int(user), int(item))
            seconds.append(time.perf_counter() - start)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(number)]
    wall, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "clicks_per_second": len(seconds) / wall,
        "cpu_us_per_click": 1e6 * cpu / len(seconds),
        **percentiles(seconds),
    }


def fsync(folder: Path, rounds: int) -> dict[str, float]:
    """One wait for the disk: 64 kB written over in a file that is there, as a write-ahead log does it."""
    page, seconds = os.urandom(1 << 16), []
    with open(folder / "fsync", "wb+", buffering=0) as file:
        file.write(page * 64)
        os.fsync(file.fileno())
        for n in range(rounds):
            start = time.perf_counter()
            os.pwrite(file.fileno(), page, n % 64 << 16)
            os.fdatasync(file.fileno())
            seconds.append(time.perf_counter() - start)
    return {"mean_ms": 1e3 * float(np.mean(seconds)), **percentiles(seconds)}


def clicks(folder: Path, size: int, users: int, count: int, rounds: int) -> dict[str, Any]:
    """Clicks a second of every side, and the ratio within rounds that sharing transactions gives."""
    with StreamingRecommender(model(size), PROCESSOR, folder / f"clicks-{size}.db") as recommender:
        fill(recommender, users, 5)

        def alone(user: int, item: int) -> None:
            recommender.store.absorb([Event(user, item)], recommender.step.fingerprint, recommender.advancer)

        def many(user: int, item: int) -> None:
            recommender.observe_many([((user + n) % users, item) for n in range(16)])

        def not_durable(user: int, item: int) -> None:
            recommender.observe(user, item, durable=False)

        runs: dict[str, Callable[[], dict[str, float]]] = {
            "1 caller": lambda: callers(1, count, users, recommender.observe),
            "8 callers": lambda: callers(8, count, users, recommender.observe),
            "32 callers": lambda: callers(32, count // 4, users, recommender.observe),
            "8 callers, a transaction each": lambda: callers(8, count // 4, users, alone),
            "8 callers, 16 clicks a call": lambda: callers(8, count // 4, users, many),
            "8 callers, not durable": lambda: callers(8, count, users, not_durable),
            "8 callers, recommend": lambda: callers(8, count, users, lambda user, _: recommender.recommend(user)),
            "1 caller, recommend": lambda: callers(1, count, users, lambda user, _: recommender.recommend(user)),
        }
        found: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
        found["fsync"] = []
        for _ in range(rounds):
            found["fsync"].append(fsync(folder, 200))
            for name, run in runs.items():
                found[name].append(run())
                recommender.flush()
    found["8 callers, 16 clicks a call"] = [
        {**each, "clicks_per_second": 16 * each["clicks_per_second"], "cpu_us_per_click": each["cpu_us_per_click"] / 16}
        for each in found["8 callers, 16 clicks a call"]
    ]
    speeds = {name: [each["clicks_per_second"] for each in found[name]] for name in runs}
    medians = {
        name: {key: float(np.median([each[key] for each in values])) for key in values[0]}
        for name, values in found.items()
    }
    return {
        "hidden_size": size,
        "clicks_by_caller": count,
        "rounds": rounds,
        "medians": medians,
        "ratios": {
            "8 callers / a transaction each": spread(speeds["8 callers"], speeds["8 callers, a transaction each"]),
            "8 callers / 8 clicks a wait for the disk": spread(
                speeds["8 callers"], [8e3 / each["mean_ms"] for each in found["fsync"]]
            ),
        },
    }


def room(folder: Path, size: int, users: int, events: int, dtype: str) -> dict[str, Any]:
    """Bytes on disk of states and of raw events, and how fast other weights rebuild them."""
    file = folder / f"room-{size}-{dtype}.db"
    with StreamingRecommender(model(size), PROCESSOR, file, dtype=dtype) as recommender:
        fill(recommender, users, events)
    whole = file.stat().st_size
    start = time.perf_counter()
    with StreamingRecommender(model(size), PROCESSOR, file, dtype=dtype) as recommender:
        recommender.recommend(7)
        opened = time.perf_counter() - start
        query = "SELECT SUM(pgsize) FROM dbstat WHERE name GLOB 'states_*'"
        with recommender.store._reader() as connection:  # type: ignore[attr-defined]
            states = connection.execute(query).fetchone()[0]
    options: dict[str, Any] = {"dtype": dtype, "rebuild_on_demand": True}
    with StreamingRecommender(model(size, seed=1), PROCESSOR, file, **options) as recommender:
        wall, cpu = time.perf_counter(), time.process_time()
        rebuild_all(recommender, progress=False)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    file.unlink()
    return {
        "hidden_size": size,
        "dtype": dtype,
        "users": users,
        "events_by_user": events,
        "bytes_by_state": states / users,
        "bytes_by_event": (whole - states) / users / events,
        "million_states_gb_extrapolated": states / users / 1e3,
        "open_and_first_answer_ms": 1e3 * opened,
        "rebuilt_users_per_second": users / wall,
        "rebuilt_users_per_cpu_second": users / cpu,
    }


def import_seconds() -> float:
    """A new process that imports what serving needs."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import modeling_glintru.serving"], check=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--events", type=int, default=20, help="of each user, where room and rebuilding are measured")
    parser.add_argument("--clicks", type=int, default=1000, help="of each caller")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; the system's place for temporary files")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder, results, rooms = Path(name), [], []
        for size in args.sizes:
            results.append(clicks(folder, size, args.users // 5, args.clicks, args.rounds))
            for name, values in results[-1]["medians"].items():
                print(f"d = {size}, {name}: " + ", ".join(f"{key} {value:,.2f}" for key, value in values.items()))
            print(results[-1]["ratios"])
            for dtype in ("float32", "float16"):
                rooms.append(room(folder, size, args.users, args.events, dtype))
                print(rooms[-1])
    seconds = [import_seconds() for _ in range(3)]
    print(f"import {min(seconds):.1f} s")
    report = {**report_header(cores=os.cpu_count(), load=os.getloadavg()), "clicks": results, "room": rooms}
    write_report(args.output, {**report, "import_seconds": min(seconds)})


if __name__ == "__main__":
    main()
