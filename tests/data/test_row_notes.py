"""What is unusual in a table is said in one line."""

from __future__ import annotations

import polars as pl
import pytest

from modeling_glintru.data.interactions import read_interactions
from modeling_glintru.data.rows import giant_note, unused_note


@pytest.mark.parametrize("rows", [1_000, 250_000])
@pytest.mark.parametrize("role", ["user", "item"])
def test_a_giant_is_named(role: str, rows: int) -> None:
    plain = pl.int_range(rows, eager=True)
    giant = pl.select(pl.when(plain % 10 == 0).then(pl.lit(0)).otherwise(1 + plain % 500)).to_series()
    frame = pl.DataFrame({"user": plain % 499, "item": plain % 501, "time": plain, role: giant})
    read = read_interactions(frame)
    share = (giant == 0).sum() / rows
    assert read.notes == (
        f"The {role} 0 has {100 * share:.1f} % of all rows: is it a real {role}, or what stands for an unknown one? "
        f'(--where "{role} != 0" leaves it out)',
    )
    assert not read_interactions(frame, where=f"{role} != 0").notes[1:]


def test_no_giant() -> None:
    even = pl.Series([i % 40 for i in range(1000)])
    assert giant_note(even, "user", "user") is None
    few = pl.Series([0] * 900 + [i % 10 for i in range(100)])
    assert giant_note(few, "user", "user") is None  # of 10 users
    short = pl.Series([0] * 50 + list(range(49)))
    assert giant_note(short, "user", "user") is None  # of 99 rows
    twice = pl.Series([0] * 60 + [1 + i % 39 for i in range(940)])
    assert giant_note(twice, "user", "user") is None  # of 40 users, 2.4 times an even share
    assert giant_note(pl.Series([0] * 120 + [1 + i % 39 for i in range(880)]), "user", "user") is not None


def test_unused_columns() -> None:
    names = ["user_id", "item_id", "time", "price", "Event Type", "rating", "user_session", "timeframe", "title"]
    used = ["user_id", "item_id", "time"]
    assert unused_note(names, used, has_times=True) == (
        "Not used: 'Event Type' (--where '`Event Type` == \"purchase\"'), 'rating' (--where \"rating >= 4\"), "
        "'user_session' (--session_column user_session) and 2 more."
    )
    assert unused_note(["user_id", "item_id", "time", "price", "brand"], used, True) == (
        "Not used: 'price' (--where), 'brand'."
    )
    assert unused_note(used, used, True) is None
    assert unused_note([*used, "title"], used, True) is None


@pytest.mark.parametrize("count", [1, 5, 40, 2000])
@pytest.mark.parametrize("length", [3, 50, 200])
def test_the_note_on_unused_columns_is_short(count: int, length: int) -> None:
    note = unused_note([f"{at:0{length}}" for at in range(count)], [], True)
    assert note is not None
    assert len(note) <= 160


def test_a_note_of_160_letters_is_whole() -> None:
    names = ["a" * 60, "b" * 60]
    whole = unused_note([*names, "c" * (160 - len(unused_note(names, [], True) or "") - len(", ''"))], [], True)
    assert whole is not None
    assert len(whole) == 160 and whole.endswith("c'.")
    longer = unused_note([*names, "c" * (161 - len(unused_note(names, [], True) or "") - len(", ''"))], [], True)
    assert longer == f"Not used: '{names[0]}' (--where), '{names[1]}' and 1 more."


def test_a_plain_table_has_nothing_to_say() -> None:
    frame = pl.DataFrame({"user_id": ["a", "b"], "item_id": [1, 2], "timestamp": [1, 2]})
    assert read_interactions(frame).notes == ()
