"""The queue and its time, in a table for people."""

from __future__ import annotations

from .queue import Job
from .trials import TUNE

__all__ = ["describe_queue"]


def describe_queue(job: Job) -> str:
    """What is left to run, most urgent first, with an upper estimate of its time.

    Args:
        job: The comparison.
    """
    steps, done = job.steps()
    estimate = job.estimate()
    lines, total, runs = [], 0.0, 0
    for step in steps:
        left = step.undecided + sum(trial.key not in done for trial in step.trials)
        if not left:
            continue
        seconds = estimate.step(step, done)
        total, runs = total + seconds, runs + left
        look = any(trial.setting_of for trial in step.trials)
        what = "search" if step.stage == TUNE else "first look" if look else step.stage
        waits = "  after the steps before it" if step.undecided else ""
        lines.append(
            f"{step.data:<20}{step.row:<34}{what:<11}{left:>3} x {step.epochs:>3} epochs{_clock(seconds):>9}{waits}"
        )
    if not lines:
        return "Nothing is left to run."
    shared = f"{_clock(total / job.workers)} with --workers {job.workers}"
    lines.append(f"{runs} runs, at most {_clock(total)} of one core, {shared}")
    return "\n".join(lines)


def _clock(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60}h{minutes % 60:02d}" if minutes >= 60 else f"{minutes} min"
