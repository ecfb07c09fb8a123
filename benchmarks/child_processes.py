"""What the tools that measure whole processes share: their environment, their time, and a table for `glintru train`.

Nothing here imports the package, so that the tools also work on a commit in which it is laid out otherwise.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
TRAIN_MEMORY = Path(__file__).with_name("train_memory.py")
SAID = 2_000  # characters that are shown of what a failed process wrote


@dataclass(frozen=True)
class Spent:
    """Seconds that a process took: on the clock, and of the processor, all its threads together."""

    seconds: float
    cpu: float


def package_environment(root: Path, threads: int | None = None) -> dict[str, str]:
    """The environment in which Python imports the package that lies in `root`, and reaches no network."""
    limit = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    return {**os.environ, "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", **limit}


def run_python(arguments: Sequence[str], root: Path, threads: int | None = None) -> Spent:
    """Runs this Python with the package that lies in `root`, and waits for it.

    Args:
        arguments: After the name of the interpreter.
        root: Also the folder where it runs, since `-c` and `-m` look for packages there before anywhere else.
        threads: Of the process; as many as it takes by default.

    Raises:
        RuntimeError: It failed; the message ends with the last of what it wrote.
    """
    command, environment = [sys.executable, *arguments], package_environment(root, threads)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, errors="replace")
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        said = (done.stdout + done.stderr).strip()[-SAID:]
        raise RuntimeError(f"{' '.join(command)} ended with code {done.returncode}:\n{said}")
    return Spent(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def median_cpu(arguments: Sequence[str], root: Path, times: int = 3) -> float:
    """Median CPU seconds of a process; one run before, which writes byte code, is not counted."""
    run_python(arguments, root)
    return statistics.median(run_python(arguments, root).cpu for _ in range(times))


def write_interactions(path: Path, rows: int, users: int, items: int) -> None:
    """Writes a CSV table with `user_id`, `item_id` and `timestamp` of random interactions.

    Histories have at least three items and lengths of a geometric distribution; items follow a popularity tail, and
    each item has been taken at least once where there are rows enough.

    Args:
        path: The file.
        rows, users, items: How many; at least three rows a user.
    """
    rng = np.random.default_rng(0)
    lengths = 3 + rng.multinomial(rows - 3 * users, rng.dirichlet(np.ones(users)))
    item_ids = np.minimum((items * rng.random(rows) ** 2).astype(np.int64), items - 1)
    everyone = min(items, rows)
    item_ids[rng.permutation(rows)[:everyone]] = np.arange(everyone)
    table = np.column_stack([np.repeat(np.arange(users), lengths), item_ids, np.arange(rows)])
    np.savetxt(path, table, fmt="%d", delimiter=",", header="user_id,item_id,timestamp", comments="")


def train_with_memory(
    arguments: Sequence[str], steps: Sequence[int], root: Path, stop: int | None = None, threads: int | None = None
) -> dict[str, Any]:
    """Runs `glintru train` in a process of its own and gives what `train_memory.py` found.

    Args:
        arguments: After `glintru train`.
        steps: Where the memory is noted.
        root: Where the package lies.
        stop: The step after which the training ends; None for its own end.
        threads: See `run_python`.

    Raises:
        RuntimeError: The training failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "memory.json"
        options = ["--report", str(report), "--steps", *map(str, steps)]
        if stop is not None:
            options += ["--stop", str(stop)]
        run_python([str(TRAIN_MEMORY), *options, "--", *arguments], root, threads)
        return json.loads(report.read_text(encoding="utf-8"))
