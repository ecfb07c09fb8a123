"""What a protocol may say, and what the one that comes with the package says."""

from __future__ import annotations

import pytest

from modeling_glintru import GlintRUError
from modeling_glintru.models.auto import MODELS
from research.protocol import load_protocol, research_recipe, select

from ..comparison.helpers import tiny_data, tiny_protocol


@pytest.fixture(scope="module")
def default():
    return load_protocol()


def test_the_default_compares_every_model_on_four_data_sets(default):
    assert set(default.models) == set(MODELS)
    assert list(default.data) == ["ml-1m", "ml-100k", "amazon-beauty", "amazon-video-games"]
    assert len(default.final_seeds) == 3 and default.tuning_seed not in default.final_seeds
    declared = {"learning_rate", "train_batch_targets", "dropout", "hidden_size", "num_hidden_layers", "weight_decay"}
    for data in default.data.values():
        assert set(data.seconds_per_epoch) == set(default.models)
        for preset in data.presets.values():
            research_recipe(preset)
        for model in default.models:
            space = default.settings(data, model).space
            prefixes = MODELS[model].training_examples == "prefixes"  # they have no windows to fill a batch with
            assert set(space) - {"train_batch_size"} == declared | {"loss", "max_length"}
            assert ("train_batch_size" in space, space["train_batch_targets"] == [None]) == (prefixes, prefixes)


@pytest.mark.parametrize("model", sorted(MODELS))
def test_every_setting_of_the_default_is_a_recipe(default, model):
    for data in default.data.values():
        search = default.search(data, model)
        for setting in search.settings:
            recipe = search.recipe(setting)
            assert recipe.config(10).model_type == model
            assert recipe.training.learning_rate == setting["learning_rate"]
            assert recipe.data.split == "leave_one_out"


def test_the_more_special_setting_wins(tmp_path):
    protocol = tiny_protocol(
        tmp_path,
        data={
            "fixed": {"weight_decay": 0.2, "max_length": 6},
            "prefixes": {"fixed": {"prefix_share": 0.5}},
            "models": {"bsarec": {"max_length": 4}},
        },
        fixed={"weight_decay": 0.1, "max_length": 8},
        prefixes={"fixed": {"warmup_steps": 7}, "space": {"train_batch_size": [128]}},
        models={"glintru": {"num_attention_heads": 2}, "bsarec": {}},
    )
    data = protocol.data_set("toy")
    ours, prefixes = (protocol.settings(data, model) for model in ("glintru", "bsarec"))
    assert ours.fixed == {"weight_decay": 0.2, "max_length": 6, "num_attention_heads": 2}
    assert prefixes.fixed == {"weight_decay": 0.2, "max_length": 4, "warmup_steps": 7, "prefix_share": 0.5}
    assert "train_batch_size" not in ours.space and prefixes.space["train_batch_size"] == [128]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"models": {"sasrek": {}}}, "did you mean 'sasrec'"),
        ({"metric": "ndcg@5"}, "metric must be one of"),
        ({"final_seeds": []}, "final_seeds"),
        ({"references": ["popular"]}, "popularity"),
        ({"space": {"learning_rat": [1.0]}}, "did you mean 'learning_rate'"),
        ({"space": {"learning_rate": 1.0}}, "must be a list"),
        ({"space": {"scores": [{"normalise_scores": True}]}}, "did you mean 'normalize_scores'"),
        ({"fixed": {"num_train_epochs": 4}}, "There is no setting 'num_train_epochs'"),
        ({"fixed": [1]}, "the protocol.fixed must be a mapping"),
        ({"ablations": {"no GRU": ["use_gruu=false"]}}, "did you mean 'use_gru'"),
        ({"trails": 4}, "There is no key 'trails'"),
        ({"data": {"rungs": [3, 1]}}, "rungs that rise"),
        ({"data": {"rungs": [3], "epochs": 2}}, "at least the last rung"),
        ({"data": {"trials": "many"}}, "data.toy.trials must be an integer"),
    ],
)
def test_a_protocol_that_is_not_understood(tmp_path, changes, said):
    with pytest.raises(GlintRUError, match=said):
        tiny_protocol(tmp_path, **changes)


def test_a_rivals_own_part_can_be_taken_away(tmp_path):
    assert tiny_protocol(tmp_path, ablations={"no filter": ["alpha=0.0"]}).ablations == {"no filter": ["alpha=0.0"]}


def test_a_selection(tmp_path, default):
    file = tiny_data(tmp_path)
    chosen = select(default, [f"ml-1m={file}"], ["paper", "gru4rec", "glintru", "popularity"])
    assert list(chosen.rows["ml-1m"]) == ["paper", "gru4rec", "glintru"]
    assert chosen.references == {"ml-1m": ("popularity",)}
    assert chosen.data["ml-1m"].data.source == str(file)
    assert list(select(default).data) == ["ml-100k"]  # the only one whose source is known


@pytest.mark.parametrize(
    ("data", "options", "said"),
    [
        (["ml-1m"], {}, "--data ml-1m=FILE"),
        (["ml-1m=nowhere.csv"], {}, "no file 'nowhere.csv'"),
        (["ml-10m"], {}, "did you mean"),
        (["ml-100k"], {"rows": ["sasrek"]}, "did you mean 'sasrec'"),
        (["ml-100k"], {"presets": ["demo"]}, "NAME=RECIPE"),
        (["ml-100k"], {"presets": ["sasrec=demo"]}, "cannot be called 'sasrec'"),
        (["ml-100k"], {"presets": ["mine=dmo"]}, "did you mean 'demo'"),
    ],
)
def test_a_selection_that_is_not_understood(default, data, options, said):
    with pytest.raises(GlintRUError, match=said):
        select(default, data, **options)
