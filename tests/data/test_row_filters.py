"""Conditions on rows: what they keep, and that nothing else than a condition is taken."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, strategies

from modeling_glintru.data.interactions import read_interactions
from modeling_glintru.data.row_filters import parse_condition
from modeling_glintru.errors import DataError

from .helpers import STEADY

ROWS = {
    "user_id": [f"u{i}" for i in range(8)],
    "item_id": ["a", "b", "c", "d", "e", "f", "g", "h"],
    "timestamp": [1, 2, 3, 4, 5, 6, 7, 8],
    "rating": [5, 4, 3, 10, 2, None, 1, 4],
    "event type": ["buy", "view", "buy", "cart", None, "view", "buy", "a = b"],
    "gift": [True, False, None, True, False, False, True, False],
}
CONDITIONS = [
    ("rating >= 4", "abdh"),
    ("rating > 4", "ad"),
    ("4 <= rating", "abdh"),
    ("rating == 4.0", "bh"),
    ("rating != 4", "acdeg"),
    ("not rating == 4", "acdeg"),
    ("2 < rating <= 4", "bch"),
    ("rating in (1, 10)", "dg"),
    ("rating not in [1, 10]", "abceh"),
    ("rating is null", "f"),
    ("rating is not None", "abcdegh"),
    ("rating > -1 and not (rating < 3 or rating == 10)", "abch"),
    ("`event type` == 'buy'", "acg"),
    ("`event type` == 'a = b'", "h"),
    ("`event type` in ('buy', 'cart') and rating >= 3", "acd"),
    ('`event type` != "buy"', "bdfh"),
    ("`event type` is NULL", "e"),
    ("gift", "adg"),
    ("not gift", "befh"),
    ("gift == false", "befh"),
    ("item_id > 'f'", "gh"),
]


@pytest.mark.parametrize(("condition", "expected"), CONDITIONS)
@pytest.mark.parametrize("kind", ["frame", "csv"])
def test_what_is_kept(condition: str, expected: str, kind: str, tmp_path: Path) -> None:
    source: Any = pl.DataFrame(ROWS)
    if kind == "csv":
        source.write_csv(tmp_path / "a.csv")
        source = tmp_path / "a.csv"
    read = read_interactions(source, where=condition)
    assert "".join(read.frame["item_id"]) == expected
    assert f"--where {condition!r} keeps {len(expected)} of 8 rows." in read.notes


def test_several_conditions_all_hold() -> None:
    read = read_interactions(pl.DataFrame(ROWS), where=["rating >= 4", "`event type` == 'buy'"])
    assert read.frame["item_id"].to_list() == ["a"]
    assert [note for note in read.notes if note.startswith("--where")] == [
        "--where 'rating >= 4' keeps 4 of 8 rows.",
        "--where \"`event type` == 'buy'\" keeps 1 of 4 rows.",
    ]


def test_recbole_types_are_no_part_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a.inter"
    path.write_text("user_id:token\titem_id:token\ttimestamp:float\trating:float\na\tx\t1\t5\na\ty\t2\t3\n")
    assert read_interactions(path, where="rating > 3").frame["item_id"].to_list() == ["x"]


def test_cells_that_are_no_numbers_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user,item,time,price\na,x,1,9.5\na,y,2,free\na,z,3,\nb,x,4, 12 \nb,y,5,NA\n")
    read = read_interactions(path, where="price > 9")
    assert read.frame["item_id"].to_list() == ["x", "x"]
    assert (
        "--where 'price > 9' keeps 2 of 5 rows; 1 cells of 'price' are no numbers, and their rows are left out."
        in read.notes
    )


def test_dates() -> None:
    days = [date(2024, 1, 1), date(2024, 5, 31)]
    moments = pl.Series([datetime(2024, 1, 1, 12), datetime(2024, 5, 31, 12)]).dt.replace_time_zone("Europe/Berlin")
    frame = pl.DataFrame({"user": ["a", "b"], "item": ["x", "y"], "time": moments, "day": days})
    for condition in ("time >= '2024-05-31T10:00:00Z'", "day > '2024-01-01'", "day in ('2024-05-31', '2024-06-01')"):
        assert read_interactions(frame, where=condition).frame["item_id"].to_list() == ["y"]
    with pytest.raises(DataError, match="'day' holds dates; write them as '2024-05-31'"):
        read_interactions(frame, where="day > 'May'")


def text_file(folder: Path, cells: list[str], header: str = "user,item,timestamp") -> Path:
    path = folder / "a.csv"
    path.write_text(header + "\n" + "".join(f"u,i{at},{cell}\n" for at, cell in enumerate(cells)))
    return path


@pytest.mark.parametrize(
    ("cells", "condition", "expected"),
    [
        (["2024/05/01", "2024-05-30", "2024-06-01"], "timestamp >= '2024-05-31'", ["i2"]),
        (["2024/05/31", "2024-05-30"], "timestamp == '2024-05-31'", ["i0"]),
        (["2024-05-31T01:00:00+02:00", "2024-05-30T23:30:00Z"], "timestamp < '2024-05-30T23:15:00Z'", ["i0"]),
        (["2024-05-30T23:30:00Z", "2024-05-30T20:00:00Z"], "'2024-05-31T01:00:00+02:00' <= timestamp", ["i0"]),
        (["2024-05-31", "unknown"], "timestamp != 'unknown'", ["i0"]),
    ],
)
def test_times_of_text_files_are_compared_as_moments(
    cells: list[str], condition: str, expected: list[str], tmp_path: Path
) -> None:
    read = read_interactions(text_file(tmp_path, cells), where=condition)
    assert read.frame["item_id"].to_list() == expected


def test_dates_in_other_columns_of_text_are_compared_as_moments(tmp_path: Path) -> None:
    header = "user,item,timestamp,day"
    path = text_file(tmp_path, ["1,2024/05/01", "2,2024-06-01", "3,NA"], header)
    assert read_interactions(path, where="day > '2024-05-31'").frame["item_id"].to_list() == ["i1"]
    path = text_file(tmp_path, ["1,soon", "2,2024-06-01"], header)
    assert read_interactions(path, where="day == '2024-06-01'").frame["item_id"].to_list() == ["i1"]
    with pytest.raises(DataError, match=r"column 'day' of a\.csv holds 1 of 2 .*'soon' in line 2"):
        read_interactions(path, where="day > '2024-05-31'")


def test_dates_in_text_of_a_frame_are_compared_as_moments() -> None:
    frame = pl.DataFrame({"user": ["a"] * 3, "item": ["x", "y", "z"], "time": ["2024/05/01", "2024-06-01", ""]})
    assert read_interactions(frame, where="time > '2024-05-31'").frame["item_id"].to_list() == ["y"]


def test_times_of_a_given_form_are_compared_as_moments(tmp_path: Path) -> None:
    path = text_file(tmp_path, ["01/06/2024", "30/05/2024"])
    for value in ("2024-05-31", "31/05/2024"):
        read = read_interactions(path, where=f"timestamp > '{value}'", time_format="day_first")
        assert read.frame["item_id"].to_list() == ["i0"]
    path = text_file(tmp_path, ["20240601", "20240530"])
    read = read_interactions(path, where="timestamp > '20240531'", time_format="%Y%m%d")
    assert read.frame["item_id"].to_list() == ["i0"]


def test_a_date_is_not_compared_with_numbers(tmp_path: Path) -> None:
    for source in (text_file(tmp_path, ["1700000000", "5"]), pl.DataFrame(ROWS)):
        with pytest.raises(DataError, match=r"'timestamp' of .* holds numbers, so it cannot be compared with the date"):
            read_interactions(source, where="timestamp >= '2024-05-31'")


def test_numbers_in_quotes_are_not_put_in_order(tmp_path: Path) -> None:
    path = text_file(tmp_path, ["1,5", "2,10", "3,NA"], "user,item,timestamp,rating")
    with pytest.raises(DataError, match="numbers stand without quotes: rating >= 4"):
        read_interactions(path, where="rating >= '4'")
    with pytest.raises(DataError, match="numbers stand without quotes: rating > 4"):
        read_interactions(path, where="'4' < rating")
    assert read_interactions(path, where="rating == '10'").frame["item_id"].to_list() == ["i1"]


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "rating.real > 1",
        "(lambda: 1)() == 1",
        "rating + 1 > 2",
        "[x for x in (1,)] == rating",
        "rating > f'{1}'",
        "rating > 1 if gift else 2",
        "(rating := 4) > 3",
        "rating[0] > 1",
        "rating > b'4'",
        "rating > ...",
        "rating > 1j",
        "~rating",
        "4",
    ],
)
def test_nothing_else_is_taken(text: str) -> None:
    with pytest.raises(DataError, match=r"--where .* (holds|compares)"):
        parse_condition(text, tuple(ROWS), "table")


PIECES = [*"<>=!'\"()[],.`1 \\", "==", "rating", " and ", " or ", "not ", " in ", " is ", "null", "'buy'", "(1, 2)"]


@STEADY
@given(strategies.lists(strategies.sampled_from(PIECES)).map("".join))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    try:
        assert set(parse_condition(text, tuple(ROWS), "table").columns) <= set(ROWS)
    except DataError as error:
        assert "--where" in str(error)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("rating = 4", "write == to compare"),
        ("rating >=", "is not understood: a condition compares columns"),
        ("rating >= 4; gift", "is not understood"),
        ("", "is not understood"),
        ("\0", "is not understood"),
        ("(" * 900, "is not understood"),
        ("-" * 900 + "1 < rating", "nests more than 100 levels"),
        ("not " * 490 + "gift", "nests more than 100 levels"),
        ("rating > 1" + " and rating > 1" * 500, "at most 2,000 letters"),
        ("ratings >= 4", "needs a column 'ratings', which table does not have; did you mean 'rating'"),
        ("`evnt type` == 'x'", "needs a column 'evnt type', .*did you mean 'event type'"),
        ("rating == five", "compares rating with five, but one side must be a column"),
        ("item_id == x", "compares item_id with x"),
        ("1 == 1", "compares 1 with 1"),
        ("rating in 4", "needs a column on its left and a list of values"),
        ("rating in ()", "needs a column on its left and a list of values"),
        ("rating == (1, 2)", "needs a single value"),
        ("rating == None", "needs a single value; a missing one is found by is null"),
        ("rating is 4", "needs null on its right"),
    ],
)
def test_mistakes_are_explained(text: str, match: str) -> None:
    with pytest.raises(DataError, match=match):
        parse_condition(text, tuple(ROWS), "table")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("rating == '4'", r"'rating' holds numbers, not text \(numbers stand without quotes\)"),
        ("gift == 1", "'gift' holds true or false, not numbers"),
        ("rating", "'rating' holds numbers, not true or false"),
        ("rating in (1, 'two')", "mixes numbers and text for 'rating'"),
        ("item_id == 9007199254740993", "more than 53 bits .* in quotes"),
        ("rating > 100", r"No row of polars frame meets --where 'rating > 100'\.$"),
        ("`event type` == 'purchase'", "No row .*'event type' holds 'buy', 'view', 'cart', 'a = b'"),
    ],
)
def test_kinds_that_do_not_fit(text: str, match: str) -> None:
    with pytest.raises(DataError, match=match):
        read_interactions(pl.DataFrame(ROWS), where=text)


def test_numbers_of_every_size_and_kind() -> None:
    frame = pl.DataFrame({"user": [1, 2], "item": [2**53, 2**53 + 1], "time": [1, 2]})
    assert read_interactions(frame, where=f"item == {2**53 + 1}").frame["user_id"].to_list() == [2]
    assert read_interactions(frame, where="item > 1.5").frame["user_id"].to_list() == [1, 2]
    small = frame.with_columns(small=pl.Series([0, 255], dtype=pl.UInt8))
    assert read_interactions(small, where="small > -1 and small < 1000").num_users == 2
    for number in (2**63, 2**200):
        with pytest.raises(DataError, match="--where"):
            read_interactions(frame, where=f"item == {number}")


def test_rows_that_are_left_out_may_be_incomplete(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user,item,time,event\na,x,1,buy\na,,2,search\nNA,y,bad,search\nb,x,4,buy\n")
    assert read_interactions(path, where="event == 'buy'").frame.rows() == [("a", "x", 1), ("b", "x", 4)]
