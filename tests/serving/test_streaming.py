"""`StreamingRecommender`: its answers are those of the whole history, and it never says more than it did."""

from __future__ import annotations

import os
import sqlite3
import threading

import numpy as np
import pytest
import torch

from modeling_glintru import GlintRUError, GlintRUProcessor, UnknownItemError
from modeling_glintru.errors import StateError, StoreBusyError, StoreError, StoreFullError
from modeling_glintru.models.auto import MODELS
from modeling_glintru.serving import Event, Observed, Recommender, StreamingRecommender, rebuild_all
from modeling_glintru.serving.step import PlainStep

from ..model.helpers import small_model

ITEMS = [f"item-{number:02d}" for number in range(30)]


def processor(**options) -> GlintRUProcessor:
    return GlintRUProcessor(ITEMS, **{"max_length": 1000, **options})


def make(store=None, seed=0, **options) -> StreamingRecommender:
    return StreamingRecommender(small_model(seed), processor(), store, **options)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "users.db"


@pytest.fixture(params=["memory", "sqlite"])
def recommender(request, file):
    with make(None if request.param == "memory" else file) as recommender:
        yield recommender


def history(length: int, seed: int = 0) -> list[str]:
    return [ITEMS[n] for n in np.random.default_rng(seed).integers(0, 20, length)]


def full(histories, k=10, seed=0, **options):
    """The same from the whole history in one pass."""
    return Recommender(small_model(seed), processor()).recommend(histories, k, **options)


def same(found, expected):
    assert [item["item_id"] for item in found.items] == [item["item_id"] for item in expected.items]
    scores = [[item["score"] for item in each.items] for each in (found, expected)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    assert found.num_unknown_items == expected.num_unknown_items


# ---------------------------------------------------------------------- identities


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_after_every_click_the_answer_of_the_full_history(recommender, exclude_seen):
    clicks = history(12)
    for n, item in enumerate(clicks, start=1):
        assert recommender.observe("anna", item) == Observed(True, False, n, True)
        found = recommender.recommend("anna", exclude_seen=exclude_seen)
        assert not found.cold_start
        same(found, full([clicks[:n]], exclude_seen=exclude_seen)[0])


def test_many_users_at_once(recommender):
    histories = {f"user-{n}": history(length, n) for n, length in enumerate([1, 3, 40, 7, 600])}
    events = [(user, item) for user, clicks in histories.items() for item in clicks]
    order = np.random.default_rng(1).permutation(len(events))
    shuffled = {user: [] for user in histories}
    for n in order:
        shuffled[events[n][0]].append(events[n][1])
    for part in np.array_split(order, 3):
        recommender.observe_many([events[n] for n in part])
    expected = full(list(shuffled.values()))
    for ours, theirs in zip(recommender.recommend_many(list(histories)), expected, strict=True):
        same(ours, theirs)
    assert recommender.recommend_many([]) == [] and recommender.observe_many([]) == []


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("float16", 2), ("bfloat16", 2)])
def test_dtypes(file, dtype, size):
    with make(file, dtype=dtype) as recommender:
        for item in history(6):
            recommender.observe("anna", item)
        (record,) = recommender.store.read(["anna"], recommender.step.fingerprint)
        assert len(record.state) < recommender.step.row_size * size + 50
        found = recommender.recommend("anna", 30, exclude_seen=False)
        scores = {item["item_id"]: item["score"] for item in found.items}
        expected = {item["item_id"]: item["score"] for item in full([history(6)], 30, exclude_seen=False)[0].items}
        assert scores == pytest.approx(expected, abs=1e-4 if size == 4 else 0.1)
    with make(file) as recommender:  # states of several dtypes side by side
        recommender.observe("bert", ITEMS[0])
        found = recommender.recommend_many(["anna", "bert"], 30, exclude_seen=False)[0]
        assert {item["item_id"]: item["score"] for item in found.items} == pytest.approx(scores, abs=1e-5)
    with pytest.raises(GlintRUError, match="dtype must be one of"):
        make(dtype="int8")


