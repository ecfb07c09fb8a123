"""Compares two commits of this repository: speed, load and import time, and memory, as ratios.

    python benchmarks/compare_commits.py HEAD~5 HEAD
    python benchmarks/compare_commits.py main .                  # `.` is the working tree as it is
    python benchmarks/compare_commits.py v0.1.0 . --only step click --rounds 7 --json ratios.json

Each commit is checked out into a temporary folder, which is removed at the end, and runs from there; nothing is
installed. Processes of the two take turns (old, new, old, new, ...), ratios are taken within a round, and their median,
lowest and highest value are shown. **Above 1, NEW is faster or smaller.** The machine should do nothing else meanwhile;
all of it takes three to four minutes on two quiet cores.

What is compared (`--only` chooses):

    step      a training step (forward, backward, clipping, AdamW) of two models: the published block at d = 128
              ("plain"), and two blocks at d = 64 with a moving average and a state space ("best")
    click     `StreamingRecommender`: observe one click, then recommend ten items
    offline   `glintru recommend --all`: users a second, reading the table and writing the file included
    load      `Recommender.from_pretrained`
    import    `import modeling_glintru`, the import of the model's class, and `glintru --help`, each a new process
    memory    a short `glintru train`: the most memory that the process held, and its median step
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from child_processes import ROOT, run_python, train_with_memory, write_interactions

WORKER = Path(__file__).with_name("commit_worker.py")
IN_WORKER = ("step", "click", "offline", "load")
MEASURES = (*IN_WORKER, "import", "memory")
IMPORTS = {
    "import, package": ("-c", "import modeling_glintru"),
    "import, model": ("-c", "from modeling_glintru import GlintRUForSequentialRecommendation"),
    "glintru --help": ("-m", "modeling_glintru", "--help"),
}
# Rows, users and items of the table for `glintru train`, and the step after which it ends.
TRAINING, QUICK_TRAINING = (15_000, 1_000, 2_000, 30), (600, 60, 40, 5)

Values = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Side:
    """One of the two commits.

    Args:
        name: `"old"` or `"new"`.
        root: Where its files are.
        folder: Where its worker writes.
        described: What is compared, for people.
    """

    name: str
    root: Path
    folder: Path
    described: str


# ---------------------------------------------------------------------- the commits


def git(*arguments: str, root: Path) -> subprocess.CompletedProcess[str]:
    """Runs git in the repository."""
    return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)


def commit_of(ref: str, root: Path) -> str:
    """The full name of the commit that a branch, tag or other name stands for.

    Raises:
        SystemExit: There is none in this clone; the message says how to get it where the clone is shallow.
    """
    found = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}", root=root)
    if found.returncode == 0:
        return found.stdout.strip()
    if git("rev-parse", "--git-dir", root=root).returncode:
        raise SystemExit(f"{root} is no clone of a git repository, so that there are no commits to compare")
    message = f"there is no commit {ref!r} in this clone"
    if git("rev-parse", "--is-shallow-repository", root=root).stdout.strip() == "true":
        message += "; it is a shallow one: `git fetch --unshallow` gets all commits, and `git fetch origin REF` one"
    raise SystemExit(message)


@contextlib.contextmanager
def checked_out(ref: str, target: Path, root: Path) -> Iterator[Path]:
    """The files of a commit in a folder of their own, as long as they are needed; `.` is the working tree itself."""
    if ref == ".":
        yield root
        return
    commit = commit_of(ref, root)
    try:
        added = git("-c", "core.hooksPath=/dev/null", "worktree", "add", "--detach", str(target), commit, root=root)
        if added.returncode:
            raise SystemExit(f"git could not check out {ref!r}: {added.stderr.strip()}")
        yield target
    finally:
        git("worktree", "remove", "--force", str(target), root=root)
        git("worktree", "prune", root=root)


def described(ref: str, root: Path) -> str:
    """A commit in a line, or the working tree."""
    if ref == ".":
        return "the working tree"
    return git("log", "-1", "--format=%h %s", commit_of(ref, root), root=root).stdout.strip()


@contextlib.contextmanager
def two_sides(old: str, new: str, root: Path = ROOT) -> Iterator[list[Side]]:
    """Both commits, checked out until the end, also where an error or Ctrl-C comes first."""
    for ref in (old, new):
        if ref != ".":
            commit_of(ref, root)  # a missing one is known before anything is written
    with tempfile.TemporaryDirectory(prefix="compare-commits-") as name, contextlib.ExitStack() as stack:
        sides = []
        for side, ref in (("old", old), ("new", new)):
            place = stack.enter_context(checked_out(ref, Path(name) / f"{side}-tree", root))
            sides.append(Side(side, place, Path(name) / side, described(ref, root)))
        yield sides


# ---------------------------------------------------------------------- what is measured


@dataclass(frozen=True)
class Plan:
    """What to measure, and how much of it.

    Args:
        only: Names of `MEASURES`.
        threads: Of each process.
        quick: Whether the sizes only show that everything runs.
    """

    only: Sequence[str]
    threads: int = 1
    quick: bool = False

    def worker(self, side: Side, *what: str) -> Values:
        """Runs the worker with the package of a side.

        Raises:
            RuntimeError: It failed, or took the package from somewhere else.
        """
        options = ["--threads", str(self.threads), *(["--quick"] if self.quick else [])]
        run_python([str(WORKER), str(side.folder), *what, *options], side.root, self.threads)
        report = json.loads((side.folder / "measured.json").read_text(encoding="utf-8"))
        if Path(report["package"]).resolve() != (side.root / "modeling_glintru").resolve():
            raise RuntimeError(f"the {side.name} side took the package from {report['package']}, not {side.root}")
        return report["rows"]

    def prepare(self, side: Side) -> None:
        """Builds the kernels of a side, writes what it measures with, and lets Python write its byte code once."""
        side.folder.mkdir(parents=True, exist_ok=True)
        if set(self.only) & set(IN_WORKER):
            self.worker(side, "prepare")
        else:
            run_python(IMPORTS["glintru --help"], side.root, self.threads)
        if "memory" in self.only:
            rows, users, items, _ = QUICK_TRAINING if self.quick else TRAINING
            write_interactions(side.folder / "training.csv", rows, users, items)

    def measure(self, side: Side) -> Values:
        """One round of one side."""
        found: Values = {}
        inside = [name for name in IN_WORKER if name in self.only]
        if inside:
            found |= self.worker(side, *inside)
        if "import" in self.only:
            found |= self.imports(side)
        if "memory" in self.only:
            found |= self.training(side)
        return found

    def imports(self, side: Side) -> Values:
        """The whole life of processes that do nothing but import."""
        runs = {name: run_python(arguments, side.root, self.threads) for name, arguments in IMPORTS.items()}
        return {name: {"seconds": run.seconds, "cpu": run.cpu} for name, run in runs.items()}

    def training(self, side: Side) -> Values:
        """A short `glintru train` with the settings that it chooses itself."""
        stop = (QUICK_TRAINING if self.quick else TRAINING)[-1]
        arguments = ["--data", str(side.folder / "training.csv"), "--output_dir", str(side.folder / "trained")]
        arguments += ["--overwrite", "--quiet"]
        report = train_with_memory(arguments, [stop], side.root, stop, self.threads)
        return {
            "memory, glintru train": {"bytes": report["memory"]["exit"]["peak"]},
            "step, glintru train": {"seconds": statistics.median(report["step_seconds"])},
        }


def measure_rounds(sides: Sequence[Side], plan: Plan, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """All rounds of both sides in turns.

    Returns:
        For each row `"old"` and `"new"`, what each round gave.
    """
    found: dict[str, Any] = {}
    for side in sides:
        say(f"prepares {side.name}: {side.described}")
        plan.prepare(side)
    for index in range(rounds):
        for side in sides:
            say(f"round {index + 1} of {rounds}, {side.name}")
            for row, values in plan.measure(side).items():
                found.setdefault(row, {"old": [], "new": []})[side.name].append(values)
    return found


# ---------------------------------------------------------------------- the table


def ratios(values: dict[str, list[dict[str, float]]], quantity: str) -> dict[str, float] | None:
    """Old over new within each round: median, lowest and highest; None where the quantity was not measured."""
    pairs = [
        (old[quantity], new[quantity]) for old, new in zip(values["old"], values["new"], strict=True) if quantity in old
    ]
    if not pairs:
        return None
    found = [old / max(new, 1e-12) for old, new in pairs]
    return {"median": statistics.median(found), "low": min(found), "high": max(found)}


def shown(row: str, value: float) -> str:
    """A value for people: megabytes, users a second, or a time."""
    if row.startswith("memory"):
        return f"{value / 1e6:,.0f} MB"
    if row.startswith("offline"):
        return f"{1 / value:,.0f} /s"
    if value < 1e-3:
        return f"{value * 1e6:,.0f} µs"
    return f"{value * 1e3:,.1f} ms" if value < 1 else f"{value:,.2f} s"


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """For each row the medians of both sides and the ratios, on the clock (or of bytes) and of processor time."""
    rows = {}
    for row, values in found.items():
        quantity = "bytes" if row.startswith("memory") else "seconds"
        medians = {side: statistics.median(value[quantity] for value in values[side]) for side in ("old", "new")}
        rows[row] = {**medians, "ratio": ratios(values, quantity), "cpu_ratio": ratios(values, "cpu")}
    return rows


def table(rows: dict[str, Any]) -> str:
    """The summary for people, at most 80 columns wide."""
    lines = [f"{'':23}{'old':>11}{'new':>11}{'ratio':>8}  {'lowest, highest':<16}{'CPU':>7}"]
    for row, values in rows.items():
        ratio, cpu = values["ratio"], values["cpu_ratio"]
        spread = f"[{ratio['low']:.2f}, {ratio['high']:.2f}]"
        processor = "" if cpu is None else f"{cpu['median']:.2f}"
        lines.append(
            f"{row:23}{shown(row, values['old']):>11}{shown(row, values['new']):>11}{ratio['median']:>8.2f}  "
            f"{spread:<16}{processor:>7}"
        )
    return "\n".join(map(str.rstrip, lines))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", metavar="OLD", help="a commit, branch or tag")
    parser.add_argument("new", metavar="NEW", help="another one, or `.` for the working tree")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES), help="some of the measures")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    parser.add_argument("--quick", action="store_true", help="sizes that only show that everything runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to this file")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.threads < 1:
        parser.error("--rounds and --threads are 1 or more")
    load = os.getloadavg()[0]
    print(f"Ratios mean something on a quiet machine only; its load is {load:.1f} on {os.cpu_count()} cores.")
    plan = Plan(options.only, options.threads, options.quick)
    with two_sides(options.old, options.new) as sides:
        found = measure_rounds(sides, plan, options.rounds, lambda text: print(text, file=sys.stderr, flush=True))
        rows = summary(found)
        print("\n" + "\n".join(f"{side.name}  {side.described[:74]}" for side in sides))
    print(f"above 1, new is faster or smaller; {options.rounds} round(s), {options.threads} thread(s)\n")
    print(table(rows))
    if options.json is not None:
        report = {side.name: side.described for side in sides}
        report |= {"rounds": options.rounds, "threads": options.threads, "quick": options.quick, "load": load}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({**report, "rows": rows, "values": found}, indent=1) + "\n", "utf-8")
        print(f"\nwritten to {options.json}")


def _leave(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)  # so that the folders are removed on the way out


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _leave)
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("stopped, the temporary folders are removed") from None
    except RuntimeError as error:
        raise SystemExit(str(error)) from None
