"""Counts the cells of every line of a block of text, so that no row vanishes, shifts or merges with another.

Quotes follow RFC 4180: a cell that begins with a quote ends with one, a quote inside it is written twice, and line
breaks and separators inside it belong to the cell. A quote anywhere else is text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

__all__ = [
    "CheckedBlock",
    "ImproperQuote",
    "RaggedLine",
    "RowShape",
    "StrayQuote",
    "UnfinishedQuote",
    "check_block",
    "split_row",
]

NEW_LINE, RETURN = 10, 13
DOUBTFUL_SHARE = 0.9  # of the lines of a row that are whole rows if quotes are text


@dataclass(frozen=True)
class RowShape:
    """How the rows of a file are written.

    Args:
        separator: One byte that stands between two cells.
        quote: The byte of the quotes, or None where quotes are text.
        cells: Cells of every row.
    """

    separator: bytes
    quote: bytes | None
    cells: int

    @cached_property
    def text(self) -> bytes:
        """Every byte that is no separator, no line feed and no quote."""
        return bytes(byte for byte in range(256) if bytes([byte]) not in (self.separator, b"\n", self.quote))

    @cached_property
    def quoted_cell(self) -> re.Pattern[bytes]:
        """A quoted cell from its first quote to its last."""
        assert self.quote is not None
        mark = re.escape(self.quote)
        return re.compile(
            mark + b"[^" + mark + b"]*(?:" + mark * 2 + b"[^" + mark + b"]*)*" + mark + b"(?!" + mark + b")"
        )

    @cached_property
    def plain_cell(self) -> re.Pattern[bytes]:
        """A cell without quotes."""
        return re.compile(b"[^" + re.escape(self.separator) + b"\n]*")


class RaggedLine(Exception):
    """A row has another number of cells than the rest: `line` (0-based, in the block) and how many it has."""

    def __init__(self, line: int, cells: int) -> None:
        super().__init__(line, cells)
        self.line, self.cells = line, cells


class UnfinishedQuote(Exception):
    """A quoted cell has no end in this block."""


class ImproperQuote(Exception):
    """A quoted cell goes on behind its last quote."""


class StrayQuote(Exception):
    """A cell begins with a quote and does not end with one: the `line` (0-based, in the block) where it begins."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


@dataclass(frozen=True)
class CheckedBlock:
    """What a sound block holds.

    Args:
        size: Bytes of it that are whole rows; the rest belongs to a quoted cell that goes on in the next block.
        rows: Rows in these bytes.
        lines: Lines in these bytes.
        gaps: For every line that is no row of its own (an empty one, one of blanks, or a further line of a quoted
            cell) the number of rows (int64) that begin before it.
        empty_lines: Where the empty lines and those of blanks begin (int64 offsets of bytes), and where they end.
        has_quotes: Whether a cell is quoted.
        has_simple_quotes: Every quote begins or ends a quoted cell that holds no separator, quote or line break.
        broken_rows: How many rows have a line break in a quoted cell.
        doubtful_rows: How many of these consist of lines each of which is a whole row if quotes are text.
        doubtful_line: The first line of the first of these.
    """

    size: int
    rows: int
    lines: int
    gaps: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    empty_lines: tuple[np.ndarray, np.ndarray] | None = None
    has_quotes: bool = False
    has_simple_quotes: bool = False
    broken_rows: int = 0
    doubtful_rows: int = 0
    doubtful_line: int = 0