def test_an_event_delivered_twice(recommender):
    first = recommender.observe("anna", ITEMS[3], event_id="click-1", time=5)
    again = recommender.observe("anna", ITEMS[3], event_id="click-1", time=6)
    assert (first, again) == (Observed(True, False, 1, True), Observed(True, True, 1, True))
    assert recommender.observe("bert", ITEMS[3], event_id="click-1").duplicate is False
    same(recommender.recommend("anna"), full([[ITEMS[3]]])[0])


def test_callers_in_threads_share_transactions(file):
    with make(file) as recommender:
        transactions = []
        absorb = recommender.store.absorb
        recommender.store.absorb = lambda *arguments: (transactions.append(1), absorb(*arguments))[1]

        def work(user):
            for item in history(15, user):
                assert recommender.observe(user, item).durable
                recommender.recommend(user, 3)

        threads = [threading.Thread(target=work, args=(user,)) for user in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(transactions) < 100  # of 120 clicks
        expected = full([history(15, user) for user in range(8)])
        for ours, theirs in zip(recommender.recommend_many(range(8)), expected, strict=True):
            same(ours, theirs)


# ---------------------------------------------------------------------- what is acknowledged


def test_not_waiting(file):
    with make(file) as recommender:
        for item in history(50):
            assert recommender.observe("anna", item, durable=False) == Observed(True)
        assert recommender.observe("anna", "nothing", durable=False) == Observed(False)
        recommender.flush()
        assert len(recommender.store.events("anna")) == 51
        recommender.observe("anna", ITEMS[0], durable=False)
    with make(file) as recommender:  # `close` wrote it
        assert len(recommender.store.events("anna")) == 52
    with pytest.raises(StoreError, match="closed"):
        recommender.observe("anna", ITEMS[0])
    recommender.close()


def test_a_failed_write_never_acknowledges(file):
    with make(file) as recommender:
        recommender.observe("anna", ITEMS[0])
        recommender.store.timeout = 0.02
        recommender.store._writer.execute("PRAGMA busy_timeout = 20")
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusyError, match="locked"):
            recommender.observe("anna", ITEMS[1])
        recommender.observe("anna", ITEMS[2], durable=False)
        with pytest.raises(StoreError, match=r"1 calls with durable=False could not be written: .* is locked"):
            recommender.flush()
        other.execute("ROLLBACK")
        recommender.store._writer.execute("PRAGMA max_page_count = 8")
        with pytest.raises(StoreFullError, match="full"):
            recommender.observe_many([(f"user-{n}", ITEMS[1]) for n in range(50)])
        assert [event.item for event in recommender.store.events("anna")] == ITEMS[:1]
        assert recommender.store.users() == ["anna"]
        same(recommender.recommend("anna"), full([ITEMS[:1]])[0])
        other.close()


# ---------------------------------------------------------------------- items and users that are not known


def test_unknown_items(recommender):
    recommender.observe("anna", ITEMS[0])
    assert recommender.observe("anna", "new", event_id="n") == Observed(False, False, 2, True)
    assert recommender.observe("anna", "new", event_id="n").duplicate
    recommender.observe("anna", ITEMS[1])
    expected = full([[ITEMS[0], "new", ITEMS[1]]])[0]
    same(recommender.recommend("anna"), expected)
    assert expected.num_unknown_items == 1
    with pytest.raises(UnknownItemError, match="'newer'"):
        recommender.observe("anna", "newer", unknown_items="error")
    with pytest.raises(GlintRUError, match="strings, but got 7"):
        recommender.observe("anna", 7)
    with pytest.raises(UnknownItemError, match="'newer'"):
        StreamingRecommender(small_model(), processor(unknown_items="error")).observe("anna", "newer")
    assert [event.item for event in recommender.store.events("anna")] == [ITEMS[0], "new", ITEMS[1]]


def test_a_later_model_knows_the_item(file):
    with make(file) as recommender:
        recommender.observe_many([("anna", ITEMS[0]), ("anna", "new")])
    grown = [*ITEMS, "new"]
    model = small_model(vocab_size=32)
    expected = Recommender(model, GlintRUProcessor(grown)).recommend([[ITEMS[0], "new"]])[0]
    with StreamingRecommender(model, GlintRUProcessor(grown), file, rebuild_on_demand=True) as recommender:
        rebuild_all(recommender, progress=False)
        same(recommender.recommend("anna"), expected)
    numbers = GlintRUProcessor(list(range(30)))  # and one with ids of another type knows none of them
    with StreamingRecommender(small_model(1), numbers, file, rebuild_on_demand=True) as recommender:
        assert recommender.recommend("anna").cold_start and recommender.recommend("anna").num_unknown_items == 2


