"""The model that a fine-tuning starts from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from datasets import Dataset, concatenate_datasets

from modeling_glintru.data import synthetic_interactions
from modeling_glintru.data.prepare import prepare
from modeling_glintru.errors import RecipeError
from modeling_glintru.models.auto import MODELS
from modeling_glintru.recipe import FineTuningRecipe, load_recipe, model_section
from modeling_glintru.training import train
from modeling_glintru.training.start import Start, histories, weights_checksum

from ..model.helpers import small_model

READ = synthetic_interactions(num_users=40, num_items=30)


def start_of(name="glintru", **settings):
    """A model of the first 24 items, and data of all 30."""
    kind = MODELS[name]
    few = prepare(READ).processor.item_ids[:24]
    processor = type(prepare(READ).processor)(few)
    config = kind.config_class(vocab_size=25, hidden_size=16, num_attention_heads=2)
    start = Start(kind(config).eval(), processor, FineTuningRecipe("base", **settings))
    data = prepare(READ, processor=None if start.settings.items == "new" else processor, add_items=True)
    recipe = load_recipe("demo", [f"model.name={name}"])
    return start, start.fitted(replace(recipe, model={"name": name})), data


@pytest.mark.parametrize("name", list(MODELS))
def test_all_weights_are_taken_and_the_start_stays(name):
    start, recipe, data = start_of(name)
    before = weights_checksum(start.model)
    model = start.model_for(recipe, data)
    for key, tensor in start.model.state_dict().items():
        assert torch.equal(model.state_dict()[key][: len(tensor)], tensor), key
    assert model.config.vocab_size == 31 and model.get_input_embeddings().weight[25:].abs().sum() > 0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    assert weights_checksum(start.model) == before


@pytest.mark.parametrize("name", ["glintru", "sasrec"])
def test_new_items_keep_the_block_alone(name):
    start, recipe, data = start_of(name, items="new")
    model = start.model_for(recipe, data)
    for key, tensor in start.model.state_dict().items():
        if key == "model.embed_items.weight":
            assert model.state_dict()[key].shape == (31, 16)
            assert not torch.equal(model.state_dict()[key][:25], tensor)
        else:
            assert torch.equal(model.state_dict()[key], tensor), key


def test_dropout_and_loss_may_change_but_sizes_may_not():
    start, recipe, data = start_of()
    changed = replace(recipe, model=recipe.model | {"hidden_dropout": 0.5}, loss={"name": "gbce"})
    fitted = start.fitted(changed)
    model = start.model_for(fitted, data)
    assert fitted.loss == {"name": "gbce"} and model.model.layers[0].dropout.p == 0.5
    with pytest.raises(RecipeError, match=r"model\.use_gru is True in base, but False"):
        start.fitted(replace(recipe, model=recipe.model | {"use_gru": False}))


def test_a_recipe_that_fine_tunes_is_not_trained_anew(tmp_path):
    _, recipe, data = start_of()
    with pytest.raises(RecipeError, match="fine-tunes a model, but this trains new weights"):
        train(recipe, data, tmp_path, compute_metrics=dict, preprocess_logits_for_metrics=dict)


@pytest.mark.parametrize("name", ["cooccurrence_start", "cooccurrence_smoothing"])
def test_what_is_fine_tuned_has_its_embeddings(tmp_path, name):
    start, recipe, data = start_of()
    recipe = replace(start.fitted(recipe), training=replace(recipe.training, **{name: 0.5}))
    with pytest.raises(RecipeError, match=f"{name} is for new weights"):
        train(recipe, data, tmp_path, compute_metrics=dict, preprocess_logits_for_metrics=dict, start=start)


def test_the_checksum_names_the_weights():
    first, same, other = small_model(), small_model(), small_model()
    assert weights_checksum(first) == weights_checksum(same)
    with torch.no_grad():
        other.model.layers[0].norm.bias[3] += 1e-7
    assert weights_checksum(other) != weights_checksum(first)
    assert weights_checksum(first.half()) != weights_checksum(same)


def test_histories_come_from_every_chunk():
    rows = [Dataset.from_dict({"item_ids": items}) for items in ([[1, 2], []], [[3], [4, 5, 6]])]
    split = concatenate_datasets(rows)
    assert len(split.data.column("item_ids").chunks) == 2
    assert [history.tolist() for history in histories(split)] == [[1, 2], [], [3], [4, 5, 6]]


def test_the_section_of_a_model_makes_the_same_model():
    section = model_section(small_model(use_gru=False))
    assert section["hidden_size"] == 16 and section["use_gru"] is False and "vocab_size" not in section
    assert load_recipe("demo").config(31).hidden_size == 32
    assert replace(load_recipe("demo"), model=section).config(31) == small_model(use_gru=False).config
