"""Finds the files that a path means: a name is a name; a folder or a `*` that names no file means part files."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from .json_lines import JSON_SUFFIXES
from .text_blocks import COMPRESSIONS
from .text_files import TEXT_SUFFIXES

__all__ = ["SUFFIXES", "NamedFiles", "find_files", "find_listed", "suffix_of"]

SUFFIXES = (".csv", ".tsv", ".parquet", *JSON_SUFFIXES, *TEXT_SUFFIXES[2:])
HIDDEN = (".", "_")  # what Spark writes beside its part files begins with one of these
PATTERN_MARKS = "*?"


@dataclass(frozen=True)
class NamedFiles:
    """The files of one table.

    Args:
        paths: One file, or the part files in the order of their names.
        suffix: What they have in common, one of `SUFFIXES`.
        source: Display name: the file's name, or that of the folder or pattern and how many files it means.
    """

    paths: tuple[Path, ...]
    suffix: str
    source: str


def suffix_of(path: Path) -> str:
    """The known suffix of a file's name without that of a compression, `""` where it has none."""
    is_compressed = path.suffix.lower() in COMPRESSIONS
    suffix = Path(path.stem).suffix.lower() if is_compressed else path.suffix.lower()
    return suffix if suffix in SUFFIXES and not (is_compressed and suffix == ".parquet") else ""


def find_files(name: str) -> NamedFiles | None:
    """The files that a name means.

    Args:
        name: A file, taken literally even with `[`, `*` or `?` in it; or a folder of part files; or a pattern with `*`
            or `?`, where there is no file of this very name. Of a folder and a pattern, names that begin with a dot or
            an underscore are left out, and so are files of no bytes; a folder is not read with its sub-folders.

    Returns:
        The files, or None where the name means none.

    Raises:
        DataError: A file is empty, or its suffix is not known; or there are part files of several kinds, or none, or
            sub-folders with tables beside them.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return NamedFiles((path,), _known_suffix(path), path.name)
    if path.is_dir():
        return _part_files(sorted(path.iterdir()), f"{path.name or name}/")
    if any(mark in name for mark in PATTERN_MARKS):
        # Brackets stay names: of the marks of a pattern only these two are meant.
        pattern = str(path).replace("[", "[[]")
        found = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
        # Spark's `_temporary/` and the like are left out, unless the pattern itself names them.
        named = [any(mark in part for mark in PATTERN_MARKS) for part in path.parts].index(True)
        spelt = set(path.parts)
        found = [
            match
            for match in found
            if not any(part.startswith(HIDDEN) for part in match.parts[named:-1] if part not in spelt)
        ]
        shown = Path(name).name
        if not found:
            raise DataError(f"No file is named like {name!r}.")
        return _part_files(found, shown)
    return None


def find_listed(names: Sequence[str | Path]) -> NamedFiles:
    """The files that several names mean together, in the order of the list, as parts of one table.

    Raises:
        DataError: As `find_files`; the list holds something else than paths, a name means no file, or the files are of
            several kinds.
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
    """Whether a file with a known suffix lies in a folder or below it; hidden names do not count."""
    for _, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(HIDDEN)]
        if any(suffix_of(Path(name)) for name in names if not name.startswith(HIDDEN)):
            return True
    return False


def _counted(paths: Sequence[Path], word: str) -> str:
    return f"{len(paths)} {word}{'' if len(paths) == 1 else 's'}"
