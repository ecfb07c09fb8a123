"""Ids keep their type, and the bad one is named."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import polars as pl
import pytest

from modeling_glintru.data.ids import ids_of_type, read_ids
from modeling_glintru.data.interactions import read_interactions
from modeling_glintru.data.readers import open_table
from modeling_glintru.errors import DataError

from .cases import at, case


def table(folder: Path, items: list[str]) -> Path:
    path = folder / "a.csv"
    path.write_text("user_id,item_id,timestamp\n" + "".join(f"u{i % 7},{item},{i}\n" for i, item in enumerate(items)))
    return path


def test_only_the_stray_id_is_unknown_to_integers() -> None:
    ids = read_interactions(case("stray_id_when_serving/history.csv")).frame["item_id"]
    found = ids_of_type(ids, "integer")
    assert found.to_list() == [50, 172, 181, None]
    assert (found.dtype, found.name) == (pl.Int64, "item_id")


def test_ids_of_type() -> None:
    texts = pl.Series("x", ["1", "-2", "007", "1.0", " 3", "", None, "9" * 30])
    assert ids_of_type(texts, "integer").to_list() == [1, -2, None, None, None, None, None, None]
    assert ids_of_type(texts, "string").equals(texts)
    integers = pl.Series("x", [1, 2], dtype=pl.UInt64)
    assert ids_of_type(integers, "integer").to_list() == [1, 2]
    assert ids_of_type(integers, "string").to_list() == ["1", "2"]
    assert ids_of_type(pl.Series("x", [2**64 - 1], dtype=pl.UInt64), "integer").to_list() == [None]


def test_few_strays_are_named(tmp_path: Path) -> None:
    read = read_interactions(table(tmp_path, [str(i % 50) for i in range(300)] + ["NaN?", "promo", "promo"]))
    assert read.frame["item_id"].dtype == pl.String
    (note,) = read.notes
    said, advice = note.split("; ")
    assert re.fullmatch(
        rf"All ids in 'item_id' are text because 3 of 303 are no plain integers, the first is 'NaN\?' in {at(301)}",
        said,
    )
    assert advice == "to keep integers: --where \"item_id not in ('NaN?', 'promo')\"."


def test_the_advice_on_strays_works(tmp_path: Path) -> None:
    path = table(tmp_path, [str(i % 50) for i in range(300)] + ["it's", "promo", "promo"])
    (note,) = read_interactions(path).notes
    option, condition = shlex.split(note.partition("to keep integers: ")[2].removesuffix("."))
    assert option == "--where"
    assert read_interactions(path, where=condition).frame["item_id"].dtype == pl.Int64


def test_text_is_no_stray(tmp_path: Path) -> None:
    assert read_interactions(table(tmp_path, ["1", "2", "B3"] * 100)).notes == ()
    assert read_interactions(table(tmp_path, [f"B{i % 40}" for i in range(300)] + ["7"])).notes == ()


def test_floats_beside_integers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"\('12.0' in {at(2)}, 1 of 3\)"):
        read_interactions(table(tmp_path, ["12", "12.0", "13"]))


def test_integers_of_more_than_64_bits_are_named() -> None:
    frame = pl.DataFrame({"id": pl.Series([1, 2**64 - 1], dtype=pl.UInt64)})
    with pytest.raises(DataError, match=rf"64 bits \({2**64 - 1} in row 2, 1 of 2\)"):
        read_ids(frame["id"], open_table(frame))


def test_ids_of_a_catalogue_are_stripped(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("item_id,title\n 7 ,Seven\n8,Eight\n")
    opened = open_table(path)
    assert read_ids(opened.load(["item_id"])["item_id"], opened).to_list() == [7, 8]


def test_the_id_with_a_fraction_is_the_one_that_is_named(tmp_path) -> None:
    file = tmp_path / "clicks.jsonl"
    file.write_text("".join(f'{{"user_id": 1, "item_id": {item}, "timestamp": 1}}\n' for item in ("10", "2.5", "7")))
    with pytest.raises(DataError, match=r"floating-point numbers \(2\.5 in line 2, 1 of 3\)"):
        read_interactions(file)
