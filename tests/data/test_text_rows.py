"""Rows and cells of mutated files against Python's csv module: the same, or a refusal."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeling_glintru.data import files
from modeling_glintru.data.readers import open_table
from modeling_glintru.errors import DataError

from .helpers import STEADY

NAMES = ["user_id", "item_id", "name", "time"]
FUZZ = settings(STEADY, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
CELLS = st.one_of(
    st.sampled_from(["u1", "17", "a", "", "é", " x ", '6" pipe', '"weird" al', '"', "a\nb", "x\ty", "p,q", '"q"']),
    st.text('ab",\t\n ', max_size=6),
)
ROWS = st.lists(st.lists(CELLS, min_size=4, max_size=4), min_size=1, max_size=8)
BLOCKS = st.sampled_from([9, 40, 2**20])


@st.composite
def mutated(draw: st.DrawFn, separator: str) -> str:
    """A sound file, or one that somebody typed together, with a few characters lost, added or doubled."""
    rows = [NAMES, *draw(ROWS)]
    if draw(st.booleans()):
        out = io.StringIO()
        quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]))
        end = draw(st.sampled_from(["\n", "\r\n"]))
        csv.writer(out, delimiter=separator, quoting=quoting, lineterminator=end).writerows(rows)
        text = out.getvalue()
    else:
        text = "".join(separator.join(cell.replace("\n", "") for cell in row) + "\n" for row in rows)
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(text)))
        cut = draw(st.integers(0, 2))
        text = text[:place] + draw(st.sampled_from(["", '"', '"', separator, "\n", '""', "a"])) + text[place + cut :]
    return text


def by_csv(text: str, separator: str) -> list[list[str]]:
    return [row for row in csv.reader(io.StringIO(text, newline="\n"), delimiter=separator) if row]


def by_split(text: str, separator: str) -> list[list[str]]:
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    return [line.split(separator) for line in lines if line]


def read(path: Path, block_bytes: int, **options: str) -> list[list[str]]:
    """Header and rows, read whole and by one column alone: both give the same, or both refuse."""
    with mock.patch.object(files, "BLOCK_BYTES", block_bytes):
        table = open_table(path, **options)
        if len(set(table.names)) < len(table.names):
            raise DataError("Two columns have one name.")
        try:
            frame = table.load(table.names)
        except DataError:
            with pytest.raises(DataError):
                open_table(path, **options).load(table.names[:1])
            raise
        assert open_table(path, **options).load(table.names[1:2]).equals(frame[:, 1:2])
    return [list(table.names), *([cell or "" for cell in row] for row in frame.iter_rows())]


def stripped_header(rows: list[list[str]]) -> list[list[str]]:
    return [[cell.strip() for cell in rows[0]], *rows[1:]]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_mutated_files(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    separator = "," if suffix == ".csv" else "\t"
    outcomes: Counter[str] = Counter()

    @FUZZ
    @given(mutated(separator), BLOCKS)
    def check(text: str, block_bytes: int) -> None:
        path.write_bytes(text.encode())
        try:
            rows = read(path, block_bytes, separator=separator)
        except DataError as error:
            assert "\n" not in str(error)
            outcomes["refused"] += 1
            return
        try:
            allowed = [stripped_header(by_csv(text, separator))]
        except csv.Error:  # a carriage return within a line
            allowed = []
        if suffix == ".tsv" or not allowed:
            plain = by_split(text, separator)
            allowed += [plain, [rows[0], *plain[1:]]]
        assert rows in allowed
        outcomes["read"] += 1

    check()
    assert min(outcomes["read"], outcomes["refused"]) > 60, outcomes


@settings(FUZZ, max_examples=60)
@given(rows=ROWS, block_bytes=BLOCKS, quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ","), (".tsv", "\t"), (".csv", ";")])
def test_whatever_a_csv_writer_writes_is_read(
    suffix: str, separator: str, tmp_path: Path, rows: list[list[str]], block_bytes: int, quoting: int
) -> None:
    path = tmp_path / f"a{suffix}"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=separator, quoting=quoting).writerows([NAMES, *rows])
    assert read(path, block_bytes, separator=separator, quote='"') == [NAMES, *rows]


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        table = open_table(path)
        table.load(table.names[:1])
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "line", "cells"),
    [
        (b"a,b,c\n1,2\n1,2,3,4\n", 2, 2),
        (b"a,b,c\n\n1,2,3,4\n1,2\n", 3, 4),
        (b'a,b,c\n"1,2",3\n', 2, 2),
        (b'a,b,c\n"1\n2",3,4,5\n', 2, 4),
        (b'a,b,c\n1,2\n"open,3,4\n', 2, 2),  # the first fault counts
        (b"a,b,c\n1,2,3\n1,2,3,\n1,2\n", 3, 4),
    ],
)
def test_the_first_ragged_line_is_named(content: bytes, line: int, cells: int, tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.csv", content).startswith(f"Line {line} of a.csv has {cells} cells where the header")


@pytest.mark.parametrize("cell", [b'"weird al" yankovic', b'"a"b"', b'"open', b'"" "', b'"b"x', b'"b""'])
def test_stray_quotes(cell: bytes, tmp_path: Path) -> None:
    message = refusal(tmp_path / "a.csv", b'a,b,c\n"a",b,c\n1,' + cell + b",3\n")
    assert message.startswith("Line 3 of a.csv has a quote")


@pytest.mark.parametrize("cell", ['6" pipe', 'a""b', ' "a"', 'the "big" one', 'x"'])
def test_a_quote_within_a_cell_is_text(cell: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"a,b,c\n1,{cell},3\n")
    assert open_table(path).load(["b"]).rows() == [(cell,)]


def test_a_cell_of_more_than_128_kilobytes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,"' + "x," * 200_000 + '"\n')
    assert open_table(path).load(["b"])["b"].str.len_bytes().to_list() == [400_000]
    assert csv.field_size_limit() < 400_000
