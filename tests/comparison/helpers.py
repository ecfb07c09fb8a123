"""A comparison that runs in seconds, and one that runs not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from modeling_glintru.comparison.queue import Job
from modeling_glintru.comparison.trials import Step, Trial, ready
from modeling_glintru.data import synthetic_interactions
from research.protocol import Protocol, Study, load_protocol, select

CONTENT = {
    "name": "tiny",
    "seed": 3,
    "tuning_seed": 5,
    "final_seeds": [1, 2],
    "models": {"glintru": {"num_attention_heads": 2}, "gru4rec": {}},
    "fixed": {"max_length": 8, "train_batch_size": 32, "warmup_steps": 2, "hidden_size": 8},
    "space": {"learning_rate": [1e-3, 5e-3, 2e-2], "dropout": [0.1, 0.3], "loss": ["cross_entropy", "bpr"]},
    "ablations": {"no GRU": ["use_gru=false"], "as it is": ["use_gru=true"]},
    "data": {"toy": {"trials": 3, "rungs": [1], "epochs": 2}},
}


def tiny_protocol(folder: Path, data: dict[str, Any] | None = None, **changes: Any) -> Protocol:
    """The tiny protocol with other values, through its file."""
    toy = {**CONTENT["data"]["toy"], **(data or {})}
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump({**CONTENT, "data": {"toy": toy}, **changes}), encoding="utf-8")
    return load_protocol(file)


def tiny_data(folder: Path) -> Path:
    """Interactions of few users."""
    file = folder / "toy.csv"
    if not file.exists():
        synthetic_interactions(num_users=60, num_items=40, seed=1).frame.write_csv(file)
    return file


def tiny_recipe(folder: Path) -> Path:
    """A preset for the tiny data."""
    file = folder / "preset.yaml"
    recipe = {
        "name": "preset",
        "model": {"hidden_size": 8, "num_attention_heads": 2},
        "training": {"max_length": 8, "num_train_epochs": 1, "train_batch_size": 32, "learning_rate": 5e-3},
    }
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return file


def tiny_job(folder: Path, results: str = "results", **options: Any) -> Job:
    """All of the tiny comparison: two models, a preset, its ablations, two references."""
    protocol = tiny_protocol(folder, **options)
    data, preset = f"toy={tiny_data(folder)}", f"paper={tiny_recipe(folder)}"
    return Job(select(protocol, [data], presets=[preset], ablate=["paper"]), folder / results)


def lines(job: Job) -> list[dict[str, Any]]:
    """Everything in the file, twice what is there twice."""
    return [json.loads(line) for line in job.results.file("toy").read_text(encoding="utf-8").splitlines()]


def pretend(study: Study, score: Any, rounds: int = 20) -> dict[str, float | None]:
    """Validation metrics after everything has run, where a trial's metric is `score(trial)`."""
    done: dict[str, float | None] = {}
    for _ in range(rounds):
        waiting = ready(study.plan(done), done)
        if not waiting:
            break
        done |= {trial.key: score(trial) for trial in waiting}
    return done


def of(steps: list[Step], row: str, stage: str) -> list[list[Trial]]:
    """The trials of a row's steps."""
    return [list(step.trials) for step in steps if step.row == row and step.stage == stage]
