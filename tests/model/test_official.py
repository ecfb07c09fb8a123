"""Numbers that the authors' code produced."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from modeling_glintru import GlintRUError, GlintRUForSequentialRecommendation
from modeling_glintru.models.modeling_glintru import official_to_ours


@pytest.fixture(scope="module")
def golden(official_golden):
    return load_file(official_golden)


def official_weights(golden):
    return {name.removeprefix("state."): t for name, t in golden.items() if name.startswith("state.")}


@pytest.mark.parametrize(("batch", "mode"), [("full", "masked"), ("full", "official"), ("padded", "official")])
def test_golden_numbers(golden, batch, mode):
    model = GlintRUForSequentialRecommendation.from_official_state_dict(
        official_weights(golden), num_attention_heads=4, padding_mode=mode
    ).eval()
    ids, lengths = golden[f"{batch}.item_seq"], golden[f"{batch}.item_seq_len"]
    rows = torch.arange(len(ids))
    labels = torch.full_like(ids, -100)
    labels[rows, lengths - 1] = golden[f"{batch}.target"]

    output = model(ids, labels=labels)
    output.loss.backward()

    def close(ours, theirs):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)

    close(output.last_hidden_state[rows, lengths - 1], golden[f"{batch}.seq_output"])
    close(output.logits[:, 1:], golden[f"{batch}.logits"][:, 1:])
    close(output.loss[None], golden[f"{batch}.loss"])
    grads = {name: p.grad for name, p in model.named_parameters()}
    official = {k.removeprefix(f"{batch}.grad."): t for k, t in golden.items() if k.startswith(f"{batch}.grad.")}
    assert {official_to_ours(name) for name in official} == grads.keys()
    for name, grad in official.items():
        close(grads[official_to_ours(name)], grad)


def test_the_padding_leak_is_real_and_ours_does_not_have_it(golden):
    weights = official_weights(golden)
    ids = golden["padded.item_seq"][:1]
    shorter = ids[:, :6]
    for mode, same in (("official", False), ("masked", True)):
        model = GlintRUForSequentialRecommendation.from_official_state_dict(weights, 4, padding_mode=mode).eval()
        assert torch.allclose(model(ids).logits, model(shorter).logits, atol=1e-6) is same


def test_official_mode_takes_one_label_a_row(golden):
    model = GlintRUForSequentialRecommendation.from_official_state_dict(
        official_weights(golden), 4, padding_mode="official"
    )
    ids = golden["full.item_seq"]
    with pytest.raises(GlintRUError, match="one label a row"):
        model(ids, labels=ids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("dense3.bias"), "lacks model.layers.0.mlp.value_proj.bias"),
        (lambda w: w.update({"extra": torch.zeros(1)}), "unknown extra"),
        (lambda w: w.update({"dense.weight": torch.zeros(2, 2)}), r"mix_proj.weight has shape \(2, 2\)"),
        (lambda w: w.pop("item_embedding.weight"), "item_embedding.weight"),
    ],
)
def test_a_wrong_state_dict_is_named(golden, change, message):
    weights = official_weights(golden)
    change(weights)
    with pytest.raises(GlintRUError, match=message):
        GlintRUForSequentialRecommendation.from_official_state_dict(weights, 4)
