"""The types of the values in JSON lines, and the errors for a line that cannot be read or has other types."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..errors import DataError

__all__ = ["KIND", "LONG_INTEGER", "ONE_TYPE", "JsonTypes", "find_fault", "read_object"]

KIND = "JSON lines"
KINDS: dict[type, pa.DataType] = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
LONG_INTEGER = pa.decimal256(76, 0)  # exact; becomes text
WORDS = {
    str: "text",
    int: "integers",
    float: "numbers with a fraction",
    bool: "true or false",
    list: "lists",
    dict: "objects",
}
ONE = {
    str: "text",
    int: "an integer",
    float: "a number with a fraction",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}
SHOWN = 60
ONE_TYPE = "ids are all text or all integers, times all of one kind: write all of them as text, or all as integers"


@dataclass
class _Found:
    """How many values of one type there are, the first of them, and where it stands."""

    count: int
    value: Any
    place: str


class JsonTypes:
    """The types of the values that the first lines hold, by name."""

    def __init__(self) -> None:
        self.values: dict[str, dict[type, _Found]] = {}
        self.elements: dict[str, dict[type, _Found]] = {}  # of the values that are lists
        self.objects: dict[str, JsonTypes] = {}  # of the elements that are objects

    def add(self, row: dict[str, Any], place: str) -> None:
        """Takes in the values of an object; `place` are the words for its line, such as `"line 7"`."""
        for name, value in row.items():
            values, elements = self.values.setdefault(name, {}), self.elements.setdefault(name, {})
            _count(values, value, place)
            for element in value if isinstance(value, list) else ():
                _count(elements, element, place)
                if isinstance(element, dict):
                    self.objects.setdefault(name, JsonTypes()).add(element, place)

    def of(self, name: str, source: str, integers: pa.DataType) -> pa.DataType:
        """The type that all values of a column have; `integers` is the type for integers.

        Raises:
            DataError: They have several types, or are objects or lists of lists.
        """
        found = self.values[name]
        is_list = set(found) == {list}
        if is_list:
            found = self.elements[name]
        if set(found) == {int, float}:
            found = {float: found[float]}
        if len(found) > 1:
            raise _mixed(name, source, found)
        for kind, first in found.items():
            if kind not in KINDS:
                raise DataError(
                    f"Column {name!r} of {source} nests {WORDS[kind]}, the first is {_shown(first.value)} on "
                    f"{first.place}; {ONE_TYPE}."
                )
        arrow = KINDS[next(iter(found))] if found else pa.string()
        arrow = integers if arrow == pa.int64() else arrow
        return pa.list_(arrow) if is_list else arrow


def read_object(line: bytes, number: int, path: Path, encoding: str | None) -> dict[str, Any]:
    """The object on a line.

    Args:
        line: In UTF-8.
        number: Of the line, from 1.
        path: The file, for the errors.
        encoding: What the file was decoded from; None is UTF-8.

    Raises:
        DataError: The line is not in the encoding, or is anything else than one object.
    """
    where, shown = f"Line {number} of {path.name}", repr(line[:SHOWN].decode("utf-8", "replace").rstrip())
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where} is not text in {encoding or 'UTF-8'} (the byte 0x{line[error.start]:02x} after "
            f"{line[max(error.start - 20, 0) : error.start].decode('utf-8', 'replace')!r}); name the encoding of the "
            "file, for example --encoding latin-1."
        ) from error
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        is_unfinished = error.pos >= len(text.rstrip())
        reason = (
            "its object does not end on this line" if is_unfinished else f"{error.msg} at character {error.pos + 1}"
        )
        raise DataError(
            f"{where} cannot be read as {KIND} ({reason}): {shown}; each line must be one object."
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where} cannot be read as {KIND} ({error}): {shown}; each line must be one object."
        ) from error
    if not isinstance(row, dict):
        raise DataError(f"{where} is not {KIND}: it is {shown}, but each line must be one object.")
    return row


def find_fault(
    block: bytes, schema: pa.Schema, path: Path, lines_before: int, encoding: str | None
) -> DataError | None:
    """What is wrong in lines that were not readable with a schema, or None where nothing is found.

    Args:
        block: Whole lines in UTF-8.
        schema: The columns that were wanted, with their types.
        path: The file.
        lines_before: Its lines before the block.
        encoding: What the file was decoded from; None is UTF-8.
    """
    odd: dict[str, list[tuple[Any, int]]] = {}
    for number, line in enumerate(block.split(b"\n"), lines_before + 1):
        if not line.strip():
            continue
        try:
            row = read_object(line, number, path, encoding)
        except DataError as error:
            return error
        for name, value in _misfits(row, schema):
            odd.setdefault(name, []).append((value, number))
    if not odd:
        return None
    name, found = min(odd.items(), key=lambda item: item[1][0][1])
    value, number = found[0]
    expected = next(field.type for field in _flat(schema) if field.name == name)
    lines = f"lines {lines_before + 1} to {lines_before + block.count(10)}"
    return DataError(
        f"Column {name!r} of {path.name} mixes types: {_shown(value)} on line {number} does not fit the first values, "
        f"which are {_words(expected)} ({len(found):,} such value{'s' * (len(found) > 1)} on {lines}); {ONE_TYPE}."
    )


def _count(found: dict[type, _Found], value: Any, place: str) -> None:
    if value is None:
        return
    if type(value) in found:
        found[type(value)].count += 1
    else:
        found[type(value)] = _Found(1, value, place)


def _mixed(name: str, source: str, found: dict[type, _Found]) -> DataError:
    """The error for several types: names the first value that is not of the most frequent type."""
    usual = max(found, key=lambda kind: found[kind].count)
    usual_kinds = {int, float} if usual in (int, float) else {usual}
    odd = next(kind for kind in found if kind not in usual_kinds)
    count, total = found[odd].count, sum(each.count for each in found.values())
    others = " or ".join(WORDS[kind] for kind in found if kind != odd)
    are = f"is {ONE[odd]}" if count == 1 else f"are {WORDS[odd]}"
    value = f"{_shown(found[odd].value)} on {found[odd].place}"
    return DataError(
        f"Column {name!r} of {source} mixes types: of the first {total:,} values {count:,} {are} "
        f"({value if count == 1 else f'the first is {value}'}), the others are {others}; {ONE_TYPE}."
    )


def _misfits(row: dict[str, Any], fields: Any) -> list[tuple[str, Any]]:
    """Names and values of an object that do not have the types of the fields, those of its events too."""
    wrong = []
    for field in fields:
        value = row.get(field.name)
        is_events = pa.types.is_list(field.type) and pa.types.is_struct(field.type.value_type)
        if is_events and isinstance(value, list) and all(isinstance(event, dict) or event is None for event in value):
            for event in value:
                wrong += _misfits(event or {}, field.type.value_type)
        elif not _fits(value, field.type):
            wrong.append((field.name, value))
    return wrong


def _fits(value: Any, kind: pa.DataType) -> bool:
    if value is None:
        return True
    if pa.types.is_list(kind):
        return isinstance(value, list) and all(_fits(element, kind.value_type) for element in value)
    if pa.types.is_floating(kind):
        return type(value) in (int, float)
    if pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return type(value) is int
    return type(value) is (bool if pa.types.is_boolean(kind) else str if pa.types.is_string(kind) else dict)


def _flat(schema: pa.Schema) -> list[pa.Field]:
    """The fields, and those of the events."""
    fields = list(schema)
    for field in schema:
        if pa.types.is_list(field.type) and pa.types.is_struct(field.type.value_type):
            fields += list(field.type.value_type)
    return fields


def _words(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"lists of {_words(kind.value_type)}"
    if pa.types.is_struct(kind):
        return WORDS[dict]
    return next((WORDS[python] for python, arrow in KINDS.items() if arrow == kind), WORDS[int])


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
