"""The time of the request where people give it: `Recommender`, the pipeline, and after every click."""

from __future__ import annotations

import pytest
import torch
from transformers import pipeline

from modeling_glintru import GlintRUError, GlintRUProcessor
from modeling_glintru.serving import Recommender, StreamingRecommender
from modeling_glintru.serving.step import AtTime

from ..model.helpers import small_model

ITEMS = [f"item-{number}" for number in range(1, 31)]
HISTORIES = [ITEMS[2:5], ITEMS[7:8], ITEMS[4:9]]
GAPS = [0.0, None, 86_400.0]


@pytest.fixture(scope="module")
def timed():
    return small_model(use_time_gaps=True), GlintRUProcessor(ITEMS, max_length=10)


def scores(model, processor, history, gap):
    """By the model itself, a number for each raw id."""
    ids = torch.from_numpy(processor.encode_ids(history))[None]
    gaps = None if gap is None else torch.tensor([gap])
    return dict(zip(ITEMS, model(ids, time_gaps=gaps).logits[0, 1:].tolist(), strict=True))


def check(items, expected, history):
    order = sorted(set(ITEMS) - set(history), key=lambda item: -expected[item])
    assert [item["item_id"] for item in items] == order[: len(items)]
    found, wanted = [item["score"] for item in items], [expected[item] for item in order[: len(items)]]
    assert found == pytest.approx(wanted, abs=1e-5)


def test_recommender_pipeline_and_stream_agree_with_the_model(timed):
    model, processor = timed
    recommender = Recommender(model, processor, batch_size=2)
    pipe = pipeline("sequential-recommendation", model=model, feature_extractor=processor, device="cpu")
    rows = [{"history": history, "time_gap": gap} for history, gap in zip(HISTORIES, GAPS, strict=True)]
    with StreamingRecommender(model, processor) as stream:
        stream.observe_many([(user, item) for user, history in enumerate(HISTORIES) for item in history])
        answers = [
            recommender.recommend(HISTORIES, 5, time_gaps=GAPS),
            stream.recommend_many([0, 1, 2], 5, time_gaps=GAPS),
            [stream.recommend(user, 5, time_gap=gap) for user, gap in enumerate(GAPS)],
        ]
        untouched = stream.recommend(0, 5)
    for history, gap, *found, piped in zip(HISTORIES, GAPS, *answers, pipe(rows, top_k=5), strict=True):
        expected = scores(model, processor, history, gap)
        for items in (*(each.items for each in found), piped["items"]):
            check(items, expected, history)
    check(untouched.items, scores(model, processor, HISTORIES[0], None), HISTORIES[0])  # states know no request
    first, later = (scores(model, processor, HISTORIES[0], gap) for gap in (0.0, 1e9))
    assert max(abs(first[item] - later[item]) for item in ITEMS) > 1e-2


def test_without_torch_it_is_the_same_layer(timed):
    layer = timed[0].time_gaps
    gaps = torch.tensor([-1.0, 0.0, 1e-3, 0.5, 1.0, 3.0, 4.0, 86_400.0, 2.0**61, 2.0**70, 3e38])
    hidden = torch.randn(len(gaps), 16)
    found = AtTime(layer)(hidden.numpy(), gaps.numpy())
    torch.testing.assert_close(torch.from_numpy(found), layer(hidden, gaps))
    assert (found[0] == hidden[0].numpy()).all()
    assert AtTime(layer)(hidden[:0].numpy(), gaps[:0].numpy()).shape == (0, 16)


def test_a_state_goes_on_with_a_time(timed):
    model, processor = timed
    pipe = pipeline("sequential-recommendation", model=model, feature_extractor=processor, device="cpu")
    state = pipe({"history": ITEMS[2:4]}, return_state=True)["state"]
    found = pipe({"history": [ITEMS[4]], "state": state, "time_gap": 60, "exclude": ITEMS[2:4]}, top_k=5)
    check(found["items"], scores(model, processor, ITEMS[2:5], 60.0), ITEMS[2:5])


def test_refusals(timed):
    model, processor = timed
    recommender = Recommender(model, processor)
    with pytest.raises(GlintRUError, match="one time gap a user, got 1 for 3 users"):
        recommender.recommend(HISTORIES, time_gaps=[1.0])
    plain = Recommender(small_model(), processor)
    with pytest.raises(GlintRUError, match="use_time_gaps=True, and this one was made without"):
        plain.recommend(HISTORIES, time_gaps=GAPS)
    pipe = pipeline("sequential-recommendation", model=plain.model, feature_extractor=processor, device="cpu")
    with pytest.raises(GlintRUError, match="use_time_gaps=True, and this one was made without"):
        pipe({"history": ITEMS[:2], "time_gap": 5})
    with StreamingRecommender(model, processor) as stream:
        stream.observe("anna", ITEMS[0])
        with pytest.raises(GlintRUError, match="at least 0, or None where not known, got -5"):
            stream.recommend("anna", time_gap=-5)
