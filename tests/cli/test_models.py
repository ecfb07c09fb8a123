"""`glintru train --model NAME`, and what the other commands do with its folder."""

from __future__ import annotations

import json

import pytest
from transformers import AutoModel, AutoProcessor

from modeling_glintru.models.auto import MODELS, model_label
from modeling_glintru.recipe import load_recipe
from modeling_glintru.serving import Recommender

OTHERS = sorted(MODELS.keys() - {"glintru"})


@pytest.mark.parametrize("name", OTHERS)
def test_every_model_is_trained_measured_and_used_by_name(name, glintru, tmp_path):
    folder = tmp_path / "model"
    values = ("num_train_epochs=1", "hidden_size=16", "max_length=12", "num_bootstrap=5", "prefix_share=0.02")
    changes = [word for value in values for word in ("--set", value)]
    options = ("--output_dir", folder, "--quiet", *changes)
    done = glintru("train", "--recipe", "demo", "--model", name, *options)
    assert done.exit_code == 0, done.output
    assert f"Model     hidden_size 16, name {name}, loss cross_entropy" in done.stdout
    assert f"32 {MODELS[name].training_examples} of 12 a step" in done.stdout
    assert f"\n{model_label(MODELS[name])} " in done.stdout and "GLINT-RU" not in done.stdout
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["recipe"]["model"]["name"] == name
    assert json.loads((folder / "config.json").read_text())["model_type"] == name

    assert type(AutoModel.from_pretrained(folder)) is MODELS[name]
    assert AutoProcessor.from_pretrained(folder).vocab_size == 241
    recommender = Recommender.from_pretrained(folder)
    assert type(recommender.model) is MODELS[name]
    found = json.loads(glintru("recommend", folder, "--history", "a", "--json", "--top_k", "3").stdout)
    assert len(found["recommendations"]) == 3 and found["num_unknown_items"] == 1
    measured = glintru("evaluate", folder, "--json")
    assert json.loads(measured.stdout)["test"] == metrics["test"], measured.output

    assert load_recipe(folder / "recipe.yaml").model["name"] == name
    refused = glintru("train", "--recipe", folder / "recipe.yaml", *options)
    assert refused.exit_code == 2 and "--overwrite" in refused.output


def test_an_unknown_model(glintru, tmp_path):
    done = glintru("train", "--recipe", "demo", "--model", "gru4rek", "--output_dir", tmp_path / "out")
    assert done.exit_code == 2
    assert "no model 'gru4rek'; did you mean 'gru4rec'" in done.output


def test_a_trained_model_stays_what_it_is(glintru, demo):
    done = glintru("evaluate", demo[0], "--set", "model.name=sasrec")
    assert done.exit_code == 2 and "--set cannot change its name" in done.output
