"""BERT4Rec against a plain transcription of its equations, and its cloze task."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from modeling_glintru import GlintRUError
from modeling_glintru.models.losses import NextItemLoss
from modeling_glintru.models.modeling_bert4rec import draw_masked

from .helpers import LONGEST, attention, feed_forward, gelu, histories, layer_norm, linear, make


@pytest.mark.parametrize(("heads", "length"), [(1, LONGEST), (4, 5)])
def test_bert4rec_is_the_paper(heads, length):
    model = make("bert4rec", num_attention_heads=heads)
    (ids,) = histories(length)
    encoder = model.model
    x = torch.cat([encoder.embed_items.weight[ids], encoder.mask_embedding[None]])
    x = layer_norm(encoder.norm, x + encoder.embed_positions.weight[LONGEST - length :])
    for block in encoder.layers:
        x = feed_forward(block.mlp, attention(block.attention, x, [range(length + 1)] * (length + 1), heads))
    expected = layer_norm(encoder.out_norm, gelu(linear(encoder.out_proj, x[-1])))
    torch.testing.assert_close(encoder(ids[None]).last_hidden_state[0, -1], expected, rtol=0, atol=1e-10)


def test_a_masked_item_does_not_reach_its_own_representation():
    """And everything that is not masked does, from both sides."""
    model = make("bert4rec").model
    (items,) = histories(9)
    masked = torch.zeros(1, 9, dtype=torch.bool)
    masked[0, [3, 7]] = True
    before = model.cloze(items[None], masked)
    for place in range(9):
        other = items.clone()
        other[place] = other[place] % 30 + 1
        after = model.cloze(other[None], masked)
        assert torch.equal(after, before) == bool(masked[0, place])


def test_hiding_the_last_item_is_what_recommending_asks():
    model = make("bert4rec")
    (items,) = histories(9)
    masked = torch.arange(9)[None] == 8
    hidden = model.model.cloze(items[None], masked)[0, -1]
    asked = model.model(items[None, :-1]).last_hidden_state[0, -1]
    torch.testing.assert_close(hidden, asked, rtol=0, atol=1e-12)


@pytest.mark.parametrize("side", ["left", "right", "gaps"])
def test_the_window_is_the_items_and_the_last_label(side):
    model = make("bert4rec")
    full = histories(4, 7)
    places = {
        "left": [range(5, 8), range(2, 8)],
        "right": [range(3), range(6)],
        "gaps": [[0, 3, 4], [0, 1, 2, 4, 6, 7]],
    }
    ids, labels = torch.zeros(2, 8, dtype=torch.long), torch.full((2, 8), -100)
    for row, items in enumerate(full):
        ids[row, list(places[side][row])] = items[:-1]
        labels[row, list(places[side][row])] = items[1:]
    window = model._window(ids, None, labels)
    for row, items in enumerate(full):
        assert window[row][window[row] > 0].tolist() == items.tolist()


@pytest.mark.parametrize("with_visible", [True, False])
def test_the_training_loss_is_that_of_the_masked_items(with_visible):
    """With the visible items in its softmax, and with only those there that are not in the row, or masked."""
    model = make("bert4rec", hidden_dropout=0.0, attention_dropout=0.0).train()
    model.training_loss = NextItemLoss(seen_items_in_softmax=with_visible)
    items = torch.stack(histories(9, 9))
    torch.manual_seed(5)
    loss = model(items[:, :-1], labels=items[:, 1:]).loss
    torch.manual_seed(5)
    masked = draw_masked(items, 0.2, 0.1)
    scores = model.model.cloze(items, masked)[masked] @ model.model.embed_items.weight[1:].T
    if not with_visible:
        places = masked.nonzero().tolist()
        for i, (row, place) in enumerate(places):
            visible = items[row][~masked[row]]
            scores[i, visible[visible != items[row, place]] - 1] = float("-inf")
    torch.testing.assert_close(loss, F.cross_entropy(scores, items[masked] - 1), rtol=0, atol=1e-10)


def test_what_is_masked():
    torch.manual_seed(0)
    items = torch.zeros(2000, 21, dtype=torch.long)
    items[:, :20] = 1
    items[0, 1:] = 0
    masked = draw_masked(items, 0.3, 0.0)
    assert masked[0].tolist() == [True] + [False] * 20  # at least one
    assert (masked[1:].sum(1) == 6).all() and not masked[:, 20].any()
    share = masked[1:, :20].float().mean(0)
    assert share.min() > 0.25 and share.max() < 0.35  # every place alike
    last = draw_masked(items, 0.3, 0.25)[1:].sum(1) == 1
    assert 0.2 < last.float().mean() < 0.3
    assert draw_masked(items, 0.3, 0.999)[1:, 19].float().mean() > 0.99


def test_bad_training_input_is_named():
    model = make("bert4rec").train()
    ids = torch.stack(histories(4))
    with pytest.raises(GlintRUError, match="same shape"):
        model(ids, labels=ids[:, 1:])
    with pytest.raises(GlintRUError, match="input_ids and labels"):
        model(inputs_embeds=torch.zeros(1, 4, 16, dtype=torch.float64), labels=ids)
    with pytest.raises(GlintRUError, match=r"labels\[0, 3\] is 99"):
        model(ids, labels=torch.full_like(ids, 99))
    with pytest.raises(GlintRUError, match=r"input_ids\[0, 0\] is"):
        model(ids + 100, labels=ids)
