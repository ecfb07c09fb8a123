"""Finds the files of a path, folder or pattern, and reads their text from any encoding and compression."""

from __future__ import annotations

import bz2
import codecs
import functools
import glob
import gzip
import lzma
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..errors import DataError
from ..machine import expanded
from .table import unreadable

__all__ = [
    "JSON_SUFFIXES",
    "SUFFIXES",
    "TEXT_SUFFIXES",
    "NamedFiles",
    "check_encoding",
    "find_files",
    "find_listed",
    "is_prepared",
    "text_blocks",
]

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".dat", ".inter", ".item")
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
SUFFIXES = (".csv", ".tsv", ".parquet", *JSON_SUFFIXES, *TEXT_SUFFIXES[2:])
SUMMARY_FILE = "summary.json"  # every folder of prepared data has this file
HIDDEN = (".", "_")  # the names of other files that Spark writes beside part files begin with one of these
PATTERN_MARKS = "*?"
BLOCK_BYTES = 2**24
LONGEST_LINE = 2**28
# The mark of UTF-32 stands before that of UTF-16, because it begins with it.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
READING_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)
OPENERS: dict[str, Any] = {
    "": functools.partial(open, mode="rb", buffering=0),
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": lambda path: pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"),
}
COMPRESSIONS = tuple(suffix for suffix in OPENERS if suffix)


@dataclass(frozen=True)
class NamedFiles:
    """The files of one table.

    Args:
        paths: One file, or the part files in the order of their names.
        suffix: Their common suffix, one of `SUFFIXES`.
        source: Display name: the name of the file, or that of the folder or pattern with the number of its files.
    """

    paths: tuple[Path, ...]
    suffix: str
    source: str


def suffix_of(path: Path) -> str:
    """The suffix of a file's name without that of a compression, or `""` where it is none of `SUFFIXES`."""
    is_compressed = path.suffix.lower() in COMPRESSIONS
    suffix = Path(path.stem).suffix.lower() if is_compressed else path.suffix.lower()
    return suffix if suffix in SUFFIXES and not (is_compressed and suffix == ".parquet") else ""


def find_files(name: str) -> NamedFiles | None:
    """The file of this name, or the part files of a folder or a pattern; None where there is nothing of this name.

    A file may have `[`, `*` or `?` in its name. Empty part files and those whose names begin with a dot or an
    underscore are left out, and sub-folders of a folder are not read.

    Raises:
        DataError: A file is empty or has an unknown suffix, there are no part files or several kinds of them, or
            sub-folders with further tables lie beside them.
    """
    path = expanded(name)
    if path.is_file():
        return NamedFiles((path,), _known_suffix(path), path.name)
    if path.is_dir():
        return _part_files(sorted(path.iterdir()), f"{path.name or name}/")
    if any(mark in name for mark in PATTERN_MARKS):
        # Brackets are a part of names, unlike the two marks of a pattern.
        pattern = str(path).replace("[", "[[]")
        found = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
        # Hidden folders such as Spark's `_temporary` are left out, unless the pattern itself names them.
        first = [any(mark in part for mark in PATTERN_MARKS) for part in path.parts].index(True)
        hidden = [{part for part in match.parts[first:-1] if part.startswith(HIDDEN)} for match in found]
        found = [match for match, parts in zip(found, hidden, strict=True) if parts <= set(path.parts)]
        if not found:
            raise DataError(f"No file is named like {name!r}.")
        return _part_files(found, Path(name).name)
    return None


def find_listed(names: Sequence[str | Path]) -> NamedFiles:
    """The files of several names in the order of the list, as part files of one table.

    Raises:
        DataError: As in `find_files`, or the list holds something else than paths, a file is missing, or the files are
            of several kinds.
    """
    if not names or not all(isinstance(name, (str, Path)) for name in names):
        raise DataError("A list of interactions must be a list of paths of files of one kind.")
    found = [(str(name), find_files(str(name))) for name in names]
    if missing := [name for name, files in found if files is None]:
        raise DataError(f"There is no file {missing[0]!r}.")
    parts = [files for _, files in found if files is not None]
    if len({files.suffix for files in parts}) > 1:
        kinds = ", ".join(sorted({files.suffix for files in parts}))
        raise DataError(f"The files of a list must be of one kind, but these are of several: {kinds}.")
    shown = f"{parts[0].source} and {len(parts) - 1} more" if len(parts) > 1 else parts[0].source
    return NamedFiles(tuple(path for files in parts for path in files.paths), parts[0].suffix, shown)


def _known_suffix(path: Path) -> str:
    suffix = suffix_of(path)
    if not suffix:
        raise DataError(
            f"{path.name} has a suffix that is not known; known are {', '.join(SUFFIXES)} "
            f"(text also as {', '.join(COMPRESSIONS)})."
        )
    if path.stat().st_size == 0:
        raise DataError(f"{path.name} is empty.")
    return suffix


