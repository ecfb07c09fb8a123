"""`allowed`, `exclude`, seen items and cold starts: every way to an answer gives the same one."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import polars as pl
import pytest
import torch
from transformers.utils import logging
from typer.testing import CliRunner

from modeling_glintru import GlintRUError, GlintRUProcessor, UnknownItemError
from modeling_glintru.cli import app
from modeling_glintru.hub.handler import EndpointHandler
from modeling_glintru.kernels import build
from modeling_glintru.models.pipeline_glintru import ItemFilter, ItemSet
from modeling_glintru.serving import Recommender, StreamingRecommender, offline
from modeling_glintru.serving.offline import UserHistories, recommend_all
from modeling_glintru.serving.recommender import ClickSession

from ..model.helpers import small_model

ITEMS = [f"item-{number:02d}" for number in range(30)]
COUNTS = [0, 3, 9, 3, 0, 5] + [0] * 14 + [1] * 10
POPULAR = [ITEMS[place] for place in (2, 5, 1, 3, *range(20, 30), 0, 4, *range(6, 20))]
HISTORIES = {"ann": ITEMS[3:9], "ben": ITEMS[12:14], "cid": ["unheard", "of"]}
ALLOWED = [*ITEMS[:8], *ITEMS[15:28], "unheard"]
EXCLUDE = [ITEMS[2], *ITEMS[20:23], "of"]
FILTERS = [{}, {"allowed": ALLOWED}, {"exclude": EXCLUDE}, {"allowed": ALLOWED, "exclude": EXCLUDE}]


def processor(**options) -> GlintRUProcessor:
    return GlintRUProcessor(ITEMS, max_length=20, item_counts=COUNTS, **options)


@pytest.fixture(scope="module", params=[False, True], ids=["seen items left out", "seen items again"])
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("filters")
    small_model().save_pretrained(folder)
    processor(recommend_seen=request.param).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def table(folder):
    rows = [(user, item, time) for user, history in HISTORIES.items() for time, item in enumerate(history)]
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(folder / "log.csv")
    return folder / "log.csv"


def by_recommender(folder, table, options):
    found = Recommender.from_pretrained(folder).recommend(list(HISTORIES.values()), 10, **options)
    return [(answer.items, answer.cold_start) for answer in found]


def by_streaming(folder, table, options):
    with StreamingRecommender.from_pretrained(folder) as recommender:
        recommender.observe_many([(user, item) for user, history in HISTORIES.items() for item in history])
        return [(one.items, one.cold_start) for one in recommender.recommend_many(list(HISTORIES), 10, **options)]


def by_pipeline(folder, table, options):
    from transformers import pipeline

    pipe = pipeline("sequential-recommendation", model=str(folder), device="cpu")
    found = pipe(list(HISTORIES.values()), top_k=10, **options)
    filters = {key: value for key, value in options.items() if key != "exclude_seen"}
    rest = {key: value for key, value in options.items() if key == "exclude_seen"}
    own = pipe([{"history": history, **filters} for history in HISTORIES.values()], top_k=10, **rest)
    assert own == found
    return [(answer["items"], answer["cold_start"]) for answer in found]


def by_handler(folder, table, options):
    endpoint = EndpointHandler(str(folder))
    requests = [{"user": user, "history": history} for user, history in HISTORIES.items()]
    found = endpoint({"inputs": requests, "parameters": {"top_k": 10, **options}})
    again = [{"user": user} for user in HISTORIES]  # nothing new, from the state that is kept
    assert [a["cold_start"] for a in endpoint({"inputs": again})] == [a["cold_start"] for a in found]
    assert json.loads(json.dumps(found)) == found
    return [(answer["items"], answer["cold_start"]) for answer in found]


def by_recommend_all(folder, table, options):
    recommender = Recommender.from_pretrained(folder)
    frame = pl.read_csv(table)
    users = UserHistories.of(frame, recommender.processor)
    ((indices, scores),) = recommend_all(recommender.model, users, 20, 10, **options)
    lists = [
        [recommender.processor.listed(int(index), float(score)) for index, score in zip(*row, strict=True) if index]
        for row in zip(indices, scores, strict=True)
    ]
    return list(zip(lists, users.cold.tolist(), strict=True))


def glintru(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


def words_of(folder, options):
    words = []
    for key in ("allowed", "exclude"):
        if key in options:
            (folder / f"{key}.txt").write_text("\ufeff" + "\r\n".join([*options[key], ""]), encoding="utf-8")
            words += [f"--{key}", folder / f"{key}.txt"]
    if "exclude_seen" in options:
        words.append("--exclude_seen" if options["exclude_seen"] else "--include_seen")
    return words


def by_users(folder, table, options):
    out = glintru("recommend", folder, "--users", table, "--json", *words_of(folder, options))
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["user_id"] for row in rows] == list(HISTORIES)
    return [(row["recommendations"], row["cold_start"]) for row in rows]


def by_all(folder, table, options):
    output = folder / "all.parquet"
    words = ("--all", "--data", table, "--output", output, "--overwrite", "--quiet", *words_of(folder, options))
    glintru("recommend", folder, *words)
    rows = pl.read_parquet(output)
    found = [rows.filter(pl.col("user_id") == user) for user in HISTORIES]
    return [(part.select("item_id", "score").to_dicts(), part["cold_start"].any()) for part in found]


@pytest.mark.parametrize("options", FILTERS, ids=["all items", "allowed", "exclude", "both"])
@pytest.mark.parametrize("way", [by_streaming, by_pipeline, by_handler, by_recommend_all, by_users, by_all])
def test_every_way_gives_the_same(folder, table, way, options):
    again = Recommender.from_pretrained(folder).processor.recommend_seen
    for asked in ({}, {"exclude_seen": again}):  # as the processor says, and the other way round
        expected = by_recommender(folder, table, {**options, **asked})
        for (items, cold), (wanted, wanted_cold), history in zip(
            way(folder, table, {**options, **asked}), expected, HISTORIES.values(), strict=True
        ):
            ids = [item["item_id"] for item in items]
            assert ids == [item["item_id"] for item in wanted] and cold == wanted_cold == (history[0] == "unheard")
            assert [item["score"] for item in items] == pytest.approx([item["score"] for item in wanted], abs=1e-5)
            assert set(ids) <= set(options.get("allowed", ITEMS)) - set(options.get("exclude", ()))
            if cold:
                passing = set(options.get("allowed", ITEMS)) - set(options.get("exclude", ()))
                assert ids == [item for item in POPULAR if item in passing][:10]
                assert all(item["score"] == 0 for item in items)
            if asked.get("exclude_seen", not again):
                assert not set(ids) & set(history)


def test_seen_items_come_again_where_the_processor_says_so(folder):
    recommender = Recommender.from_pretrained(folder)
    again = recommender.processor.recommend_seen
    for asked, expected in ((None, again), (True, False), (False, True)):
        (found,) = recommender.recommend([HISTORIES["ann"]], 30, exclude_seen=asked)
        assert {item["item_id"] for item in found.items} == set(ITEMS if expected else ITEMS[:3] + ITEMS[9:])
        session = ClickSession(recommender.model, recommender.processor, 30, asked, allowed=ITEMS[2:6])
        session.click(ITEMS[3])
        ids = {item["item_id"] for item in session.click(ITEMS[20])}
        assert ids == set(ITEMS[2:6] if expected else [ITEMS[2], *ITEMS[4:6]])


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, pl.Series])
def test_a_mask_says_the_same_as_ids(kind):
    recommender = Recommender(small_model(), processor())
    mask = kind([item in ALLOWED for item in ITEMS])
    by_mask, by_ids, by_set = (
        recommender.recommend([ITEMS[3:9], []], 10, allowed=allowed)
        for allowed in (mask, ALLOWED, recommender.item_set(mask))
    )
    assert by_mask == by_ids == by_set
    assert recommender.item_set(mask).num_unknown_items == 0 and recommender.item_set(ALLOWED).num_unknown_items == 1


def test_masks_and_sets_that_do_not_fit():
    recommender = Recommender(small_model(), processor())
    for mask in (np.ones(31, bool), np.ones((1, 30), bool)):
        with pytest.raises(GlintRUError, match=r"a mask of items has the shape \(30,\), .* but got \(.*\)"):
            recommender.recommend([[]], allowed=mask)
    with pytest.raises(GlintRUError, match="belongs to the recommender whose item_set made it"):
        recommender.recommend([[]], exclude=ItemSet(processor(), ITEMS[:3]))
    with pytest.raises(UnknownItemError, match="unheard"):
        recommender.item_set(["unheard"], unknown_items="error")
    for empty in ([], ["unheard"], np.zeros(30, bool)):
        with pytest.raises(GlintRUError, match="allowed has no item that the model knows"):
            recommender.recommend([ITEMS[:2]], allowed=empty)
    assert recommender.recommend([ITEMS[:2], []], allowed=ITEMS[:3], exclude=ITEMS[:3])[1].items == []


def test_a_history_s_own_filters_hold_beside_those_of_the_call(folder):
    endpoint = EndpointHandler(str(folder))
    requests = [
        {"history": ITEMS[10:12], "allowed": ITEMS[:6], "exclude": ITEMS[5:6]},
        {"history": [], "allowed": ITEMS[:6], "exclude": [ITEMS[2]]},
        ITEMS[10:12],
    ]
    found = endpoint({"inputs": requests, "parameters": {"allowed": ITEMS[3:9], "exclude": [ITEMS[3]]}})
    ids = [{item["item_id"] for item in answer["items"]} for answer in found]
    assert ids == [{ITEMS[4]}, set(ITEMS[4:6]), set(ITEMS[4:9])]
    assert [item["item_id"] for item in found[1]["items"]] == [ITEMS[5], ITEMS[4]]
    with pytest.raises(ValueError, match="allowed has no item that the model knows"):
        endpoint({"inputs": {"history": [], "allowed": ["unheard"]}})
    with pytest.raises(ValueError, match="allowed must be a list of raw item ids"):
        endpoint({"inputs": {"history": [], "allowed": {"a": 1}}})


def test_a_state_that_holds_items_is_no_cold_start(folder):
    from transformers import pipeline

    pipe = pipeline("sequential-recommendation", model=str(folder), device="cpu")
    known, nothing = pipe([ITEMS[:2], ["unheard"]], return_state=True)
    assert (known["cold_start"], nothing["cold_start"]) == (False, True)
    again = pipe([{"history": [], "state": known["state"]}, {"history": [], "state": nothing["state"]}], top_k=3)
    assert [answer["cold_start"] for answer in again] == [False, True]
    assert again[0]["items"][0]["score"] != 0
    assert [item["item_id"] for item in again[1]["items"]] == POPULAR[:3]


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("keep", [1, 4, 30])
def test_filters_of_many_users_with_the_kernel_and_without(monkeypatch, compiled, keep):
    if not compiled:
        monkeypatch.setattr(build, "library", lambda: None)
    monkeypatch.setattr(offline, "BLOCK_USERS", 7)
    random = np.random.default_rng(1)
    frame = pl.DataFrame(
        {"user_id": np.repeat(np.arange(20), 9), "item_id": random.choice(ITEMS, 180), "timestamp": np.arange(180)}
    )
    allowed, own = ITEMS[5 : 5 + keep], processor()
    users = UserHistories.of(frame, own)
    blocks = list(recommend_all(small_model(), users, 20, 6, allowed=allowed, exclude=ITEMS[7:8]))
    indices, scores = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    assert indices.shape == scores.shape == (20, 6)
    histories = [frame.filter(pl.col("user_id") == user)["item_id"].to_list() for user in range(20)]
    found = Recommender(small_model(), own).recommend(histories, 6, allowed=allowed, exclude=ITEMS[7:8])
    for row, row_scores, one in zip(indices, scores, found, strict=True):
        assert own.decode(row) == [item["item_id"] for item in one.items]
        assert (row_scores[row == 0] == -np.inf).all() and (row_scores[row > 0] > -np.inf).all()
    nothing = next(recommend_all(small_model(), users, 20, 6, allowed=allowed[:1], exclude=allowed))
    assert not nothing[0].any() and (nothing[1] == -np.inf).all()


def test_the_most_popular_items_of_a_large_catalogue():
    own = GlintRUProcessor(list(range(10_000)), item_counts=np.arange(10_000))
    assert own.popular_items.tolist() == list(range(10_000, 0, -1))
    filters = ItemFilter.of(own, np.arange(5000), list(range(4990, 4999)))
    assert filters.most_popular(3).tolist() == [5000, 4990, 4989]
    assert filters.most_popular(3, hidden=[5000, 4989]).tolist() == [4990, 4988, 4987]
    assert filters.most_popular(9999).tolist() == [5000, *range(4990, 0, -1)]


def test_popular_items_follow_the_counts_and_the_items():
    own = GlintRUProcessor(["a", "b", "c"], item_counts=[1, 1, 4])
    assert own.popular_items.tolist() == [3, 1, 2]
    own.item_counts = {"b": 7}
    assert own.popular_items.tolist() == [2, 1, 3]
    own.add_items(["d"])
    assert own.popular_items.tolist() == [2, 1, 3, 4]


def test_a_folder_without_counts_says_so_once(monkeypatch):
    recommender, said = Recommender(small_model(), GlintRUProcessor(ITEMS)), []
    logger = logging.get_logger("modeling_glintru.models.pipeline_glintru")
    logger.warning_once.cache_clear()
    monkeypatch.setattr(logger, "warning", said.append)
    recommender.recommend([ITEMS[:1]])
    assert not said
    for _ in range(2):
        (found,) = recommender.recommend([[]], 3)
    assert found.cold_start and [item["item_id"] for item in found.items] == ITEMS[:3]
    assert len(said) == 1 and "saved without item counts" in said[0]


def test_streaming_takes_the_counts_of_the_processor_unless_it_gets_others():
    for given, expected in ((None, POPULAR[:2]), ({ITEMS[9]: 3, ITEMS[4]: 5}, [ITEMS[4], ITEMS[9]])):
        found = StreamingRecommender(small_model(), processor(), item_counts=given).recommend("new", 2)
        assert found.cold_start and [item["item_id"] for item in found.items] == expected


def test_items_of_an_answer_belong_to_it_alone():
    first, second = Recommender(small_model(), processor()).recommend([[], []], 3)
    first.items[0]["item_id"] = "changed"
    assert second.items[0]["item_id"] == POPULAR[0] and dataclasses.is_dataclass(second)
