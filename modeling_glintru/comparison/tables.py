"""Cells and tables of Markdown."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["markdown_table", "value_cell"]


def markdown_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, with a line break at its end."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def value_cell(value: float | None) -> str:
    """Four digits behind the point; a dash where nothing was measured."""
    return "–" if value is None else f"{value:.4f}"
