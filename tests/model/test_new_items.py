"""A vocabulary that grows: what was there stays, and where the new rows begin."""

from __future__ import annotations

import sys

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from modeling_glintru import GlintRUError, GlintRUProcessor
from modeling_glintru.models.auto import MODELS
from modeling_glintru.models.losses import NextItemLoss
from modeling_glintru.models.modeling_sasrec import SASRecConfig
from modeling_glintru.models.new_items import neighbour_means

from .helpers import random_history, small_model

OLD = 31  # vocab_size of the small model


@pytest.mark.parametrize("init", ["mean", torch.full((4, 16), 9.0)])
def test_old_rows_and_scores_stay_exactly(init):
    model, ids = small_model(), random_history(5, 12)
    rows, before = model.get_input_embeddings().weight.clone(), model(ids)
    model.add_items(4, init)
    after = model(ids)
    torch.testing.assert_close(after.logits[:, :OLD], before.logits, rtol=1e-6, atol=0)
    assert after.logits.shape == (5, OLD + 4)
    assert torch.equal(after.last_hidden_state, before.last_hidden_state)
    assert torch.equal(model.get_input_embeddings().weight[:OLD], rows)
    assert model.config.vocab_size == model.model.config.vocab_size == OLD + 4


def test_states_stay_valid(tmp_path):
    """Added twice, saved and loaded; training takes it back, and a row that was there changes everything."""
    model, ids = small_model().eval(), random_history(5, 12)
    state, name = model(ids, use_cache=True).state, model.model.fingerprint()
    for _ in range(2):
        model.add_items(3)
    model.save_pretrained(tmp_path)
    model = type(model).from_pretrained(tmp_path)
    assert (model.config.states_vocab_size, model.config.vocab_size) == (OLD, OLD + 6)
    assert model.model.fingerprint() == name
    more = torch.tensor([[OLD + 1], [2], [OLD + 5], [1], [7]])
    torch.testing.assert_close(model(more, state=state).logits, model(torch.cat([ids, more], 1)).logits)
    with torch.no_grad():
        model.model.embed_items.weight[3] += 1
    assert model.model.fingerprint() != name
    with pytest.raises(GlintRUError, match="the state was computed by other weights"):
        model(more, state=state)


@pytest.mark.parametrize("size", [1, 0, -3, 32])
def test_states_of_impossible_vocabularies(size):
    with pytest.raises(StrictDataclassError, match="states_vocab_size must be between 2 and vocab_size"):
        small_model(states_vocab_size=size)


@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_grows_and_trains(name):
    kind = MODELS[name]
    model = kind(kind.config_class(vocab_size=10, hidden_size=16, num_attention_heads=2)).eval()
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    before = model(ids).logits
    model.add_items(3)
    torch.testing.assert_close(model(ids).logits[:, :10], before, rtol=1e-6, atol=1e-7)
    labels = torch.full((2, 3), -100)
    labels[:, -1] = torch.tensor([12, 11])
    model(torch.tensor([[10, 11, 12], [1, 12, 10]]), labels=labels).loss.backward()
    assert model.get_input_embeddings().weight.grad[10:].abs().sum() > 0
    assert model.get_input_embeddings().padding_idx == 0


def test_neighbours_by_hand():
    weight = torch.arange(12.0).reshape(4, 3)  # known items 1, 2, 3; new ones 4, 5, 6
    means = neighbour_means(weight, [[1, 4, 3, 4], [5, 6], [4, 2], [2, 5], [3]], 3)
    expected_4 = (weight[1] + 2 * weight[3] + weight[2]) / 4  # 3 is a neighbour twice
    torch.testing.assert_close(means, torch.stack([expected_4, weight[2], weight[1:].mean(0)]))


def test_histories_begin_the_new_rows():
    model = small_model()
    weight = model.get_input_embeddings().weight.detach().clone()
    model.add_items(2, "neighbours", [[5, 31, 7], [32, 6]])
    torch.testing.assert_close(model.get_input_embeddings().weight[31], (weight[5] + weight[7]) / 2)
    torch.testing.assert_close(model.get_input_embeddings().weight[32], weight[6])


def test_processor_and_model_grow_together(tmp_path):
    processor = GlintRUProcessor([f"i{n}" for n in range(30)], {"i3": "three"})
    model = small_model()
    model.add_items(processor.add_items(["i5", "new", "newer", "i1"], {"new": "New!"}))
    assert processor.vocab_size == model.config.vocab_size == OLD + 2
    assert (processor.index_of("i5"), processor.index_of("new"), processor.index_of("newer")) == (6, 31, 32)
    assert (processor.title("new"), processor.title("newer"), processor.title("i3")) == ("New!", None, "three")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    ids = GlintRUProcessor.from_pretrained(tmp_path)([["new", "i7"]])["input_ids"]
    assert ids.tolist() == [[31, 8]]
    assert torch.equal(again(ids).logits, model(ids).logits)


def test_integers_are_found_after_growing():
    processor = GlintRUProcessor([30, 10, 20])
    assert processor.encode_ids(torch.tensor([10, 25])).tolist() == [2, 0]
    assert processor.add_items([25, 10]) == 1
    assert processor.encode_ids(torch.tensor([10, 25])).tolist() == [2, 4]


def test_a_refused_id_changes_nothing():
    processor = GlintRUProcessor(["a", "b"])
    for wrong, message in ((["c", "c"], "'c' occurs more than once"), ([1], "are strings")):
        with pytest.raises(GlintRUError, match=message):
            processor.add_items(wrong)
    assert processor.item_ids == ("a", "b") and "c" not in processor and processor.add_items(["b"]) == 0


def test_nothing_to_add_changes_nothing():
    model = small_model()
    model.add_items(0)
    assert model.config.vocab_size == OLD
    model.training_loss = NextItemLoss("gbce", item_counts=torch.ones(OLD), negative_sampling="mixed")
    model.add_items(1)
    ids = torch.tensor([[1, 2]])
    with pytest.raises(GlintRUError, match=rf"item_counts must have shape \({OLD + 1},\), got \({OLD},\)"):
        model(ids, labels=ids)


def test_without_the_package_a_vocabulary_does_not_grow(monkeypatch):
    """As remote code where the package is not installed, to which the module does not travel."""
    monkeypatch.setitem(sys.modules, "modeling_glintru.models.new_items", None)
    model, processor = small_model(), GlintRUProcessor(["a", "b"])
    for grow in (lambda: model.add_items(1), lambda: processor.add_items(["c"])):
        with pytest.raises(GlintRUError, match="needs the package: pip install glintru"):
            grow()
    assert model.config.vocab_size == OLD and len(processor) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1,), "at least 0"),
        ((2, "median"), "neighbours, mean"),
        ((2, "neighbours"), "needs histories="),
        ((2, torch.zeros(3, 16)), r"\(2, 16\), got \(3, 16\)"),
        ((1, torch.full((1, 16), float("nan"))), "not finite"),
    ],
)
def test_what_is_refused(arguments, message):
    model = small_model()
    with pytest.raises(GlintRUError, match=message):
        model.add_items(*arguments)
    assert model.config.vocab_size == OLD


def test_a_model_with_positions_keeps_them():
    model = MODELS["sasrec"](SASRecConfig(vocab_size=10, hidden_size=8, max_position_embeddings=7))
    model.add_items(1)
    assert model.model.embed_positions.weight.shape == (7, 8)
