"""A history is a pair of user and session, or ends at a pause."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from modeling_glintru.data.interactions import read_interactions
from modeling_glintru.data.sessions import split_at_gaps
from modeling_glintru.errors import DataError

START = 1_700_000_000


def frame(**columns: Any) -> pl.DataFrame:
    rows = {
        "user_id": ["a", "b", "a", "a"],
        "item_id": [1, 2, 3, 4],
        "timestamp": [START + 60 * t for t in (0, 0, 29, 60)],
    }
    return pl.DataFrame({**rows, **columns})


def users(**options: Any) -> list[str]:
    return read_interactions(frame(), **options).frame["user_id"].to_list()


def test_a_pair_of_user_and_session() -> None:
    read = read_interactions(frame(session=[1, 1, 1, 2]), session_column="session")
    assert read.frame["user_id"].to_list() == ["a/1", "b/1", "a/1", "a/2"]
    assert read.columns == {"user": "user_id", "item": "item_id", "time": "timestamp", "session": "session"}
    assert "A history is a session of one of 2 users: the user ids are now 'a/1' and so on." in read.notes


def test_pairs_that_become_the_same_text() -> None:
    table = frame(user_id=["a/b", "a", "x", "x"], session=["c", "b/c", "1", "2"])
    with pytest.raises(DataError, match="some pairs of them become the same text"):
        read_interactions(table, session_column="session")
    fine = frame(user_id=["a/b", "a", "x", "x"], session=["c", "c/d", "1", "2"])
    assert read_interactions(fine, session_column="session").num_users == 4


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        ("30m", ["a/1", "b/1", "a/1", "a/2"]),
        ("31m", ["a/1", "b/1", "a/1", "a/1"]),
        (60 * 29, ["a/1", "b/1", "a/1", "a/2"]),
        ("28m", ["a/1", "b/1", "a/2", "a/3"]),
        ("1d", ["a/1", "b/1", "a/1", "a/1"]),
    ],
)
def test_gaps(gap: str | int, expected: list[str]) -> None:
    assert users(session_gap=gap) == expected


def test_gaps_in_dates_and_milliseconds() -> None:
    seconds = pl.Series(frame()["timestamp"])
    for times in (seconds * 1000, pl.from_epoch(seconds), seconds.cast(pl.Float64)):
        read = read_interactions(frame(timestamp=times), session_gap="30m")
        assert read.frame["user_id"].to_list() == ["a/1", "b/1", "a/1", "a/2"]


def test_gaps_in_another_unit() -> None:
    table = frame(timestamp=[1, 1, 5, 9])
    assert read_interactions(table, session_gap=4).num_users == 2
    assert read_interactions(table, session_gap="3").num_users == 4
    with pytest.raises(DataError, match="'30m' needs times that are dates or Unix times"):
        read_interactions(table, session_gap="30m")
    with pytest.raises(DataError, match="--session_gap needs times"):
        read_interactions(table.drop("timestamp"), session_gap=1, in_file_order=True)


def test_gaps_within_sessions() -> None:
    read = read_interactions(frame(session=[1, 1, 1, 1]), session_column="session", session_gap="30m")
    assert read.frame["user_id"].to_list() == ["a/1/1", "b/1/1", "a/1/1", "a/1/2"]


def test_gaps_as_one_would_count_them() -> None:
    rng = np.random.default_rng(7)
    user, time = rng.integers(0, 9, 400), rng.integers(0, 500, 400)
    found = split_at_gaps(pl.Series(user), pl.Series(time), "5", None).to_list()
    for one in range(9):
        session, before = 1, None
        for row in sorted(np.flatnonzero(user == one), key=lambda row: time[row]):
            session += before is not None and time[row] - before > 5
            before = time[row]
            assert found[row] == f"{one}/{session}"
