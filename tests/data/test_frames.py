"""Frames of pandas: what their columns become."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import polars as pl
import pytest

from modeling_glintru.data.readers import open_table
from modeling_glintru.errors import DataError


def test_lists_of_pandas_are_lists() -> None:
    frame = pd.DataFrame({"s": [1, 2, 3], "items": [[5, 6], None, [7]], "tags": [["a"], ["b"], []]})
    table = open_table(frame)
    loaded = table.load(["items", "tags"])
    assert loaded["items"].to_list() == [[5, 6], None, [7]] and loaded["tags"].to_list() == [["a"], ["b"], []]
    assert loaded.schema == {"items": pl.List(pl.Int64), "tags": pl.List(pl.String)}
    assert table.place(1) == "row 2"


def test_lists_beside_values_are_refused() -> None:
    with pytest.raises(DataError, match="'items' of the pandas frame holds mixed types"):
        open_table(pd.DataFrame({"items": [[5, 6], 7]})).load(["items"])


def test_columns_that_polars_does_not_know_are_refused() -> None:
    with pytest.raises(DataError, match=r"Column 'items' of the pandas frame cannot be read \("):
        open_table(pd.DataFrame({"items": [1 + 2j, 3j]})).load(["items"])


@pytest.mark.parametrize("source", [pd.Series([1, 2]), SimpleNamespace(columns=["user_id"]), 7, None], ids=type)
def test_what_is_no_table_is_refused(source: object) -> None:
    with pytest.raises(DataError, match=f"cannot be read from a {type(source).__name__}; give a path"):
        open_table(source)


def test_part_files_have_the_order_of_the_first(tmp_path: Path) -> None:
    for number, names in enumerate((["user", "item"], ["item", "user"], ["item", "user"])):
        pl.DataFrame({name: [f"{name}-{number}"] for name in names}).write_parquet(tmp_path / f"{number}.parquet")
    table = open_table(tmp_path)
    assert table.names == ("user", "item")
    assert table.load(["item", "user"]).rows() == [(f"item-{number}", f"user-{number}") for number in range(3)]
    assert [table.place(row) for row in range(3)] == [f"row 1 of {number}.parquet" for number in range(3)]