def check_block(block: bytes, shape: RowShape, is_last: bool) -> CheckedBlock:
    """Checks that every row of a block has the same number of cells.

    Args:
        block: Whole lines, the last one with its line feed.
        shape: How the rows are written.
        is_last: No more lines follow: a quoted cell must end in this block.

    Raises:
        RaggedLine: A row has more or fewer cells.
        StrayQuote: A cell begins with a quote and does not end with one.
    """
    may_quote = shape.quote is not None and shape.quote in block
    if shape.cells > 1:
        # What is left without the text of the cells is, of rows that are written alike, the same few bytes every time.
        marks = block.translate(None, shape.text if may_quote else shape.text + (shape.quote or b""))
        row = marks[: marks.index(b"\n") + 1]
        rows = len(marks) // len(row)
        if marks == row * rows and (_is_row_of_quoted(row, block, rows, shape) if may_quote else _is_row(row, shape)):
            return CheckedBlock(len(block), rows, rows, has_quotes=may_quote, has_simple_quotes=may_quote)
    return _Lines(block, shape, may_quote).checked(is_last)


def _is_row(marks: bytes, shape: RowShape) -> bool:
    return marks == shape.separator * (shape.cells - 1) + b"\n"


def _is_row_of_quoted(marks: bytes, block: bytes, rows: int, shape: RowShape) -> bool:
    """Whether these marks of every row belong to cells with a quote at both ends and none within, or with none."""
    quote, separator = shape.quote or b"", shape.separator
    cells = marks[:-1].split(separator)
    if len(cells) != shape.cells or not set(cells) <= {b"", quote * 2}:
        return False
    begun = block.count(separator + quote) + block.count(b"\n" + quote) + block.startswith(quote)
    ended = sum(block.count(quote + end) for end in (separator, b"\n", b"\r\n"))
    return begun == ended == cells.count(quote * 2) * rows


