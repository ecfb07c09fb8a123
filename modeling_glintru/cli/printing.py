"""What several verbs print."""

from __future__ import annotations

import json
from typing import Any


def print_recommendation(processor: Any, name: Any, history: list[Any], found: Any, as_json: bool) -> None:
    from ..display import history_line, recommendation_table

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


def print_evaluations(evaluations: Any, split: str) -> None:
    """A table for each way of ranking: past items excluded (the main figures), not excluded, sampled."""
    from ..evaluation import format_table

    names = {"full": "all items ranked, the user's past items excluded", "full_with_history": "past items ranked too"}
    first = next(iter(evaluations.values()))
    metrics = [f"{metric}@{min(first.ks)}" for metric in ("ndcg", "hr", "mrr")]
    for column in first.ranks:
        tables = {model: evaluation.table(column) for model, evaluation in evaluations.items()}
        title = f"{split}, {first.num_users:,} users: {names.get(column, column)}; 95 % intervals over users"
        print("\n" + format_table(tables, metrics, title=title))
