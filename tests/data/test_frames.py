"""Frames of pandas: what their columns become."""

from __future__ import annotations

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
