from __future__ import annotations

import subprocess

import pytest

from modeling_glintru.data.columns import (
    base_name,
    find_list_column,
    has_usual_name,
    name_in_condition,
    recognise_column,
    where_option,
)
from modeling_glintru.errors import DataError


@pytest.mark.parametrize(
    ("role", "name"),
    [
        *[
            ("user", name)
            for name in ("user_id", "userId", "USER_ID", "uid", "user", "reviewerID", "visitorid", "session_id")
        ],
        *[
            ("item", name)
            for name in ("item_id", "movieId", "parent_asin", "asin", "sku", "itemid", "product_id", "Item Id")
        ],
        *[("time", name) for name in ("timestamp", "time", "unixReviewTime", "ts", "date", "datetime", "event_time")],
    ],
)
def test_usual_names_are_recognised(role: str, name: str) -> None:
    assert recognise_column(["rating", name, "x"], role, "table") == name


@pytest.mark.parametrize(
    ("role", "columns", "best"),
    [
        ("user", ["session_id", "user_id"], "user_id"),
        ("item", ["asin", "parent_asin", "title"], "parent_asin"),
        ("time", ["reviewTime", "unixReviewTime"], "unixReviewTime"),
        ("time", ["date", "timestamp"], "timestamp"),
    ],
)
def test_the_better_name_wins(role: str, columns: list[str], best: str) -> None:
    assert recognise_column(columns, role, "table") == best
    assert recognise_column(columns[::-1], role, "table") == best


def test_given_name_wins_over_usual_names() -> None:
    assert recognise_column(["user_id", "who"], "user", "table", given="who") == "who"


def test_two_names_of_equal_rank_need_the_option() -> None:
    with pytest.raises(DataError, match=r"'user_id', 'uid'.*--user_column"):
        recognise_column(["user_id", "uid"], "user", "table")


@pytest.mark.parametrize("role", ["user", "item", "time"])
def test_missing_column_names_what_is_there_and_the_option(role: str) -> None:
    with pytest.raises(DataError, match=rf"table.*--{role}_column.*'alpha', 'beta'"):
        recognise_column(["alpha", "beta"], role, "table")


def test_given_name_that_is_missing_offers_the_nearest() -> None:
    with pytest.raises(DataError, match=r"no column 'user_idd' \(--user_column\); did you mean 'user_id'"):
        recognise_column(["user_id", "item_id"], "user", "table", given="user_idd")
    with pytest.raises(DataError, match=r"no column 'x' .*; known: item_id, user_id\. It has: 'user_id', 'item_id'\.$"):
        recognise_column(["user_id", "item_id"], "user", "table", given="x")


def test_recbole_types_are_no_part_of_a_name() -> None:
    assert base_name("user_id:token") == "user_id"
    assert base_name("a:b") == "a:b"
    columns = ["user_id:token", "item_id:token", "timestamp:float"]
    assert [recognise_column(columns, role, "t") for role in ("user", "item", "time")] == columns
    assert recognise_column(columns, "user", "t", given="item_id") == "item_id:token"


def test_titles() -> None:
    assert has_usual_name(["item_id", "Title"], "title")
    assert not has_usual_name(["item_id", "genre"], "title")


def test_columns_named_as_lists() -> None:
    names = ["session", "items", "item_id_list:token_seq", "timestamps", "item_id"]
    assert find_list_column(names, "item") == "items"
    assert find_list_column(names[2:], "item") == "item_id_list:token_seq"
    assert find_list_column(names, "time") == "timestamps"
    assert find_list_column(["item_id", "news", "price_list"], "item") is None


def test_sessions_and_orders_are_known_and_the_way_out_of_no_time_is_named() -> None:
    assert has_usual_name(["user_session"], "session")
    assert has_usual_name(["timeframe"], "order")
    assert recognise_column(["user_session", "x"], "user", "table") == "user_session"
    with pytest.raises(DataError, match="--time_column, or say with --in_file_order that the rows are in the order"):
        recognise_column(["user", "item"], "time", "table")


def test_names_in_conditions() -> None:
    assert name_in_condition("rating:float") == "rating"
    assert name_in_condition("Event Type") == "`Event Type`"


@pytest.mark.parametrize(
    "condition", ["""item != "it's\"""", "`Event Type` == 'buy'", "item != '$HOME'", r"item != 'a\\b'", "item != 'a!b'"]
)
def test_a_condition_reaches_the_program_through_a_shell(condition: str) -> None:
    printed = subprocess.run(
        ["bash", "-c", f"printf '%s\n' {where_option(condition)}"], capture_output=True, text=True, check=True
    )
    assert printed.stdout.splitlines() == ["--where", condition]


def test_a_plain_condition_stands_in_double_quotes() -> None:
    assert where_option("item_id != 'unknown'") == """--where "item_id != 'unknown'\""""
