"""What `glintru compare` does."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import RecipeError
from .dry_run import describe_queue
from .protocol import Protocol
from .queue import Job, run_queue
from .results import Results
from .schedule import Selection

__all__ = ["make_page", "run_comparison"]


def run_comparison(
    protocol: Protocol,
    selection: Selection,
    results: Results,
    *,
    workers: int = 1,
    max_minutes: float | None = None,
    retry_failed: bool = False,
    dry_run: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Runs what is left of a comparison.

    Args:
        protocol: Budgets and seeds.
        selection: Which part of it.
        results: Where trials are written down; what is there does not run again.
        workers: Processes, one core each.
        max_minutes: Then trials stop, with a checkpoint.
        retry_failed: Whether trials that failed run again.
        dry_run: Only says what would run.
        say: Gets lines for people.

    Raises:
        RecipeError: An option out of range.
        DataError: The interactions cannot be read, or are not those of the results.
    """
    if workers < 1 or (max_minutes is not None and max_minutes <= 0):
        raise RecipeError(f"--workers must be at least 1 and --max_minutes above 0: {workers}, {max_minutes}")
    if retry_failed and not dry_run:
        for name in selection.data:
            results.forget_failures(name)
    deadline = None if max_minutes is None else time.time() + 60 * max_minutes
    job = Job(protocol, selection, results.folder, deadline, workers)
    if dry_run:
        say(describe_queue(job))
        return
    run_queue(job, say)
    left = describe_queue(job)
    say(left if "\n" not in left else f"Left: {left.splitlines()[-1]}; the same command goes on with them.")


def make_page(protocol: Protocol, results: Results, data: Sequence[str], output: Path) -> list[Path]:
    """Writes the page and its charts from what has run; gives the files.

    Args:
        protocol: What was tuned.
        results: What has run.
        data: Only these data sets; all with results when empty.
        output: The page.
    """
    from .report import write_report
    from .rows import DataReport
    from .selection import select_for_report

    names = [name for name in protocol.data if results.file(name).is_file()]
    selection = select_for_report(protocol, names, data)
    return write_report([DataReport(name, protocol, selection, results) for name in selection.data], output)
