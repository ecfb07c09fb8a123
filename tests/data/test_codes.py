from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from modeling_glintru.data.ids import sorted_codes


@pytest.mark.parametrize("values", [["10", "9", "é", "9", "Z", "z"], [5, -3, 5, 2**62, 0]])
def test_places_among_the_sorted_distinct_values(values: list) -> None:
    distinct, codes = sorted_codes(pl.Series("id", values))
    assert distinct.to_list() == sorted(set(values))
    assert codes.dtype == np.int32
    assert [distinct[int(code)] for code in codes] == values
