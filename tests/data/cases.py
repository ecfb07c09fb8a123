"""The small inputs of `tests/cases`, each a kind of table that people have, and how a place in one is written."""

from __future__ import annotations

from pathlib import Path

CASES = Path(__file__).resolve().parents[1] / "cases"


def case(name: str) -> Path:
    """The path of a file such as `"padded_ids/clicks.csv"`."""
    return CASES / name


def at(row: int) -> str:
    """A pattern for the place of a row (from 1) of a file with a header: by its number, or by the line of the file."""
    return rf"(row {row}|line {row + 1})\b"
