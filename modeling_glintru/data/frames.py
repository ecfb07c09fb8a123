"""Frames of pandas and tables of pyarrow as polars frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from ..errors import DataError
from .table import first_line

__all__ = ["from_arrow", "from_pandas"]


def from_pandas(frame: Any, names: Sequence[str]) -> pl.DataFrame:
    """The named columns of a pandas frame.

    Raises:
        DataError: A name stands for two columns, or a column holds mixed types.
    """
    from pandas.api.types import infer_dtype, is_list_like

    columns = {}
    for name in names:
        places = [place for place, column in enumerate(frame.columns) if str(column) == name]
        if len(places) > 1:
            raise DataError(f"The pandas frame has {len(places)} columns named {name!r}.")
        column = frame.iloc[:, places[0]]
        kind = infer_dtype(column, skipna=True) if column.dtype == object else ""
        if kind.startswith("mixed") and not column.dropna().map(is_list_like).all():
            raise DataError(
                f"Column {name!r} of the pandas frame holds mixed types ({kind}); ids are all text or all integers: "
                f"convert it first, for example with .astype(str)."
            )
        try:
            columns[name] = pl.from_pandas(column.reset_index(drop=True), nan_to_null=False)
        except Exception as error:
            raise DataError(f"Column {name!r} of the pandas frame cannot be read ({first_line(error)}).") from error
    return pl.DataFrame(columns)


def from_arrow(table: pa.Table) -> pl.DataFrame:
    """A pyarrow table as a polars frame."""
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
