"""Every code block of the README and of the tutorial is executed, top to bottom, in one folder."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from modeling_glintru.cli import app
from modeling_glintru.data import synthetic_interactions

from .hub_server import ANN

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def code_blocks(page: str) -> list[tuple[str, str]]:
    """Language and content of each."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)


BLOCKS = code_blocks(README)


def glintru(command: str) -> None:
    """Runs a `glintru` line; trainings are cut to one epoch."""
    words = shlex.split(command)[1:]
    if words[0] == "train":
        words += ["--set", "num_train_epochs=1", "--quiet"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, f"{command}\n{result.output}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What a reader has: a table of interactions, and the model folder that `make demo` leaves."""
    folder = tmp_path_factory.mktemp("readme")
    frame = synthetic_interactions().frame
    integers = {name: pl.col(name).rank("dense").cast(pl.Int64) for name in ("user_id", "item_id")}
    frame.with_columns(**integers).write_csv(folder / "interactions.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        glintru("glintru train --recipe ml-100k --data interactions.csv --output_dir outputs/ml-100k")
    return folder


def test_the_readme_has_blocks_of_both_kinds():
    assert {language for language, _ in BLOCKS} == {"bash", "python"}


@pytest.mark.slow
@pytest.mark.parametrize(("language", "code"), BLOCKS, ids=[f"block {number}" for number in range(1, len(BLOCKS) + 1)])
def test_block(folder, language, code, monkeypatch, hub):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_TOKEN", ANN)
    run_block(language, code, {"__name__": "readme"})


@pytest.mark.slow
def test_the_tutorial(tmp_path, monkeypatch, hub):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", ANN)
    names: dict[str, Any] = {"__name__": "tutorial"}
    for language, code in code_blocks((ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")):
        run_block(language, code, names)
    assert (tmp_path / "recommendations.parquet").is_file() and len(hub.repo("ann/shop").branches["main"]) == 3


@pytest.mark.slow
def test_the_page_on_recommending(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    synthetic_interactions().frame.write_csv("interactions.csv")
    glintru("glintru train --recipe demo --data interactions.csv --output_dir outputs/shop --set num_train_epochs=1")
    names: dict[str, Any] = {"__name__": "recommend"}
    for language, code in code_blocks((ROOT / "docs" / "recommend.md").read_text(encoding="utf-8")):
        run_block(language, code, names)
    assert names["new"].cold_start and len(names["new"].items) == 3
    assert "saga-01-volume-3" not in (tmp_path / "recommendations.csv").read_text(encoding="utf-8")


def run_block(language: str, code: str, names: dict[str, Any]) -> None:
    if language == "python":
        exec(compile(code, "page.md", "exec"), names)
        return
    for line in code.strip().splitlines():
        if line.startswith("make "):  # the tests are inside `make test`; here: such a target exists
            subprocess.run([*shlex.split(line), "-n"], cwd=ROOT, check=True, capture_output=True)
        else:
            assert line.startswith("glintru ")
            glintru(line)


def test_linked_files_exist():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    for example in re.findall(r"`(examples/[\w.]+)`", README):
        assert (ROOT / example).exists(), example