class _Lines:
    """The lines of a block: which of them are rows, and how many cells they have."""

    def __init__(self, block: bytes, shape: RowShape, may_quote: bool) -> None:
        self.block, self.shape = block, shape
        data = np.frombuffer(block, np.uint8)
        separator = data == ord(shape.separator)
        quote = data == ord(shape.quote) if may_quote and shape.quote else np.zeros_like(separator)
        at = np.flatnonzero(separator | quote | (data == NEW_LINE))
        is_separator, is_quote, is_end = separator[at], quote[at], data[at] == NEW_LINE
        self.end = at[is_end]
        self.start = np.concatenate(([0], self.end[:-1] + 1))
        self.empty = (self.end == self.start) | (
            (self.end == self.start + 1) & (data[np.minimum(self.start, len(data) - 1)] == RETURN)
        )
        count = len(self.end)
        line = np.cumsum(is_end) - is_end
        self.separators = np.bincount(line[is_separator], minlength=count)  # quoted ones included
        self.structural = self.separators
        self.quoted, self.unsure = np.zeros(count, bool), np.zeros(count, bool)
        if may_quote:
            self._judge_quotes(data, at, line, is_separator, is_quote, is_end)

    def _judge_quotes(
        self,
        data: np.ndarray,
        at: np.ndarray,
        line: np.ndarray,
        is_separator: np.ndarray,
        is_quote: np.ndarray,
        is_end: np.ndarray,
    ) -> None:
        """Tells lines with quotes as text, lines with quoted cells, and lines to look at singly from each other."""
        count = len(self.end)
        seen = np.cumsum(is_quote)
        seen_before_line = np.concatenate(([0], seen[is_end][:-1]))
        inside = ((seen - is_quote - seen_before_line[line]) & 1).astype(bool)  # an odd number of quotes before it
        mark, separator = ord(self.shape.quote or b'"'), ord(self.shape.separator)
        place, its_line, closes = at[is_quote], line[is_quote], inside[is_quote]
        previous, following = data[place - 1], data[place + 1]  # the last byte is a line feed, hence no quote
        begins_cell = (place == self.start[its_line]) | (previous == separator)
        after_return = (following == RETURN) & (data[np.minimum(place + 2, len(data) - 1)] == NEW_LINE)
        ends_cell = (following == separator) | (following == NEW_LINE) | after_return
        is_proper = np.where(
            closes,
            ends_cell | (following == mark),
            begins_cell | ((previous == mark) & (place > self.start[its_line])),
        )
        quotes = np.bincount(its_line, minlength=count)
        begun = np.bincount(its_line[begins_cell], minlength=count) > 0
        improper = np.bincount(its_line[~is_proper], minlength=count) > 0
        self.quoted = begun & ~improper & (quotes % 2 == 0)
        self.unsure = begun & ~self.quoted
        outside = is_separator & (~begun[line] | ~inside)
        self.structural = np.bincount(line[outside], minlength=count)

    def checked(self, is_last: bool) -> CheckedBlock:
        """The block's account, after a look at every line that is not sure."""
        cells = self.structural + 1
        wrong = ~self.empty & (cells != self.shape.cells)
        for line in np.flatnonzero(
            wrong
        ).tolist():  # blanks alone are no row, unless they are as many cells as a row has
            if not self.block[self.start[line] : self.end[line]].strip():
                self.empty[line], wrong[line] = True, False
        continued = np.zeros_like(self.empty)  # further lines of a quoted cell
        whole = np.concatenate(([0], np.cumsum(self.separators == self.shape.cells - 1)))  # rows if quotes are text
        lines, broken, doubtful, done = len(self.end), 0, [], 0
        for line in np.flatnonzero(self.unsure).tolist():
            if line < done:
                continue
            start = int(self.start[line])
            try:
                row, end = split_row(self.block, start, self.shape)
            except UnfinishedQuote as error:
                if is_last:
                    _raise_first(wrong[:line], cells)
                    raise StrayQuote(line) from error
                lines = line
                break
            except ImproperQuote as error:
                _raise_first(wrong[:line], cells)
                raise StrayQuote(line) from error
            done = line + self.block.count(b"\n", start, end) + 1
            continued[line + 1 : done] = True
            cells[line] = len(row)
            wrong[line:done] = False
            wrong[line] = len(row) != self.shape.cells
            if done - line > 1:
                broken += 1
                if whole[done] - whole[line] >= DOUBTFUL_SHARE * (done - line):
                    doubtful.append(line)
        _raise_first(wrong[:lines], cells)
        empty = self.empty[:lines] & ~continued[:lines]
        is_row = ~empty & ~continued[:lines]
        return CheckedBlock(
            size=int(self.end[lines - 1]) + 1 if lines else 0,
            rows=int(np.count_nonzero(is_row)),
            lines=lines,
            gaps=np.cumsum(is_row)[~is_row],
            empty_lines=(self.start[:lines][empty], self.end[:lines][empty] + 1) if empty.any() else None,
            has_quotes=bool((self.quoted | self.unsure)[:lines].any()),
            broken_rows=broken,
            doubtful_rows=len(doubtful),
            doubtful_line=doubtful[0] if doubtful else 0,
        )


def split_row(block: bytes, start: int, shape: RowShape) -> tuple[list[bytes], int]:
    """The cells of the row that begins at an offset, without their quotes, and the offset of its line feed.

    Raises:
        UnfinishedQuote: A quoted cell does not end in this block.
        ImproperQuote: A quoted cell is followed by something else than a separator or the end of the line.
    """
    cells = []
    while True:
        quoted = shape.quote is not None and block.startswith(shape.quote, start)
        found = (shape.quoted_cell if quoted else shape.plain_cell).match(block, start)
        if found is None:
            raise UnfinishedQuote
        end = found.end()
        if quoted and shape.quote is not None:
            if block.startswith(b"\r\n", end):
                end += 1
            cells.append(found.group()[1:-1].replace(shape.quote * 2, shape.quote))
        else:
            cells.append(found.group())
        if block.startswith(b"\n", end):
            if not quoted:
                cells[-1] = cells[-1].removesuffix(b"\r")
            return cells, end
        if not block.startswith(shape.separator, end):
            raise ImproperQuote
        start = end + 1


def _raise_first(wrong: np.ndarray, cells: np.ndarray) -> None:
    if wrong.any():
        line = int(np.argmax(wrong))
        raise RaggedLine(line, int(cells[line]))
