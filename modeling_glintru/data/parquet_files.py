"""Reads Parquet files, one or the parts of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ..errors import DataError
from .table import Table, row_place, unreadable

__all__ = ["open_parquet"]


def open_parquet(paths: Sequence[Path], source: str) -> Table:
    """Opens a Parquet file, or part files of one table.

    Raises:
        DataError: A file is damaged, or the files have different columns.
    """
    schemas = [_guarded(path, _scan(path).collect_schema) for path in paths]
    for path, schema in zip(paths, schemas, strict=True):
        if set(schema) != set(schemas[0]):
            raise DataError(
                f"{path.name} has other columns than {paths[0].name}: {list(schema)} instead of {list(schemas[0])}; "
                "part files need the same columns."
            )

    def load(names: Sequence[str]) -> pl.DataFrame:
        frames = [_read(path, names) for path in paths]
        for name in frames[0].columns:
            kinds = [frame[name].dtype for frame in frames]
            if len(set(kinds)) > 1 and not all(kind.is_integer() for kind in kinds):
                other = next(place for place, kind in enumerate(kinds) if kind != kinds[0])
                raise DataError(
                    f"Column {name!r} of {source} has several types: {kinds[0]} in {paths[0].name}, but "
                    f"{kinds[other]} in {paths[other].name}; write it with one type in all part files."
                )
        return pl.concat(frames, how="vertical_relaxed")

    def place(row: int) -> str:
        for path in paths:
            height = _read(path, list(schemas[0])[:1]).height
            if row < height:
                return f"{row_place(row)} of {path.name}"
            row -= height
        raise IndexError(row)

    if len(paths) == 1:
        return Table(tuple(schemas[0]), load, source)
    return Table(tuple(schemas[0]), load, source, files=tuple(path.name for path in paths), place=place)


def _scan(path: Path) -> pl.LazyFrame:
    # A name is a name: no patterns, and no columns out of the names of folders.
    return pl.scan_parquet(path, glob=False, hive_partitioning=False)


def _read(path: Path, names: Sequence[str]) -> pl.DataFrame:
    return _guarded(path, _scan(path).select(names).collect)


def _guarded(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    # polars panics (an exception of its own, below BaseException) on some damaged files.
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise unreadable(path, "Parquet", error) from error
