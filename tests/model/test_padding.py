"""Padding never changes a number."""

from __future__ import annotations

import pytest
import torch

from modeling_glintru import GlintRUError

from .helpers import gradients, random_history, small_model
from .test_identity import STATE_SPACE

CASES = [{}, {"num_hidden_layers": 2}, {"num_hidden_layers": 2, "average_share": 0.4}, STATE_SPACE]


@pytest.fixture(params=CASES, ids=str)
def model(request):
    return small_model(**request.param).double()


def padded(histories, side, length):
    rows = torch.zeros(len(histories), length, dtype=torch.long)
    for row, history in zip(rows, histories, strict=True):
        if side == "left":
            row[length - len(history) :] = history
        elif side == "right":
            row[: len(history)] = history
        else:  # anywhere, with gaps
            row[torch.randperm(length)[: len(history)].sort().values] = history
    return rows


@pytest.mark.parametrize("side", ["left", "right", "gaps"])
def test_scores_do_not_depend_on_padding_or_mates(model, side):
    torch.manual_seed(0)
    histories = [random_history(1, n, seed=n)[0] for n in (1, 2, 7, 70, 130)]
    ids = padded(histories, side, 140)
    output = model(ids, attention_mask=(ids != 0).long())
    for row, history in enumerate(histories):
        alone = model(history[None])
        torch.testing.assert_close(output.logits[row], alone.logits[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(
            output.last_hidden_state[row][ids[row] != 0], alone.last_hidden_state[0], rtol=0, atol=1e-12
        )
    assert torch.equal(model(ids).logits, output.logits)  # the mask is optional


@pytest.mark.parametrize("side", ["left", "right", "gaps"])
def test_gradients_do_not_depend_on_padding(model, side):
    torch.manual_seed(0)
    histories = [random_history(1, n, seed=n)[0] for n in (3, 9)]
    ids = padded(histories, side, 12)
    labels = padded([h.roll(-1) for h in histories], side, 12)
    labels[ids == 0] = -100
    if side == "gaps":  # the same gaps for items and labels
        labels[ids != 0] = torch.cat([h.roll(-1) for h in histories])
    together = gradients(model(ids, labels=labels).loss, model)
    alone = [gradients(model(h[None], labels=h.roll(-1)[None]).loss * len(h) / 12, model) for h in histories]
    for name, grad in together.items():
        torch.testing.assert_close(grad, alone[0][name] + alone[1][name], rtol=0, atol=1e-12, msg=name)


def test_the_mask_can_hide_items(model):
    ids = random_history(2, 8)
    mask = torch.ones_like(ids)
    mask[:, :3] = 0
    torch.testing.assert_close(model(ids, mask).logits, model(ids[:, 3:]).logits, rtol=0, atol=1e-12)


def test_representations_at_padding_are_zero(model):
    ids = random_history(2, 5)
    ids[0, :2] = 0
    assert torch.equal(model(ids).last_hidden_state[0, :2], torch.zeros(2, 16, dtype=torch.float64))


@pytest.mark.parametrize("length", [0, 4])
def test_a_row_without_items_scores_zero_everywhere(model, length):
    ids = torch.zeros(1, length, dtype=torch.long)
    logits = model(ids).logits[0]
    assert logits[0] == float("-inf")
    assert torch.equal(logits[1:], torch.zeros(30, dtype=torch.float64))
    mates = torch.cat([ids, random_history(1, length)]) if length else ids
    assert torch.equal(model(mates).logits[0], logits)


def test_the_padding_row_of_the_embedding_is_never_read(model):
    ids = random_history(2, 6)
    ids[0, 4:] = 0
    before = model(ids).logits
    with torch.no_grad():
        model.model.embed_items.weight[0] = 1e6
    assert torch.equal(model(ids).logits, before)


def test_a_zero_vector_gives_no_nan():
    model = small_model()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                parameter.zero_()
    ids = random_history(2, 6)
    loss = model(ids, labels=ids).loss
    assert torch.isfinite(loss)
    assert all(torch.isfinite(g).all() for g in gradients(loss, model).values())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, ids: m(ids.clone().index_fill_(1, torch.tensor([3]), 31)), r"input_ids\[0, 3\] is 31.*0 and 30"),
        (lambda m, ids: m(-ids), r"input_ids\[0, 0\] is -"),
        (lambda m, ids: m(ids.double()), "must be an int64 or int32"),
        (lambda m, ids: m(ids[0]), r"shape \(batch, length\)"),
        (lambda m, ids: m(ids, attention_mask=ids[:, 1:]), "attention_mask must have shape"),
        (lambda m, ids: m(ids, labels=ids[:, 1:]), "labels must have shape"),
        (
            lambda m, ids: m(ids, labels=torch.zeros_like(ids)),
            r"labels\[0, 0\] is 0, but indices must be between 1 and 30",
        ),
        (lambda m, ids: m(ids, labels=ids + 100), r"labels\[0, 0\] is 1"),
        (lambda m, ids: m(ids, exclude_item_ids=ids + 100), "exclude_item_ids"),
        (lambda m, ids: m(), "either input_ids or inputs_embeds"),
    ],
)
def test_bad_input_is_named(model, call, message):
    with pytest.raises(GlintRUError, match=message):
        call(model, random_history(2, 5))
