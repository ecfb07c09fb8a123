"""LoRA on the block: every adapter works, and what is saved is an ordinary model."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

from modeling_glintru.errors import RecipeError
from modeling_glintru.kernels.step import CompiledStep
from modeling_glintru.models.auto import MODELS
from modeling_glintru.models.loading import load_model_folder
from modeling_glintru.training.start import add_adapters, check_adapters, linear_layers, merge_adapters

from ..cli.conftest import demo, glintru  # noqa: F401 (fixtures)
from ..model.helpers import random_history, small_model

needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed: [peft]")


def shaken(model, scale=0.3):
    """Adapters as after some training: a fresh one changes nothing."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=scale)
    return model


class Doubled(nn.Module):
    """Stands in for what an adapter does to a linear layer."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner
        self.weight, self.bias = inner.weight, inner.bias

    def forward(self, x):
        return 2 * self.inner(x)


@pytest.mark.parametrize("name", linear_layers(small_model()))
def test_a_layer_around_a_linear_one_is_called(name):
    """The block multiplies some weights together beforehand; an adapter around one of them must not be left out."""
    model, expected, ids = small_model(), small_model(), random_history(2, 6)
    model.set_submodule(name, Doubled(model.get_submodule(name)))
    with torch.no_grad():
        for parameter in expected.get_submodule(name).parameters():
            parameter *= 2
    torch.testing.assert_close(model(ids).logits, expected(ids).logits, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(model(ids).logits, small_model()(ids).logits, atol=1e-3)


@needs_peft
def test_every_adapter_learns_and_nothing_else():
    model = small_model()
    add_adapters(model, rank=2, train_embeddings=False)
    shaken(model).train()
    ids = random_history(4, 8)
    model(ids[:, :-1], labels=ids[:, 1:]).loss.backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert all("lora_" in name for name in grads)
    assert len(grads) == 2 * len(linear_layers(small_model()))
    assert all(grad.abs().sum() > 0 for grad in grads.values())


@needs_peft
def test_merging_gives_the_same_scores_in_an_ordinary_model(tmp_path):
    ids = random_history(3, 9)
    model = small_model()
    fresh = model(ids).logits
    adapted = add_adapters(model, rank=2, train_embeddings=True)
    torch.testing.assert_close(model(ids).logits, fresh, rtol=1e-5, atol=1e-5)
    expected = shaken(model)(ids).logits
    assert not torch.allclose(expected, fresh, atol=1e-2)
    assert not CompiledStep.serves(model)  # it reads weights that an adapter stands around
    merged = merge_adapters(adapted)
    assert type(merged) is type(small_model()) and merged.state_dict().keys() == small_model().state_dict().keys()
    torch.testing.assert_close(merged(ids).logits, expected, rtol=1e-4, atol=1e-5)
    assert CompiledStep.serves(merged) == CompiledStep.serves(small_model())
    assert all(parameter.requires_grad for parameter in merged.parameters())
    merged.save_pretrained(tmp_path)
    assert not [file.name for file in tmp_path.iterdir() if "adapter" in file.name]
    assert torch.equal(type(merged).from_pretrained(tmp_path)(ids).logits, merged(ids).logits)


@needs_peft
def test_the_command(demo, glintru, tmp_path):  # noqa: F811
    words = ("train", "--from", demo[0], "--data", "demo", "--set", "lora_rank=4", "--quiet", "--output_dir")
    stopped = glintru(*words, tmp_path / "out", "--max_minutes", "1e-9")
    assert stopped.exit_code == 0 and "--resume goes on" in stopped.stdout, stopped.output
    result = glintru(*words, tmp_path / "out", "--resume")
    assert result.exit_code == 0 and "LoRA      " in result.stdout, result.output
    whole = glintru(*words, tmp_path / "whole")
    assert whole.exit_code == 0, whole.output
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "whole"))
    assert first == second
    old, now = load_model_folder(demo[0])[0], load_model_folder(tmp_path / "out")[0]
    assert torch.equal(old.get_input_embeddings().weight, now.get_input_embeddings().weight)
    assert not torch.equal(old.model.layers[0].mix_proj.weight, now.model.layers[0].mix_proj.weight)


@needs_peft
def test_only_glintru():
    with pytest.raises(RecipeError, match="is for glintru, not for sasrec"):
        check_adapters(MODELS["sasrec"](MODELS["sasrec"].config_class(vocab_size=5)))


def test_without_peft(monkeypatch):
    monkeypatch.setattr("modeling_glintru.training.start.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"pip install 'glintru\[peft\]'"):
        check_adapters(small_model())
