"""Writes a folder as a whole or not at all, and never removes what is not ours."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import DataError

__all__ = [
    "FORMAT",
    "SUMMARY_FILE",
    "check_output_folder",
    "is_prepared",
    "read_summary",
    "whole_folder",
    "write_summary",
]

SUMMARY_FILE = "summary.json"
FORMAT = "glintru-prepared"
FORMAT_VERSION = 1


def is_prepared(source: str | None) -> bool:
    """Whether a source is a folder of prepared data."""
    return source is not None and (Path(source) / SUMMARY_FILE).is_file()


def check_output_folder(folder: Path, overwrite: bool) -> None:
    """Refuses a folder that holds something.

    With `overwrite`, prepared data may be replaced; anything else is refused all the same.

    Raises:
        DataError: The folder is in the way.
    """
    if not folder.exists():
        if folder.is_symlink():
            raise DataError(f"{folder} is a link to nowhere; choose another output folder.")
        return
    if not folder.is_dir():
        raise DataError(f"{folder} is a file, but prepared data is a folder; choose another output folder.")
    entries = {entry.name for entry in folder.iterdir()}
    if not entries:
        return
    try:
        own = {SUMMARY_FILE, *read_summary(folder)["files"]}
    except DataError:
        own = set()
    foreign = sorted(entries - own)
    if foreign:
        raise DataError(
            f"{folder} holds something else ({foreign[0]!r}), which is never overwritten; choose another output folder."
        )
    if not overwrite:
        raise DataError(f"{folder} already holds prepared data; choose another output folder or allow --overwrite.")


@contextmanager
def whole_folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    """Gives a temporary sibling to write into, which takes the place of `folder` when all went well."""
    check_output_folder(folder, overwrite)
    token = secrets.token_hex(4)
    unfinished = folder.with_name(f".{folder.name}.{token}.unfinished")
    replaced = folder.with_name(f".{folder.name}.{token}.replaced")
    try:
        unfinished.mkdir(parents=True)
    except OSError as error:
        raise DataError(f"{folder} cannot be written ({error.strerror or error}).") from error
    try:
        yield unfinished
        check_output_folder(folder, overwrite)
        if folder.exists():
            folder.rename(replaced)
        try:
            unfinished.rename(folder)
        except OSError:
            if replaced.exists():
                replaced.rename(folder)
            raise
    except OSError as error:
        raise DataError(f"{folder} cannot be written ({error.strerror or error}).") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(replaced, ignore_errors=True)


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Writes `summary.json`, with the names of all files beside it."""
    files = sorted(os.listdir(folder))
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, "files": files, **summary}
    (folder / SUMMARY_FILE).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_summary(folder: Path) -> dict[str, Any]:
    """Reads `summary.json` and checks that this package wrote it.

    Raises:
        DataError: The folder is missing, not prepared data, or of a newer version.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}; make it with glintru prepare.")
    try:
        summary = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{folder} is not prepared data: it has no {SUMMARY_FILE}; make it with glintru prepare."
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / SUMMARY_FILE} is damaged; run glintru prepare again.") from error
    if not isinstance(summary, dict) or summary.get("format") != FORMAT or not isinstance(summary.get("files"), list):
        raise DataError(f"{folder} is not prepared data: its {SUMMARY_FILE} is of another kind.")
    if summary.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"{folder} was prepared in format {summary.get('format_version')}, but this version reads "
            f"{FORMAT_VERSION}; run glintru prepare again."
        )
    return summary
