"""What a person should know of a table before it is trained on: giant users and items, columns that nobody uses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from .columns import base_name, is_usual_name, name_in_condition, where_option

__all__ = ["giant_note", "looks_like_session", "unused_note"]

GIANT_SHARE, GIANT_TIMES_EVEN = 0.05, 4
GIANT_ROWS, GIANT_IDS, GIANT_SAMPLE = 100, 20, 100_000
LONGEST_NOTE = 160
EVENTS = ("event", "eventtype", "behavior", "behaviortype", "behaviour", "action", "actiontype", "type", "interaction")
RATINGS = ("rating", "overall", "stars", "score", "ratings")


def giant_note(ids: pl.Series, role: str, column: str) -> str | None:
    """A sentence where one user or item has more than 5 % of all rows and more than four times an even share.

    Only of tables of at least 100 rows and 20 users (or items).

    Args:
        ids: Of all rows.
        role: `"user"` or `"item"`.
        column: Where the ids are from.
    """
    if len(ids) < GIANT_ROWS:
        return None
    # A sample tells who it could be: to count all ids of all rows takes several times as long as reading them.
    sample = ids.sample(GIANT_SAMPLE, seed=0) if len(ids) > GIANT_SAMPLE else ids
    counts = sample.value_counts(name="count")
    value, sampled = counts.row(int(counts["count"].arg_max() or 0))
    if len(counts) < GIANT_IDS or sampled < GIANT_SHARE / 2 * len(sample):
        return None
    count = int((ids == value).sum())
    if count <= len(ids) * max(GIANT_SHARE, GIANT_TIMES_EVEN / len(counts)):
        return None
    advice = f" ({where_option(f'{name_in_condition(column)} != {value!r}')} leaves it out)" if column else ""
    return (
        f"The {role} {value!r} has {100 * count / len(ids):.1f} % of all rows: is it a real {role}, or what stands for "
        f"an unknown one?{advice}"
    )


def looks_like_session(names: Iterable[str], used: Sequence[str]) -> str | None:
    """The first column that is named like a session and plays no role yet, or None."""
    return next((name for name in names if name not in used and is_usual_name(name, "session")), None)


def unused_note(names: Sequence[str], used: Sequence[str], has_times: bool) -> str | None:
    """A sentence of at most 160 letters on the columns that are there and not used, and what would use them.

    Columns of titles are not named: `load_titles` reads them.
    """
    rest = [name for name in names if name not in used and not is_usual_name(name, "title")]
    if not rest:
        return None
    options = {name: _option(name, has_times) for name in rest}
    rest.sort(key=lambda name: options[name] is None)  # stable: the telling names come first
    note = "Not used:"
    for count, name in enumerate(rest):
        option = options[name] or ("--where" if count == 0 else None)
        part = f"{',' if count else ''} {base_name(name)!r}" + (f" ({option})" if option else "")
        left = len(rest) - count - 1
        room = LONGEST_NOTE - (len(f" and {left:,} more.") if left else 1)
        if len(note) + len(part) > room:
            return f"{note} and {left + 1:,} more." if count else f"Not used: {left + 1:,} columns (--where)."
        note += part
    return f"{note}."


def _option(name: str, has_times: bool) -> str | None:
    """The option that would use a column of a telling name."""
    letters = "".join(letter for letter in base_name(name).lower() if letter.isalnum())
    if letters in EVENTS:
        written = name_in_condition(name)
        # A name in backticks needs single quotes around the condition, so that there are double ones within it.
        return where_option(f"{written} == " + ('"purchase"' if written.startswith("`") else "'purchase'"))
    if letters in RATINGS:
        return where_option(f"{name_in_condition(name)} >= 4")
    if is_usual_name(name, "session"):
        return f"--session_column {base_name(name)}"
    if has_times and is_usual_name(name, "order"):
        return f"--order_column {base_name(name)}"
    return None