def _part_files(entries: Sequence[Path], shown: str) -> NamedFiles:
    entries = [path for path in entries if not path.name.startswith(HIDDEN)]
    files = [path for path in entries if path.is_file()]
    folders = [path for path in entries if path.is_dir()]
    if not files:
        count = f"only {_counted(folders, 'folder')} (a pattern such as '{shown}*/*.csv' reaches into them)"
        raise DataError(
            f"{shown} should hold part files of a table ({', '.join(SUFFIXES)}), but it holds "
            f"{count if folders else 'none'}."
        )
    suffixes = {suffix_of(path) for path in files}
    if len(suffixes) > 1 or "" in suffixes:
        examples = ", ".join(path.name for path in files[:5]) + (", ..." if len(files) > 5 else "")
        raise DataError(
            f"{shown} should hold part files of one kind ({', '.join(SUFFIXES)}), but it holds {examples}; name one "
            "file, or those that are meant with a pattern such as 'folder/*.csv'."
        )
    if nested := [folder for folder in folders if _holds_tables(folder)]:
        ending = files[0].name.removeprefix(files[0].name.partition(".")[0])
        raise DataError(
            f"{shown} holds {_counted(files, 'file')} and {_counted(nested, 'folder')} with further tables "
            f"({nested[0].name}{', ...' if len(nested) > 1 else ''}); say with a pattern which are meant: those of the "
            f"folder alone ('folder/*{ending}'), those of the folders in it ('folder/*/*{ending}') or all "
            f"('folder/**/*{ending}')."
        )
    filled = [path for path in files if path.stat().st_size]
    if not filled:
        are = "all of them empty" if len(files) > 1 else "which is empty"
        raise DataError(f"{shown} holds {_counted(files, 'file')}, {are}.")
    return NamedFiles(tuple(filled), suffixes.pop(), f"{shown} ({_counted(filled, 'file')})")


def _holds_tables(folder: Path) -> bool:
    """Whether a file with a known suffix lies in a folder or below it; hidden files and folders are ignored."""
    for _, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(HIDDEN)]
        if any(suffix_of(Path(name)) for name in names if not name.startswith(HIDDEN)):
            return True
    return False


def _counted(paths: Sequence[Path], word: str) -> str:
    return f"{len(paths)} {word}{'' if len(paths) == 1 else 's'}"


def is_prepared(source: str | None) -> bool:
    """Whether a source is a folder of prepared data."""
    return source is not None and (Path(source) / SUMMARY_FILE).is_file()


def check_encoding(encoding: str | None) -> str | None:
    """The name that Python's codecs have for an encoding.

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
    """Reads `size` bytes of a file of text at a time, and yields blocks of whole lines.

    The blocks are in UTF-8 without a byte order mark and end with a line feed. A byte that the encoding does not have
    stays as it is, because it may be in a column that is not read. `kind` names the format in errors.

    Raises:
        DataError: The file cannot be read or decoded, or has a line of more than `LONGEST_LINE` bytes.
    """
    rest = b""
    for piece in _in_utf8(path, encoding, kind, size or BLOCK_BYTES):
        end = piece.rfind(b"\n") + 1
        if end:
            yield rest + piece[:end]
            rest = piece[end:]
        else:
            rest += piece
            if len(rest) > LONGEST_LINE:
                raise DataError(f"{path.name} is not {kind}: a line of it is longer than {LONGEST_LINE >> 20} MB.")
    if rest:
        yield rest + b"\n"


def _in_utf8(path: Path, encoding: str | None, kind: str, size: int) -> Iterator[bytes]:
    decoder: codecs.IncrementalDecoder | None = None
    is_first, has_bare_returns, is_last = True, False, False
    try:
        with OPENERS[path.suffix.lower() if path.suffix.lower() in OPENERS else ""](path) as file:
            while not is_last:
                piece = file.read(size)
                is_last = not piece
                if is_first:
                    encoding = _encoding_of(piece, encoding, path)
                    if encoding != "utf-8":
                        decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
                if decoder is not None:
                    piece = decoder.decode(piece, final=is_last).encode("utf-8", "surrogateescape")
                if is_first:
                    piece = piece.removeprefix(codecs.BOM_UTF8)
                    has_bare_returns = b"\r" in piece and b"\n" not in piece  # Macs before 2001 ended lines so.
                    is_first = False
                if piece:
                    yield piece.replace(b"\r", b"\n") if has_bare_returns else piece
    except UnicodeError as error:
        raise DataError(
            f"{path.name} is not text in {encoding} ({error}); name its encoding, for example --encoding latin-1."
        ) from error
    except READING_ERRORS as error:
        raise unreadable(path, kind, error) from error


def _encoding_of(piece: bytes, encoding: str | None, path: Path) -> str:
    """The encoding that the caller gave, or that of a file which begins with the bytes `piece`."""
    if encoding not in (None, "utf-8", "utf-8-sig"):
        return str(encoding)
    marked = next((name for mark, name in BYTE_ORDER_MARKS.items() if piece.startswith(mark)), None)
    if marked is None and b"\0" in piece[:1000]:
        raise DataError(
            f"{path.name} is not text in UTF-8 (it holds zero bytes); if it is UTF-16 without a byte order mark, "
            "add --encoding utf-16-le."
        )
    return marked or "utf-8"
