"""From a request to the recipe of a run: resolved once, complete, and the same when it is resolved again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modeling_glintru import jobs
from modeling_glintru.data import synthetic_interactions
from modeling_glintru.errors import RecipeError
from modeling_glintru.recipe import FineTuningRecipe, change_recipe, load_recipe
from modeling_glintru.recipe.resolve import data_facts, gentler, prepared_otherwise, request, resolve, with_data
from modeling_glintru.recipe.rule import preset


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    file = tmp_path_factory.mktemp("tables") / "log.parquet"
    synthetic_interactions(num_users=60, num_items=40).frame.write_parquet(file)
    return file


def facts_of(recipe):
    return data_facts(jobs.prepare_data(recipe, say=lambda text: None))


def test_what_is_not_given_is_chosen_once(table):
    asked = request(overrides=["lr=0.5", "split=temporal"])
    assert asked.given == ("lr=0.5", "split=temporal") and asked.recipe.training.learning_rate == 0.5
    recipe = with_data(asked.recipe, str(table), {})
    facts = facts_of(recipe)
    resolved, choices = resolve(recipe, facts, asked.given)
    chosen = {key for choice in choices for key in choice.values}
    assert resolved.training.learning_rate == 0.5 and resolved.data.split == "temporal"
    assert "training.learning_rate" not in chosen and "model.hidden_size" in chosen
    assert resolved.data.source == "log.parquet" and resolved.evaluation.recommend_seen is not None
    by_rule = preset(facts.shape, recipe, asked.given)[0]
    assert (resolved.model, resolved.loss, resolved.training) == (by_rule.model, by_rule.loss, by_rule.training)
    assert resolve(resolved, facts) == (resolved, [])  # nothing is left to choose


def test_a_named_recipe_says_all_of_it(table):
    asked = request("demo", ["hidden_size=16"])
    assert asked.given is None and asked.recipe == load_recipe("demo", ["hidden_size=16"])
    recipe = with_data(asked.recipe, str(table), {})
    resolved, choices = resolve(recipe, facts_of(recipe))
    assert (resolved.model, resolved.loss, resolved.training) == (recipe.model, recipe.loss, recipe.training)
    assert choices == []


def test_a_fine_tuning_that_the_rule_completes_is_a_gentle_one(table):
    blank = request(overrides=["num_train_epochs=8"]).recipe
    recipe = replace(with_data(blank, str(table), {}), fine_tuning=FineTuningRecipe("mine"))
    facts = facts_of(replace(recipe, fine_tuning=None))
    resolved, choices = resolve(recipe, facts, ["num_train_epochs=8"])
    whole = preset(facts.shape, recipe, ["num_train_epochs=8"])[0]
    assert resolved.training == gentler(whole, ["num_train_epochs=8"]).training and choices == []
    assert resolved.training.num_train_epochs == 8 and resolved.training.warmup_steps == 0
    with pytest.raises(RecipeError, match="give --from MODEL too"):
        request(items="new")


def test_what_a_prepared_folder_has_in_another_way_is_named(table, tmp_path):
    recipe = with_data(load_recipe("demo"), str(table), {})
    jobs.prepare_data(change_recipe(recipe, ["split=temporal"]), tmp_path / "prepared", say=lambda text: None)
    wanted = with_data(change_recipe(recipe, ["split=user"]), str(tmp_path / "prepared"), {})
    facts = facts_of(wanted)
    assert "prepared with split 'temporal' (not 'user')" in prepared_otherwise(wanted.data, facts)
    resolved = resolve(wanted, facts)[0]
    assert resolved.data.split == "temporal" and prepared_otherwise(resolved.data, facts) is None


def test_the_folder_holds_the_recipe_that_the_run_read(table, tmp_path, monkeypatch):
    asked = request(overrides=["epochs=1"])
    read = []
    train = jobs.train_weights
    monkeypatch.setattr(
        jobs, "train_weights", lambda recipe, *rest, **more: read.append(recipe) or train(recipe, *rest, **more)
    )
    said = []
    recipe = with_data(asked.recipe, str(table), {})
    jobs.train_and_evaluate(recipe, tmp_path / "out", given=asked.given, progress=False, say=said.append)
    assert load_recipe(tmp_path / "out" / "recipe.yaml") == read[0]
    assert [line for text in said for line in text.splitlines() if line.startswith(("Chosen ", "Recipe "))]