def test_cold_start(recommender):
    found = recommender.recommend("nobody", 3)
    assert found.cold_start and found.num_unknown_items == 0
    assert found.items == [{"item_id": item, "score": 0.0} for item in ITEMS[:3]]
    recommender.observe("nobody", "new")
    found = recommender.recommend("nobody", 3, exclude=ITEMS[:1], allowed=ITEMS[:3])
    assert found.cold_start and found.num_unknown_items == 1
    assert [item["item_id"] for item in found.items] == ITEMS[1:3]
    assert recommender.store.users() == ["nobody"]
    recommender.observe("nobody", ITEMS[9])
    both = recommender.recommend_many(["other", "nobody"])
    assert [found.cold_start for found in both] == [True, False]


def test_cold_start_by_popularity():
    counts = np.zeros(31)
    counts[[5, 9]] = 3, 7
    for given in (counts, {ITEMS[4]: 3, ITEMS[8]: 7, "unknown": 9}):
        found = make(item_counts=given).recommend("nobody", 4)
        assert [item["item_id"] for item in found.items] == [ITEMS[8], ITEMS[4], ITEMS[0], ITEMS[1]]
    with pytest.raises(GlintRUError, match=r"item_counts must have shape \(31,\)"):
        make(item_counts=counts[1:])


# ---------------------------------------------------------------------- filters


def test_filters(recommender):
    clicks = history(8)
    recommender.observe_many([("anna", item) for item in clicks])
    ranking = [item["item_id"] for item in recommender.recommend("anna", 30).items]
    assert set(ranking) == set(ITEMS) - set(clicks)

    def ids(**options):
        return [item["item_id"] for item in recommender.recommend("anna", **options).items]

    assert ids(top_k=3, exclude=ranking[:2]) == ranking[2:5]
    category = recommender.item_set([*ranking[5:9], *clicks, "unheard"])
    assert len(category) == 4 + len(set(clicks)) and category.num_unknown_items == 1
    for allowed in (category, [*ranking[5:9], *clicks], {*ranking[5:9]}, np.array(ranking[5:9])):
        assert ids(top_k=10, allowed=allowed) == ranking[5:9]
    assert ids(top_k=2, allowed=category, exclude=recommender.item_set(ranking[:6])) == ranking[6:8]
    assert ids(top_k=2, allowed=category, exclude=category) == []
    with pytest.raises(GlintRUError, match="belongs to the recommender whose item_set made it"):
        recommender.recommend("anna", allowed=make().item_set(ITEMS[:3]))
    with pytest.raises(UnknownItemError):
        recommender.item_set(["unheard"], unknown_items="error")


@pytest.mark.parametrize("allowed", [[], ["unheard"]])
def test_an_empty_allow_list(recommender, allowed):
    for user in ("nobody", "anna"):
        with pytest.raises(GlintRUError, match="allowed has no item that the model knows"):
            recommender.recommend(user, allowed=allowed)
        recommender.observe("anna", ITEMS[0])


@pytest.mark.parametrize("k", [0, 31, 2.5, "3", True])
def test_k_has_bounds(recommender, k):
    with pytest.raises(GlintRUError, match="k must be between 1 and the number of items"):
        recommender.recommend("anna", k)


def test_what_others_saw_is_not_left_out_and_what_another_process_wrote_is(file):
    with make(file, cache_users=1) as one, make(file) as other:
        one.observe("anna", ITEMS[0])
        assert ITEMS[0] not in [item["item_id"] for item in other.recommend("anna", 30).items]
        one.observe("anna", ITEMS[1])
        one.observe("bert", ITEMS[2])
        for recommender in (one, other):
            for user, seen in (("anna", ITEMS[:2]), ("bert", ITEMS[2:3]), ("anna", ITEMS[:2])):
                found = recommender.recommend(user, 30)
                assert {item["item_id"] for item in found.items} == set(ITEMS) - set(seen)
        one.rebuild("anna", ITEMS[5:6])
        for recommender in (one, other):
            assert len(recommender.recommend("anna", 30).items) == 29


