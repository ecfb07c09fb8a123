"""Reads files of text: every cell exactly as it is written, and an error for a row that does not fit the others.

Blocks of plain rows are read by polars after their separators have been counted. All other rows are read by Python's
`csv` module, whose strict mode follows RFC 4180 and knows the line of every row.
"""

from __future__ import annotations

import bisect
import codecs
import csv
import functools
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import polars as pl

from ..errors import DataError
from .files import text_blocks
from .table import Table
from .text_layout import Layout, TextOptions, dialect, one_byte, one_byte_separators, recognise_layout

__all__ = ["open_text"]

KIND = "a table of text"
HEADER_BYTES = 2**18  # These are read to recognise the layout.
LONGEST_CELL = 2**27
ROWS_AT_ONCE = 50_000  # The rows that the csv module reads for one frame.
DOUBTFUL_SHARE = 0.9  # A row is doubtful if so many of its lines are whole rows where quotes are text.
QUOTES_AS_TEXT = "--quote none"
STRANGE_BYTE = re.compile("[\udc80-\udcff]")  # a byte that the encoding does not have
RETURN_WITHIN = re.compile(r"\r(?!\n$)")


def open_text(paths: Sequence[Path], suffix: str, source: str, options: TextOptions) -> Table:
    """Opens a file of text, or part files of one table in the order of their rows.

    Raises:
        DataError: A file is empty or cannot be read, or the files have different columns.
    """
    files = [_TextFile(path, suffix, options) for path in paths]
    first = files[0]
    for file in files[1:]:
        if sorted(file.layout.names) != sorted(first.layout.names):
            raise DataError(
                f"{file.path.name} has other columns than {first.path.name}: {_listed(file.layout.names)} instead of "
                f"{_listed(first.layout.names)}; part files need the same columns, each file with its own header or "
                "none of them (then --columns)."
            )
    table = _TextTable(files, is_quote_given=options.quote is not None)
    return Table(
        first.layout.names,
        table.read,
        source,
        is_text=True,
        has_no_time=first.layout.has_no_time,
        files=tuple(path.name for path in paths) if len(paths) > 1 else (),
        place=table.place,
    )


class _TextTable:
    """The rows of one file or several part files, for which it is decided once whether quotes are text."""

    def __init__(self, files: list[_TextFile], is_quote_given: bool) -> None:
        self.files = files
        self.is_quote_given = is_quote_given
        self.quotes_are_text = False
        self.is_read = False

    def read(self, names: Sequence[str]) -> pl.DataFrame:
        try:
            return self._read(names)
        except _QuotesAreText as error:
            reason = error.reason
        self.quotes_are_text = True
        try:
            return self._read(names)
        except DataError as error:
            self.quotes_are_text = False
            raise (reason or error) from None

    def _read(self, names: Sequence[str]) -> pl.DataFrame:
        with _long_cells():
            frames = [frame for file in self.files for frame in file.read(names, self.quotes_are_text)]
        broken = sum(file.broken_rows for file in self.files)
        if broken and not self.is_quote_given and broken == sum(len(file.doubtful_lines) for file in self.files):
            next(file for file in self.files if file.doubtful_lines).refuse_doubtful_rows()
        self.is_read = True
        return pl.concat(frames) if frames else pl.DataFrame(schema=dict.fromkeys(names, pl.String))

    def place(self, row: int) -> str:
        if not self.is_read:
            self.read(self.files[0].layout.names[:1])
        for file in self.files:
            if row < file.rows:
                where = f"line {file.line_of(row)}"
                return where if len(self.files) == 1 else f"{where} of {file.path.name}"
            row -= file.rows
        raise IndexError(row)


class _QuotesAreText(Exception):
    """A file of unknown quoting cannot be read with quoted cells.

    Its quotes may be text; `reason` is the error to raise where it cannot be read so either.
    """

    def __init__(self, reason: DataError | None = None) -> None:
        super().__init__()
        self.reason = reason


