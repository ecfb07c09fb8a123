"""Runs one trial and gives the line that is written down about it."""

from __future__ import annotations

import shutil
import subprocess
import time
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import PreparedData
from ..evaluation import Evaluation, ModelScorer, RankingMetrics, Scorer, evaluate, library_versions, target_ranks
from ..evaluation.metrics import per_user_metrics
from ..jobs import reference_scorers
from ..machine import processor_name
from ..training import train
from ..training.run import use_bf16
from ..training.stopping import RunStopped
from .latency import one_user_latency
from .progress import TrialProgress
from .trials import REFERENCE, TUNE, Trial

__all__ = ["describe_trial", "run_trial"]

STORED_RANKS = ("full", "full_with_history")


def describe_trial(trial: Trial) -> dict[str, Any]:
    """The part of a line that is known before the trial runs."""
    recipe = trial.recipe.to_dict()
    recipe["data"]["source"] = recipe["data"]["item_titles"] = None  # folders say more than they should
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
        The line, ready for JSON, and for a measured run the test ranks by column.

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
        progress = TrialProgress(folder, line["commit"], deadline)
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
    return line, {name: test.ranks[name] for name in STORED_RANKS}


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
