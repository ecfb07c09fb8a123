"""All users in one pass, against one history at a time."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import torch

from modeling_glintru import GlintRUError, GlintRUProcessor
from modeling_glintru.errors import DataError
from modeling_glintru.kernels import build
from modeling_glintru.models.auto import MODELS
from modeling_glintru.models.processing_glintru import UnknownItemError
from modeling_glintru.serving import Recommender, offline
from modeling_glintru.serving.offline import UserHistories, recommend_all
from modeling_glintru.serving.recommendation_file import check_output, open_output

from ..model.helpers import small_model

ITEMS = [f"item-{number}" for number in range(1, 31)]


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    """57 users with 1 to 40 interactions in no order, some of them with unknown items, one with no others."""
    random = np.random.default_rng(0)
    lengths = random.integers(1, 40, 57)
    users = np.repeat([f"user-{number:02}" for number in range(57)], lengths)
    items = random.choice([*ITEMS, "unknown-a", "unknown-b"], len(users))
    items[users == "user-05"] = "unknown-a"
    frame = pl.DataFrame({"user_id": users, "item_id": items, "timestamp": random.integers(0, 50, len(users))})
    return frame.sample(fraction=1.0, shuffle=True, seed=1)


def one_by_one(model, processor, table, **options):
    frame = table.sort("timestamp", maintain_order=True).group_by("user_id", maintain_order=True).agg("item_id")
    frame = frame.sort("user_id")
    recommender = Recommender(model, processor, batch_size=1)
    return frame["user_id"].to_list(), recommender.recommend(frame["item_id"].to_list(), **options)


@pytest.mark.parametrize("options", [{"top_k": 7}, {"top_k": 30}, {"top_k": 7, "exclude_seen": False}])
@pytest.mark.parametrize("name", ["glintru", "two blocks", "normalized", "sasrec"])
def test_it_equals_one_history_at_a_time(name, options, table, monkeypatch):
    monkeypatch.setattr(offline, "BLOCK_USERS", 10)
    monkeypatch.setattr(offline, "BATCH_ITEMS", 64)
    monkeypatch.setattr(offline, "SCORES", 100)
    if name == "sasrec":
        model = MODELS[name](MODELS[name].config_class(vocab_size=31, hidden_size=16)).eval()
    else:
        switches = {"two blocks": {"num_hidden_layers": 2}, "normalized": {"normalize_scores": True}}
        model = small_model(**switches.get(name, {}), temperature=0.7)
    processor = GlintRUProcessor(ITEMS, max_length=8)
    users = UserHistories.of(table, processor)
    blocks = list(recommend_all(model, users, 8, **options))
    assert [len(items) for items, _ in blocks] == [10, 10, 10, 10, 10, 7]
    items, scores = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    names, expected = one_by_one(model, processor, table, **options)
    assert users.user_ids.to_list() == names
    for user, row, row_scores, found in zip(names, items, scores, expected, strict=True):
        wanted = [item["score"] for item in found.items]
        assert row_scores[: len(wanted)] == pytest.approx(wanted, abs=1e-5)
        assert not row[len(wanted) :].any() and (row_scores[len(wanted) :] == -np.inf).all()
        assert processor.decode(row) == [item["item_id"] for item in found.items]
        assert found.cold_start == (user == "user-05")


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_the_plain_search_and_two_threads_find_the_same(table, exclude_seen, monkeypatch):
    model, users = small_model(), UserHistories.of(table, GlintRUProcessor(ITEMS))
    ways = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        ways.append(next(recommend_all(model, users, 8, 7, exclude_seen=exclude_seen)))
    monkeypatch.setattr(build, "library", lambda: None)
    ways.append(next(recommend_all(model, users, 8, 7, exclude_seen=exclude_seen)))
    for items, scores in ways[1:]:
        np.testing.assert_array_equal(items, ways[0][0])
        np.testing.assert_allclose(scores, ways[0][1], atol=1e-6)


def test_integers_as_text_and_times_in_file_order():
    frame = pl.DataFrame({"user_id": [2, 1, 2, 2], "item_id": [7, 8, 9, 7], "timestamp": [5, 5, 5, 1]})
    users = UserHistories.of(frame, GlintRUProcessor(["7", "8", "9"]))
    assert users.user_ids.to_list() == [1, 2]
    assert users.items.tolist() == [2, 1, 1, 3] and users.starts.tolist() == [0, 1, 4]


def test_unknown_items_are_counted_or_refused(table):
    processor = GlintRUProcessor(ITEMS)
    unknown = table["item_id"].str.starts_with("unknown").sum()
    users = UserHistories.of(table, processor)
    assert users.num_unknown_items == unknown and len(users) == 57 and len(users.items) == len(table) - unknown
    with pytest.raises(UnknownItemError, match=r"2 item id\(s\).*unknown-"):
        UserHistories.of(table, processor, "error")


def test_a_text_among_integer_ids_is_unknown_and_an_error_names_it_alone():
    processor = GlintRUProcessor([50, 172, 181])
    frame = pl.DataFrame(
        {"user_id": [1, 1, 2, 3, 3], "item_id": ["50", "172", "181", "abc", "1e3"], "timestamp": [1, 2, 1, 4, 5]}
    )
    users = UserHistories.of(frame, processor)
    assert users.items.tolist() == [1, 2, 3] and users.num_unknown_items == 2
    assert users.cold.tolist() == [False, False, True]
    with pytest.raises(UnknownItemError, match="2 item id") as caught:
        UserHistories.of(frame, processor, "error")
    assert "'abc'" in str(caught.value) and "'1e3'" in str(caught.value)
    assert not any(good in str(caught.value) for good in ("50", "172", "181"))


@pytest.mark.parametrize("top_k", [0, 31, 2.5, True])
def test_top_k_out_of_range(table, top_k):
    users = UserHistories.of(table, GlintRUProcessor(ITEMS))
    with pytest.raises(GlintRUError, match="top_k must be between 1 and the number of items"):
        next(recommend_all(small_model(), users, 8, top_k))


@pytest.mark.parametrize("titles", [None, {"item-3": 'Drei, und "mehr"'}])
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_files(tmp_path, suffix, titles):
    processor = GlintRUProcessor(ITEMS, titles)
    file = tmp_path / f"out{suffix}"
    users, cold = pl.Series(["a", "b", "c"]), np.array([False, True, False])
    with open_output(file, processor, users) as writer:
        writer.add(users[:2], np.array([[3, 1], [2, 0]]), np.array([[2.5, 1], [0.5, -np.inf]], np.float32), cold[:2])
        writer.add(users[2:], np.array([[0, 0]]), np.array([[-np.inf, -np.inf]], np.float32), cold[2:])
        assert not file.exists()
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    rows = [("a", 1, "item-3", 2.5, False), ("a", 2, "item-1", 1.0, False), ("b", 1, "item-2", 0.5, True)]
    if suffix == ".jsonl":
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        assert [line["user_id"] for line in lines] == ["a", "b", "c"] and lines[2]["recommendations"] == []
        first = {"item_id": "item-3", "score": 2.5} | ({} if titles is None else {"title": titles["item-3"]})
        assert lines[0]["recommendations"][0] == first
        assert [line["cold_start"] for line in lines] == cold.tolist()
        return
    frame = pl.read_parquet(file) if suffix == ".parquet" else pl.read_csv(file)
    assert frame.select("user_id", "rank", "item_id", "score", "cold_start").rows() == rows
    assert ("title" in frame.columns) == (titles is not None)
    if titles:
        assert frame["title"].to_list() == [titles["item-3"], None, None]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "out.parquet"
    file.write_text("old")
    processor, users = GlintRUProcessor(ITEMS), pl.Series(["a"])
    with pytest.raises(KeyboardInterrupt), open_output(file, processor, users) as writer:
        writer.add(users, np.array([[3]]), np.array([[1.0]], np.float32), np.zeros(1, bool))
        raise KeyboardInterrupt
    assert file.read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


def test_what_cannot_be_written_is_known_before(tmp_path):
    (tmp_path / "there.csv").write_text("old")
    (tmp_path / "folder.csv").mkdir()
    for name, message in [
        ("out.txt", "must end in .parquet, .csv, .jsonl"),
        ("folder.csv", "is a folder"),
        ("missing/out.csv", "there is no folder"),
        ("there.csv", "--overwrite"),
    ]:
        with pytest.raises(DataError, match=message):
            check_output(tmp_path / name, overwrite=False)
    check_output(tmp_path / "there.csv", overwrite=True)
    check_output(tmp_path / "new.jsonl", overwrite=False)
