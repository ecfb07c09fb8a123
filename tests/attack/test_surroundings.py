"""Homes that are missing, paths that are no text, and limits that are no numbers end in one sentence, or do no harm."""

from __future__ import annotations

import os
import pwd

import numpy as np
import pytest
import torch

from modeling_glintru.data import load_source, synthetic_interactions
from modeling_glintru.errors import DataError, RecipeError
from modeling_glintru.hub import plan_push
from modeling_glintru.jobs import train
from modeling_glintru.kernels import build
from modeling_glintru.machine import expanded
from modeling_glintru.models.auto import ModelFileError, register_model_file
from modeling_glintru.recipe import load_recipe


@pytest.fixture
def homeless(monkeypatch):
    """A process without HOME whose user has no entry in the system's list, as in many containers."""

    def nobody(*_):
        raise KeyError("no such user")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)


def test_without_a_home(homeless, monkeypatch, folder, tmp_path):
    assert os.fspath(expanded("~/x")) == "~/x"
    monkeypatch.setattr(build, "_carried", lambda: None)
    build.library.cache_clear()
    assert build.library() is None
    build.library.cache_clear()
    assert plan_push(folder, "ann/small").files
    table = tmp_path / "clicks.csv"
    synthetic_interactions().frame.write_csv(table)
    assert len(load_source(str(table))) > 100


def test_a_user_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"There is no file '~nobody-of-this-name/x\.csv'"):
        load_source("~nobody-of-this-name/x.csv")
    with pytest.raises(ModelFileError, match=r"there is no file ~nobody-of-this-name/mine\.py"):
        register_model_file("~nobody-of-this-name/mine.py", "Mine")


def test_arguments_that_are_not_utf_8(glintru, tmp_path):
    strange = os.fsdecode(b"\xff")
    with pytest.raises(RecipeError, match="YAML error in the value of name"):
        load_recipe("demo", [f"name={strange}"])
    result = glintru("train", "--data", tmp_path / f"{strange}.csv", "--output_dir", tmp_path / "model")
    assert result.exit_code == 2 and "There is no file" in result.output


@pytest.mark.parametrize("minutes", [float("nan"), 0, -1])
def test_a_limit_that_is_none(minutes, tmp_path):
    with pytest.raises(RecipeError, match="must be above 0"):
        train(synthetic_interactions().frame, tmp_path / "model", max_minutes=minutes)


def allocate_with_torch() -> None:
    torch.empty(2**60)


def allocate_with_numpy() -> None:
    np.empty(2**58)


def allocate_with_python() -> None:
    raise MemoryError


@pytest.mark.parametrize("allocate", [allocate_with_torch, allocate_with_numpy, allocate_with_python])
def test_too_little_memory(glintru, monkeypatch, tmp_path, allocate):
    monkeypatch.setattr("modeling_glintru.jobs.prepare_data", lambda *args, **kwargs: allocate())
    result = glintru("train", "--recipe", "demo", "--output_dir", tmp_path / "model")
    assert result.exit_code == 2 and "there is not enough memory (" in result.stderr
    assert result.stderr.count("\n") == 1 and "smaller train_batch_size" in result.stderr
