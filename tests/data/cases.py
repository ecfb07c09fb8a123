"""The small inputs of `tests/cases`, each a kind of table that people have, and how a place in one is written."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
FOLDERS = (TESTS / "cases", TESTS.parents[1] / "shared" / "cases", TESTS.parent / "shared" / "cases")


def case(name: str) -> Path:
    """The path of a file such as `"padded_ids/clicks.csv"`, or a skip where it is missing."""
    for folder in FOLDERS:
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"the input {name} is not on this machine")


def at(row: int) -> str:
    """A pattern for the place of a row (from 1) of a file with a header: by its number, or by the line of the file."""
    return rf"(row {row}|line {row + 1})\b"
