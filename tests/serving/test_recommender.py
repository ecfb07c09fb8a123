"""`Recommender`: raw ids in, the best next items out."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from transformers.utils import logging

from modeling_glintru import GlintRUConfig, GlintRUError, GlintRUForSequentialRecommendation, GlintRUProcessor
from modeling_glintru.models.pipeline_glintru import SequentialRecommendationPipeline
from modeling_glintru.serving import Recommender, StreamingRecommender
from modeling_glintru.serving.offline import UserHistories, recommend_all
from modeling_glintru.serving.recommender import ClickSession

ITEMS = [f"item-{number:02d}" for number in range(30)]


@pytest.fixture(scope="module")
def recommender():
    torch.manual_seed(0)
    model = GlintRUForSequentialRecommendation(GlintRUConfig(vocab_size=31, hidden_size=16, num_attention_heads=4))
    return Recommender(model.train(), GlintRUProcessor(ITEMS, max_length=4), batch_size=3)


def ids(recommendation):
    return [item["item_id"] for item in recommendation.items]


def test_batches_equal_singles(recommender):
    histories = [ITEMS[n : n + length] for n, length in enumerate([1, 3, 7, 2, 4, 9, 5])]
    together = recommender.recommend(histories, top_k=6)
    for history, found in zip(histories, together, strict=True):
        alone = recommender.recommend([history], top_k=6)[0]
        assert ids(alone) == ids(found)
        assert [i["score"] for i in alone.items] == pytest.approx([i["score"] for i in found.items], abs=1e-5)
    assert ids(next(recommender.stream(histories, 6))) == ids(together[0])


def test_the_whole_history_is_left_out_not_just_what_the_model_reads(recommender):
    history = ITEMS[:20]
    found = recommender.recommend([history], top_k=30)[0]
    assert set(ids(found)) == set(ITEMS[20:])
    kept = recommender.recommend([history], top_k=30, exclude_seen=False)[0]
    assert set(ids(kept)) == set(ITEMS)
    # The scores are those of the newest four items.
    newest = recommender.recommend([history[-4:]], top_k=30, exclude_seen=False)[0]
    assert ids(newest) == ids(kept)


def test_scores_of_seen_items_that_say_nothing_are_warned_of(recommender, caplog):
    """By every way to an answer, and only where they are asked for."""
    processor, histories = recommender.processor, [ITEMS[:3]]
    model = recommender.model
    frame = pl.DataFrame({"user_id": [1, 1], "item_id": ITEMS[:2], "timestamp": [1, 2]})
    users = UserHistories.of(frame, processor, "drop")
    streaming = StreamingRecommender(model, processor)
    streaming.observe("ann", ITEMS[0])
    ways = [
        lambda seen: Recommender(model, processor).recommend(histories, 3, exclude_seen=seen),
        lambda seen: list(recommend_all(model, users, 4, 3, exclude_seen=seen)),
        lambda seen: ClickSession(model, processor, 3, seen),
        lambda seen: SequentialRecommendationPipeline(model, processor)(histories, exclude_seen=seen),
        lambda seen: streaming.recommend("ann", 3, exclude_seen=seen),
    ]
    # What the processor says, what the call asks for, and whether that is warned of.
    cases = ((False, False, True), (False, True, False), (False, None, False), (True, False, False))
    logger = logging.get_logger("modeling_glintru.models.pipeline_glintru")
    logger.addHandler(caplog.handler)
    try:
        for way in ways:
            for again, seen, said in cases:
                processor.recommend_seen = again
                logger.warning_once.cache_clear()
                caplog.clear()
                way(seen)
                assert ("trained and measured with past items left out" in caplog.text) is said
    finally:
        processor.recommend_seen = False
        logger.removeHandler(caplog.handler)


def test_an_empty_history_gets_an_answer(recommender):
    found = recommender.recommend([[], ITEMS[:2]], top_k=3)
    assert len(found[0].items) == 3 and all(item["score"] == 0 for item in found[0].items)


def test_unknown_items_are_counted_or_refused(recommender):
    found = recommender.recommend([["nobody", ITEMS[0], "knows"]], top_k=3)[0]
    assert found.num_unknown_items == 2
    assert ids(found) == ids(recommender.recommend([[ITEMS[0]]], top_k=3)[0])
    with pytest.raises(GlintRUError, match="nobody"):
        recommender.recommend([["nobody"]], unknown_items="error")


@pytest.mark.parametrize("histories", [ITEMS[:2], "item-01", [["item-01"], "item-02"], [1, 2], [None], None])
def test_a_single_history_is_not_taken_for_several(recommender, histories):
    """The letters of an id would be unknown items, and the answer arbitrary."""
    with pytest.raises(GlintRUError, match=r"each history must be a list of raw item ids, as in \[\[1, 2\], \[3\]\]"):
        recommender.recommend(histories)


@pytest.mark.parametrize(
    ("history", "message"),
    [([1, 2], "strings, but got 1"), ([None], "got None"), ([True], "got True"), ([b"item-01"], "got b'item-01'")],
)
def test_ids_of_another_type(recommender, history, message):
    with pytest.raises(GlintRUError, match=message):
        recommender.recommend([history])


@pytest.mark.parametrize("kind", [tuple, np.array])
def test_histories_in_other_containers(recommender, kind):
    expected = recommender.recommend([ITEMS[:3], ITEMS[5:8]], top_k=4)
    assert recommender.recommend(kind([ITEMS[:3], ITEMS[5:8]]), top_k=4) == expected
    assert recommender.recommend([kind(ITEMS[:3]), kind(ITEMS[5:8])], top_k=np.int64(4)) == expected


def test_an_unknown_policy(recommender):
    with pytest.raises(GlintRUError, match="unknown_items must be one of"):
        recommender.recommend([ITEMS[:1]], unknown_items="ignore")


def test_a_stream_computes_a_batch_at_a_time(recommender):
    """An error in a later batch comes after the answers of the earlier ones."""
    found = recommender.stream([[ITEMS[0]]] * 3 + [["nobody"]], top_k=2, unknown_items="error")
    assert [len(next(found).items) for _ in range(3)] == [2, 2, 2]
    with pytest.raises(GlintRUError, match="nobody"):
        next(found)


def test_fewer_items_than_asked_when_all_are_seen(recommender):
    assert recommender.recommend([ITEMS], top_k=5)[0].items == []
    assert ids(recommender.recommend([ITEMS[:-1]], top_k=5)[0]) == ITEMS[-1:]


def test_saved_and_loaded(recommender, tmp_path):
    recommender.model.save_pretrained(tmp_path)
    recommender.processor.save_pretrained(tmp_path)
    for name in (tmp_path, str(tmp_path)):
        loaded = Recommender.from_pretrained(name, batch_size=2)
        assert loaded.batch_size == 2
        assert loaded.recommend([ITEMS[:6]], top_k=5) == recommender.recommend([ITEMS[:6]], top_k=5)


@pytest.mark.parametrize("top_k", [0, 31, -1, 2.5, "3", None])
def test_top_k_has_bounds(recommender, top_k):
    with pytest.raises(GlintRUError, match="top_k must be between 1 and the number of items"):
        recommender.recommend([[ITEMS[0]]], top_k=top_k)


def test_no_history_gives_nothing(recommender):
    assert recommender.recommend([]) == []


def test_dropout_is_off(recommender):
    first, second = (recommender.recommend([ITEMS[:3]])[0].items for _ in range(2))
    assert first == second
