"""A model folder to push, and somebody who is logged in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation, GlintRUProcessor
from modeling_glintru.recipe import load_recipe

from ..cli.conftest import demo, glintru  # noqa: F401 (fixtures: a trained model, the command)
from ..hub_server import ANN
from ..model.test_remote_code import BLOCK

ITEMS = ["tea", "milk", "bread", "jam"]
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def login(hub, monkeypatch) -> None:
    """Ann is logged in; a test that wants nobody deletes HF_TOKEN."""
    monkeypatch.setenv("HF_TOKEN", ANN)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A small model folder, whole, with files beside it that must stay on this machine."""
    torch.manual_seed(0)
    folder = tmp_path / "small"
    config = GlintRUConfig(vocab_size=5, hidden_size=8, num_attention_heads=2)
    GlintRUForSequentialRecommendation(config).save_pretrained(folder)
    GlintRUProcessor(ITEMS, {"tea": "Tea"}, max_length=6).save_pretrained(folder)
    load_recipe("demo").save(folder / "recipe.yaml")
    (folder / "metrics.json").write_text('{"seed": 42}\n')
    (folder / "README.md").write_text("---\nlibrary_name: transformers\n---\n\n# small\n\nname = 'YOUR_NAME/small'\n")
    for name in ("optimizer.pt", "rng_state.pth", "training_args.bin", "interactions.csv", "notes.py", ".env"):
        (folder / name).write_text("stays here")
    (folder / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    (folder / "checkpoints" / "checkpoint-1" / "config.json").write_text("{}")
    return folder


@pytest.fixture
def python(tmp_path) -> Callable[..., str]:
    """Runs code in a process of its own, in an empty folder, and gives what it printed.

    Without `package=True` it cannot import this package. Options are environment variables; `fails=True` gives
    what a failing process wrote to standard error.
    """

    def run(code: str, *, package: bool = False, fails: bool = False, **environment: str) -> str:
        home = tmp_path / "process"
        home.mkdir(exist_ok=True)
        variables = {**os.environ, "HF_HOME": str(home / "hf"), "OMP_NUM_THREADS": "1", **environment}
        if package:
            variables["PYTHONPATH"] = str(ROOT)
        else:
            variables.pop("PYTHONPATH", None)
            code = BLOCK + code
        done = subprocess.run([sys.executable, "-c", code], env=variables, cwd=home, capture_output=True, text=True)
        assert (done.returncode != 0) == fails, done.stderr
        return done.stderr if fails else done.stdout

    return run


def copy_of(folder: Path, to: Path) -> Path:
    """A folder that a test may change."""
    shutil.copytree(folder, to)
    return to
