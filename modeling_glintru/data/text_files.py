"""Reads files of text, every cell as it is written: a row that does not fit the others is named, never bent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import polars as pl
import pyarrow as pa

from ..errors import DataError, nearest_names
from .frames import from_arrow
from .table import Table, unreadable
from .text_blocks import text_blocks
from .text_layout import Layout, TextOptions, one_byte, one_byte_separators, recognise_layout
from .text_rows import CheckedBlock, RaggedLine, RowShape, StrayQuote, check_block

__all__ = ["TEXT_SUFFIXES", "open_text"]

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".dat", ".inter", ".item")
KIND = "a table of text"
HEADER_BYTES = 2**18  # read to recognise the layout
LONGEST_ROW = 2**27
QUOTES_AS_TEXT = "--quote none"


def open_text(paths: Sequence[Path], suffix: str, source: str, options: TextOptions) -> Table:
    """Opens a file of text, or part files of one table.

    Args:
        paths: The files, in the order of their rows.
        suffix: Their suffix without that of a compression.
        source: Display name of the table.
        options: What the caller says about the files.

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
        table.load,
        source,
        is_text=True,
        has_no_time=first.layout.has_no_time,
        files=tuple(path.name for path in paths) if len(paths) > 1 else (),
        place=table.place,
    )


class _TextTable:
    """One file or several: their rows one after the other, with one decision whether quotes are text."""

    def __init__(self, files: list[_TextFile], is_quote_given: bool) -> None:
        self.files = files
        self.is_quote_given = is_quote_given
        self.quotes_are_text = False
        self.is_read = False

    def load(self, names: Sequence[str]) -> pl.DataFrame:
        names = list(dict.fromkeys(names))
        if not self.quotes_are_text:
            try:
                return self._read(names)
            except _QuotesAreText as error:
                reason = error.reason
            self.quotes_are_text = True
            try:
                return self._read(names)
            except DataError:
                self.quotes_are_text = False
                if reason is not None:
                    raise reason from None
                raise
        return self._read(names)

    def _read(self, names: list[str]) -> pl.DataFrame:
        frames = [frame for file in self.files for frame in file.read(names, self.quotes_are_text)]
        broken = sum(file.broken_rows for file in self.files)
        if broken and not self.is_quote_given and broken == sum(file.doubtful_rows for file in self.files):
            next(file for file in self.files if file.doubtful_rows).refuse_doubtful_rows()
        self.is_read = True
        return pl.concat(frames) if frames else pl.DataFrame(schema=dict.fromkeys(names, pl.String))

    def place(self, row: int) -> str:
        if not self.is_read:
            self.load(self.files[0].layout.names[:1])
        if len(self.files) == 1:
            return f"line {self.files[0].line_of(row)}"
        for file in self.files:
            if row < file.rows:
                return f"line {file.line_of(row)} of {file.path.name}"
            row -= file.rows
        raise IndexError(row)


class _QuotesAreText(Exception):
    """A file that may have no quoting makes no sense with it; `reason` says why if it makes none without it either."""

    def __init__(self, reason: DataError | None = None) -> None:
        super().__init__()
        self.reason = reason


