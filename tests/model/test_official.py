"""Numbers that the authors' code produced."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from modeling_glintru import GlintRUError
from modeling_glintru.hub.official import from_official_state_dict, official_representation, official_to_ours


@pytest.fixture(scope="module")
def golden(official_golden):
    return load_file(official_golden)


def official_weights(golden):
    return {name.removeprefix("state."): t for name, t in golden.items() if name.startswith("state.")}


def computed(model, ids, padded: bool):
    """Representations of every position: by the model, or with the authors' padding leak."""
    return official_representation(model.model, ids) if padded else model(ids).last_hidden_state


@pytest.mark.parametrize(("batch", "leak"), [("full", False), ("full", True), ("padded", True)])
def test_golden_numbers(golden, batch, leak):
    """Their representations, scores, loss (padding competes in it) and gradients."""
    model = from_official_state_dict(official_weights(golden), num_attention_heads=4).eval()
    ids, lengths = golden[f"{batch}.item_seq"], golden[f"{batch}.item_seq_len"]
    last = computed(model, ids, leak)[torch.arange(len(ids)), lengths - 1]
    logits = last @ model.model.embed_items.weight.T
    loss = F.cross_entropy(logits, golden[f"{batch}.target"])
    loss.backward()

    def close(ours, theirs):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)

    close(last, golden[f"{batch}.seq_output"])
    close(logits[:, 1:], golden[f"{batch}.logits"][:, 1:])
    close(loss[None], golden[f"{batch}.loss"])
    if not leak:
        close(model(ids).logits[:, 1:], golden[f"{batch}.logits"][:, 1:])
    grads = {name: p.grad for name, p in model.named_parameters()}
    official = {k.removeprefix(f"{batch}.grad."): t for k, t in golden.items() if k.startswith(f"{batch}.grad.")}
    assert {official_to_ours(name) for name in official} == grads.keys()
    for name, grad in official.items():
        close(grads[official_to_ours(name)], grad)


def test_the_padding_leak_is_real_and_ours_does_not_have_it(golden):
    model = from_official_state_dict(official_weights(golden), 4).eval()
    ids = golden["padded.item_seq"][:1]
    last = int(golden["padded.item_seq_len"][0]) - 1
    for leak in (True, False):
        whole, shorter = (computed(model, x, leak)[:, last] for x in (ids, ids[:, :6]))
        assert torch.allclose(whole, shorter, atol=1e-6) is not leak


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
        from_official_state_dict(weights, 4)