class _TextFile:
    """One file with its layout, and after `read` with the line on which each row begins."""

    def __init__(self, path: Path, suffix: str, options: TextOptions) -> None:
        self.path, self.encoding = path, options.encoding
        blocks = text_blocks(path, self.encoding, KIND, HEADER_BYTES)
        self.layout: Layout = recognise_layout(next(blocks, b""), suffix, path.name, options)
        self.may_drop_quotes = self.layout.may_drop_quotes
        self._forget()

    def _forget(self) -> None:
        self.rows, self.broken_rows = 0, 0
        self.doubtful_lines: list[int] = []
        # The rows (from 0) that do not begin on the line after the row before them, and their lines (from 1).
        self.jumps, self.jump_lines = [0], [self.layout.header_lines + 1]

    def line_of(self, row: int) -> int:
        """The line (from 1) on which a row (from 0) begins."""
        jump = bisect.bisect_right(self.jumps, row) - 1
        return self.jump_lines[jump] + row - self.jumps[jump]

    def read(self, names: Sequence[str], quotes_are_text: bool) -> Iterator[pl.DataFrame]:
        """The named columns, some rows at a time."""
        self._forget()
        columns = {name: self.layout.names.index(name) for name in names}
        quote = None if quotes_are_text else self.layout.quote
        self.may_drop_quotes = quote is not None and self.layout.may_drop_quotes
        blocks = _without_lines(text_blocks(self.path, self.encoding, KIND), self.layout.header_lines)
        blocks = (one_byte_separators(block, self.layout.separator, self.path.name) for block in blocks)
        for frame in self._frames(blocks, columns, quote):
            if len(self.layout.separator.encode()) > 1:  # A quoted cell may hold the separator.
                byte = one_byte(self.layout.separator).decode()
                frame = frame.with_columns(pl.all().str.replace_all(byte, self.layout.separator, literal=True))
            yield frame

    def _frames(self, blocks: Iterator[bytes], columns: dict[str, int], quote: str | None) -> Iterator[pl.DataFrame]:
        for block in blocks:
            frame = self._read_plain(block, columns, quote)
            if (
                frame is None
            ):  # The csv module reads all rows from here on, since a quoted cell may end in a later block.
                yield from self._read_rows(_lines(itertools.chain([block], blocks)), columns, quote)
                return
            self.rows += frame.height
            yield frame

    def _read_plain(self, block: bytes, columns: dict[str, int], quote: str | None) -> pl.DataFrame | None:
        """The rows of a block, or None where polars cannot be trusted with one of them.

        This is so where a line is no row (it is empty, has another number of cells, or is a part of a quoted cell),
        where a quote is not at both ends of a cell, where a byte is not in the encoding, and where the first cell
        begins with a byte order mark, which polars takes away.
        """
        if block.startswith(codecs.BOM_UTF8):
            return None
        separator, cells = one_byte(self.layout.separator), len(self.layout.names)
        mark = quote.encode() if quote is not None and quote.encode() in block else b""
        if mark and _are_quoted_alike(block, separator, mark):
            block, mark = block.replace(mark, b""), b""
        unquoted = _quoted_cell(separator, mark).sub(b"", block) if mark else block
        # Without the text of the cells, every row is the same few bytes.
        row = separator * (cells - 1) + b"\n"
        marks = _only(row, unquoted)
        rows = len(marks) // cells
        if cells == 1 or marks != row * rows or (mark and mark in unquoted):
            return None
        order = sorted(set(columns.values()))
        try:
            frame = pl.read_csv(
                block,
                columns=order,
                has_header=False,
                separator=separator.decode(),
                quote_char=mark.decode() or None,
                infer_schema=False,  # All cells are read as text, so that an id such as 007 stays as it is.
            )
        except pl.exceptions.ComputeError as error:
            if "utf-8" not in str(error).lower():
                raise
            return None
        if frame.height != rows:
            return None
        return frame.select(pl.nth(order.index(column)).alias(name) for name, column in columns.items())

    def _read_rows(self, lines: Iterator[str], columns: dict[str, int], quote: str | None) -> Iterator[pl.DataFrame]:
        cells, first_line = len(self.layout.names), self.line_of(self.rows)
        last_line = first_line - 1
        taken: list[str] = []  # the lines of one row

        def remembered() -> Iterator[str]:
            for line in lines:
                taken.append(line)
                yield line

        reader = csv.reader(remembered(), **dialect(self.layout.separator, quote))
        rows: list[list[str]] = []
        while True:
            line = last_line + 1
            try:
                row = next(reader, None)
            except csv.Error as error:
                self._refuse_row(line, taken, str(error))
            if row is None:
                break
            last_line = first_line + reader.line_num - 1
            if len(row) == cells:
                if len(taken) > 1:
                    self._count_broken_row(line, taken)
                self._count_row(line)
                rows.append(row)
            elif len(taken) > 1 or taken[0].strip(" \t\r\n"):  # A line of blanks is no row.
                self._refuse_cells(line, len(row), taken)
            taken.clear()
            if len(rows) == ROWS_AT_ONCE:
                yield self._frame(rows, columns)
                rows = []
        yield self._frame(rows, columns)

    def _count_row(self, line: int) -> None:
        if line != self.line_of(self.rows):
            self.jumps.append(self.rows)
            self.jump_lines.append(line)
        self.rows += 1

    def _count_broken_row(self, line: int, lines: list[str]) -> None:
        self.broken_rows += 1
        separator = one_byte(self.layout.separator).decode()
        whole = sum(text.count(separator) == len(self.layout.names) - 1 for text in lines)
        if whole >= DOUBTFUL_SHARE * len(lines):
            self.doubtful_lines.append(line)

    def _frame(self, rows: list[list[str]], columns: dict[str, int]) -> pl.DataFrame:
        frame = {}
        for name, column in columns.items():
            cells = [row[column] or None for row in rows]
            try:
                frame[name] = pl.Series(name, cells, dtype=pl.String)
            except UnicodeEncodeError as error:
                raise self._not_in_this_encoding(name, cells) from error
        return pl.DataFrame(frame)

    def _not_in_this_encoding(self, name: str, cells: list[str | None]) -> DataError:
        row, cell = next((row, cell) for row, cell in enumerate(cells) if cell and STRANGE_BYTE.search(cell))
        line, written = self.line_of(self.rows - len(cells) + row), cell.encode("utf-8", "surrogateescape")
        return DataError(
            f"Column {name!r} of {self.path.name} is not in {self.encoding or 'UTF-8'}, first on line {line}: "
            f"{written[:60]!r}; name the encoding of the file, for example --encoding latin-1."
        )

    def _shown(self, line: str) -> str:
        line = line.removesuffix("\n").removesuffix("\r")
        line = line.replace(one_byte(self.layout.separator).decode(), self.layout.separator)
        return repr(line[:120].encode("utf-8", "surrogateescape").decode("utf-8", "replace"))

    def _refuse_row(self, line: int, lines: list[str], reason: str) -> NoReturn:
        if "new-line" in reason:
            self._refuse_return(line + len(lines) - 1, lines[-1])
        if self.may_drop_quotes:
            raise _QuotesAreText
        raise DataError(
            f"Line {line} of {self.path.name} has a quote that opens a cell and does not close it properly: "
            f"{self._shown(lines[0])}; repair it (a quote inside a quoted cell is written twice), or read every "
            f"quote as text with {QUOTES_AS_TEXT}."
        )

    def _refuse_return(self, line: int, text: str) -> NoReturn:
        raise DataError(
            f"Line {line} of {self.path.name} has a carriage return that does not end the line: {self._shown(text)}; "
            "remove it."
        )

    def _refuse_cells(self, line: int, cells: int, lines: list[str]) -> NoReturn:
        if len(lines) == 1 and RETURN_WITHIN.search(lines[0]):
            self._refuse_return(line, lines[0])
        where = "line 1" if self.layout.header_lines == 0 else "the header"
        refusal = DataError(
            f"Line {line} of {self.path.name} has {cells} cell{'' if cells == 1 else 's'} where {where} has "
            f"{len(self.layout.names)}: {self._shown(lines[0])}; repair this line (a cell that holds the separator "
            f"{self.layout.separator!r} needs quotes), or say how the file is written (--separator, {QUOTES_AS_TEXT})."
        )
        raise _QuotesAreText(refusal) if self.may_drop_quotes else refusal

    def refuse_doubtful_rows(self) -> NoReturn:
        """Refuses lines that are one row where quotes are quotes, and several rows where quotes are text."""
        if self.may_drop_quotes:
            raise _QuotesAreText
        raise DataError(
            f"Line {self.doubtful_lines[0]} of {self.path.name} opens a quote that another line closes, but each of "
            f"these lines is a whole row by itself: read quotes as text with {QUOTES_AS_TEXT}, or allow line breaks in "
            "quoted cells with --quote '\"'."
        )


