"""`glintru train`, from a table to a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import matplotlib.image
import numpy as np
import polars as pl
import pytest
from safetensors.torch import load_file

from modeling_glintru.data import synthetic_interactions
from modeling_glintru.data.splits import Rows
from modeling_glintru.recipe import load_recipe

from .conftest import EPOCHS
from .test_bad_input import refused


def strings_nobody_has_seen(path, seed=5):
    """The synthetic set under other names, shuffled rows, string ids; returns the path."""
    frame = synthetic_interactions(num_users=400, num_items=120, seed=seed).frame
    frame.select(
        pl.col("user_id").alias("shopper"),
        (pl.lit("sku/") + pl.col("item_id").str.replace("saga", "Reihe Nr.")).alias("sku"),
        pl.col("timestamp").alias("time"),
    ).sample(fraction=1.0, shuffle=True, seed=1).write_csv(path)
    return path


def test_the_folder_is_complete(demo):
    folder, _ = demo
    names = {file.name for file in folder.iterdir()}
    assert {
        *("model.safetensors", "config.json", "preprocessor_config.json", "item_vocabulary.safetensors"),
        *("modeling_glintru.py", "metrics.json", "recipe.yaml", "training_log.json", "learning_curves.png"),
    } <= names
    assert "checkpoints" not in names
    assert min(matplotlib.image.imread(folder / "learning_curves.png").shape[:2]) > 300
    log = json.loads((folder / "training_log.json").read_text())
    assert any("eval_ndcg@10" in entry for entry in log) and any("loss" in entry for entry in log)


def test_the_numbers(demo):
    folder, printed = demo
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {"test", "test_with_history", "validation", "recipe", "seed", "versions", "popularity", "item_knn"} <= set(
        metrics
    )
    for part in (metrics["test"], metrics["test_with_history"], metrics["validation"], metrics["popularity"]["test"]):
        for name in ("ndcg@10", "hr@10", "mrr@10", "ndcg@20"):
            assert 0 <= part[name]["low"] <= part[name]["value"] <= part[name]["high"] <= 1
    assert metrics["test"]["ndcg@10"]["low"] > 5 * metrics["popularity"]["test"]["ndcg@10"]["high"]
    assert metrics["test"]["ndcg@10"]["low"] > metrics["item_knn"]["test"]["ndcg@10"]["high"]
    assert metrics["training"]["epochs"] == 2 and metrics["data"]["items"] == 240
    assert f"{metrics['test']['ndcg@10']['value']:.4f}" in printed


@pytest.mark.parametrize("model", ["demo", "own_table"])
def test_no_path_of_this_machine_is_in_the_folder(model, request):
    folder = request.getfixturevalue(model)[0]
    for file in folder.iterdir():
        assert str(folder.parent).encode() not in file.read_bytes(), file.name


def test_the_recipe_and_the_seed_give_the_same_weights_again(demo, glintru, tmp_path):
    folder, _ = demo
    again, other = tmp_path / "again", tmp_path / "other"
    assert glintru("train", "--recipe", folder / "recipe.yaml", "--output_dir", again, "--quiet").exit_code == 0
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert load_recipe(again / "recipe.yaml") == load_recipe(folder / "recipe.yaml")
    done = glintru("train", "--recipe", folder / "recipe.yaml", "--seed", 7, "--output_dir", other, "--quiet")
    assert done.exit_code == 0
    first, second = (load_file(f / "model.safetensors")["model.embed_items.weight"] for f in (folder, other))
    assert not first.equal(second)
    assert json.loads((other / "metrics.json").read_text())["seed"] == 7


def test_the_printed_lines_load_the_model(demo):
    _, printed = demo
    lines = printed[printed.index("from modeling_glintru import Recommender") :].strip().splitlines()
    assert len(lines) == 4
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("item_id") == 5


@pytest.fixture(scope="module")
def own_table(glintru, tmp_path_factory):
    """A model of a table that no recipe knows: folder, file, output."""
    root = tmp_path_factory.mktemp("own")
    file = strings_nobody_has_seen(root / "log.csv")
    result = glintru(
        *("train", "--recipe", "ml-100k", "--data", file, "--output_dir", root / "out"),
        *("--set", "num_train_epochs=6", "--set", "learning_rate=5e-3", "--user_column", "shopper", "--quiet"),
    )
    assert result.exit_code == 0, result.output
    return root / "out", file, result.stdout


def test_any_table_trains_and_beats_popularity(own_table):
    folder, _, printed = own_table
    assert "user = 'shopper', item = 'sku', time = 'time'" in printed
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["test"]["ndcg@10"]["low"] > metrics["popularity"]["test"]["ndcg@10"]["high"]
    assert metrics["recipe"]["data"]["source"] == "log.csv"


def test_it_is_measured_again_on_its_file(own_table, glintru, tmp_path, monkeypatch):
    """The model's own recipe knows the columns; only where the file lies has to be said."""
    folder, file, _ = own_table
    metrics = json.loads((folder / "metrics.json").read_text())
    given = json.loads(glintru("evaluate", folder, "--data", file, "--json").stdout)
    assert given["test"] == metrics["test"] and given["popularity"] == metrics["popularity"]
    monkeypatch.chdir(file.parent)
    assert json.loads(glintru("evaluate", folder, "--json").stdout) == given


