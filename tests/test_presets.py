"""The rule that stands where no recipe is given: near the named recipes on their data, in range far from it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from modeling_glintru.data import load_source
from modeling_glintru.data.prepare import prepare
from modeling_glintru.errors import RecipeError
from modeling_glintru.models.auto import MODELS
from modeling_glintru.recipe import Recipe, change_recipe, load_recipe
from modeling_glintru.recipe.rule import (
    MOST_AT_ONCE,
    RULE,
    DataShape,
    Situation,
    blank_recipe,
    choose,
    data_shape,
    describe,
    preset,
    rule_table,
)


def shape(users, items, interactions, median, length_90, length_99) -> DataShape:
    return DataShape(users, items, interactions, median, length_90, length_99, validating=users)


# The published counts.
KNOWN = {
    "ml-100k": shape(943, 1_682, 100_000, 65, 244, 443),
    "ml-1m": shape(6_040, 3_416, 999_611, 96, 400, 906),
    "amazon-beauty": shape(22_363, 12_101, 198_502, 6, 14, 43),
    "amazon-video-games": shape(24_303, 10_672, 231_780, 7, 16, 51),
}
EXTREMES = {
    "50 users": shape(50, 40, 1_000, 18, 30, 60),
    "two users": shape(2, 2, 6, 3, 3, 3),
    "10 million users": shape(10_000_000, 100_000, 300_000_000, 20, 60, 200),
    "5 million items": shape(1_000_000, 5_000_000, 50_000_000, 30, 120, 500),
    "histories of one item": shape(0, 500, 0, 1, 1, 1),
    "endless histories": shape(100, 50_000, 5_000_000, 40_000, 90_000, 99_000),
}
ALL = KNOWN | EXTREMES


def chosen(data: DataShape, *overrides: str) -> Recipe:
    return preset(data, change_recipe(blank_recipe(), overrides), overrides)[0]


@pytest.mark.parametrize("name", KNOWN)
def test_near_the_recipe_of_that_name(name):
    ours, named = chosen(KNOWN[name]), load_recipe(f"{name}-best")
    # The rule does not go as far as the recipe that is dearer.
    apart = {"ml-1m": {"num_hidden_layers": 1, "use_temporal_convolutions": True}}
    block = {"use_temporal_convolutions": True}
    assert block | ours.model == block | named.model | apart.get(name, {})
    same = ("learning_rate", "weight_decay", "eval_batch_size", "metric", "lr_scheduler_type")
    for field in (*same, "cooccurrence_start", "cooccurrence_smoothing"):
        assert getattr(ours.training, field) == getattr(named.training, field)
    for field in ("max_length", "num_train_epochs", "train_batch_targets", "warmup_steps"):
        # The short schedule that smoothing gets warms up for 3.5 % of its steps, Amazon's recipes for more.
        least = 0.4 if field == "warmup_steps" and ours.training.cooccurrence_smoothing else 1 / 2
        assert least <= getattr(ours.training, field) / getattr(named.training, field) <= 2
    assert (ours.data, ours.evaluation) == (named.data, named.evaluation) or name == "ml-100k"  # its source is named


def test_the_lengths_of_the_named_data():
    lengths = {name: chosen(data).training.max_length for name, data in KNOWN.items()}
    assert lengths == {"ml-100k": 200, "ml-1m": 200, "amazon-beauty": 50, "amazon-video-games": 50}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("model", MODELS)
def test_every_choice_is_allowed_and_in_range(name, model):
    recipe = chosen(ALL[name], f"model.name={model}")
    training = recipe.training
    assert 20 <= training.max_length <= 200 and training.max_length % 10 == 0
    assert recipe.model["hidden_size"] in (64, 128, 256)
    if training.train_batch_targets is None:
        assert MODELS[model].training_examples == "prefixes" and 16 <= training.train_batch_size <= 512
    else:
        assert training.max_length <= training.train_batch_targets < 2 * MOST_AT_ONCE
    assert 5 <= training.num_train_epochs <= 100
    assert 10 <= training.warmup_steps <= 1_000
    assert 0 < training.prefix_share <= 1
    assert recipe.config(vocab_size=ALL[name].items + 1).model_type == model
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_sparse_data_gets_two_blocks_and_a_short_schedule():
    sparse, dense = chosen(KNOWN["amazon-beauty"]), chosen(KNOWN["ml-100k"])
    assert (sparse.model["num_hidden_layers"], dense.model["num_hidden_layers"]) == (2, 1)
    assert sparse.training.num_train_epochs == 10 and dense.training.num_train_epochs == 40


def test_sparse_data_of_some_size_gets_width_and_smoothing():
    beauty = KNOWN["amazon-beauty"]
    small = chosen(replace(beauty, users=9_000, interactions=108_000))
    large, many_items = chosen(replace(beauty, interactions=600_000)), chosen(replace(beauty, items=300_000))
    # The time of the request was measured without it, and so were the other models.
    timed, other = chosen(beauty, "use_time_gaps=true"), chosen(beauty, "model.name=sasrec")
    for recipe in (small, large, many_items, timed, other):
        assert (recipe.model["hidden_size"], recipe.model["hidden_dropout"]) == (128, 0.5)
        assert "use_gru" not in recipe.model and recipe.training.cooccurrence_smoothing == 0
    enough = chosen(replace(beauty, users=9_000, interactions=109_000))
    assert enough.model["hidden_size"] == 256 and enough.training.cooccurrence_smoothing == 1
    # Without the smoothing, the schedule and the weight of R-Drop that were measured without it.
    plain = chosen(beauty, "cooccurrence_smoothing=0")
    assert (plain.training.num_train_epochs, plain.loss["r_drop_alpha"]) == (22, 1)
    small_smoothed = chosen(replace(beauty, users=9_000, interactions=108_000), "cooccurrence_smoothing=1")
    assert small_smoothed.training.num_train_epochs == small.training.num_train_epochs == 38


def test_a_small_table():
    recipe = chosen(EXTREMES["50 users"])
    assert (recipe.training.train_batch_targets, recipe.training.num_train_epochs) == (50, 53)
    assert recipe.model["hidden_dropout"] == 0.5


def test_training_stops_early_only_where_validation_says_enough():
    data = KNOWN["ml-1m"]
    assert chosen(data).training.early_stopping_patience == 5
    assert chosen(KNOWN["ml-100k"]).training.early_stopping_patience == 10  # short epochs
    few = chosen(replace(data, validating=81)).training
    assert few.early_stopping_patience is None and few.num_train_epochs == chosen(data).training.num_train_epochs
    assert "early_stopping_patience null: 81 targets to validate on" in describe(choose(replace(data, validating=81)))
    assert chosen(replace(data, validating=81), "early_stopping_patience=3").training.early_stopping_patience == 3


def test_many_long_histories_get_a_state_space():
    long, fewer = chosen(KNOWN["ml-1m"]), chosen(replace(KNOWN["ml-1m"], interactions=400_000, median_length=40))
    shorter = chosen(replace(KNOWN["ml-1m"], users=100_000, median_length=9))
    assert long.model["state_space_share"] == 0.5 and "average_share" not in long.model
    assert long.training.cooccurrence_start == 0.5
    for recipe in (fewer, shorter):
        assert "state_space_share" not in recipe.model and recipe.model["average_share"] == 0.3
    assert "state_space_share" not in chosen(KNOWN["ml-1m"], "model.name=sasrec").model
    assert "r_drop_alpha" not in chosen(replace(KNOWN["ml-1m"], interactions=3_000_000)).loss


@pytest.mark.parametrize("name", ["ml-100k", "ml-1m"])
def test_where_items_repeat_a_seen_item_competes(name):
    assert chosen(KNOWN[name]).loss["seen_items_in_softmax"] is False
    assert "seen_items_in_softmax" not in chosen(replace(KNOWN[name], recommend_seen=True)).loss
    assert "0.1% of the targets recur" in describe(choose(replace(KNOWN[name], recurring=0.001)))


def test_recurring_targets_are_counted_within_a_history():
    frame = pl.DataFrame({"user_id": ["a"] * 6 + ["b"] * 5, "item_id": list("xyxxzwxyzwv"), "timestamp": range(11)})
    data = prepare(load_source(frame, user_column="user_id", item_column="item_id", time_column="timestamp"))
    rows = data.dataset["train"]["item_ids"]
    targets = [(item, row[:place]) for row in rows for place, item in enumerate(row) if place]
    expected = sum(item in before for item, before in targets) / len(targets)
    shape = data_shape(data)
    assert shape.recurring == data.recurring == pytest.approx(expected) and expected == 2 / 5
    assert shape.recommend_seen


def test_a_large_table():
    recipe = chosen(EXTREMES["10 million users"])
    assert recipe.training.train_batch_targets == 24_000 and recipe.training.num_train_epochs == 5
    assert (recipe.model["hidden_size"], recipe.model["hidden_dropout"]) == (128, 0.2)
    assert recipe.evaluation.reference_models == ("popularity",)


def test_a_large_catalogue():
    recipe = chosen(EXTREMES["5 million items"])
    assert recipe.loss["name"] == "sampled_softmax" and recipe.loss["negative_sampling"] == "mixed"
    assert recipe.model["hidden_size"] == 64  # 1.3 GB of weights, and twice that of moments
    assert recipe.training.eval_batch_size * 5_000_000 <= 2**26
    assert chosen(KNOWN["ml-1m"]).loss["name"] == "cross_entropy" and "num_negatives" not in chosen(KNOWN["ml-1m"]).loss


def test_given_values_stand_and_the_others_follow_them():
    recipe = chosen(KNOWN["ml-1m"], "hidden_size=36", "training.max_length=20", "hidden_dropout=0.0", "seed=7")
    assert (recipe.model["hidden_size"], recipe.model["num_attention_heads"], recipe.seed) == (36, 2, 7)
    assert (recipe.model["hidden_dropout"], recipe.model["embedding_dropout"]) == (0.0, 0.2)
    # Short windows hold few targets: fewer of them a step, at a lower rate.
    assert recipe.training.train_batch_targets == 750 and recipe.training.learning_rate == 1e-3
    by_size = chosen(KNOWN["ml-1m"], "train_batch_size=64").training
    assert (by_size.train_batch_size, by_size.train_batch_targets) == (64, None)
    plain = chosen(KNOWN["amazon-beauty"], "normalize_scores=false").model
    assert plain["normalize_scores"] is False and "temperature" not in plain
    for given in ("loss=bpr", "label_smoothing=0.1"):
        assert "r_drop_alpha" not in chosen(KNOWN["amazon-beauty"], given).loss
        assert "seen_items_in_softmax" not in chosen(KNOWN["ml-1m"], given).loss
    few = chosen(KNOWN["ml-1m"], "train_batch_targets=1000").training
    assert few.num_train_epochs == 21 and few.train_batch_targets == 1000
    assert chosen(KNOWN["ml-1m"], "loss=gbce").loss["num_negatives"] == 1024


def test_what_is_given_is_not_called_chosen():
    choices = choose(KNOWN["ml-1m"], {"model.hidden_size": 32, "training.max_length": 50})
    keys = {key for choice in choices for key in choice.values}
    assert not {"model.hidden_size", "training.max_length"} & keys and "loss.name" in keys
    text = describe(choices)
    assert text.startswith("Chosen    num_attention_heads 2") and len(text.splitlines()) == len(
        {choice.reason for choice in choices}
    )
    assert "292.6 interactions an item, median history 96" in text


def test_other_models_get_what_they_have():
    prefixes = chosen(KNOWN["ml-1m"], "model.name=bsarec")
    assert prefixes.training.prefix_share == pytest.approx(0.06) and prefixes.training.train_batch_size == 128
    assert prefixes.model["hidden_dropout"] == 0.2 and "embedding_dropout" not in prefixes.model
    assert "num_hidden_layers" not in prefixes.model  # its own default


def test_several_processes_share_batches_of_examples(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")  # batches of targets are made in one process
    training = chosen(KNOWN["ml-1m"]).training
    assert (training.train_batch_targets, training.train_batch_size) == (None, 32)


def test_bad_values_are_refused():
    with pytest.raises(RecipeError, match="multiple of num_attention_heads"):
        chosen(KNOWN["ml-1m"], "num_attention_heads=7")


@pytest.mark.parametrize("split", ["leave_one_out", "temporal"])
def test_the_shape_of_prepared_data(split):
    data = prepare(load_source("demo"), split=split)
    found = data_shape(data)
    lengths = sorted(len(row) for row in data.dataset["train"]["item_ids"] if len(row) >= 2)
    assert found.users == len(lengths) and found.interactions == sum(lengths)
    assert found.items == len(data.processor) and found.targets == sum(lengths) - len(lengths)
    assert found.validating == len(data.dataset["validation"]) > 0
    assert found.median_length == pytest.approx((lengths[(len(lengths) - 1) // 2] + lengths[len(lengths) // 2]) / 2)
    assert found.median_length <= found.length_90 <= found.length_99 <= lengths[-1]


def test_the_table_of_the_rule_is_readable():
    table = rule_table()
    assert max(map(len, table.splitlines())) <= 80 and "<" not in table and "None" not in table
    flat = " ".join(table.split())
    for question, rows in RULE.items():
        assert question in flat
        for row in rows:
            assert row.when in flat and row.evidence in flat
    assert "hidden_size 64" in flat and "num_attention_heads 16 dimensions a head" in flat


def test_each_row_of_the_rule_is_taken_by_some_data_and_names_files_that_exist():
    small, dense = KNOWN["amazon-beauty"], KNOWN["ml-1m"]
    shapes = [
        *ALL.values(),
        *(replace(small, validating=few) for few in (10, 1_000)),
        replace(dense, interactions=3_000_000, users=2_000),
        replace(dense, users=100_000, median_length=25, interactions=4_000_000),
    ]
    taken = set()
    for shape in shapes:
        for model in ("glintru", "sasrec", "bsarec"):
            known = {key: value for choice in choose(shape, {}, model) for key, value in choice.values.items()}
            situation = Situation(shape, known, model)
            for question, rows in RULE.items():
                row = next((row for row in rows if row.holds(situation)), None)
                taken |= set() if row is None else {(question, row.when)}
    assert taken == {(question, row.when) for question, rows in RULE.items() for row in rows}
    root = Path(__file__).parents[1]
    for row in (row for rows in RULE.values() for row in rows):
        for file in re.findall(r"[a-z_]+\.md", row.evidence):
            assert (root / "docs" / file).is_file() or (root / "research" / file).is_file(), file