@contextmanager
def _long_cells() -> Iterator[None]:
    """Lets the csv module read cells of more than 128 kB."""
    before = csv.field_size_limit(LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _only(marks: bytes, block: bytes) -> bytes:
    """The bytes of a block that are among `marks`."""
    return block.translate(None, bytes(byte for byte in range(256) if byte not in marks))


def _are_quoted_alike(block: bytes, separator: bytes, quote: bytes) -> bool:
    """Whether the same cells of every row are quoted, and none of these holds a quote, separator or line break."""
    marks = _only(separator + quote + b"\n", block)
    row = marks[: marks.index(b"\n") + 1]
    rows, cells = len(marks) // len(row), row[:-1].split(separator)
    if marks != row * rows or not set(cells) <= {b"", quote * 2}:
        return False
    begun = block.count(separator + quote) + block.count(b"\n" + quote) + block.startswith(quote)
    ended = sum(block.count(quote + end) for end in (separator, b"\n", b"\r\n"))
    return begun == ended == cells.count(quote * 2) * rows


@functools.cache
def _quoted_cell(separator: bytes, quote: bytes) -> re.Pattern[bytes]:
    """Matches a cell of one line with a quote at both ends and doubled quotes inside."""
    around, mark = re.escape(separator), re.escape(quote)
    text = b"[^" + mark + b"\\n]*"
    cell = mark + text + b"(?:" + mark * 2 + text + b")*" + mark
    return re.compile(b"(?:^|(?<=" + around + b"))" + cell + b"(?=" + around + b"|\\r?$)", re.MULTILINE)


def _without_lines(blocks: Iterator[bytes], lines: int) -> Iterator[bytes]:
    """The blocks without the first lines."""
    for block in blocks:
        while lines and block:
            block = block[block.index(b"\n") + 1 :]
            lines -= 1
        if block:
            yield block


def _lines(blocks: Iterable[bytes]) -> Iterator[str]:
    """The lines of the blocks, each with its line feed."""
    for block in blocks:
        yield from io.StringIO(block.decode("utf-8", "surrogateescape"), newline="\n")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
