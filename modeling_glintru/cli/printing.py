"""What several verbs print."""

from __future__ import annotations

import json
from typing import Any


def print_recommendation(processor: Any, name: Any, history: list[Any], found: Any, as_json: bool) -> None:
    from .display import history_line, recommendation_table

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
    metrics = [f"{metric}@{min(first.ks)}" for metric in ("ndcg", "hr", "mrr")]
    counted = f"{first.num_users:,} users"
    if first.users is not None:
        counted += f" with {first.num_targets:,} targets"
    for column in first.ranks:
        tables = {REFERENCE_TITLES.get(model, model): each.table(column) for model, each in evaluations.items()}
        served = "what is served, " if column == first.main else ""
        title = f"{split}, {counted}{mark}: {served}{names.get(column, column)}; 95 % intervals"
        print("\n" + format_table(tables, metrics, title=title))
    if first.recurring:
        effect = "they compete" if first.main.endswith("_with_history") else "with past items left out they are misses"
        print(f"\n{first.recurring:.1%} of the {split} targets stand in the user's history: {effect}")
    references = {model: each for model, each in evaluations.items() if each is not first}
    if sentence := no_better_than(against(first, references), min(first.ks)):
        print(f"\n{sentence}")
