"""Plain-text output for the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..serving import Recommendation

__all__ = ["history_line", "loading_lines", "recommendation_table"]

TITLE_WIDTH = 60


def _short(text: Any, width: int = TITLE_WIDTH) -> str:
    text = str(text)
    return text if len(text) <= width else text[: width - 1] + "…"


def recommendation_table(recommendation: Recommendation) -> str:
    """A row an item: rank, raw id, title where there is one, score."""
    items = recommendation.items
    with_titles = any(item.get("title") for item in items)
    rows = [["#", "item_id", *(["title"] if with_titles else []), "score"]]
    for rank, item in enumerate(items, 1):
        title = [_short(item.get("title") or "")] if with_titles else []
        rows.append([str(rank), _short(item["item_id"]), *title, f"{item['score']:.3f}"])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    last = len(widths) - 1
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place in (0, last) else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def history_line(history: Sequence[Any], titles: Sequence[str | None], count: int = 3) -> str:
    """The newest items of a history in one line: titles where known, raw ids elsewhere."""
    names = [_short(title or raw, 30) for raw, title in zip(history[-count:], titles[-count:], strict=True)]
    more = f"{len(history):,} items, newest: " if len(history) > count else ""
    return more + " → ".join(names) if names else "no items"


def loading_lines(folder: str, history: Sequence[Any]) -> str:
    """Three lines of Python that load a model folder and recommend."""
    return "\n".join(
        [
            "from modeling_glintru import Recommender",
            f"recommender = Recommender.from_pretrained({folder!r})",
            f"print(recommender.recommend([{list(history)!r}], top_k=5)[0].items)",
        ]
    )
