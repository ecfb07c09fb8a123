from __future__ import annotations

from collections import Counter
from typing import Any

import polars as pl
import pytest

from modeling_glintru.data.filtering import drop_duplicates, exact_copies, filter_interactions
from modeling_glintru.errors import DataError

from .helpers import make_interactions, random_interactions


def naive_k_core(rows: list[tuple], min_user: int, min_item: int) -> list[tuple]:
    """One round after the other, until nothing changes."""
    while True:
        users, items = Counter(row[0] for row in rows), Counter(row[1] for row in rows)
        left = [row for row in rows if users[row[0]] >= min_user and items[row[1]] >= min_item]
        if left == rows:
            return rows
        rows = left


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("min_user", "min_item"), [(5, 0), (0, 6), (4, 4), (6, 5), (2, 9)])
def test_k_core_equals_the_naive_loop(seed: int, min_user: int, min_item: int) -> None:
    read = random_interactions(seed, num_users=60, num_items=60, rows=280)
    expected = naive_k_core(read.frame.rows(), min_user, min_item)
    if not expected:
        with pytest.raises(DataError, match="Nothing is left"):
            filter_interactions(read, min_user_interactions=min_user, min_item_interactions=min_item)
        return
    kept = filter_interactions(read, min_user_interactions=min_user, min_item_interactions=min_item)
    assert kept.frame.rows() == expected
    assert 0 < len(kept) < len(read)


def test_k_core_needs_more_than_one_round() -> None:
    # A chain: each removal makes the next one necessary.
    users, items = ["a", "a", "b", "b", "c", "c", "d", "d", "d", "e", "e"], [1, 2, 2, 3, 3, 4, 4, 5, 6, 5, 6]
    read = make_interactions(users, items, list(range(11)))
    kept = filter_interactions(read, min_user_interactions=2, min_item_interactions=2)
    assert kept.frame.rows() == [("d", 5, 7), ("d", 6, 8), ("e", 5, 9), ("e", 6, 10)]


ROWS: dict[str, Any] = {"users": ["a", "a", "b", "a", "a"], "items": [1, 2, 1, 1, 1], "times": [5, 6, 1, 3, 5]}


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        ("keep", [0, 1, 2, 3, 4]),
        ("exact", [0, 1, 2, 3]),
        ("consecutive", [1, 2, 3]),
        ("first", [1, 2, 3]),
        ("last", [1, 2, 4]),
    ],
)
def test_repeated_pairs(policy: str, left: list[int]) -> None:
    read = make_interactions(**ROWS)
    kept = filter_interactions(read, duplicates=policy)
    assert kept.frame.rows() == [read.frame.rows()[place] for place in left]


@pytest.mark.parametrize("policy", ["first", "last"])
def test_repeated_pairs_equal_the_naive_loop(policy: str) -> None:
    frame = random_interactions(3).frame
    rows: dict[tuple, int] = {}
    for row, (user, item, time) in enumerate(frame.rows()):
        best = rows.setdefault((user, item), row)
        before = frame["timestamp"][best]
        if (policy == "first" and time < before) or (policy == "last" and time >= before):
            rows[user, item] = row
    assert drop_duplicates(frame, policy).rows() == [frame.row(row) for row in sorted(rows.values())]
    assert len(rows) < frame.height


@pytest.mark.parametrize("policy", ["exact", "consecutive"])
def test_copies_and_repeats_equal_the_naive_loop(policy: str) -> None:
    frame = random_interactions(3, num_users=4, num_items=3, rows=120, num_times=60).frame
    frame = pl.concat([frame, frame[::3]]).sample(fraction=1.0, shuffle=True, seed=1)
    distinct = list(dict.fromkeys(frame.rows()))  # keeps the first of each
    assert 30 < len(distinct) < frame.height
    expected = distinct
    if policy == "consecutive":
        last: dict[str, int] = {}
        expected = []
        for user, item, time in sorted(distinct, key=lambda row: row[2]):  # stable
            if last.get(user) != item:
                expected.append((user, item, time))
            last[user] = item
        assert len(expected) < len(distinct)
        expected = [row for row in distinct if row in set(expected)]
    assert drop_duplicates(frame, policy).rows() == expected


def test_the_order_column_tells_copies_apart_and_sorts_repeats() -> None:
    frame = make_interactions(["a"] * 4 + ["b"], [1, 2, 1, 1, 1], [5, 5, 5, 5, 5]).frame
    frame = frame.with_columns(order=pl.Series([1, 3, 2, 2, 2]))
    assert exact_copies(frame).tolist() == [False, False, False, True, False]
    assert drop_duplicates(frame, "exact").rows() == [frame.row(place) for place in (0, 1, 2, 4)]
    # In order: 1, 1, 1, 2. In the file: 1, 2, 1, 1.
    assert drop_duplicates(frame, "consecutive").rows() == [frame.row(place) for place in (0, 1, 4)]
    text = frame.with_columns(order=pl.Series(["a", "c", "b", "b", "b"]))
    assert drop_duplicates(text, "last").rows() == [text.row(place) for place in (1, 3, 4)]


def test_no_copies_change_nothing() -> None:
    frame = random_interactions(0).frame
    assert not exact_copies(frame).any()
    assert drop_duplicates(frame, "exact") is frame


def test_short_histories_leave_once_at_the_end() -> None:
    read = make_interactions(["a", "a", "b", "c", "c"], [1, 2, 1, 1, 2], [1, 2, 3, 4, 5])
    kept = filter_interactions(read, min_history_length=2)
    assert kept.frame["user_id"].to_list() == ["a", "a", "c", "c"]
    # Item 1 now has two interactions instead of three, and stays.
    kept = filter_interactions(read, min_history_length=2, min_item_interactions=2)
    assert kept.num_items == 2


def test_nothing_asked_changes_nothing() -> None:
    read = random_interactions(0)
    assert filter_interactions(read).frame.equals(read.frame)


def test_nothing_left() -> None:
    with pytest.raises(DataError, match=r"Nothing is left of \d+ interactions of table after min_user_interactions=99"):
        filter_interactions(random_interactions(0), min_user_interactions=99)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"duplicates": "newest"}, "'keep', 'exact', 'consecutive', 'first', 'last', but got 'newest'"),
        ({"min_user_interactions": -1}, "min_user_interactions must be an integer of 0 or more, but got -1"),
        ({"min_item_interactions": 2.5}, "min_item_interactions .* got 2.5"),
        ({"min_history_length": True}, "min_history_length .* got True"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], match: str) -> None:
    with pytest.raises(DataError, match=match):
        filter_interactions(random_interactions(0), **options)
