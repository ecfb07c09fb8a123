"""Blanks around cells, and what stands for a missing value."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from modeling_glintru.data.interactions import Interactions, read_interactions
from modeling_glintru.data.rows import MISSING_TEXT
from modeling_glintru.errors import DataError

from .cases import at

HEADER = "user_id,item_id,timestamp\n"


def read(folder: Path, text: str, **options: Any) -> Interactions:
    path = folder / "a.csv"
    path.write_text(HEADER + text)
    return read_interactions(path, **options)


def test_blanks_of_every_kind_and_column(tmp_path: Path) -> None:
    found = read(tmp_path, ' u1 ,"\u00a0x",1\nu1,x\u2003, 2\n\tu2,y,3\n')
    assert found.frame.rows() == [("u1", "x", 1), ("u1", "x", 2), ("u2", "y", 3)]
    assert found.notes == (
        "Blanks around 2 cells of 'user_id' were taken away.",
        "Blanks around 2 cells of 'item_id' were taken away.",
        "Blanks around 1 cells of 'timestamp' were taken away.",
    )


def test_padded_integers_are_integers(tmp_path: Path) -> None:
    assert read(tmp_path, "1, 7,1\n2,8 ,2\n").frame["item_id"].to_list() == [7, 8]


def test_ids_of_a_frame_are_told_of_and_not_changed() -> None:
    frame = pl.DataFrame({"user": ["a", "a ", "b"], "item": [" x", "y", "z"], "time": [1, 2, 3]})
    found = read_interactions(frame)
    assert found.frame["user_id"].to_list() == ["a", "a ", "b"]
    assert len(found.notes) == 1
    assert found.notes[0].startswith("1 of the ids in 'user' differ from another id only by blanks")


@pytest.mark.parametrize("cell", [*MISSING_TEXT, " NA ", '""'])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_missing_cells_of_a_text_file(cell: str, place: int, tmp_path: Path) -> None:
    rows = [["u1", "x", "1"], ["u2", "y", "2"], ["u3", "z", "3"]]
    rows[1][place] = cell
    text = "".join(",".join(row) + "\n" for row in rows)
    name = HEADER.strip().split(",")[place]
    with pytest.raises(DataError, match=rf"missing values in 1 of 3 rows: 1 in '{name}' \(the first in {at(2)}"):
        read(tmp_path, text)
    found = read(tmp_path, text, drop_missing=True)
    assert found.frame.rows() == [("u1", "x", 1), ("u3", "z", 3)]
    assert f"1 of 3 rows have missing values and were left out: 1 in '{name}'." in found.notes


def test_texts_of_a_frame_are_never_missing_but_when_empty() -> None:
    frame = pl.DataFrame({"user": ["NA", "-1", ""], "item": ["x", "None", "z"], "time": [1, 2, 3]})
    with pytest.raises(DataError, match="in 1 of 3 rows: 1 in 'user'"):
        read_interactions(frame)
    assert read_interactions(frame, drop_missing=True).frame["user_id"].to_list() == ["NA", "-1"]


def test_missing_values_of_typed_columns() -> None:
    frame = pl.DataFrame({"user": [1, None, 3, 4], "item": ["x", "y", None, "z"], "time": [1.0, 2.0, 3.0, math.nan]})
    with pytest.raises(
        DataError, match=r"in 3 of 4 rows: 1 in 'user' .*row 2.*1 in 'item' .*row 3.*1 in 'time' .*row 4"
    ):
        read_interactions(frame)
    assert read_interactions(frame, drop_missing=True).frame.rows() == [(1, "x", 1.0)]


@pytest.mark.parametrize(
    ("users", "is_missing"),
    [(["1", "-1", "2"], True), (["u1", "-1", "u2"], True), (["1", "-1", "-2"], False), (["-1", "-1", "-1"], False)],
)
def test_minus_one_as_a_user(users: list[str], is_missing: bool, tmp_path: Path) -> None:
    text = "".join(f"{user},i{at},{at}\n" for at, user in enumerate(users))
    found = read(tmp_path, text, drop_missing=True)
    assert len(found) == (2 if is_missing else 3)


@pytest.mark.parametrize(
    ("items", "is_missing"),
    [(["1", "-1", "0"], True), (["i1", "-1", "i2"], False), (["1", "-1", "-2"], False)],
)
def test_minus_one_as_an_item(items: list[str], is_missing: bool, tmp_path: Path) -> None:
    text = "".join(f"u{at},{item},{at}\n" for at, item in enumerate(items))
    assert len(read(tmp_path, text, drop_missing=True)) == (2 if is_missing else 3)


def test_nothing_left(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No row of a.csv is left without missing values: 2 in 'user_id'"):
        read(tmp_path, "NA,x,1\n,y,2\n", drop_missing=True)


def test_missing_sessions_and_orders(tmp_path: Path) -> None:
    path = tmp_path / "b.csv"
    path.write_text("user,item,time,session,step\na,x,1,s,1\na,y,2,,2\na,z,3,s,NA\n")
    with pytest.raises(DataError, match=r"1 in 'session' .*1 in 'step'"):
        read_interactions(path, session_column="session", order_column="step")
    found = read_interactions(path, session_column="session", order_column="step", drop_missing=True)
    assert found.frame.rows() == [("a/s", "x", 1, 1)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pl.Series(["2", "10"]), ["2", "10"]),
        (pl.Series([2.5, 1.0]), [2.5, 1.0]),
        (pl.Series([True, False]), [1, 0]),
    ],
)
def test_order_columns_of_a_frame(values: pl.Series, expected: list, tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": ["a", "a"], "item": ["x", "y"], "time": [1, 1], "step": values})
    found = read_interactions(frame, order_column="step").frame["order"]
    assert found.to_list() == ([2, 10] if expected == ["2", "10"] else expected)


def test_places_are_of_the_table_whatever_was_left_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"the first in {at(4)}: 'NA'"):
        read(tmp_path, "1,1,1\n2,2,2\n3,3,3\nNA,4,4\n5,5,5\n", where="timestamp > 2")
