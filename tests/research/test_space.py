"""The same draws for every model, and what a model makes of them."""

from __future__ import annotations

from collections import Counter

import pytest

from modeling_glintru.errors import RecipeError
from research.protocol import load_protocol

from ..comparison.helpers import tiny_protocol


def draw_settings(protocol, data, model):
    return list(protocol.search(data, model).settings)


@pytest.fixture(scope="module")
def default():
    return load_protocol()


def test_every_model_gets_the_same_draws(default):
    for data in default.data.values():
        draws = {model: draw_settings(default, data, model) for model in default.models}
        for settings in draws.values():
            assert len(settings) == data.trials
            for mine, ours in zip(settings, draws["glintru"], strict=True):
                batch = {"train_batch_size": 0, "train_batch_targets": 0}
                assert {**mine, **batch} == {**ours, **batch}
        assert draws["sasrec"] == draws["glintru"] and draws["fmlprec"] == draws["bsarec"]


def test_the_seed_decides(tmp_path):
    first, again, other = (tiny_protocol(tmp_path, data={"trials": 9}, seed=seed) for seed in (1, 1, 2))
    draws = [draw_settings(protocol, protocol.data["toy"], "glintru") for protocol in (first, again, other)]
    assert draws[0] == draws[1] != draws[2]


def test_values_occur_equally_often(tmp_path):
    protocol = tiny_protocol(tmp_path, data={"trials": 12})
    settings = draw_settings(protocol, protocol.data["toy"], "glintru")
    assert set(Counter(setting["learning_rate"] for setting in settings).values()) == {4}
    assert set(Counter(setting["dropout"] for setting in settings).values()) == {6}
    assert len({tuple(setting.values()) for setting in settings}) > 6  # not in lockstep


def test_a_longer_space_keeps_the_other_draws(tmp_path):
    from ..comparison.helpers import CONTENT

    longer = {**CONTENT["space"], "weight_decay": [0.0, 0.1]}
    short, long = tiny_protocol(tmp_path), tiny_protocol(tmp_path, space=longer)
    for one, other in zip(
        *(draw_settings(protocol, protocol.data["toy"], "sasrec") for protocol in (short, long)), strict=True
    ):
        assert one == {key: value for key, value in other.items() if key != "weight_decay"}


def test_the_first_settings_may_be_given(tmp_path):
    start = [{"learning_rate": 2e-2, "loss": "gbce", "max_length": 4}, {"dropout": 0.3}]
    protocol = tiny_protocol(tmp_path, data={"start": start})
    drawn = tiny_protocol(tmp_path)
    given, plain = (draw_settings(p, p.data["toy"], "glintru") for p in (protocol, drawn))
    assert given[0]["learning_rate"] == 2e-2
    assert given[0]["loss"] == plain[0]["loss"] and "max_length" not in given[0]  # not in the space
    assert given[1] == {**plain[1], "dropout": 0.3} and given[2:] == plain[2:]
    with pytest.raises(RecipeError, match="start gives 4 settings, but there are only 3 trials"):
        tiny_protocol(tmp_path, data={"start": [{}] * 4})


def test_values_that_belong_together(tmp_path):
    cosine = {"normalize_scores": True, "temperature": 0.07}
    protocol = tiny_protocol(tmp_path, space={"scores": [{"normalize_scores": False}, cosine]}, data={"trials": 4})
    data = protocol.data["toy"]
    settings = draw_settings(protocol, data, "sasrec")
    assert [setting["scores"] for setting in settings].count(cosine) == 2
    made = [protocol.search(data, "sasrec").recipe(setting).model for setting in settings]
    assert sorted(recipe.get("temperature", 1.0) for recipe in made) == [0.07, 0.07, 1.0, 1.0]
    assert all(recipe["normalize_scores"] == ("temperature" in recipe) for recipe in made)


def test_one_dropout_for_all_of_a_model_and_nothing_that_it_lacks(default):
    data = default.data["ml-1m"]
    setting = {"dropout": 0.4, "hidden_size": 32, "num_hidden_layers": 2, "alpha": 0.1, "num_attention_heads": 4}
    made = {
        model: default.search(data, model).recipe(setting, epochs=5)
        for model in ("glintru", "gru4rec", "lrurec", "bsarec")
    }
    dropouts = {
        model: {key: value for key, value in recipe.model.items() if "dropout" in key} for model, recipe in made.items()
    }
    assert dropouts["glintru"] == dict.fromkeys(("embedding_dropout", "attention_dropout", "hidden_dropout"), 0.4)
    assert dropouts["gru4rec"] == {"embedding_dropout": 0.4}
    assert dropouts["lrurec"] == {"hidden_dropout": 0.4, "recurrence_dropout": 0.4}
    assert "alpha" not in made["glintru"].model and made["bsarec"].model["alpha"] == 0.1
    assert "num_attention_heads" not in made["gru4rec"].model
    assert all(recipe.seed == default.tuning_seed and recipe.training.num_train_epochs == 5 for recipe in made.values())
    assert made["bsarec"].training.prefix_share < 1 == made["glintru"].training.prefix_share
