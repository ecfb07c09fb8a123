"""Reads ids as integers or text, never changes them silently, and names a value that is no id."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from ..errors import DataError
from .columns import OPTIONS, name_in_condition, where_option
from .readers import Table
from .rows import LONGEST_NOTE, first_of

__all__ = ["ids_of_type", "read_ids", "sorted_codes", "stray_ids"]

INTEGER_TEXT = r"^(0|-?[1-9][0-9]*)$"
WHOLE_FLOAT_TEXT = r"^-?[0-9]+\.0+$"
FLOAT_IDS = (
    "usually integers that once stood beside missing values: drop those rows and convert the column to integers (or "
    "to text), ids are never changed silently"
)
PROBE = 1000
STRAY_SHARE, STRAY_VALUES = 0.01, 20  # Integers with more exceptions than this are a column of text.


def read_ids(column: pl.Series, table: Table, place: Callable[[int], str] | None = None) -> pl.Series:
    """A column of raw ids as Int64 or String, in which missing ids are null.

    Cells of a text file become integers where every one of them is written as an integer of 64 bits without leading
    zeros.

    Args:
        column: The column; cells of a text file without the blanks around them, unless `place` is None.
        table: The table that it comes from.
        place: How an error names a row of the column; by default as the table does.

    Raises:
        DataError: The ids are floats, booleans, lists, or integers of more than 64 bits.
    """
    kind = column.dtype
    where = f"Column {column.name!r} of {table.source}"
    if table.is_text and place is None:
        column = column.str.strip_chars()
    place = place or table.place
    if table.is_text:
        return _ids_from_text(column, where, place)
    if kind in (pl.Categorical, pl.Enum, pl.String):
        return column.cast(pl.String)
    if kind.is_integer():
        ids = column.cast(pl.Int64, strict=False)
        if ids.null_count() > column.null_count():
            wrong = _wrong(column, ids.is_null() & column.is_not_null(), place)
            raise DataError(f"{where} holds integers that do not fit in 64 bits ({wrong}); convert it to text.")
        return ids
    if kind == pl.Null:  # A column without a single value has no type.
        return column.cast(pl.String)
    if kind.is_float() or kind.is_decimal():
        known = column.is_not_null() & column.is_not_nan() if kind.is_float() else column.is_not_null()
        if not known.any():
            return pl.Series(column.name, [None] * len(column), dtype=pl.String)
        broken = known & (column % 1 != 0)  # JSON lines with 10 and 2.5 give 10.0 and 2.5, of which 2.5 is the cause.
        wrong = _wrong(column, broken if broken.any() else known, place)
        raise DataError(f"{where} holds ids that are floating-point numbers ({wrong}), {FLOAT_IDS}.")
    options = f"{OPTIONS['user']}, {OPTIONS['item']}"
    raise DataError(f"{where} has the type {kind}, but ids are strings or integers (another column? {options}).")


def ids_of_type(ids: pl.Series, id_type: str) -> pl.Series:
    """Ids in the type of a vocabulary's ids (`"integer"` or `"string"`, see `GlintRUProcessor.id_type`).

    An id that cannot be of this type becomes null: one text id among integers does not change the others.
    """
    if id_type == "string":
        return ids.cast(pl.String)
    if ids.dtype.is_integer():
        return ids.cast(pl.Int64, strict=False)
    text = ids.cast(pl.String)
    plain = text.str.contains(INTEGER_TEXT)
    return pl.select(pl.when(pl.lit(plain)).then(pl.lit(text)).cast(pl.Int64, strict=False)).to_series().alias(ids.name)


def sorted_codes(column: pl.Series) -> tuple[pl.Series, np.ndarray]:
    """The sorted distinct values of a column, and the position in them of each row's value (int32, from 0).

    Only the distinct values are sorted, because ranking a whole column of text took eight times as long.
    """
    values = column.unique().sort()
    places = pl.Series(np.arange(len(values), dtype=np.int32))
    return values, column.replace_strict(values, places, return_dtype=pl.Int32).to_numpy()


def stray_ids(ids: pl.Series, place: Callable[[int], str]) -> str | None:
    """A sentence where only a few ids that are no integers make all ids of a text file text, or None."""
    if ids.dtype != pl.String:
        return None
    probe = ids.drop_nulls().head(PROBE)  # Most columns of text have no integers from the first row on.
    if 2 * int(probe.str.contains(INTEGER_TEXT).sum()) < len(probe):
        return None
    wrong = ids_of_type(ids, "integer").is_null() & ids.is_not_null()
    count, total = int(wrong.sum()), len(ids) - ids.null_count()
    if not 0 < count <= STRAY_SHARE * total:
        return None
    values = ids.filter(wrong).unique(maintain_order=True)
    if len(values) > STRAY_VALUES or max(map(len, values)) > LONGEST_NOTE:
        return None
    left_out = f"!= {values[0]!r}" if len(values) == 1 else f"not in {tuple(values.to_list())!r}"
    are = "is no plain integer" if count == 1 else "are no plain integers"
    return (
        f"All ids in {ids.name!r} are text because {count:,} of {total:,} {are}, the first is "
        f"{first_of(ids, wrong, place)}; to keep integers: "
        f"{where_option(f'{name_in_condition(ids.name)} {left_out}')}."
    )


def _ids_from_text(column: pl.Series, where: str, place: Callable[[int], str]) -> pl.Series:
    plain = column.str.contains(INTEGER_TEXT)
    if plain.all() and column.null_count() < len(column):
        ids = column.cast(pl.Int64, strict=False)
        # Integers of more than 64 bits stay text.
        return ids if ids.null_count() == column.null_count() else column
    floats = column.str.contains(WHOLE_FLOAT_TEXT)
    if floats.any() and (plain | floats).all():
        raise DataError(
            f"{where} holds ids that are floating-point numbers ({_wrong(column, floats, place)}), {FLOAT_IDS}."
        )
    return column


def _wrong(column: pl.Series, wrong: pl.Series, place: Callable[[int], str]) -> str:
    return f"{first_of(column, wrong, place)}, {int(wrong.sum()):,} of {len(column):,}"
