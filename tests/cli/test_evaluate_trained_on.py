"""Targets that the model has trained on are refused, and a model that is no better than counting is told so."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from modeling_glintru.data import synthetic_interactions
from modeling_glintru.evaluation import Evaluation, against, no_better_than
from modeling_glintru.evaluation.ranking import MISSED

CASES = Path(__file__).parents[1] / "cases"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("split=temporal", "data.split 'leave_one_out', and this measures with 'temporal'"),
        ("split=user", "data.split 'leave_one_out'"),
        ("min_item_interactions=40", "data.min_item_interactions 0, and this measures with 40"),
        ("duplicates=last", "data.duplicates"),
    ],
)
def test_another_split_or_filter_is_refused(demo, glintru, change, named):
    folder, _ = demo
    result = glintru("evaluate", folder, "--set", change, "--quiet")
    assert result.exit_code == 2 and named in result.stderr and "--as_is" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_as_is_measures_and_marks(demo, glintru):
    folder, _ = demo
    words = ("evaluate", folder, "--set", "split=temporal", "--set", "num_bootstrap=20", "--as_is", "--quiet")
    result = glintru(*words)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    marks = [below for title, below in pairwise(lines) if title.startswith("Test, ")]
    assert marks == ["THE MODEL WAS TRAINED ON SOME OF THESE TARGETS"] * 2
    assert json.loads(glintru(*words, "--json").stdout)["trained_on_targets"] is True


def test_another_table_is_named(demo, glintru, tmp_path):
    """An earlier export of the table holds targets that the model has learned from: nobody can know, so it is said."""
    folder, _ = demo
    assert json.loads(glintru("evaluate", folder, "--json").stdout)["same_data"] is True
    frame = synthetic_interactions().frame
    earlier = frame.filter(pl.col("timestamp").rank("ordinal", descending=True).over("user_id") > 2)
    earlier.write_csv(tmp_path / "earlier.csv")
    result = glintru("evaluate", folder, "--data", tmp_path / "earlier.csv", "--json")
    assert json.loads(result.stdout)["same_data"] is False
    assert "not the data that the model was trained and measured on" in result.stderr


def test_a_prepared_folder_does_not_hide_another_split(demo, glintru, tmp_path):
    assert glintru("prepare", "--recipe", "demo", "--output_dir", tmp_path / "prepared").exit_code == 0
    words = ("evaluate", demo[0], "--data", tmp_path / "prepared", "--quiet")
    assert glintru(*words).exit_code == 0
    assert "data.split" in glintru(*words, "--set", "split=temporal").stderr


def test_a_device_that_is_not_there_is_named(demo, glintru):
    result = glintru("evaluate", demo[0], "--device", "cuda:77")
    assert result.exit_code == 2 and "there is no device 'cuda:77'" in result.stderr
    assert glintru("evaluate", demo[0], "--device", "cpu", "--quiet").exit_code == 0


def test_what_changes_no_target_is_allowed(demo, glintru):
    folder, _ = demo
    changes = (
        "--set",
        "test_fraction=0.2",
        "--set",
        "split_seed=7",
        "--set",
        "top_k=[5]",
    )  # leave_one_out reads neither
    result = glintru("evaluate", folder, *changes, "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["trained_on_targets"] is False, result.output


@pytest.mark.slow
def test_a_refitted_model_is_refused(glintru, tmp_path):
    """The model that goes live has learned from every interaction, so nothing is left to measure it on."""
    words = ("--set", "num_train_epochs=1", "--quiet", "--refit", "--output_dir", tmp_path / "live")
    assert glintru("train", "--recipe", "demo", *words).exit_code == 0
    result = glintru("evaluate", tmp_path / "live", "--quiet")
    assert result.exit_code == 2 and "trained once more on everything (--refit)" in result.stderr
    assert glintru("evaluate", tmp_path / "live", "--as_is", "--quiet").exit_code == 0


def evaluation(ranks: np.ndarray) -> Evaluation:
    return Evaluation({"full": ranks}, ks=(10,), seed=0)


def test_differences_are_paired_and_their_intervals_decide():
    rng = np.random.default_rng(0)
    ranks = rng.integers(1, 40, 500)
    worse = np.where(rng.random(500) < 0.1, MISSED, ranks)  # the same users, of whom one in ten is missed
    ours, theirs = (np.where(r <= 10, 1 / np.log2(r + 1.0), 0).mean() for r in (ranks, worse))
    found = against(evaluation(ranks), {"popularity": evaluation(worse), "item_knn": evaluation(ranks)})
    assert found["popularity"]["value"] == pytest.approx(ours - theirs)
    assert 0 < found["popularity"]["low"] < found["popularity"]["value"] < found["popularity"]["high"]
    assert found["item_knn"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    sentence = no_better_than(found, 10)
    assert "not better than item-kNN (difference of NDCG@10 +0.0000 [+0.0000, +0.0000])" in sentence
    assert "popularity" not in sentence
    assert no_better_than({"popularity": found["popularity"]}, 10) is None


@pytest.mark.slow
def test_a_model_that_learned_nothing_is_told_so(glintru, tmp_path):
    """The case no_signal: random draws from a skewed popularity, so there is nothing to learn but the popularity."""
    small = ("--set", "num_train_epochs=2", "--set", "hidden_size=32", "--set", "r_drop_alpha=0")
    words = (*small, "--set", "num_bootstrap=200", "--quiet", "--output_dir", tmp_path / "model")
    result = glintru("train", "--data", CASES / "no_signal" / "clicks.csv", *words)
    assert result.exit_code == 0, result.output
    assert "This model is not better than" in result.stdout and "popularity" in result.stdout
    card = (tmp_path / "model" / "README.md").read_text()
    assert "**This model is not better than" in card
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert metrics["main"] == "test_with_history" and 0.5 < metrics["recurring_targets"] < 0.7
    assert {"popularity", "item_knn", "own_newest", "own_frequent"} == set(metrics["against"])
    assert "| own items, most often first | " in card and f"{metrics['recurring_targets']:.1%}" in card
    assert card.index("may be in the ranking") < card.index("are left out of the ranking")
    processor = json.loads((tmp_path / "model" / "preprocessor_config.json").read_text())
    assert processor["recommend_seen"] is True
