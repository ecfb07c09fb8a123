"""Reads JSON lines: one object a line, also with lists of values or one list of objects (events) a line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from ..errors import DataError, nearest_names
from .files import text_blocks
from .frames import from_arrow
from .json_types import KIND, LONG_INTEGER, ONE_TYPE, JsonTypes, find_fault, read_object
from .table import Table, first_line, unreadable

__all__ = ["open_json_lines"]

PROBE_LINES = 1000
PROBE_BYTES = 2**20
LONG_KINDS = (LONG_INTEGER, pa.list_(LONG_INTEGER))


def open_json_lines(paths: Sequence[Path], source: str, encoding: str | None) -> Table:
    """Opens JSON lines, or part files of one table.

    Where one column holds lists of objects, as `{"session": 1, "events": [{"aid": 7, "ts": 5}]}`, each of these objects
    is a row: the table has the columns `session`, `aid` and `ts`.

    Args:
        paths: The files, in the order of their rows.
        source: Display name of the table.
        encoding: A name from `check_encoding`.

    Raises:
        DataError: A file is empty or holds something else, or two columns would have one name.
    """
    table = _JsonTable(paths, source, encoding)
    files = tuple(path.name for path in paths) if len(paths) > 1 else ()
    return Table(table.names, table.load, source, files=files, place=table.place, paths=table.field_paths)


class _LongIntegers(Exception):
    """An integer does not fit in 64 bits."""


class _JsonTable:
    """Files of JSON lines, one after the other."""

    def __init__(self, paths: Sequence[Path], source: str, encoding: str | None) -> None:
        self.paths, self.source, self.encoding = paths, source, encoding
        self.integers = pa.int64()
        self.types = JsonTypes()
        for path in paths:
            self._probe(path)
        types = self.types
        nested = [
            name for name, found in types.elements.items() if set(found) == {dict} and set(types.values[name]) == {list}
        ]
        self.nested = nested[0] if len(nested) == 1 else None
        names = [name for name in types.values if name != self.nested]
        self.field_paths: dict[str, str] = {}
        if self.nested is not None:
            inner = list(types.objects[self.nested].values)
            if twice := [name for name in inner if name in names]:
                raise DataError(
                    f"{source} has {twice[0]!r} beside the list {self.nested!r} and in its objects; rename one of them."
                )
            names += inner
            self.field_paths = {f"{self.nested}.{name}": name for name in inner}
        self.names = tuple(names)

    def _probe(self, path: Path) -> None:
        count, number = 0, 0
        for block in text_blocks(path, self.encoding, KIND, PROBE_BYTES):
            for line in block.removesuffix(b"\n").split(b"\n"):
                number += 1
                if not line.strip():
                    continue
                if not count and line.lstrip().startswith(b"["):
                    raise DataError(f"{path.name} is one JSON list; JSON lines are needed, one object a line.")
                row = read_object(line, number, path, self.encoding)
                self.types.add(row, f"line {number}" if len(self.paths) == 1 else f"line {number} of {path.name}")
                count += 1
                if count == PROBE_LINES:
                    return
        if not count:
            raise DataError(f"{path.name} is empty.")

    def load(self, names: Sequence[str]) -> pl.DataFrame:
        names = list(dict.fromkeys(names))
        for name in names:
            if name not in self.names:
                raise DataError(f"{self.source} has no column {name!r}; {nearest_names(name, self.names)}")
        try:
            return self._load(names)
        except _LongIntegers:
            self.integers = LONG_INTEGER
            return self._load(names)

    def _load(self, names: list[str]) -> pl.DataFrame:
        # Only the wanted columns, with fixed types: whatever else the lines hold is never parsed into memory.
        schema = self._schema(names)
        blocks = (self._explode(frame).select(names) for path in self.paths for frame in self._frames(path, schema))
        frame = pl.concat(blocks)
        if self.integers == pa.int64():
            return frame
        exact = [name for name, kind in _fields(schema) if name in names and kind in LONG_KINDS]
        return frame.with_columns(_shortened(frame[name]) for name in exact)

    def _schema(self, names: Sequence[str]) -> pa.Schema:
        def fields(types: JsonTypes, wanted: Sequence[str]) -> list[pa.Field]:
            return [pa.field(name, types.of(name, self.source, self.integers)) for name in wanted]

        if self.nested is None:
            return pa.schema(fields(self.types, names))
        objects = self.types.objects[self.nested]
        # At least one, so that the events can be counted.
        inner = [name for name in names if name in objects.values] or list(objects.values)[:1]
        outer = [name for name in names if name not in objects.values]
        events = pa.list_(pa.struct(fields(objects, inner)))
        return pa.schema([*fields(self.types, outer), pa.field(self.nested, events)])

    def _frames(self, path: Path, schema: pa.Schema) -> Iterator[pl.DataFrame]:
        """One row a line, a block at a time."""
        lines = 0
        for block in text_blocks(path, self.encoding, KIND):
            yield from_arrow(_as_text(_parse(block, schema, path, lines, self.encoding)))
            lines += block.count(b"\n")

    def _explode(self, frame: pl.DataFrame) -> pl.DataFrame:
        if self.nested is None:
            return frame
        # A line without events is no row.
        return frame.filter(pl.col(self.nested).list.len() > 0).explode(self.nested).unnest(self.nested)

    def place(self, row: int) -> str:
        schema = self._schema(self.names[:1])
        for path in self.paths:
            lines = 0
            for block in text_blocks(path, self.encoding, KIND):
                frame = from_arrow(_as_text(_parse(block, schema, path, lines, self.encoding)))
                rows = pl.ones(frame.height, pl.Int64, eager=True)
                if self.nested is not None:
                    rows = frame[self.nested].list.len().fill_null(0).cast(pl.Int64)
                count = int(rows.sum())
                if row < count:
                    entry = int(np.searchsorted(rows.cum_sum().to_numpy(), row, side="right"))
                    where = f"line {lines + _filled_lines(block)[entry] + 1}"
                    return where if len(self.paths) == 1 else f"{where} of {path.name}"
                row -= count
                lines += block.count(b"\n")
        raise IndexError(row)


def _parse(block: bytes, schema: pa.Schema, path: Path, lines_before: int, encoding: str | None) -> pa.Table:
    from pyarrow import json as arrow_json

    filled = _filled_lines(block)
    if not len(filled):
        return schema.empty_table()
    is_long = any(kind in LONG_KINDS for _, kind in _fields(schema))
    try:
        table = arrow_json.read_json(
            pa.BufferReader(block),
            read_options=arrow_json.ReadOptions(use_threads=False, block_size=len(block)),
            parse_options=arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
        if not block.isascii():
            table.validate(full=True)
    except pa.ArrowInvalid as error:
        reason = first_line(error)
        if not is_long and re.search(r"couldn't parse:-?\d+(\s|$)", reason):
            raise _LongIntegers from error
        if "requires precision" in reason:
            raise DataError(
                f"{path.name} holds an integer of more than 76 digits ({reason}); write such ids in quotes."
            ) from error
        raise find_fault(block, schema, path, lines_before, encoding) or unreadable(path, KIND, error) from error
    except OSError as error:
        raise unreadable(path, KIND, error) from error
    has_null_line = block.startswith(b"null") or b"\nnull" in block  # Arrow takes it for an object without values
    if table.num_rows != len(filled) or has_null_line:
        if fault := find_fault(block, schema, path, lines_before, encoding):
            raise fault
        raise DataError(
            f"{path.name} is not JSON lines: lines {lines_before + 1} to {lines_before + block.count(10)} hold "
            f"{table.num_rows} objects on {len(filled)} lines; each line must be one object."
        )
    if is_long:
        _check_written_alike(block, schema, path, lines_before)
    return table


def _filled_lines(block: bytes) -> np.ndarray:
    """The lines of a block (from 0, int64) that are not empty."""
    filled = b"\n" + block.translate(None, b" \t\r")
    if b"\n\n" not in filled:
        return np.arange(block.count(b"\n"))
    data = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(data == 10)
    is_filled = np.add.reduceat(~np.isin(data, list(b" \t\r\n")), np.concatenate(([0], ends[:-1] + 1))) > 0
    return np.flatnonzero(is_filled)


def _check_written_alike(block: bytes, schema: pa.Schema, path: Path, lines_before: int) -> None:
    # Arrow takes "007" and 7.0 for the integer 7.
    for name, kind in _fields(schema):
        if kind not in LONG_KINDS:
            continue
        key = re.escape(json.dumps(name, ensure_ascii=False).encode())
        if found := re.search(key + rb'\s*:\s*(?:\[[^\]]*?|[-\d]*)["\.eE]', block):
            line = lines_before + block.count(b"\n", 0, found.start()) + 1
            raise DataError(f"{path.name} mixes types in the column {name!r}, first on line {line}; {ONE_TYPE}.")


def _fields(schema: pa.Schema) -> list[tuple[str, pa.DataType]]:
    """Names and types of the columns, and of the events' columns."""
    fields = []
    for field in schema:
        is_events = pa.types.is_list(field.type) and pa.types.is_struct(field.type.value_type)
        fields += (
            [(inner.name, inner.type) for inner in field.type.value_type] if is_events else [(field.name, field.type)]
        )
    return fields


def _text_of(kind: pa.DataType) -> pa.DataType:
    if kind == LONG_INTEGER:
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_text_of(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _text_of(field.type)) for field in kind])
    return kind


def _as_text(table: pa.Table) -> pa.Table:
    """Long integers as text: polars holds none of their type."""
    return table.cast(pa.schema([(field.name, _text_of(field.type)) for field in table.schema]))


def _shortened(column: pl.Series) -> pl.Series:
    """Integers in 64 bits where every one of them fits, otherwise as they are, as text."""
    if isinstance(column.dtype, pl.List):
        short = column.cast(pl.List(pl.Int64), strict=False)
        fits = short.explode().null_count() == column.explode().null_count()
    else:
        short = column.cast(pl.Int64, strict=False)
        fits = short.null_count() == column.null_count()
    return short if fits else column
