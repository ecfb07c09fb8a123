"""Recognises how a file of text is laid out: its separator, and whether the first line names the columns."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import DataError

__all__ = [
    "Layout",
    "TextOptions",
    "check_text_options",
    "dialect",
    "one_byte",
    "one_byte_separators",
    "recognise_layout",
]

SEPARATORS = ("\t", ",", ";", "|", "::")  # where two fit equally well, the first
SEPARATOR_WORDS = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "blank": " ", "space": " ", "\\t": "\t"}
UNIT_SEPARATOR = b"\x1f"  # This byte of ASCII replaces a separator of several bytes.
SAMPLE_LINES = 200
HEADERLESS_SUFFIXES = (".dat", ".txt")
NUMBER = re.compile(r"-?\d+(\.\d+)?")
WHOLE_NUMBER = re.compile(r"-?\d+")
HIGHEST_RATING, EARLIEST_TIME = 100, 10**8  # These tell columns of user, item, rating and Unix time from others.
COLUMNS_HINT = "name the columns, for example with --columns user_id,item_id,timestamp"


@dataclass(frozen=True)
class TextOptions:
    """How the caller says that a file of text is written; what is None is recognised.

    Args:
        encoding: A codec of Python.
        separator: The text between two cells; one blank means any number of blanks and tabs.
        columns: Names of the columns of a file without a header.
        quote: `"none"` or one character.
    """

    encoding: str | None = None
    separator: str | None = None
    columns: tuple[str, ...] | None = None
    quote: str | None = None


@dataclass(frozen=True)
class Layout:
    """How one file of text is laid out.

    Args:
        names: Names of the columns.
        separator: The text between two cells.
        header_lines: Lines before the first row.
        quote: The character of the quotes; None where quotes are text.
        may_drop_quotes: Whether all quotes are text if one of them is not written as a quote of a cell.
        has_no_time: Whether files of this kind have no times.
    """

    names: tuple[str, ...]
    separator: str
    header_lines: int
    quote: str | None
    may_drop_quotes: bool
    has_no_time: bool = False


def check_text_options(
    encoding: str | None, separator: str | None, columns: Sequence[str] | str | None, quote: str | None
) -> TextOptions:
    """Checks the options, and makes separators of words for them and a tuple of the names of columns.

    Raises:
        DataError: An option has a value that makes no sense.
    """
    if separator is not None:
        separator = SEPARATOR_WORDS.get(separator.lower(), separator)
        if not separator or any(mark.isalnum() or mark in "\"'\n\r" for mark in separator):
            raise DataError(
                f"The separator {separator!r} (--separator) cannot stand between cells; give a character such as , or ;"
                f", several such as ::, or one of the words {', '.join(map(repr, list(SEPARATOR_WORDS)[:5]))}."
            )
        separator = separator if separator.strip(" ") else " "
    if isinstance(columns, str):
        columns = columns.split(",")
    if columns is not None:
        columns = tuple(name.strip() for name in columns)
        if not columns or "" in columns or len(set(columns)) < len(columns):
            raise DataError(f"The columns {list(columns)} (--columns) need one name each, all of them different.")
    if quote is not None and quote != "none" and (len(quote) != 1 or quote.isalnum() or not quote.isascii()):
        raise DataError(f"The quote {quote!r} (--quote) must be one character such as \" or ', or the word none.")
    return TextOptions(encoding, separator, columns, quote)


def one_byte_separators(block: bytes, separator: str, source: str) -> bytes:
    """The block with one byte between two cells.

    Raises:
        DataError: The byte that replaces a longer separator occurs in the text.
    """
    if separator == " ":
        block = block.replace(b"\t", b" ")
        while b"  " in block:
            block = block.replace(b"  ", b" ")
        for blank, plain in ((b"\n ", b"\n"), (b" \n", b"\n"), (b" \r\n", b"\r\n")):
            block = block.replace(blank, plain)
        return block.removeprefix(b" ")
    encoded = separator.encode()
    if len(encoded) == 1:
        return block
    if UNIT_SEPARATOR in block:
        raise DataError(f"{source} holds the control character U+001F, which cannot be read with {separator!r}.")
    return block.replace(encoded, UNIT_SEPARATOR)


def one_byte(separator: str) -> bytes:
    """The byte that stands between cells after `one_byte_separators`."""
    encoded = separator.encode()
    return encoded if len(encoded) == 1 else UNIT_SEPARATOR


def recognise_layout(block: bytes, suffix: str, source: str, options: TextOptions) -> Layout:
    """The layout of a file whose first lines are in `block`, in UTF-8.

    Raises:
        DataError: There is no line, the first line has no names of columns, or the given names do not fit.
    """
    lines = block.split(b"\n", 5 * SAMPLE_LINES)[:-1]
    empty = next((place for place, line in enumerate(lines) if line.strip()), None)
    if empty is None:
        raise DataError(f"{source} is empty.")
    sample = [line.removesuffix(b"\r") for line in lines[empty:] if line.strip()][:SAMPLE_LINES]
    separator = options.separator or _recognise_separator(sample, suffix)
    if separator == " " and options.quote not in (None, "none"):
        raise DataError(f"{source} is separated by blanks, so that its cells cannot be quoted: leave --quote out.")
    quote = None if options.quote == "none" or separator == " " else (options.quote or '"')
    may_drop_quotes = options.quote is None and suffix != ".csv"
    try:
        first = _cells(sample[0], separator, quote, source)
    except csv.Error as error:
        try:
            if not may_drop_quotes:
                raise
            first, quote = _cells(sample[0], separator, None, source), None
        except csv.Error:
            fault = (
                f"has a quote that does not end its cell: {_shown(sample[0])}; read quotes as text with --quote none"
            )
            if b"\r" in sample[0]:
                fault = f"has a carriage return that does not end the line: {_shown(sample[0])}; remove it"
            elif len(sample[0]) > csv.field_size_limit():
                fault = f"has no names of columns, but {len(sample[0]):,} bytes: {_shown(sample[0])}; {COLUMNS_HINT}"
            raise DataError(f"Line {empty + 1} of {source} {fault}.") from error
    has_no_time = False
    if options.columns is not None:
        names, header_lines = options.columns, empty
        if len(names) != len(first):
            raise DataError(
                f"--columns gives {len(names)} names, but line {empty + 1} of {source} has {len(first)} cells: "
                f"{_shown(sample[0])} (another --separator?)."
            )
        if tuple(cell.strip() for cell in first) == names:
            raise DataError(f"Line {empty + 1} of {source} has these names itself: leave --columns out.")
    elif suffix in HEADERLESS_SUFFIXES and (known := _known_columns(sample, separator)):
        names, header_lines = known, empty
        has_no_time = len(known) == 2
    elif _is_a_row(first):
        raise DataError(
            f"Line {empty + 1} of {source} holds numbers and no names of columns ({_shown(sample[0])}); {COLUMNS_HINT}."
        )
    else:
        names, header_lines = tuple(cell.strip() for cell in first), empty + 1
    return Layout(names, separator, header_lines, quote, may_drop_quotes, has_no_time)


def dialect(separator: str, quote: str | None) -> dict[str, Any]:
    """The arguments of `csv.reader` for rows whose separators are one byte."""
    quoting = {"quoting": csv.QUOTE_NONE} if quote is None else {"quotechar": quote}
    return {"delimiter": one_byte(separator).decode(), "strict": True, **quoting}


def _cells(line: bytes, separator: str, quote: str | None, source: str) -> list[str]:
    row = one_byte_separators(line + b"\n", separator, source).decode("utf-8", "replace")
    cells = next(csv.reader([row], **dialect(separator, quote)))
    return [cell.replace(UNIT_SEPARATOR.decode(), separator) for cell in cells]


def _recognise_separator(sample: list[bytes], suffix: str) -> str:
    """The separator by which the most lines have as many cells as the first, and of these the one with most cells."""
    preferred = "," if suffix == ".csv" else "\t"
    ranks = {}
    for separator in (preferred, *SEPARATORS, " "):
        counts = [_counts(line, separator) for line in sample]
        expected = max(counts[0])
        fitting = sum(expected in found for found in counts) / len(counts)
        ranks[separator] = (fitting, expected) if expected else (0.0, 0)
    blank = ranks.pop(" ")
    best = max(ranks, key=lambda separator: ranks[separator])
    # Blanks are common inside cells, so that they are the separator only where nothing else is.
    if ranks[best][0] < 0.5 and blank > ranks[best]:
        return " "
    return best if ranks[best][1] else preferred


def _counts(line: bytes, separator: str) -> set[int]:
    """The numbers of separators of a line: of all of them, and of those outside quotes."""
    if separator == " ":
        return {max(len(line.split()) - 1, 0)}
    mark = separator.encode()
    return {line.count(mark), re.sub(b'"[^"]*"', b"", line).count(mark)}


def _known_columns(sample: list[bytes], separator: str) -> tuple[str, ...] | None:
    """The names of MovieLens' four columns or of SASRec's two, where every line of the sample has this form."""
    texts = [line.decode("utf-8", "replace") for line in sample]
    rows = [[cell.strip() for cell in text.split(None if separator == " " else separator)] for text in texts]
    if all(len(row) == 2 and all(map(WHOLE_NUMBER.fullmatch, row)) for row in rows):
        return ("user_id", "item_id")
    if all(
        len(row) == 4
        and all(map(NUMBER.fullmatch, row))
        and float(row[2]) <= HIGHEST_RATING
        and float(row[3]) >= EARLIEST_TIME
        for row in rows
    ):
        return ("user_id", "item_id", "rating", "timestamp")
    return None


def _is_a_row(cells: list[str]) -> bool:
    """Whether at least half of the cells are numbers, unless they are 0, 1, 2, ..., which are names of columns."""
    named = [cell for cell in cells if cell]
    numbers = sum(NUMBER.fullmatch(cell.strip()) is not None for cell in cells)
    return 2 * numbers >= len(cells) and named != [str(place) for place in range(len(named))]


def _shown(line: bytes) -> str:
    return repr(line[:80].decode("utf-8", "replace"))
