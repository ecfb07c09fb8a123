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

from modeling_glintru.data import text_blocks
from modeling_glintru.data.readers import open_table
from modeling_glintru.data.text_rows import RaggedLine, RowShape, StrayQuote, check_block
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
    with mock.patch.object(text_blocks, "BLOCK_BYTES", block_bytes):
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


COMMAS = RowShape(b",", b'"', 3)


def test_rows_lines_and_gaps() -> None:
    block = b'a,b,c\n\n"x\ny",2,3\r\n\r\n6" pipe,"p, q",z\n'
    checked = check_block(block, COMMAS, is_last=True)
    assert (checked.rows, checked.lines, checked.size) == (3, 6, len(block))
    assert checked.gaps.tolist() == [1, 2, 2]
    assert checked.has_quotes and checked.broken_rows == 1 and not checked.doubtful_rows


def test_a_cell_that_goes_on_in_the_next_block() -> None:
    checked = check_block(b'a,b,c\n1,"2\n', COMMAS, is_last=False)
    assert (checked.size, checked.rows, checked.lines) == (6, 1, 1)
    with pytest.raises(StrayQuote) as caught:
        check_block(b'a,b,c\n1,"2\n', COMMAS, is_last=True)
    assert caught.value.line == 1


@pytest.mark.parametrize(
    ("block", "line", "cells"),
    [
        (b"a,b,c\n1,2\n1,2,3,4\n", 1, 2),
        (b"a,b,c\n\n1,2,3,4\n1,2\n", 2, 4),
        (b'a,b,c\n"1,2",3\n', 1, 2),
        (b'a,b,c\n"1\n2",3,4,5\n', 1, 4),
        (b'a,b,c\n1,2\n"open,3,4\n', 1, 2),  # the first fault counts
        (b"a,b,c\n1,2,3\n1,2,3,\n1,2\n", 2, 4),
    ],
)
def test_the_first_ragged_line_is_named(block: bytes, line: int, cells: int) -> None:
    with pytest.raises(RaggedLine) as caught:
        check_block(block, COMMAS, is_last=True)
    assert (caught.value.line, caught.value.cells) == (line, cells)


@pytest.mark.parametrize("cell", [b'"weird al" yankovic', b'"a"b"', b'"open', b'"" "'])
def test_stray_quotes(cell: bytes) -> None:
    with pytest.raises(StrayQuote) as caught:
        check_block(b'"a",b,c\n1,' + cell + b",3\n", COMMAS, is_last=True)
    assert caught.value.line == 1


@pytest.mark.parametrize("cell", [b'6" pipe', b'a""b', b' "a"', b'the "big" one', b'x"'])
def test_a_quote_within_a_cell_is_text(cell: bytes) -> None:
    checked = check_block(b"1," + cell + b",3\n", COMMAS, is_last=True)
    assert (checked.rows, checked.has_quotes) == (1, False)


def test_lines_that_are_rows_without_quoting_make_a_doubtful_row() -> None:
    checked = check_block(b'a,b,c\na,"open,1\nb,close",2\n', COMMAS, is_last=True)
    assert (checked.broken_rows, checked.doubtful_rows, checked.doubtful_line) == (1, 1, 1)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_cells_that_are_quoted_in_every_row_alike(end: bytes) -> None:
    sound = (b'"a","b",c' + end) * 3
    checked = check_block(sound, COMMAS, is_last=True)
    assert checked.has_quotes and checked.has_simple_quotes and checked.rows == checked.lines == 3
    for cell in (b'x"b"', b'"b"x', b'""', b'"b""'):
        block = sound.replace(b'"b"', cell)
        if cell == b'""':
            assert check_block(block, COMMAS, is_last=True).has_simple_quotes
        elif cell == b'x"b"':
            assert not check_block(block, COMMAS, is_last=True).has_simple_quotes
        else:
            with pytest.raises(StrayQuote):
                check_block(block, COMMAS, is_last=True)
