"""Runs one trial and gives the line that is written down about it."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import time
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import TrainerControl, TrainerState, TrainingArguments

from .._version import __version__
from ..data import PreparedData
from ..data.histories import arrow_view, read_rows
from ..evaluation import Evaluation, ModelScorer, RankingMetrics, Scorer, evaluate, library_versions, target_ranks
from ..evaluation.metrics import per_user_metrics
from ..jobs import reference_scorers
from ..machine import processor_name
from ..training import train
from ..training.checkpoint import replace_json
from ..training.run import use_bf16
from ..training.stopping import Interruptions, RunStopped
from .results import USERS
from .trials import FILES, REFERENCE, TUNE, Trial

__all__ = ["TrialProgress", "commit", "describe_trial", "one_user_latency", "run_trial"]

WARM_UP = 10
STORED_RANKS = ("full", "full_with_history")


def describe_trial(trial: Trial) -> dict[str, Any]:
    """The part of a line that is known before the trial runs."""
    recipe = trial.recipe.to_dict()
    recipe["data"] |= dict.fromkeys(FILES)  # folders say more than they should
    return {
        **{"key": trial.key, "group": trial.group, "data": trial.data, "row": trial.row, "model": trial.model},
        **{"stage": trial.stage, "rung": trial.rung, "index": trial.index, "seed": trial.recipe.seed},
        **{"setting": trial.setting, "epochs": trial.epochs, "recipe": recipe},
        **({"setting_of": trial.setting_of} if trial.setting_of else {}),
        **{"commit": commit(), "versions": library_versions()},
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def run_trial(
    trial: Trial, data: PreparedData, folder: Path, deadline: float | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray] | None]:
    """Trains (the epoch is chosen on validation), and measures on both splits.

    Args:
        trial: What to run.
        data: The prepared interactions.
        folder: For checkpoints; removed at the end. A trial that was stopped goes on from those that are there.
        deadline: When training stops with a checkpoint, on the clock of `time.monotonic`.

    Returns:
        The line, ready for JSON, and for a measured run the test ranks by column, with the user of each where users
        have several targets.

    Raises:
        RunStopped: At the deadline, or by a signal.
    """
    recipe = trial.recipe
    line = describe_trial(trial) | {"status": "done", "data_counts": data_counts(data)}
    if trial.stage == REFERENCE:
        start = time.perf_counter(), time.process_time()
        scorer = reference_scorers(recipe, data)[trial.row]
        line |= {"seconds": _since(time.perf_counter, start[0]), "cpu_seconds": _since(time.process_time, start[1])}
        line |= {"curve": [], "steps": 0, "parameters": 0, "device": "cpu", "bf16": False}
    else:
        progress = TrialProgress(folder, line["commit"] or f"version {__version__}", deadline)
        try:
            result = train(
                recipe,
                data,
                folder,
                compute_metrics=RankingMetrics(recipe.evaluation.top_k),
                preprocess_logits_for_metrics=target_ranks,
                resume=progress.goes_on,
                interruptions=progress,
                progress=False,
                say=lambda text: None,
            )
        except Exception as error:
            if not isinstance(error, RunStopped):
                shutil.rmtree(folder, ignore_errors=True)
            raise
        cpu_seconds = progress.cpu_seconds
        shutil.rmtree(folder, ignore_errors=True)
        scorer = ModelScorer(result.model, recipe.training.max_length)
        summary = result.summary()
        line |= {
            "seconds": round(result.seconds, 2),
            "cpu_seconds": round(cpu_seconds, 2),
            "curve": curve(result.log_history, recipe.training.metric),
            "epochs_run": summary["epochs"],
            "best_epoch": summary["best_epoch"],
            "steps": summary["steps"],
            "parameters": summary["num_parameters"],
            "device": summary["device"],
            "bf16": use_bf16(recipe.training.precision),
        }
    line |= {"threads": torch.get_num_threads(), "processor": processor_name(line["device"])}
    validation = _evaluated(trial, data, scorer, "validation")
    test = _evaluated(trial, data, scorer, "test")
    line |= {"main": test.main, "validation": means(validation), "test": means(test)}
    if trial.stage == TUNE:
        return line, None
    line["latency_ms"] = round(one_user_latency(scorer, data.dataset["test"]), 4)
    ranks = {name: test.ranks[name] for name in STORED_RANKS}
    return line, ranks if test.users is None else ranks | {USERS: test.users}


def _evaluated(trial: Trial, data: PreparedData, scorer: Scorer, split: str) -> Evaluation:
    return evaluate(
        scorer,
        data.dataset[split],
        ks=trial.recipe.evaluation.top_k,
        protocols=trial.recipe.evaluation.protocols,
        item_counts=data.item_counts,
        recommend_seen=data.processor.recommend_seen,
        batch_size=trial.recipe.training.eval_batch_size,
        progress=False,
    )


def means(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """Means over users, by column and metric."""
    return {
        column: {name: float(values.mean()) for name, values in per_user_metrics(ranks, evaluation.ks).items()}
        for column, ranks in evaluation.ranks.items()
    }


def curve(log_history: list[dict[str, Any]], metric: str) -> list[dict[str, float]]:
    """An entry an epoch: `epoch`, the validation `metric`, and the last training `loss` before it."""
    points: dict[float, dict[str, float]] = {}
    loss: float | None = None
    for entry in log_history:
        loss = entry.get("loss", loss)
        if f"eval_{metric}" in entry:
            point = {"epoch": entry["epoch"], metric: round(entry[f"eval_{metric}"], 6)}
            points.setdefault(entry["epoch"], point if loss is None else point | {"loss": round(float(loss), 4)})
    return list(points.values())


def data_counts(data: PreparedData) -> dict[str, int]:
    """What tells one data set from another."""
    return {name: data.summary[name] for name in ("users", "items", "interactions", "test_users")}


@cache
def commit() -> str | None:
    """The last commit that changed the package, with `-dirty` where its files differ from it; None outside of git."""
    package = Path(__file__).resolve().parents[1]

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=package, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        last = git("log", "-1", "--format=%h", "--", ".")
        return last + ("-dirty" if git("status", "--porcelain", "--", ".") else "") if last else None
    except (OSError, subprocess.CalledProcessError):
        return None


def _since(clock: Any, start: float) -> float:
    return round(clock() - start, 2)


class TrialProgress(Interruptions):
    """Writes beside each checkpoint of a trial its CPU seconds so far, and the commit of the code that computed them.

    A trial goes on only with the same code. Otherwise, and where nothing says which code it is, it starts anew.

    Args:
        folder: The folder of the trial's checkpoints.
        commit: The commit, or the version, of the code that runs now.
        deadline: When the trial stops, on the clock of `time.monotonic`; None never.
    """

    def __init__(self, folder: Path, commit: str | None, deadline: float | None = None) -> None:
        super().__init__(deadline)
        self.file = folder / "progress.json"
        self.commit = commit
        self.began = time.process_time()
        self.seconds_before = 0.0
        past = self._past()
        self.goes_on = past is not None
        if past is None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        else:
            self.seconds_before = past["cpu_seconds"]

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of the trial, those before an interruption included."""
        return self.seconds_before + time.process_time() - self.began

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The Trainer has written a checkpoint."""
        replace_json(self.file, {"cpu_seconds": self.cpu_seconds, "commit": self.commit})
        super().on_save(args, state, control, **kwargs)

    def _past(self) -> dict[str, Any] | None:
        if self.commit is None or self.commit.endswith("-dirty"):
            return None
        try:
            past = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return past if past.get("commit") == self.commit else None


def one_user_latency(scorer: Scorer, split: Dataset, count: int = 200, seed: int = 0) -> float:
    """Median milliseconds in which the scores of all items are computed for one user's history, with one thread.

    This is CPU time, so that other work on the machine does not count, and wall time where a GPU gives the scores.

    Args:
        scorer: Gets histories one by one.
        split: Rows with `item_ids` and `target`.
        count: How many users are scored, at most.
        seed: Seed that draws the users.
    """
    rows = np.random.default_rng(seed).permutation(len(split))[:count]
    histories, _ = read_rows(arrow_view(split, ["item_ids", "target"]), np.sort(rows))
    given = [np.zeros(1, np.float32)] if getattr(scorer, "needs_time_gaps", False) else []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        device = scorer([histories[0]], *given).device.type
        clock = time.process_time if device == "cpu" else time.perf_counter
        for history in histories[:WARM_UP]:
            scorer([history], *given)
        seconds = []
        for history in histories:
            start = clock()
            scorer([history], *given).cpu()
            seconds.append(clock() - start)
    finally:
        torch.set_num_threads(threads)
    return 1000 * statistics.median(seconds)
