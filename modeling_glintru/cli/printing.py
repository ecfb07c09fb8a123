"""What several verbs print."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TextIO

TITLE_WIDTH = 60


def print_notes(interactions: Any, stream: TextIO) -> None:
    """What was found in a table of interactions, a line each."""
    for note in interactions.notes:
        print(f"Note      {note}", file=stream)


def print_recommendation(processor: Any, name: Any, history: list[Any], found: Any, as_json: bool) -> None:
    if as_json:
        row = {"history": history} if name is None else {"user_id": name}
        row |= {"recommendations": found.items, "num_unknown_items": found.num_unknown_items}
        row |= {"cold_start": found.cold_start}
        print(json.dumps(row, ensure_ascii=False))
        return
    titles = [processor.title(raw) if raw in processor else None for raw in history]
    print(f"\n{'History' if name is None else f'User {name}'}: {history_line(history, titles)}")
    if found.num_unknown_items:
        print(f"{found.num_unknown_items} of {len(history)} items are unknown to the model and were left out")
    if found.cold_start:
        print("The model knows no item of this user, so these are the most popular items of the training data:")
    print(recommendation_table(found))


def print_evaluations(evaluations: Any, split: str, mark: str = "") -> None:
    """A table for each way of ranking, that of what is served first, and what the model is not better than.

    Args:
        evaluations: By model, the trained one first.
        split: `"test"` or `"validation"`.
        mark: What stands in each title, where figures need a warning.
    """
    from ..evaluation import against, format_table, no_better_than
    from ..evaluation.report import REFERENCE_TITLES

    names = {"full": "all items ranked, the user's past items left out", "full_with_history": "past items ranked too"}
    first = next(iter(evaluations.values()))
    counted = f"{first.num_users:,} users"
    if first.users is not None:
        counted += f" with {first.num_targets:,} targets"
    for column in first.ranks:
        tables = {REFERENCE_TITLES.get(model, model): each.table(column) for model, each in evaluations.items()}
        served = "what is served, " if column == first.main else ""
        title = f"{split}, {counted}{mark}: {served}{names.get(column, column)}; 95 % intervals"
        print("\n" + format_table(tables, first.headline, title=title))
    if first.recurring:
        effect = "they compete" if first.main.endswith("_with_history") else "with past items left out they are misses"
        print(f"\n{first.recurring:.1%} of the {split} targets stand in the user's history: {effect}")
    references = {model: each for model, each in evaluations.items() if each is not first}
    if sentence := no_better_than(against(first, references), min(first.ks)):
        print(f"\n{sentence}")


def _short(text: Any, width: int = TITLE_WIDTH) -> str:
    text = str(text)
    return text if len(text) <= width else text[: width - 1] + "…"


def recommendation_table(recommendation: Any) -> str:
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
