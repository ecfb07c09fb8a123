"""What several verbs print."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TextIO

from ..terminal import WIDTH, print_lines, printable, shorten


def print_notes(interactions: Any, stream: TextIO) -> None:
    """What was found in a table of interactions, a line each."""
    for note in interactions.notes:
        print_lines(f"Note      {printable(note)}", stream)


def print_recommendation(processor: Any, name: Any, history: list[Any], found: Any, as_json: bool) -> None:
    """The items for one user: a line of JSON, or the history and a table.

    Args:
        processor: Knows the titles.
        name: Raw user id; None where the history was given by itself.
        history: Raw item ids, oldest first.
        found: A `Recommendation`.
        as_json: Whether to print JSON.
    """
    if as_json:
        row = {"history": history} if name is None else {"user_id": name}
        row |= {"recommendations": found.items, "num_unknown_items": found.num_unknown_items}
        row |= {"cold_start": found.cold_start}
        print(json.dumps(row, ensure_ascii=False))
        return
    titles = [processor.title(raw) if raw in processor else None for raw in history]
    whose = "History" if name is None else f"User {shorten(name, 40)}"
    print_lines(f"\n{whose}: {history_line(history, titles)}")
    if found.num_unknown_items:
        print_lines(f"{found.num_unknown_items} of {len(history)} items are unknown to the model and were left out.")
    if found.cold_start:
        print_lines("The model knows no item of this user, so these are the most popular items of the training data:")
    print_lines(recommendation_table(found))


def print_evaluations(evaluations: Any, split: str, mark: str = "") -> None:
    """A table for each way of ranking, that of what is served first, and what the model is not better than.

    Args:
        evaluations: By model, the trained one first.
        split: `"test"` or `"validation"`.
        mark: A warning that stands below each title.
    """
    from ..evaluation import against, format_table, no_better_than
    from ..evaluation.report import REFERENCE_TITLES

    names = {"full": "all items ranked, past items left out", "full_with_history": "all items ranked, past items too"}
    first = next(iter(evaluations.values()))
    counted = f"{first.num_users:,} users"
    if first.users is not None:
        counted += f" with {first.num_targets:,} targets"
    for column in first.ranks:
        tables = {REFERENCE_TITLES.get(model, model): each.table(column) for model, each in evaluations.items()}
        title = f"{split.capitalize()}, {counted}: {names.get(column, column)}; 95 % intervals"
        print_lines(f"\n{title}{mark}\n{format_table(tables, first.headline)}")
    if len(first.ranks) > 1:
        print_lines("\nThe first table ranks the items as the model recommends them.")
    if first.recurring:
        recur = f"\n{first.recurring:.1%} of the {split} targets are among the user's past items"
        if first.main.endswith("_with_history"):
            print_lines(f"{recur}, which may be recommended again.")
        else:
            print_lines(f"{recur}. Where past items are left out, these targets count as misses.")
    references = {model: each for model, each in evaluations.items() if each is not first}
    if sentence := no_better_than(against(first, references), min(first.ks)):
        print_lines(f"\n{sentence}")


def recommendation_table(recommendation: Any) -> str:
    """A row an item: rank, raw id, title where there is one, score; at most 80 columns wide."""
    items = recommendation.items
    texts = [["item_id", *(printable(item["item_id"]) for item in items)]]
    if any(item.get("title") for item in items):
        texts.append(["title", *(printable(item.get("title") or "") for item in items)])
    ranks = ["#", *map(str, range(1, len(items) + 1))]
    scores = ["score", *(f"{item['score']:.3f}" for item in items)]
    room = WIDTH - max(map(len, ranks)) - max(map(len, scores)) - 2 * (len(texts) + 1)
    columns = [_right(ranks)]
    for place, texts_below in enumerate(texts):
        width = min(max(map(len, texts_below)), room // (len(texts) - place))  # a short column leaves room to the next
        columns.append([shorten(text, width).ljust(width) for text in texts_below])
        room -= width
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, _right(scores), strict=True))


def _right(cells: list[str]) -> list[str]:
    return [cell.rjust(max(map(len, cells))) for cell in cells]


def history_line(history: Sequence[Any], titles: Sequence[str | None], count: int = 3) -> str:
    """The newest items of a history: titles where known, raw ids elsewhere; in a second line where there are more."""
    names = [shorten(title or raw, 24) for raw, title in zip(history[-count:], titles[-count:], strict=True)]
    more = f"{len(history):,} items, the newest of them\n  " if len(history) > count else ""
    return more + " → ".join(names) if names else "no items"


def print_loading_lines(folder: str, history: Sequence[Any]) -> None:
    """Prints four lines of Python that load a model folder and recommend after the newest items that fit in a line."""
    shown = list(history)
    while len(shown) > 1 and len(f"history = {shown!r}") > WIDTH:
        del shown[0]
    print(
        f"\nThe model is in {printable(folder)}. Load it with\n\n"
        "from modeling_glintru import Recommender\n"
        f"recommender = Recommender.from_pretrained({folder!r})\n"
        f"history = {shown!r}\n"
        "print(recommender.recommend([history], top_k=5)[0].items)"
    )