def test_titles():
    with StreamingRecommender(small_model(), processor(item_titles={ITEMS[0]: "Zero"})) as recommender:
        assert recommender.recommend("nobody", 2).items[0] == {"item_id": ITEMS[0], "title": "Zero", "score": 0.0}


# ---------------------------------------------------------------------- other weights, damaged states


def test_states_stay_valid_when_items_are_added(file):
    with make(file) as old:
        old.observe_many([("anna", item) for item in history(5)])
    model, items = small_model(), processor()
    model.add_items(items.add_items(["new", "newer"]))
    with StreamingRecommender(model.eval(), items, file) as grown:
        assert grown.observe("anna", "new").known
        found = grown.recommend("anna")
    same(found, Recommender(model, items).recommend([[*history(5), "new"]])[0])


def test_states_of_another_model(file):
    with make(file) as old:
        old.observe_many([("anna", item) for item in history(5)])
    with pytest.raises(StateError, match=r"states of this model's weights .* run rebuild_all first"):
        make(file, seed=1)
    with make(file) as old, make(file, seed=1, rebuild_on_demand=True) as new:
        same(new.recommend("anna"), full([history(5)], seed=1)[0])
        old.observe("anna", ITEMS[7])
        new.observe("anna", ITEMS[8])
        clicks = [*history(5), ITEMS[7], ITEMS[8]]
        same(old.recommend("anna"), full([clicks])[0])
        same(new.recommend("anna"), full([clicks], seed=1)[0])
    make(file, seed=1).close()  # it has states of its own now


@pytest.mark.parametrize("damage", ["truncated", "altered", "version", "of another model", "nonsense"])
def test_damaged_states(file, damage):
    with make(file) as recommender:
        recommender.observe_many([(user, item) for user in ("anna", "bert") for item in history(4)])
        (record,) = recommender.store.read(["anna"], recommender.step.fingerprint)
        with make(seed=1) as other:
            other.observe("anna", ITEMS[0])
            (foreign,) = other.store.read(["anna"], other.step.fingerprint)
        blob = {
            "truncated": record.state[:-5],
            "altered": record.state[:-5] + b"\0" + record.state[-4:],
            "version": record.state[:4] + b"\x09" + record.state[5:],
            "of another model": foreign.state,
            "nonsense": b"nonsense",
        }[damage]
        with recommender.store._transaction() as connection:
            connection.execute(f"UPDATE states_{recommender.step.fingerprint} SET state = ? WHERE user = 1", (blob,))
        for call in (
            lambda: recommender.recommend_many(["bert", "anna"]),
            lambda: recommender.observe("anna", ITEMS[0]),
            lambda: recommender.observe_many([("bert", ITEMS[0]), ("anna", ITEMS[0])]),
        ):
            with pytest.raises(StateError, match=r"stored state of user 'anna' cannot be used: .*rebuild\(user\)"):
                call()
        assert len(recommender.store.events("bert")) == 4
        recommender.rebuild("anna")
        for found in recommender.recommend_many(["anna", "bert"]):
            same(found, full([history(4)])[0])


def test_a_damaged_state_is_no_matter_of_other_callers(file):
    with make(file) as recommender:
        recommender.observe_many([("anna", ITEMS[0]), ("bert", ITEMS[0])])
        with recommender.store._transaction() as connection:
            connection.execute(f"UPDATE states_{recommender.step.fingerprint} SET state = x'00' WHERE user = 1")
            # Both requests wait for this transaction, so that they share the next one.
            results = [recommender._writer.submit([Event(user, ITEMS[1])]) for user in ("anna", "cleo", "bert")]
        errors = [result.error() for result in results]
        assert isinstance(errors[0], StateError) and errors[1:] == [None, None]
        same(recommender.recommend("bert"), full([ITEMS[:2]])[0])


# ---------------------------------------------------------------------- rebuilding one user


