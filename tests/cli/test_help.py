"""What `glintru` says of itself, at once."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest
import yaml

from modeling_glintru.cli import VERBS
from modeling_glintru.recipe import list_recipes, load_recipe
from modeling_glintru.recipe.rule import rule_table


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_says_of_each_verb_what_its_own_help_says(verb):
    name = verb.replace("-", "_")
    function = getattr(importlib.import_module(f"modeling_glintru.cli.{name}"), name)
    assert VERBS[verb] == " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_what_needs_no_model_imports_none(option):
    command = [sys.executable, "-m", "modeling_glintru", option]
    listing = [sys.executable, "-X", "importtime", *command[1:]]
    done = subprocess.run(listing, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not {"torch", "transformers", "polars", "datasets"} & imported
    assert "modeling_glintru.cli" in imported
    for verb in VERBS if option == "--help" else ():
        assert f"  {verb}" in done.stdout


def test_a_misspelt_command_or_key_is_told_the_nearest(glintru, tmp_path):
    wrong = glintru("trian", "--data", "interactions.csv")
    assert wrong.exit_code == 2 and "no command 'trian'; did you mean 'train'?" in wrong.output
    assert "There is no command 'xyz'." in glintru("xyz").output
    words = ("train", "--recipe", "demo", "--output_dir", tmp_path / "out", "--set")
    assert "did you mean 'epochs' or " in glintru(*words, "epoch=1").stderr
    assert "--set help lists all of them" in glintru(*words, "xyzxyz=1").stderr


def test_an_import_makes_the_auto_classes_know_the_models():
    code = "import modeling_glintru; from transformers import AutoConfig; "
    code += "print(AutoConfig.for_model('glintru').hidden_size)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "128", done.stderr


def test_every_name_of_the_front_door_is_there():
    import modeling_glintru

    for name in modeling_glintru.__all__:
        assert getattr(modeling_glintru, name) is not None
    assert set(modeling_glintru.__all__) <= set(dir(modeling_glintru))
    with pytest.raises(AttributeError, match="no attribute 'Recomender'"):
        modeling_glintru.Recomender  # noqa: B018


@pytest.mark.parametrize("verb", ["train", "prepare", "evaluate"])
def test_the_keys_of_a_recipe_are_listed_where_they_are_set(glintru, verb):
    assert "--set help lists the" in glintru(verb, "--help").output
    result = glintru(verb, "--set", "help")  # before anything else is missed
    assert result.exit_code == 0 and "  learning_rate  (a number; default 0.001; also lr" in result.stdout
    other = glintru(verb, "--set", "help", "--set", "model.name=bsarec").stdout
    assert "\n  cutoff  (an integer" in other and "use_gru" not in other
    wrong = glintru(verb, "--set", "model.name=bsarek", "--set", "help")
    assert wrong.exit_code == 2 and "did you mean 'bsarec'" in wrong.stderr


def test_recipes_are_listed_and_printed(glintru):
    listed = glintru("recipes").stdout
    assert max(map(len, listed.splitlines())) <= 80
    for name in list_recipes():
        assert f"{name}: " in listed and load_recipe(name).description.split()[0] in listed
    assert yaml.safe_load(glintru("recipes", "ml-1m").stdout) == load_recipe("ml-1m").to_dict()
    assert glintru("recipes", "rule").stdout == rule_table() + "\n"
    wrong = glintru("recipes", "ml1m")
    assert wrong.exit_code == 2 and "did you mean 'ml-1m'" in wrong.stderr