class _TextFile:
    """One file: its layout, and after `read` how its rows lie in its lines."""

    def __init__(self, path: Path, suffix: str, options: TextOptions) -> None:
        self.path, self.encoding = path, options.encoding
        blocks = text_blocks(path, self.encoding, KIND, HEADER_BYTES)
        self.layout: Layout = recognise_layout(next(blocks, b""), suffix, path.name, options)
        self._forget()

    def _forget(self) -> None:
        self.rows, self.lines, self.broken_rows, self.doubtful_rows, self.doubtful_line = 0, 0, 0, 0, 0
        self.gaps: list[np.ndarray] = []
        self.has_strange_bytes = False

    def line_of(self, row: int) -> int:
        """The line (from 1) on which a row (from 0) begins."""
        before = sum(int(np.searchsorted(gaps, row, side="right")) for gaps in self.gaps)
        return self.layout.header_lines + row + before + 1

    def read(self, names: Sequence[str], quotes_are_text: bool) -> Iterator[pl.DataFrame]:
        """The named columns, a block of rows at a time."""
        self._forget()
        layout = self.layout
        columns = [self._column(name) for name in names]
        shape = RowShape(one_byte(layout.separator), None if quotes_are_text else layout.quote, len(layout.names))
        pending = b""
        for block, is_last in _with_last(_without_lines(self._blocks(), layout.header_lines)):
            block = pending + one_byte_separators(block, layout.separator, self.path.name)
            checked = self._check(block, shape, is_last)
            pending = block[checked.size :]
            if len(pending) > LONGEST_ROW:
                self._refuse_quote(block, shape, checked.lines)
            frame = self._parse(block[: checked.size], checked, shape, columns)
            frame.columns = list(names)
            self._count(checked)
            yield frame

    def _blocks(self) -> Iterator[bytes]:
        return text_blocks(self.path, self.encoding, KIND)

    def _column(self, name: str) -> int:
        names = self.layout.names
        if name not in names:
            raise DataError(f"{self.path.name} has no column {name!r}; {nearest_names(name, names)}")
        if names.count(name) > 1:
            raise DataError(f"{self.path.name} has {names.count(name)} columns named {name!r}.")
        return names.index(name)

    def _count(self, checked: CheckedBlock) -> None:
        if checked.doubtful_rows and not self.doubtful_rows:
            self.doubtful_line = self.lines + checked.doubtful_line
        if len(checked.gaps):
            self.gaps.append(checked.gaps + self.rows)
        self.rows += checked.rows
        self.lines += checked.lines
        self.broken_rows += checked.broken_rows
        self.doubtful_rows += checked.doubtful_rows

    def _check(self, block: bytes, shape: RowShape, is_last: bool) -> CheckedBlock:
        try:
            return check_block(block, shape, is_last)
        except StrayQuote as error:
            self._refuse_quote(block, shape, error.line)
        except RaggedLine as error:
            self._refuse_line(block, shape, error)

    def _name_line(self, line: int) -> str:
        """The words for a line (from 0) of the block that is being read."""
        return f"Line {self.layout.header_lines + self.lines + line + 1} of {self.path.name}"

    def _shown(self, block: bytes, line: int) -> str:
        text = block.split(b"\n", line + 1)[line].removesuffix(b"\r")
        text = text.replace(one_byte(self.layout.separator), self.layout.separator.encode())
        return repr(text.decode("utf-8", "replace")[:120])

    def _refuse_quote(self, block: bytes, shape: RowShape, line: int) -> NoReturn:
        if self.layout.may_drop_quotes:
            raise _QuotesAreText
        raise DataError(
            f"{self._name_line(line)} has a quote that opens a cell and does not close it properly: "
            f"{self._shown(block, line)}; repair it (a quote inside a quoted cell is written twice), or read every "
            f"quote as text with {QUOTES_AS_TEXT}."
        )

    def _refuse_line(self, block: bytes, shape: RowShape, error: RaggedLine) -> NoReturn:
        if b"\r" in block.split(b"\n", error.line + 1)[error.line].removesuffix(b"\r"):
            raise self._return_within(block, error.line)
        where = "line 1" if self.layout.header_lines == 0 else "the header"
        advice = "--separator"
        if shape.quote is not None and shape.quote in block:
            advice = f"--separator and {QUOTES_AS_TEXT}"
        refusal = DataError(
            f"{self._name_line(error.line)} has {error.cells} cell{'' if error.cells == 1 else 's'} where {where} has "
            f"{shape.cells}: "
            f"{self._shown(block, error.line)}; repair this line (a cell that holds the separator "
            f"{self.layout.separator!r} needs quotes), or say how the file is written ({advice})."
        )
        if self.layout.may_drop_quotes and shape.quote is not None and shape.quote in block:
            raise _QuotesAreText(refusal)
        raise refusal

    def refuse_doubtful_rows(self) -> NoReturn:
        """Refuses rows that are one where quotes are quotes and several where they are text."""
        if self.layout.may_drop_quotes:
            raise _QuotesAreText
        raise DataError(
            f"Line {self.layout.header_lines + self.doubtful_line + 1} of {self.path.name} opens a quote that another "
            "line closes, but each of these lines is a whole row by itself: read quotes as text with "
            f"{QUOTES_AS_TEXT}, or allow line breaks in quoted cells with --quote '\"'."
        )

    def _parse(self, block: bytes, checked: CheckedBlock, shape: RowShape, columns: list[int]) -> pl.DataFrame:
        if not checked.rows:
            return pl.DataFrame(schema={str(column): pl.String for column in columns})
        whole = block
        if checked.empty_lines is not None:
            block = _without_spans(block, *checked.empty_lines)
        is_plain = not checked.has_quotes
        if checked.has_simple_quotes:
            block, is_plain = block.replace(shape.quote or b"", b""), True
        frame = None
        if is_plain and not self.has_strange_bytes:
            frame = _parse_plain(block, shape, columns)
            self.has_strange_bytes = frame is None
        if frame is None:
            frame = self._parse_with_arrow(block, whole, checked, shape, columns)
        if frame.height != checked.rows:
            raise self._stray_return(whole) or DataError(
                f"{self.path.name} cannot be read as {KIND}: of {checked.rows} rows after line "
                f"{self.layout.header_lines + self.lines} {frame.height} are left."
            )
        if shape.quote is not None and checked.has_quotes and len(self.layout.separator.encode()) > 1:
            stand_in = one_byte(self.layout.separator).decode()
            frame = frame.with_columns(pl.all().str.replace_all(stand_in, self.layout.separator, literal=True))
        return frame

    def _parse_with_arrow(
        self, block: bytes, whole: bytes, checked: CheckedBlock, shape: RowShape, columns: list[int]
    ) -> pl.DataFrame:
        quote = shape.quote if checked.has_quotes and not checked.has_simple_quotes else None
        try:
            return from_arrow(_parse_quoted(block, shape, quote, columns, pa.string()))
        except pa.ArrowInvalid as error:
            if "invalid UTF8" not in str(error):
                raise self._stray_return(whole) or unreadable(self.path, KIND, error) from error
        cells = _parse_quoted(block, shape, quote, columns, pa.binary())
        raise self._not_in_this_encoding(cells, checked, columns)

    def _not_in_this_encoding(self, cells: pa.Table, checked: CheckedBlock, columns: list[int]) -> DataError:
        self._count(checked)
        for column, place in zip(cells.columns, columns, strict=True):
            for row, cell in enumerate(column.to_pylist()):
                try:
                    (cell or b"").decode("utf-8")
                except UnicodeDecodeError:
                    line = self.line_of(self.rows - checked.rows + row)
                    return DataError(
                        f"Column {self.layout.names[place]!r} of {self.path.name} is not in "
                        f"{self.encoding or 'UTF-8'}, first on line {line}: {cell[:60]!r}; name the encoding of the "
                        "file, for example --encoding latin-1."
                    )
        raise AssertionError("every cell can be decoded")

    def _stray_return(self, block: bytes) -> DataError | None:
        """The error for a carriage return within a line, which Arrow takes for the line's end."""
        text = block.replace(b"\r\n", b"\n")
        stray = text.find(b"\r")
        if stray < 0:
            return None
        return self._return_within(text, text.count(b"\n", 0, stray))

    def _return_within(self, block: bytes, line: int) -> DataError:
        return DataError(
            f"{self._name_line(line)} has a carriage return that does not end the line: {self._shown(block, line)}; "
            "remove it."
        )


