"""Runs `glintru train` and writes down how much memory the process has at some steps, and how long a step takes.

    python benchmarks/train_memory.py --report memory.json --steps 50 300 -- --data mine.csv --output_dir outputs/mine

Everything after `--` goes to `glintru train`. The report is JSON: for each step that was reached, for the end of the
training (`"end"`) and for that of the process (`"exit"`), the bytes that the process holds (`rss`) and the most that it
has held so far (`peak`); and the seconds of each step, what happens between two steps included.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any


def memory() -> dict[str, int]:
    """Bytes that this process holds now, where the system tells, and the most that it has held."""
    status = Path("/proc/self/status")
    if not status.exists():  # macOS counts bytes, others kilobytes
        unit = 1 if sys.platform == "darwin" else 1024
        return {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    # Not `ru_maxrss`: there a new process begins with the memory of the one that started it.
    lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
    return {name: int(lines[key].split()[0]) * 1024 for name, key in (("rss", "VmRSS"), ("peak", "VmHWM"))}


def watch_training(steps: set[int], stop: int | None) -> dict[str, Any]:
    """Lets every Trainer of this process fill the report that is returned.

    Args:
        steps: Where the memory is noted.
        stop: The step after which the training ends; None for its own end.
    """
    from transformers import TrainerCallback, trainer

    report: dict[str, Any] = {"memory": {}, "step_seconds": []}

    class Watch(TrainerCallback):
        last: float | None = None

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            now = time.perf_counter()
            if self.last is not None:
                report["step_seconds"].append(now - self.last)
            self.last = now
            if state.global_step in steps:
                report["memory"][str(state.global_step)] = memory()
            if state.global_step == stop:
                control.should_training_stop = True

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            report["memory"]["end"] = memory()
            report["steps"] = state.global_step

    trainer.DEFAULT_CALLBACKS.append(Watch)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--steps", type=int, nargs="+", default=[], help="steps at which the memory is noted")
    parser.add_argument("--stop", type=int, help="end the training after this step")
    parser.add_argument("arguments", nargs="+", help="those of glintru train, after --")
    options = parser.parse_args()
    sys.argv = ["glintru", "train", *options.arguments]  # first: the package looks at the name of the command
    from modeling_glintru.cli import main as glintru

    report = watch_training({*options.steps}, options.stop)
    try:
        glintru()
    except SystemExit as end:
        if end.code:
            raise
    report["memory"]["exit"] = memory()
    options.report.write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main()
