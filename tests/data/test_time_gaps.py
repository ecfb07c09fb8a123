"""Times between items: prepared beside the items, cut like them, and refused where they are missing."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from modeling_glintru.data import SequenceCollator, TrainingPrefixes, TrainingWindows, load_prepared
from modeling_glintru.data.histories import arrow_view, read_request_gaps
from modeling_glintru.data.interactions import read_interactions
from modeling_glintru.data.prepare import prepare
from modeling_glintru.errors import DataError

from .helpers import naive_histories, random_interactions


@pytest.fixture(scope="module")
def interactions():
    return random_interactions(3)


@pytest.mark.parametrize("split", ["leave_one_out", "temporal", "user"])
@pytest.mark.parametrize("where", ["memory", "folder"])
def test_each_gap_is_the_time_to_what_follows(interactions, split, where, tmp_path):
    folder = tmp_path / "prepared" if where == "folder" else None
    data = prepare(interactions, folder, split=split, time_gaps=True)
    if folder is not None:
        data = load_prepared(folder)
    times = {user: [time for time, _ in history] for user, history in naive_histories(interactions).items()}
    for name, rows in data.dataset.items():
        assert len(rows)
        for row in rows:
            n, own = len(row["item_ids"]), times[row["user_id"]]
            expected = np.diff(own[: n + 1]).tolist()
            if name in ("train", "whole"):
                expected = [*np.diff(own[:n]).tolist(), -1]
            assert row["time_gaps"] == expected
    assert "time_gaps" not in prepare(interactions, split=split).dataset["train"].column_names


def test_gaps_of_dates_are_seconds():
    seconds = random_interactions(3, num_times=10**6)
    dates = seconds.frame.with_columns(pl.from_epoch("timestamp", "s") + pl.duration(milliseconds=250))
    assert read_interactions(dates).has_dates
    found = prepare(read_interactions(dates), time_gaps=True).dataset
    for name, rows in prepare(seconds, time_gaps=True).dataset.items():
        assert rows["time_gaps"] == found[name]["time_gaps"] and max(map(max, rows["time_gaps"])) > 1000


@pytest.mark.parametrize(
    ("steps", "kind"), [(10**3, pl.Int64), (10**3, pl.Float64), (10**6, pl.Int64), (10**9, pl.Int64)]
)
def test_gaps_of_unix_times_are_seconds_whatever_their_precision(steps, kind):
    seconds = random_interactions(3, num_times=10**6)
    now = pl.col("timestamp") + 1_700_000_000
    tables = [seconds.frame.with_columns(now), seconds.frame.with_columns((now * steps).cast(kind))]
    coarse, fine = (read_interactions(table) for table in tables)
    assert (coarse.ticks, fine.ticks) == (1, steps)
    assert coarse.read_time("2024-01-01") * steps == fine.read_time("2024-01-01") == 1_704_067_200 * steps
    assert fine.read_time(str(2 * steps)) == 2 * steps
    found = prepare(fine, time_gaps=True).dataset
    for name, rows in prepare(coarse, time_gaps=True).dataset.items():
        assert rows["time_gaps"] == found[name]["time_gaps"]


def test_numbers_that_are_no_unix_times_have_a_unit_of_their_own():
    other = random_interactions(3, num_times=10**6)
    assert other.steps_in_a_second is None and other.ticks == 1
    with pytest.raises(DataError, match="give a number"):
        other.read_time("2024-01-01")


def test_windows_and_prefixes_cut_them_like_the_items(interactions):
    split = prepare(interactions, time_gaps=True).dataset["train"]
    whole = {tuple(row["item_ids"]): row["time_gaps"] for row in split}
    windows = TrainingWindows(split, 4, random_shift=True, time_gaps=True)
    windows.set_epoch(2)
    prefixes = TrainingPrefixes(split, 4, share=0.5, time_gaps=True)
    for rows in (windows, prefixes):
        for number in range(len(rows)):
            row = rows[number]
            items = tuple(row["item_ids"].tolist()) + ((row["target"],) if "target" in row else ())
            places = [
                gaps[start : start + len(row["item_ids"])]
                for history, gaps in whole.items()
                for start in range(len(history))
                if history[start : start + len(items)] == items
            ]
            assert row["time_gaps"].tolist() in places
            assert row["time_gaps"].dtype == np.float32
    assert "time_gaps" not in TrainingWindows(split, 4)[0]


def test_batches():
    windows = [
        {"item_ids": [4, 5, 6, 7], "time_gaps": [1.0, 2.0, 3.0, -1.0]},
        {"item_ids": [8, 9], "time_gaps": [5.0, -1.0]},
    ]
    right = SequenceCollator(2, time_gaps=True)(windows)["time_gaps"]
    assert right.tolist() == [[2, 3], [5, -1]] and right.dtype.is_floating_point
    assert SequenceCollator(9, "left", time_gaps=True)(windows)["time_gaps"].tolist() == [[1, 2, 3], [-1, -1, 5]]
    rows = [
        {"item_ids": [4, 5], "target": 6, "time_gaps": [1.0, 7.0]},
        {"item_ids": [8], "target": 2, "time_gaps": [0]},
    ]
    assert SequenceCollator(9, time_gaps=True)(rows)["time_gaps"].tolist() == [[1, 7], [0, -1]]
    assert "time_gaps" not in SequenceCollator(9)(rows)
    with pytest.raises(DataError, match="no 'time_gaps'; prepare and window the data with time_gaps=True"):
        SequenceCollator(9, time_gaps=True)([{"item_ids": [1, 2]}])


def test_the_gap_of_the_request(interactions):
    split = prepare(interactions, time_gaps=True).dataset["test"]
    rows = np.array([3, 0, 5])
    found = read_request_gaps(arrow_view(split, ["time_gaps"]), rows)
    assert found.tolist() == [split[int(row)]["time_gaps"][-1] for row in rows]


def test_data_without_them_is_refused(interactions, tmp_path):
    data = prepare(interactions)
    with pytest.raises(DataError, match="prepared without times between items, which use_time_gaps needs"):
        TrainingWindows(data.dataset["train"], 4, time_gaps=True)
    split = prepare(interactions, time_gaps=True).dataset["train"]
    shorter = split.remove_columns("time_gaps").add_column("time_gaps", [[1.0]] * len(split))
    with pytest.raises(DataError, match="do not belong together"):
        TrainingWindows(shorter, 4, time_gaps=True)
