"""Everything that a split holds, put together again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import modeling_glintru.data.prepare as prepare_module
import modeling_glintru.data.prepared as whole_module
from modeling_glintru.data.interactions import Interactions
from modeling_glintru.data.prepare import PreparedData, load_prepared, prepare
from modeling_glintru.data.prepared import with_everything
from modeling_glintru.data.sequences import build_sequences
from modeling_glintru.data.splits import WHOLE, Rows, Splits, cut_users
from modeling_glintru.errors import DataError

from .helpers import make_interactions, naive_histories, random_interactions

SPLITS = ("leave_one_out", "temporal", "user")


def table(text_ids: bool = False) -> Interactions:
    read = random_interactions(5, rows=800, num_times=400)
    users = pl.col("user_id")
    users = pl.lit("Ünü-") + users if text_ids else users.rank("dense").cast(pl.Int64)
    return replace(read, frame=read.frame.with_columns(users.alias("user_id")))


def check(read: Interactions, data: PreparedData) -> None:
    train = with_everything(data).dataset["train"]
    raw = data.processor.raw_id
    expected = {user: [item for _, item in history] for user, history in naive_histories(read).items()}
    assert {row["user_id"]: [raw(index) for index in row["item_ids"]] for row in train} == expected
    assert train["user_id"][:] == sorted(expected)  # the same order wherever the data comes from, for the same batches


@pytest.mark.parametrize("text_ids", [False, True])
@pytest.mark.parametrize("split", SPLITS)
def test_the_complete_histories_come_back(split, text_ids, tmp_path, monkeypatch):
    monkeypatch.setattr(whole_module, "ROWS_PER_CHUNK", 7)
    read = table(text_ids)
    memory, written = prepare(read, split=split), prepare(read, tmp_path / "out", split=split)
    for data in (memory, written, load_prepared(tmp_path / "out")):
        check(read, data)
        everything = with_everything(data)
        assert everything.dataset["train"].features == data.dataset["train"].features
        assert everything.item_counts.sum() == len(read) > data.item_counts.sum()
        assert everything.dataset["test"] is data.dataset["test"]


def test_only_the_split_by_time_keeps_more_than_its_parts():
    for split in SPLITS:
        data = prepare(table(), split=split)
        assert (WHOLE in data.dataset) == (split == "temporal")


def test_whose_history_no_row_completes():
    """The last target of user 0 follows its history at once, that of user 1 does not, and user 2 is nowhere."""
    sequences = build_sequences(make_interactions([0] * 3 + [1] * 3 + [2] * 3, [1, 2, 3] * 3, list(range(9))))
    users, starts = np.array([0, 1]), np.array([0, 3])
    train, validation = Rows(users, starts, starts + 1), Rows(users, starts, starts + 1, starts + 1)
    splits = Splits(train, validation, Rows(users, starts, np.array([2, 4]), np.array([2, 5])))
    assert cut_users(sequences, splits).users.tolist() == [1, 2]
    assert cut_users(sequences, splits).stops.tolist() == [6, 9]


@pytest.mark.parametrize("split", SPLITS)
def test_the_times_between_items_come_along(split):
    read = table()
    train = with_everything(prepare(read, split=split, time_gaps=True)).dataset["train"]
    histories = naive_histories(read)
    for row in train:
        times = [time for time, _ in histories[row["user_id"]]]
        np.testing.assert_allclose(row["time_gaps"], [*(np.diff(times) / read.ticks), -1], rtol=1e-6)


def test_what_an_older_version_left_out_is_missed(tmp_path, monkeypatch):
    nobody = Rows(*(np.zeros(0, np.int64) for _ in range(3)))
    monkeypatch.setattr(prepare_module, "cut_users", lambda sequences, splits: nobody)
    data = prepare(table(), tmp_path / "old", split="temporal")
    with pytest.raises(DataError, match=r"holds \d+ of its 796 interactions.*--refit.*run glintru prepare again"):
        with_everything(data)
