"""Clicks one after the other."""

from __future__ import annotations

import pytest
import torch

from modeling_glintru import GlintRUError, GlintRUProcessor
from modeling_glintru.models.auto import MODELS
from modeling_glintru.models.processing_glintru import UnknownItemError
from modeling_glintru.serving import Recommender
from modeling_glintru.serving.recommender import ClickSession

from ..model.helpers import small_model

ITEMS = list(range(100, 130))


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("name", ["glintru", "sasrec"])
def test_each_click_gives_what_the_whole_history_gives(name, exclude_seen):
    if name == "sasrec":
        model = MODELS[name](MODELS[name].config_class(vocab_size=31, hidden_size=16)).eval()
    else:
        model = small_model()
    processor = GlintRUProcessor(ITEMS)
    session, recommender = ClickSession(model, processor, 5, exclude_seen), Recommender(model, processor)
    history = [103, 101, 129, 103]

    def check(items):
        (expected,) = recommender.recommend([history], 5, exclude_seen=exclude_seen)
        assert [item["item_id"] for item in items] == [item["item_id"] for item in expected.items]
        assert [item["score"] for item in items] == pytest.approx([item["score"] for item in expected.items], abs=1e-5)

    for raw in history[:-1]:
        session.click(raw)
    check(session.click(history[-1]))
    assert session.undo() == 103 and session.undo() == 129
    history = [103, 101, 110]
    check(session.click(110))


def test_glintru_reads_only_the_new_item(monkeypatch):
    model = small_model()
    lengths = []
    original = type(model).forward
    monkeypatch.setattr(
        type(model), "forward", lambda self, ids, **rest: lengths.append(ids.shape) or original(self, ids, **rest)
    )
    session = ClickSession(model, GlintRUProcessor(ITEMS))
    for raw in (101, 102, 103):
        session.click(raw)
    assert lengths == [torch.Size([1, 1])] * 3


def test_what_cannot_be_done():
    session = ClickSession(small_model(), GlintRUProcessor(ITEMS))
    with pytest.raises(GlintRUError, match="nothing to undo"):
        session.undo()
    with pytest.raises(UnknownItemError):
        session.click(7)
    assert session.clicks == [] and len(session.states) == 1
    with pytest.raises(GlintRUError, match="top_k must be between"):
        ClickSession(small_model(), GlintRUProcessor(ITEMS), top_k=31)
