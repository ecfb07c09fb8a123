"""Processes that take trials from the queue until none is left; stopped at any moment, the next start goes on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data import PreparedData
from ..errors import DataError, GlintRUError
from ..jobs import prepare_data
from ..models.auto import registered_name
from ..training.stopping import RunStopped
from .estimate import Estimate
from .plan import Comparison
from .results import Results, main_column
from .run_trial import data_counts, describe_trial, run_trial
from .trials import FINAL, FIXED, TUNE, Step, Trial, ready

__all__ = ["Job", "run_queue", "work"]

NOTHING_LEFT = "Nothing is left to run."
POLL_SECONDS = 1.0
PATIENCE_SECONDS = 30.0
STOPPED_EXIT = 130
NAMES = {TUNE: "search", FINAL: "measured", FIXED: "measured"}  # of the stages, for people
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")
STOPPED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # by hand; any other signal is a trial that crashed


@dataclass(frozen=True)
class Job:
    """What a process needs to know.

    Args:
        comparison: What is to run.
        folder: The folder of the results.
        deadline: When trials stop with a checkpoint, on the clock of `time.monotonic`, which all processes of a
            machine share and nobody sets; None never.
        workers: How many processes run trials at the same time.
    """

    comparison: Comparison
    folder: Path
    deadline: float | None = None
    workers: int = 1

    @property
    def results(self) -> Results:
        """The files of the results."""
        return Results(self.folder)

    def steps(self) -> tuple[list[Step], dict[str, float | None]]:
        """The plan as it stands, and the validation metric of each trial that has run."""
        done: dict[str, float | None] = {}
        for name in self.comparison.data:
            done |= self.results.validation(name, self.comparison.metric)
        return self.comparison.plan(done), done

    def estimate(self) -> Estimate:
        """How long trials take, from all that have run on this data."""
        records = [record for name in self.comparison.data for record in self.results.read(name).values()]
        return Estimate(self.comparison, records)

    def describe(self) -> str:
        """What is left to run, most urgent first, with an upper estimate of its time, for people."""
        steps, done = self.steps()
        estimate = self.estimate()
        lines, total, runs = [], 0.0, 0
        for step in steps:
            left = step.undecided + sum(trial.key not in done for trial in step.trials)
            if not left:
                continue
            seconds = estimate.step(step, done)
            total, runs = total + seconds, runs + left
            row = step.row if len(self.comparison.data) == 1 else f"{step.data} {step.row}"
            what = NAMES.get(step.stage, step.stage)
            waits = "  then" if step.undecided else ""
            epochs = f"{left:>2} x {step.epochs:>3} epochs"
            lines.append(f"{row[:36]:<37}{what:<10}{epochs:<15}{clock(seconds):>9}{waits}")
        if not lines:
            return NOTHING_LEFT
        shared = "" if self.workers == 1 else f", {clock(total / self.workers)} with --workers {self.workers}"
        runs_left = "1 run" if runs == 1 else f"{runs} runs"
        return "\n".join([*lines, f"{runs_left}, at most {clock(total)} of one core{shared}"])


def clock(seconds: float) -> str:
    """A duration for people."""
    minutes = round(seconds / 60)
    return f"{minutes // 60}h{minutes % 60:02d}" if minutes >= 60 else f"{minutes} min"


def work(job: Job, say: Callable[[str], None] = print) -> None:
    """Runs trials in this process until none is left, or time is up.

    While other processes run trials that decide what comes next, it waits for them.
    """
    prepared: dict[str, PreparedData] = {}
    while True:
        steps, done = job.steps()
        busy = False
        for trial in ready(steps, done):
            if job.deadline is not None and time.monotonic() >= job.deadline:
                return
            claim = job.results.claim(trial.key)
            if claim is None:
                busy = True
                continue
            try:
                # Between the look at the file and the claim another process may have finished it.
                if trial.key not in job.results.read(trial.data):
                    attempt(job, trial, prepared, say)
            finally:
                claim.release()
            break
        else:
            if not busy:
                return
            wait_for_others(job)


def wait_for_others(job: Job) -> None:
    """Returns when another process has written a trial down, or after a while, in case it ended without."""
    files = [job.results.file(name) for name in job.comparison.data]

    def sizes() -> list[int]:
        return [file.stat().st_size if file.exists() else 0 for file in files]

    before, deadline = sizes(), time.monotonic() + PATIENCE_SECONDS
    while sizes() == before and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def attempt(job: Job, trial: Trial, prepared: dict[str, PreparedData], say: Callable[[str], None]) -> None:
    """Runs a trial and writes down what came out, be it an error."""
    results = job.results
    if trial.data not in prepared:
        prepared[trial.data] = open_data(job, trial.data)
    say(f"start  {trial}")
    start = time.perf_counter()
    try:
        line, ranks = run_trial(trial, prepared[trial.data], results.work / "runs" / trial.key, job.deadline)
    except RunStopped:
        say(f"stopped {trial}: the next start goes on with it")
        raise
    except Exception as error:  # whatever it is, the other trials go on
        add_failure(results, trial, f"{type(error).__name__}: {error}", say)
        return
    results.add(line | {"workers": job.workers}, ranks)
    metric = job.comparison.metric
    value = line["validation"][main_column(line)][metric]
    say(f"done   {trial}: validation {metric} {value:.4f}, {time.perf_counter() - start:.0f} s")


def add_failure(results: Results, trial: Trial, error: str, say: Callable[[str], None]) -> None:
    """Writes down that a trial failed."""
    sentence = " ".join(error.split())[:500]
    results.add(describe_trial(trial) | {"status": "failed", "error": sentence})
    say(f"failed {trial}: {sentence}")


def open_data(job: Job, name: str) -> PreparedData:
    """Prepares a data set, and makes sure that it is the one that the results are about.

    Raises:
        DataError: It is another one, or cannot be read.
    """
    data = prepare_data(job.comparison.data[name], time_gaps=True, say=lambda text: None)
    check_data(job.results, name, data_counts(data), data.processor.recommend_seen)
    return data


def check_data(results: Results, name: str, counts: dict[str, int], recommend_seen: bool) -> None:
    """Makes sure that results are about this data.

    Raises:
        DataError: They are about other data, or the data was ranked in another way.
    """
    main = "full_with_history" if recommend_seen else "full"
    for record in results.read(name).values():
        if record.get("data_counts", counts) != counts:
            raise DataError(
                f"{results.file(name)} is about other data ({record['data_counts']}, here {counts}); give another "
                "folder for the results"
            )
        if record["status"] == "done" and main_column(record) != main:
            raise DataError(f"{results.file(name)} was measured with another recommend_seen; give another folder")


def run_queue(job: Job, say: Callable[[str], None] = print) -> None:
    """Runs the queue in processes of one thread each, and says what is left of it.

    A process that crashes takes its trial with it (written down as failed) and is replaced. All of them end when this
    process ends, however that happens; the next start goes on with a trial that was stopped in the middle, from its
    last checkpoint.

    Raises:
        DataError: A worker could not read the data, or ended outside of a trial.
    """
    context = multiprocessing.get_context("spawn")
    errors = context.SimpleQueue()

    def start() -> Any:
        process = context.Process(target=_process, args=(job, os.getpid(), errors), daemon=True)
        process.start()
        return process

    with _one_thread_each():
        running, broken = [start() for _ in range(job.workers)], False
        try:
            while running:
                for process in list(running):
                    process.join(POLL_SECONDS / len(running))
                    if process.exitcode is None:
                        continue
                    running.remove(process)
                    if write_down_crash(job, process, say):
                        running.append(start())
                    elif process.exitcode > 0 and process.exitcode != STOPPED_EXIT:
                        broken = True
        finally:
            for process in running:
                process.terminate()
    if not errors.empty():
        raise DataError(errors.get())
    if broken:
        raise DataError("a worker ended outside of a trial; its last lines above say why")
    left = job.describe()
    say(left if "\n" not in left else f"Left: {left.splitlines()[-1]}; the same command goes on with them.")


def write_down_crash(job: Job, process: Any, say: Callable[[str], None]) -> bool:
    """Writes down as failed the trial in whose middle a signal ended a worker; returns whether there was one."""
    number = -process.exitcode
    if number <= 0 or number in STOPPED:
        return False
    keys = job.results.claimed_by(process.pid)
    steps, done = job.steps()
    lost = [trial for trial in ready(steps, done) if trial.key in keys]
    for trial in lost:
        error = f"the process was ended by {signal.Signals(number).name}"
        add_failure(job.results, trial, error + (" (out of memory?)" if number == signal.SIGKILL else ""), say)
    return bool(lost)


def _process(job: Job, parent: int, errors: Any) -> None:
    """A worker: quiet libraries, one thread, and no life after its parent's."""
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        for model in job.comparison.model_files:
            registered_name(model)
        work(job, lambda text: print(f"{time.strftime('%H:%M')}  {text}", flush=True))
    except (KeyboardInterrupt, RunStopped):
        sys.exit(STOPPED_EXIT)
    except (GlintRUError, OSError) as error:
        errors.put(str(error))


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os._exit(STOPPED_EXIT)


@contextmanager
def _one_thread_each() -> Any:
    """For processes that start inside: libraries read these once, when they load."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