def _parse_plain(block: bytes, shape: RowShape, columns: list[int]) -> pl.DataFrame | None:
    """Rows without quotes; None where a byte, wanted or not, is not UTF-8."""
    order = sorted(columns)
    try:
        frame = pl.read_csv(
            block,
            columns=order,
            has_header=False,
            separator=shape.separator.decode(),
            quote_char=None,
            infer_schema=False,  # everything as text: an id such as 007 must stay what it is
        )
    except pl.exceptions.ComputeError as error:
        if "utf-8" not in str(error).lower():
            raise
        return None
    return frame.select(frame.columns[order.index(column)] for column in columns)


def _parse_quoted(
    block: bytes, shape: RowShape, quote: bytes | None, columns: list[int], kind: pa.DataType
) -> pa.Table:
    from pyarrow import csv

    names = [str(place) for place in range(shape.cells)]
    wanted = [names[column] for column in columns]
    return csv.read_csv(
        pa.BufferReader(block),
        read_options=csv.ReadOptions(column_names=names, use_threads=False, block_size=max(len(block), 1)),
        parse_options=csv.ParseOptions(
            delimiter=shape.separator.decode(),
            quote_char=quote.decode() if quote else False,
            newlines_in_values=quote is not None,
        ),
        convert_options=csv.ConvertOptions(
            include_columns=wanted,
            column_types=dict.fromkeys(wanted, kind),
            strings_can_be_null=True,
            null_values=[""],
        ),
    )


def _without_spans(block: bytes, starts: np.ndarray, ends: np.ndarray) -> bytes:
    steps = np.zeros(len(block) + 1, np.int8)
    steps[starts] += 1
    steps[ends] -= 1
    return np.frombuffer(block, np.uint8)[np.cumsum(steps[:-1], dtype=np.int8) == 0].tobytes()


def _without_lines(blocks: Iterator[bytes], lines: int) -> Iterator[bytes]:
    """The blocks without the first lines."""
    for block in blocks:
        while lines and block:
            block = block[block.index(b"\n") + 1 :]
            lines -= 1
        if block:
            yield block


def _with_last(blocks: Iterator[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Each block, and whether it is the last."""
    held = next(blocks, None)
    for block in blocks:
        assert held is not None
        yield held, False
        held = block
    if held is not None:
        yield held, True


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
