"""The recipes of rivals say what they claim."""

from __future__ import annotations

import pytest

from modeling_glintru.errors import RecipeError
from modeling_glintru.recipe import list_recipes, load_recipe
from research.protocol import FOLDER, research_recipe

NAMES = sorted(file.stem for file in (FOLDER / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_each_is_found_by_its_name(name):
    assert research_recipe(name).name == name and name not in list_recipes()
    with pytest.raises(RecipeError, match="There is no recipe"):
        load_recipe(name)


def test_the_published_settings_of_a_rival():
    recipe = research_recipe("amazon-beauty-bsarec")
    config = recipe.config(vocab_size=11)
    assert recipe.model_name == config.model_type == "bsarec" and recipe.name == "amazon-beauty-bsarec"
    assert (config.hidden_size, config.num_hidden_layers, config.alpha, config.cutoff) == (64, 2, 0.7, 5)
    assert recipe.training.prefix_share == 1.0


def test_mamba4rec_is_trained_as_the_recipe_that_it_is_compared_with():
    rival, ours = research_recipe("ml-1m-mamba4rec-like-best"), load_recipe("ml-1m-best")
    assert (rival.model_name, ours.model_name) == ("mamba4rec", "glintru")
    assert (rival.data, rival.training) == (ours.data, ours.training)
    shared = ("hidden_size", "hidden_dropout")
    assert rival.loss == ours.loss
    assert [rival.model[key] for key in shared] == [ours.model[key] for key in shared]
