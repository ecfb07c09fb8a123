"""The bytes of a file of text as blocks of whole lines in UTF-8, whatever its encoding and compression."""

from __future__ import annotations

import bz2
import codecs
import functools
import gzip
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..errors import DataError
from .table import unreadable

__all__ = ["COMPRESSIONS", "check_encoding", "text_blocks"]

BLOCK_BYTES = 2**24  # large enough for the vectorised checks to pay, small enough for the caches
LONGEST_LINE = 2**28
# A longer mark stands before a shorter one that it begins with.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
READING_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)


def _open_zstandard(path: Path) -> Any:
    return pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")


OPENERS: dict[str, Any] = {
    "": functools.partial(open, mode="rb", buffering=0),
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zstandard,
}
COMPRESSIONS = tuple(suffix for suffix in OPENERS if suffix)


def check_encoding(encoding: str | None) -> str | None:
    """The codec's own name of an encoding.

    Raises:
        DataError: Python has no such encoding of text.
    """
    if encoding is None:
        return None
    try:
        "".encode(encoding)  # refuses codecs that are not of text, such as zlib
        return codecs.lookup(encoding).name
    except LookupError as error:
        raise DataError(
            f"The encoding {encoding!r} (--encoding) is not known; usual ones are utf-8, utf-16, latin-1 and cp1252."
        ) from error


def text_blocks(path: Path, encoding: str | None, kind: str, size: int | None = None) -> Iterator[bytes]:
    """Reads a file of text, a block of whole lines at a time.

    Args:
        path: The file; a suffix of `COMPRESSIONS` says that it is compressed.
        encoding: A name from `check_encoding`; None is UTF-8 unless a byte order mark says otherwise.
        kind: What the file is meant to be, for the errors.
        size: Bytes that are read at a time; `BLOCK_BYTES` by default.

    Yields:
        Blocks in UTF-8 without a byte order mark, each ending with a line feed. A byte that the encoding does not
        know stays as it is (it may stand in a column that nobody wants).

    Raises:
        DataError: The file cannot be read or decoded, or has no lines.
    """
    rest: list[bytes] = []
    held = 0
    for piece in _in_utf8(path, encoding, kind, size or BLOCK_BYTES):
        end = piece.rfind(b"\n") + 1
        if not end:
            rest.append(piece)
            held += len(piece)
            if held > LONGEST_LINE:
                raise DataError(f"{path.name} is not {kind}: a line of it is longer than {LONGEST_LINE >> 20} MB.")
            continue
        yield b"".join((*rest, piece[:end]))
        rest = [piece[end:]] if end < len(piece) else []
        held = len(piece) - end
    if rest:
        yield b"".join((*rest, b"\n"))


def _in_utf8(path: Path, encoding: str | None, kind: str, size: int) -> Iterator[bytes]:
    decoder: codecs.IncrementalDecoder | None = None
    is_first, has_bare_returns = True, False
    try:
        with OPENERS[path.suffix.lower() if path.suffix.lower() in OPENERS else ""](path) as file:
            while True:
                piece = file.read(size)
                is_last = not piece
                if is_first:
                    piece, encoding = _without_mark(piece, encoding, path)
                    if encoding != "utf-8":
                        decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
                if decoder is not None:
                    text = decoder.decode(piece, final=is_last)
                    piece = (text.removeprefix("\ufeff") if is_first else text).encode("utf-8", "surrogateescape")
                if is_first:  # the line ends of a Mac of the last century
                    has_bare_returns = b"\r" in piece and b"\n" not in piece
                    is_first = False
                if piece:
                    yield piece.replace(b"\r", b"\n") if has_bare_returns else piece
                if is_last:
                    return
    except UnicodeError as error:
        raise DataError(
            f"{path.name} is not text in {encoding} ({error}); name its encoding, for example --encoding latin-1."
        ) from error
    except READING_ERRORS as error:
        raise unreadable(path, kind, error) from error


def _without_mark(piece: bytes, encoding: str | None, path: Path) -> tuple[bytes, str]:
    """The first bytes without the mark of UTF-8, and the encoding; the other marks are for their decoders."""
    marked = next((name for mark, name in BYTE_ORDER_MARKS.items() if piece.startswith(mark)), None)
    if encoding in (None, "utf-8", "utf-8-sig"):
        encoding = marked or "utf-8"
        if marked is None and b"\0" in piece[:1000]:
            raise DataError(
                f"{path.name} is not text in UTF-8 (it holds zero bytes); if it is UTF-16 without a byte order mark, "
                "add --encoding utf-16-le."
            )
    assert encoding is not None
    return piece.removeprefix(codecs.BOM_UTF8) if encoding == "utf-8" else piece, encoding
