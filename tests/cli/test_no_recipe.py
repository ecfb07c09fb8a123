"""`glintru train --data FILE`: settings from the data, and a recipe that runs again."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

from modeling_glintru.data import synthetic_interactions
from modeling_glintru.recipe import load_recipe

SHORT_RUN = ("--set", "num_train_epochs=1", "--quiet")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    file = tmp_path_factory.mktemp("tables") / "log.parquet"
    synthetic_interactions(num_users=120, num_items=80).frame.write_parquet(file)
    return file


def trained(glintru, folder, *words):
    result = glintru("train", "--output_dir", folder, *words, *SHORT_RUN)
    assert result.exit_code == 0, result.output
    return load_recipe(folder / "recipe.yaml"), result.stdout


@pytest.mark.parametrize("split", ["leave_one_out", "temporal"])
def test_the_written_recipe_gives_the_same_run(glintru, table, tmp_path, split):
    told = () if split == "leave_one_out" else ("--set", f"split={split}")
    recipe, printed = trained(glintru, tmp_path / "auto", "--data", table, *told)
    assert recipe.name == "auto" and recipe.data.split == split and recipe.data.source == "log.parquet"
    assert recipe.model["hidden_size"] == 128 and recipe.training.train_batch_targets == 40
    assert recipe.training.max_length < 200 and recipe.training.num_train_epochs == 1
    for text in (
        "Chosen    max_length",
        "hidden_size 128: ",
        "dropout 0.",
        "loss cross_entropy: ",
        f"Split     {split}",
    ):
        assert text in printed
    assert "num_train_epochs 1" not in printed  # told, not chosen

    trained(glintru, tmp_path / "again", "--recipe", tmp_path / "auto" / "recipe.yaml", "--data", table)
    ours, again = (load_file(tmp_path / name / "model.safetensors") for name in ("auto", "again"))
    assert all(ours[name].equal(again[name]) for name in ours)
    ours, again = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("auto", "again"))
    assert ours["test"] == again["test"] and ours["recipe"] == again["recipe"] and ours["data"] == again["data"]


def test_a_prepared_folder_and_another_model(glintru, table, tmp_path):
    result = glintru("prepare", "--data", table, "--output_dir", tmp_path / "prepared", "--set", "split=temporal")
    assert result.exit_code == 0, result.output
    recipe, printed = trained(
        glintru, tmp_path / "out", "--data", tmp_path / "prepared", "--model", "sasrec", "--set", "hidden_size=32"
    )
    assert recipe.data.split == "temporal" and recipe.model["name"] == "sasrec"
    assert recipe.model["hidden_size"] == 32 and "hidden_size" not in printed.split("Recipe")[0]
