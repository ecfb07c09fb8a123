"""`load_model_folder` and `load_model_recipe`: what they give back, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation, GlintRUProcessor
from modeling_glintru.errors import GlintRUError, ModelFolderError, RecipeError
from modeling_glintru.models.loading import load_model_folder
from modeling_glintru.recipe import load_model_recipe, load_recipe

ITEMS = [30, 10, 20]


@pytest.fixture
def saved(tmp_path) -> tuple[GlintRUForSequentialRecommendation, Path]:
    torch.manual_seed(0)
    model = GlintRUForSequentialRecommendation(GlintRUConfig(vocab_size=4, hidden_size=8, num_attention_heads=2))
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    GlintRUProcessor(ITEMS, {10: "Ten"}, max_length=5).save_pretrained(folder)
    return model, folder


@pytest.mark.parametrize("kind", [str, Path])
def test_what_was_saved_comes_back(saved, kind):
    model, folder = saved
    loaded, processor = load_model_folder(kind(folder))
    assert type(loaded) is GlintRUForSequentialRecommendation and not loaded.training
    expected = model.state_dict()
    assert expected.keys() == loaded.state_dict().keys()
    assert all(torch.equal(expected[name], tensor) for name, tensor in loaded.state_dict().items())
    assert list(processor.item_ids) == ITEMS and processor.title(10) == "Ten" and processor.max_length == 5


def test_weights_in_parts(saved):
    model, folder = saved
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="1KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    loaded, _ = load_model_folder(folder)
    expected = model.state_dict()
    assert all(torch.equal(expected[name], tensor) for name, tensor in loaded.state_dict().items())


def test_a_weight_that_the_model_does_not_have(saved):
    model, folder = saved
    model.save_pretrained(folder, state_dict=model.state_dict() | {"model.extra": torch.zeros(1)})
    with pytest.raises(ModelFolderError, match=r"unexpected keys: model\.extra"):
        load_model_folder(folder)


def test_a_config_for_more_layers_than_there_are_weights(saved):
    model, folder = saved
    model.config.num_hidden_layers = 2
    model.config.save_pretrained(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(ModelFolderError, match=r"do not fit its config.json, missing keys: model\.layers\.1\."):
        load_model_folder(folder)


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "./nowhere", "~/nowhere", ""])
def test_what_is_neither_a_folder_nor_a_repository(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelFolderError):
        load_model_folder(name)


def test_a_repository_that_cannot_be_had(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(GlintRUError) as caught:
        load_model_folder("nobody-at-all/no-such-model")
    assert "\n" not in str(caught.value) and "nobody-at-all/no-such-model" in str(caught.value)


def test_the_recipe_of_a_model(saved):
    _, folder = saved
    with pytest.raises(ModelFolderError, match=r"no recipe\.yaml"):
        load_model_recipe(folder)
    recipe = load_recipe("demo", ["seed=9"])
    recipe.save(folder / "recipe.yaml")
    assert load_model_recipe(folder) == recipe
    (folder / "recipe.yaml").write_text("name: x\ncolour: red\n")
    with pytest.raises(RecipeError, match="no key 'colour'"):
        load_model_recipe(str(folder))