def test_rebuilding_a_user(recommender):
    recommender.observe_many([("anna", item) for item in history(4)])
    found = recommender.rebuild("anna", [*ITEMS[:3], "new"])
    assert (found.num_events, found.num_unknown_items) == (4, 1)
    same(recommender.recommend("anna"), full([[*ITEMS[:3], "new"]])[0])
    assert recommender.observe("anna", ITEMS[9]).position == 9
    same(recommender.recommend("anna"), full([[*ITEMS[:3], "new", ITEMS[9]]])[0])
    assert recommender.rebuild("nobody").num_events == 0
    assert recommender.rebuild("anna", []).num_events == 0 and recommender.recommend("anna").cold_start
    recommender.rebuild("cleo", [Event("cleo", ITEMS[0], "x")])
    assert recommender.observe("cleo", ITEMS[0], "x").duplicate
    with pytest.raises(StoreError, match="occurs twice"):
        recommender.rebuild("cleo", [Event("cleo", ITEMS[0], "x"), Event("cleo", ITEMS[0], "x")])
    with pytest.raises(StoreError, match="other users"):
        recommender.rebuild("cleo", [Event("bert", ITEMS[0])])
    with pytest.raises(GlintRUError, match="list of raw item ids"):
        recommender.rebuild("cleo", "item-01")


def test_a_rebuild_that_clicks_overtake(recommender):
    recommender.observe("anna", ITEMS[0])
    replace, tries = recommender.store.replace, []

    def late(replacements, fingerprint):
        if len(tries) < 2:
            recommender.observe("anna", ITEMS[1 + len(tries)])
        tries.append(1)
        return replace(replacements, fingerprint)

    recommender.store.replace = late
    recommender.rebuild("anna")
    assert len(tries) == 3
    same(recommender.recommend("anna"), full([ITEMS[:3]])[0])
    recommender.store.replace = lambda replacements, fingerprint: [False]
    with pytest.raises(StoreError, match="other clicks came in between"):
        recommender.rebuild("anna")


# ---------------------------------------------------------------------- opening


def test_from_a_folder(tmp_path, file):
    model, vocabulary = small_model(), processor()
    model.save_pretrained(tmp_path)
    vocabulary.save_pretrained(tmp_path)
    with make(file) as recommender:
        recommender.observe("anna", ITEMS[0])
        expected = recommender.recommend("anna")
    with StreamingRecommender.from_pretrained(tmp_path, store=file, item_counts={ITEMS[3]: 1}) as recommender:
        same(recommender.recommend("anna"), expected)
        assert recommender.recommend("nobody", 1).items[0]["item_id"] == ITEMS[3]


def test_models_that_do_not_fit():
    with pytest.raises(GlintRUError, match="has 29 items, but the model is for 30"):
        StreamingRecommender(small_model(), GlintRUProcessor(ITEMS[1:]))
    sasrec = MODELS["sasrec"]
    model = sasrec(sasrec.config_class(vocab_size=31, hidden_size=16, num_attention_heads=2))
    with pytest.raises(GlintRUError, match="keeps no state"):
        StreamingRecommender(model, processor())


def test_a_store_of_ones_own_stays_open(file):
    with make(file) as first:
        with make(first.store) as second:
            second.observe("anna", ITEMS[0])
        assert first.recommend("anna").items


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_is_told_to_open_its_own(file):
    with make(file) as recommender:
        recommender.observe("anna", ITEMS[0])
        child = os.fork()
        if not child:
            errors = []
            for call in (lambda: recommender.observe("anna", ITEMS[1]), lambda: recommender.recommend("anna")):
                try:
                    call()
                except StoreError as error:
                    errors.append(str(error))
            os._exit(0 if len(errors) == 2 and all("before a fork" in error for error in errors) else 1)
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("event", ["anna", ("anna",), ["anna", ITEMS[0]], ("anna", ITEMS[0], "x", 1, 2), None])
def test_events_of_a_wrong_shape(recommender, event):
    with pytest.raises(StoreError, match=r"an event is \(user, item\)"):
        recommender.observe_many([event])


def test_users_are_a_list(recommender):
    with pytest.raises(GlintRUError, match="users must be a list"):
        recommender.recommend_many("anna")
    with pytest.raises(StoreError, match="user must be a string or an integer"):
        recommender.recommend(None)


def test_the_plain_step_in_float64():
    model = small_model().double()
    with StreamingRecommender(model, processor(), step=PlainStep(model)) as recommender:
        for item in history(9):
            recommender.observe(1, item)
        assert model.dtype == torch.float64
        same(recommender.recommend(1), full([history(9)])[0])