def test_its_ids_are_its_own(own_table, glintru):
    folder, _, _ = own_table
    result = glintru("recommend", folder, "--history", "sku/Reihe Nr.-03-volume-1", "--json", "--top_k", "3")
    found = json.loads(result.stdout)["recommendations"]
    assert all(item["item_id"].startswith("sku/Reihe Nr.-") for item in found)


def test_prepared_data_trains_to_the_same_model(own_table, glintru, tmp_path):
    _, file, _ = own_table
    prepared = tmp_path / "prepared"
    options = ("--recipe", "ml-100k", "--user_column", "shopper")
    result = glintru("prepare", *options, "--data", file, "--output_dir", prepared)
    assert result.exit_code == 0 and str(prepared) in result.stdout, result.output
    for source, out in ((file, "a"), (prepared, "b")):
        done = glintru("train", *options, "--data", source, "--output_dir", tmp_path / out, *EPOCHS)
        assert done.exit_code == 0, done.output
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert first == second
    tests = [json.loads((tmp_path / name / "metrics.json").read_text())["test"] for name in "ab"]
    for model, source in (("a", prepared), ("b", prepared), ("b", file)):
        result = glintru("evaluate", tmp_path / model, "--data", source, "--json")
        tests.append(json.loads(result.stdout)["test"])
    assert all(test == tests[0] for test in tests)


def test_the_recipe_says_how_prepared_data_was_split(glintru, tmp_path):
    """A prepared folder may be split otherwise than the recipe that trains on it says; later evaluations must know."""
    prepared, out = tmp_path / "prepared", tmp_path / "out"
    options = ("--recipe", "demo", "--set", "split=user", "--set", "split_seed=9", "--output_dir", prepared)
    assert glintru("prepare", *options).exit_code == 0
    done = glintru("train", "--recipe", "demo", "--data", prepared, "--output_dir", out, "--seed", 3, *EPOCHS)
    assert done.exit_code == 0, done.output
    assert "was prepared with" not in done.output
    recipe = load_recipe(out / "recipe.yaml")
    assert (recipe.data.split, recipe.data.split_seed, recipe.seed) == ("user", 9, 3)
    metrics = json.loads((out / "metrics.json").read_text())
    again = json.loads(glintru("evaluate", out, "--data", "demo", "--json").stdout)
    assert again["test"] == metrics["test"]


def test_what_a_prepared_folder_cannot_change_any_more_is_said(own_table, glintru, tmp_path):
    _, file, _ = own_table
    prepared = tmp_path / "prepared"
    options = ("--recipe", "ml-100k", "--user_column", "shopper")
    assert glintru("prepare", *options, "--data", file, "--output_dir", prepared).exit_code == 0
    other = ("--set", "split=temporal", "--set", "min_item_interactions=3")
    done = glintru("train", *options, "--data", prepared, *other, "--output_dir", tmp_path / "out", *EPOCHS)
    assert done.exit_code == 0, done.output
    line = " ".join(done.stdout.partition("was prepared with")[2].partition("Recipe ")[0].split())
    assert "split 'leave_one_out' (not 'temporal')" in line and "(not 3)" in line and "prepare it again" in line
    assert load_recipe(tmp_path / "out" / "recipe.yaml").data.split == "leave_one_out"


def test_prepared_data_of_an_older_version_is_refused_before_any_training(glintru, tmp_path, monkeypatch):
    nobody = Rows(*(np.zeros(0, np.int64) for _ in range(3)))
    monkeypatch.setattr("modeling_glintru.data.prepare.cut_users", lambda sequences, splits: nobody)
    prepared, out = tmp_path / "prepared", tmp_path / "out"
    options = ("--recipe", "demo", "--set", "split=temporal", "--output_dir", prepared)
    assert glintru("prepare", *options).exit_code == 0
    monkeypatch.setattr("modeling_glintru.jobs.train_weights", None)
    refused(
        glintru("train", "--recipe", "demo", "--data", prepared, "--refit", "--output_dir", out),
        "of its 18,331 interactions",
        "(--refit); run glintru prepare again",
    )
    assert not out.exists()


@pytest.mark.parametrize("command", ["prepare", "train", "evaluate", "recommend", "compare", "convert"])
def test_help_has_an_example(glintru, command):
    result = glintru(command, "--help")
    assert result.exit_code == 0
    assert f"Example: glintru {command}" in " ".join(result.stdout.split())


def test_version(glintru):
    assert glintru("--version").stdout.startswith("glintru 0.")


def test_only_the_command_chooses_how_threads_wait(tmp_path):
    code = "import os, modeling_glintru; print(os.environ.get('OMP_WAIT_POLICY'))"
    script = tmp_path / "glintru"
    script.write_text(code)
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    for command, expected in (([script], "PASSIVE"), (["-c", code], "None")):
        done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected
