"""Reads JSON lines: one object on each line, which may hold lists of values or one list of objects (events)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ..errors import DataError
from .files import text_blocks
from .table import Table

__all__ = ["open_json_lines"]

KIND = "JSON lines"
PROBE_LINES = 1000
PROBE_BYTES = 2**20
LINES_AT_ONCE = 20_000
LARGEST_FLOAT_INTEGER = 2**53
SHOWN = 60
KINDS: dict[type, Any] = {str: pl.String, int: pl.Int64, float: pl.Float64, bool: pl.Boolean}
WORDS = {
    str: ("text", "text"),
    int: ("an integer", "integers"),
    float: ("a number with a fraction", "numbers with a fraction"),
    bool: ("true or false", "true or false"),
    list: ("a list", "lists"),
    dict: ("an object", "objects"),
}
ONE_TYPE = "ids are all text or all integers, times all of one kind: write all of them as text, or all as integers"


def open_json_lines(paths: Sequence[Path], source: str, encoding: str | None) -> Table:
    """Opens JSON lines, or part files of one table in the order of their rows.

    Where one column holds lists of objects, as `{"session": 1, "events": [{"aid": 7, "ts": 5}]}`, each of these
    objects is a row: the table has the columns `session`, `aid` and `ts`.

    Raises:
        DataError: A file is empty or holds something else, or two columns would have one name.
    """
    table = _JsonTable(paths, source, encoding)
    files = tuple(path.name for path in paths) if len(paths) > 1 else ()
    return Table(table.names, table.read, source, files=files, place=table.place, paths=table.field_paths)


class _JsonTable:
    """The rows of one file of JSON lines or of several part files."""

    def __init__(self, paths: Sequence[Path], source: str, encoding: str | None) -> None:
        self.paths, self.source, self.encoding = paths, source, encoding
        probe = [row for path in paths for row in self._probe(path)]
        names = dict.fromkeys(name for row in probe for name in row)
        nested = [name for name in names if _are_events([row[name] for row in probe if row.get(name) is not None])]
        self.events = nested[0] if len(nested) == 1 else None
        self.outer = [name for name in names if name != self.events]
        self.inner: list[str] = []
        if self.events is not None:
            found = (event for row in probe for event in row.get(self.events) or ())
            self.inner = list(dict.fromkeys(name for event in found for name in event or ()))
            if twice := [name for name in self.inner if name in self.outer]:
                raise DataError(
                    f"{source} has {twice[0]!r} beside the list {self.events!r} and in its objects; rename one of them."
                )
        self.names = (*self.outer, *self.inner)
        self.field_paths = {f"{self.events}.{name}": name for name in self.inner}

    def _probe(self, path: Path) -> list[dict[str, Any]]:
        """The first objects of a file."""
        _, rows = next(self._objects(path, PROBE_BYTES, PROBE_LINES), ([], []))
        if not rows:
            raise DataError(f"{path.name} is empty.")
        return rows

    def _objects(
        self, path: Path, size: int | None = None, at_once: int = LINES_AT_ONCE
    ) -> Iterator[tuple[list[int], list[dict[str, Any]]]]:
        """Yields the numbers of some lines (from 1) and the objects on them."""
        before = 0
        for block in text_blocks(path, self.encoding, KIND, size):
            lines = block.removesuffix(b"\n").split(b"\n")
            filled = [number for number, line in enumerate(lines) if line.strip()]
            if filled and before == 0 and lines[filled[0]].lstrip().startswith(b"["):
                raise DataError(f"{path.name} is one JSON list; JSON lines are needed, one object a line.")
            for begin in range(0, len(filled), at_once):
                part = filled[begin : begin + at_once]
                numbers = [before + number + 1 for number in part]
                yield numbers, _read_objects([lines[number] for number in part], numbers, path, self.encoding)
            before += len(lines)

    def _rows(self, path: Path) -> Iterator[tuple[list[int], list[dict[str, Any]]]]:
        """Yields the lines of some rows and the rows themselves: the objects, or the events in them."""
        for numbers, objects in self._objects(path):
            if self.events is None:
                yield numbers, objects
                continue
            lines, rows = [], []
            for number, row in zip(numbers, objects, strict=True):
                events = row.get(self.events) or []
                if not (isinstance(events, list) and all(isinstance(event, dict) or event is None for event in events)):
                    raise DataError(
                        f"Column {self.events!r} of {path.name} mixes types: {_shown(events)} on line {number} is no "
                        f"list of objects, as the first values are; {ONE_TYPE}."
                    )
                outer = {name: row[name] for name in self.outer if name in row}
                lines += [number] * len(events)
                rows += [(event or {}) | outer for event in events]
            yield lines, rows

    def read(self, names: Sequence[str]) -> pl.DataFrame:
        columns = [_Column(name, self.source) for name in names]
        for path in self.paths:
            for lines, rows in self._rows(path):
                for column in columns:
                    column.add([row.get(column.name) for row in rows], lines, self._of_file(path))
        return pl.DataFrame([column.series() for column in columns])

    def place(self, row: int) -> str:
        for path in self.paths:
            for lines, _ in self._rows(path):
                if row < len(lines):
                    return f"line {lines[row]}{self._of_file(path)}"
                row -= len(lines)
        raise IndexError(row)

    def _of_file(self, path: Path) -> str:
        return "" if len(self.paths) == 1 else f" of {path.name}"


@dataclass
class _Found:
    """The number of values of one type, the first of them, and its place."""

    count: int
    value: Any
    place: str


class _Column:
    """The values of a column, which are all of one type."""

    def __init__(self, name: str, source: str) -> None:
        self.name, self.source = name, source
        self.values: dict[type, _Found] = {}
        self.elements: dict[type, _Found] = {}  # the same for the elements of lists
        self.largest = 0  # the largest absolute value of the integers
        self.parts: list[pl.Series] = []

    def add(self, values: list[Any], lines: list[int], of_file: str) -> None:
        """Adds values; `lines` and `of_file` name their places in errors."""
        _count(self.values, values, lines, of_file)
        flat = values
        if list in self.values:
            lists = [(value, line) for value, line in zip(values, lines, strict=True) if isinstance(value, list)]
            flat = [element for value, _ in lists for element in value]
            _count(self.elements, flat, [line for value, line in lists for _ in value], of_file)
        if int in self._found():
            self.largest = max([self.largest, *map(abs, [value for value in flat if type(value) is int])])
        kind = self._kind()
        if kind == pl.String and int in self._found():
            values = [[_text(each) for each in value] if isinstance(value, list) else _text(value) for value in values]
        try:
            self.parts.append(pl.Series(self.name, values, dtype=self._listed(kind), strict=kind != pl.Float64))
        except UnicodeEncodeError as error:
            raise DataError(
                f"Column {self.name!r} of {self.source} holds text that is no Unicode ({error})."
            ) from error

    def series(self) -> pl.Series:
        """All values in their common type."""
        kind = self._listed(self._kind())
        return pl.concat([pl.Series(self.name, [], dtype=kind), *(part.cast(kind) for part in self.parts)])

    def _found(self) -> dict[type, _Found]:
        return self.elements if set(self.values) == {list} else self.values

    def _listed(self, kind: Any) -> Any:
        return pl.List(kind) if set(self.values) == {list} else kind

    def _kind(self) -> Any:
        """The common type of the values so far, or of the elements of lists.

        Raises:
            DataError: They have several types, or are objects or lists of lists.
        """
        found = self._found()
        if set(found) == {int, float} and self.largest < LARGEST_FLOAT_INTEGER:
            return pl.Float64
        if len(found) > 1:
            raise self._mixed(found)
        for kind, first in found.items():
            if kind not in KINDS:
                raise DataError(
                    f"Column {self.name!r} of {self.source} nests {WORDS[kind][1]}, the first is {_shown(first.value)} "
                    f"on {first.place}; {ONE_TYPE}."
                )
            return pl.String if kind is int and self.largest >= 2**63 else KINDS[kind]
        return pl.String

    def _mixed(self, found: dict[type, _Found]) -> DataError:
        """The error for several types, which names the first value that is not of the most frequent type."""
        usual = max(found, key=lambda kind: found[kind].count)
        usual_kinds = {int, float} if usual in (int, float) and len(found) > 2 else {usual}
        odd = next(kind for kind in found if kind not in usual_kinds)
        count, total = found[odd].count, sum(each.count for each in found.values())
        others = " or ".join(WORDS[kind][1] for kind in found if kind != odd)
        are = f"is {WORDS[odd][0]}" if count == 1 else f"are {WORDS[odd][1]}"
        value = f"{_shown(found[odd].value)} on {found[odd].place}"
        return DataError(
            f"Column {self.name!r} of {self.source} mixes types: of the first {total:,} values {count:,} {are} "
            f"({value if count == 1 else f'the first is {value}'}), the others are {others}; {ONE_TYPE}."
        )


def _count(found: dict[type, _Found], values: list[Any], lines: list[int], of_file: str) -> None:
    for kind, count in Counter(map(type, values)).items():
        if kind in found:
            found[kind].count += count
        elif kind is not type(None):
            first = next(row for row, value in enumerate(values) if type(value) is kind)
            found[kind] = _Found(count, values[first], f"line {lines[first]}{of_file}")


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)


def _are_events(values: list[Any]) -> bool:
    """Whether all values are lists of objects, and at least one list holds an object."""
    if not all(isinstance(value, list) for value in values):
        return False
    elements = [element for value in values for element in value if element is not None]
    return bool(elements) and all(isinstance(element, dict) for element in elements)


def _read_objects(lines: list[bytes], numbers: list[int], path: Path, encoding: str | None) -> list[dict[str, Any]]:
    """The objects on some lines, which are parsed together where every line is correct (see `_read_object`)."""
    try:
        # Each line is a list of its own, so that no object, text or list can go on in the next line.
        found = json.loads((b"[[" + b"],\n[".join(lines) + b"]]").decode("utf-8"))
        if len(found) == len(lines) and all(len(row) == 1 and isinstance(row[0], dict) for row in found):
            return [row[0] for row in found]
    except (ValueError, RecursionError):
        pass
    return [_read_object(line, number, path, encoding) for line, number in zip(lines, numbers, strict=True)]


def _read_object(line: bytes, number: int, path: Path, encoding: str | None) -> dict[str, Any]:
    """The object on a line in UTF-8; `encoding` is the encoding of the file.

    Raises:
        DataError: The line is not in the encoding, or is no object.
    """
    try:
        row = json.loads(line.decode("utf-8"))
        if isinstance(row, dict):
            return row
        fault, reason = "is not", ""
    except UnicodeDecodeError as error:
        raise DataError(
            f"Line {number} of {path.name} is not text in {encoding or 'UTF-8'} (the byte 0x{line[error.start]:02x} "
            f"after {line[max(error.start - 20, 0) : error.start].decode('utf-8', 'replace')!r}); name the encoding of "
            "the file, for example --encoding latin-1."
        ) from error
    except json.JSONDecodeError as error:
        is_unfinished = error.pos >= len(error.doc.rstrip())
        at = f"{error.msg} at character {error.pos + 1}"
        fault, reason = "cannot be read as", "its object does not end on this line" if is_unfinished else at
    except (ValueError, RecursionError) as error:
        fault, reason = "cannot be read as", str(error)
    shown = repr(line[:SHOWN].decode("utf-8", "replace").rstrip())
    reason = f" ({reason}): {shown};" if reason else f": it is {shown}, but"
    raise DataError(f"Line {number} of {path.name} {fault} {KIND}{reason} each line must be one object.")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
