"""Learning curves: a picture where matplotlib is, a hint where it is not."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from modeling_glintru.evaluation import plot_learning_curves
from modeling_glintru.evaluation.plots import _points

LOG = [
    {"loss": 7.1, "epoch": 0.5, "step": 10},
    {"loss": 6.5, "epoch": 1.0, "step": 20},
    {"eval_loss": 6.6, "eval_ndcg@10": 0.05, "epoch": 1.0, "step": 20},
    {"loss": 6.1, "epoch": 2.0, "step": 40},
    {"eval_loss": 6.4, "eval_ndcg@10": 0.09, "epoch": 2.0, "step": 40},
    {"eval_loss": 6.5, "eval_ndcg@10": 0.08, "epoch": 3.0, "step": 60},
    {"train_runtime": 3.0, "train_loss": 6.6, "epoch": 3.0, "step": 60},
]


def test_a_png_without_touching_pyplot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    before = "matplotlib.pyplot" in sys.modules
    assert plot_learning_curves(LOG, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert ("matplotlib.pyplot" in sys.modules) == before


@pytest.mark.parametrize("log", [[entry for entry in LOG if "loss" in entry], [e for e in LOG if "eval_loss" in e]])
def test_one_of_the_two_curves_is_enough(tmp_path: Path, log: list[dict]) -> None:
    pytest.importorskip("matplotlib")
    assert plot_learning_curves(log, tmp_path / "curves.png")


def test_the_best_checkpoint_evaluated_again_is_no_new_point() -> None:
    again = [*LOG, {"eval_ndcg@10": 0.09, "epoch": 3.0, "step": 60}]
    assert _points(again, "eval_ndcg@10") == [(1.0, 0.05), (2.0, 0.09), (3.0, 0.08)]


def test_a_hint_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with caplog.at_level(logging.WARNING):
        assert not plot_learning_curves(LOG, tmp_path / "curves.png")
    assert "glintru[plots]" in caplog.text
    assert not list(tmp_path.iterdir())


def test_nothing_to_draw_is_said(tmp_path: Path, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        assert not plot_learning_curves([{"train_loss": 1.0, "epoch": 1.0}], tmp_path / "curves.png")
    assert "neither 'loss' nor 'eval_ndcg@10'" in caplog.text
