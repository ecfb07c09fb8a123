"""One trained demo model for all tests of the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from modeling_glintru.cli import app

EPOCHS = ("--set", "num_train_epochs=2", "--quiet")


@pytest.fixture(scope="session")
def glintru() -> Callable[..., Any]:
    """Runs the command in this process: `glintru("train", "--recipe", "demo")`."""
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="session")
def demo(glintru, tmp_path_factory) -> tuple[Path, str]:
    """A model folder, and what the training printed. Not to be changed by a test."""
    folder = tmp_path_factory.mktemp("cli") / "demo"
    result = glintru("train", "--recipe", "demo", "--output_dir", folder, *EPOCHS)
    assert result.exit_code == 0, result.output
    return folder, result.stdout
