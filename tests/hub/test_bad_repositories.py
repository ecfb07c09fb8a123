"""Repositories that are no whole model of ours: what is wrong is named, and nothing half is loaded."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from modeling_glintru import GlintRUProcessor
from modeling_glintru.errors import GlintRUError, HubError
from modeling_glintru.models.loading import load_model_folder

from .conftest import ITEMS


@pytest.fixture
def pushed(hub, folder):
    """Puts the files of a folder on the Hub as somebody else's tool would: unchecked, and without a manifest."""

    def push(**changes: bytes | None):
        files = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
        del files["manifest.json"]
        files |= {name.replace("__", "."): data for name, data in changes.items()}
        hub.add("ann/bad", {name: data for name, data in files.items() if data is not None})

    return push


def refused(match: str) -> None:
    with pytest.raises(GlintRUError, match=match) as caught:
        load_model_folder("ann/bad")
    assert "\n" not in str(caught.value)


def test_a_repository_of_another_kind_of_model(pushed):
    pushed(config__json=b'{"model_type": "bert", "architectures": ["BertModel"]}')
    refused("ann/bad holds a model of type 'bert', not one of bert4rec, ")
    pushed(config__json=None)
    refused(r"ann/bad has no config\.json")
    pushed(config__json=b'{"model_type": "glintru"')
    refused(r"ann/bad/config\.json is damaged")


def test_weights_without_vocabulary(pushed):
    pushed(item_vocabulary__safetensors=None)
    refused(r"ann/bad has no item vocabulary, item_vocabulary\.safetensors is missing; weights are of no use")
    pushed(preprocessor_config__json=None)
    refused(r"ann/bad has no item vocabulary, preprocessor_config\.json is missing")


def test_no_weights(pushed):
    pushed(model__safetensors=None)
    refused(r"ann/bad has no weights \(model\.safetensors\)")
    index = {"weight_map": {"model.embed_items.weight": "model-00001-of-00001.safetensors"}}
    pushed(**{"model.safetensors.index.json": json.dumps(index).encode()})
    refused(r"ann/bad lacks model-00001-of-00001\.safetensors, a part of its weights")


def changed(folder, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.layers.0.gate_proj.bias"), r"missing keys: model\.layers\.0\.gate_proj\.bias"),
        (lambda t: t.update(extra=torch.zeros(2)), r"unexpected keys: extra"),
        (
            lambda t: t.update({"model.layers.0.gate_proj.bias": torch.zeros(3)}),
            r"mismatched keys: model\.layers\.0\.gate_proj\.bias",
        ),
    ],
)
def test_missing_extra_and_misshapen_tensors_are_named(pushed, folder, change, message):
    changed(folder, change)
    pushed()
    refused(f"the weights of ann/bad do not fit its config.json, {message}")


def test_a_vocabulary_that_disagrees_with_the_weights(pushed, folder):
    GlintRUProcessor([*ITEMS, "more"]).save_pretrained(folder)
    pushed()
    refused("the vocabulary of ann/bad has 5 items, but its weights are for 4")


def test_a_config_of_a_future_version(pushed, folder, caplog):
    config = json.loads((folder / "config.json").read_text())
    pushed(config__json=json.dumps(config | {"use_wormholes": True, "transformers_version": "9.0"}).encode())
    with caplog.at_level(logging.WARNING):
        logging.getLogger("transformers").propagate = True
        try:
            model, _ = load_model_folder("ann/bad")
        finally:
            logging.getLogger("transformers").propagate = False
    assert "GlintRUConfig does not know 'use_wormholes': set as attributes, but not used" in caplog.text
    assert model.config.use_wormholes is True
    pushed(config__json=json.dumps(config | {"temperature": -1}).encode())
    refused(r"ann/bad/config\.json: temperature must be above 0 and finite, got -1")


def test_a_file_that_arrives_in_part_is_never_loaded(hub, pushed, folder):
    """Half of it and then nothing: an error; when the Hub is back, the rest is fetched; cut at its source: named."""
    pushed()
    asked = []

    def half_and_then_nothing(method: str, path: str) -> str | int | None:
        if method != "GET" or not path.endswith("/model.safetensors"):
            return None
        asked.append(path)
        return "body" if len(asked) == 1 else 403

    hub.on_request = half_and_then_nothing
    with pytest.raises(HubError, match="this login may not read ann/bad"):
        load_model_folder("ann/bad")
    with pytest.raises(OSError):
        AutoModel.from_pretrained("ann/bad")
    assert len(asked) > 2
    hub.on_request = lambda method, path: None
    model, _ = load_model_folder("ann/bad")
    weights = load_file(folder / "model.safetensors")
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in weights.items())
    pushed(model__safetensors=(folder / "model.safetensors").read_bytes()[:-100])
    refused(r"ann/bad/model\.safetensors is damaged or cut short")
