"""The summary of prepared data: counts and notes on what was read, left out and split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..terminal import printable
from .filtering import exact_copies
from .histories import arrow_view, flat_histories, iterate_flat_histories
from .interactions import Interactions
from .items import describe_items
from .sequences import Sequences
from .splits import Rows, Splits

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "ITEMS",
    "RECURRING",
    "describe",
    "note_on_repeated_rows",
    "note_on_ties",
    "notes_on_given_split",
    "recurring_targets",
    "recurring_training_targets",
    "summarise",
    "tie_shares",
    "trained_positions",
]

ITEMS = "item_features"  # the entry on the table of items, where one was given
RECURRING = 0.06  # Past items are recommended again if at least this share of the training targets recurs.
ROWS_PER_BLOCK = 50_000
FEW_TIES = 0.01  # With at most this share of the test targets tied there is no note.

REPEATED = {
    "keep": "are exact copies of another row (the same user, item and time); they stay, because duplicates is keep: "
    "--set duplicates=exact leaves them out.",
    "exact": "are exact copies of another row (the same user, item and time) and were left out; --set duplicates=keep "
    "keeps them.",
    "consecutive": "repeat the item directly before them, or are exact copies of another row, and were left out "
    "(duplicates=consecutive).",
    "first": "hold an item that the user had before and were left out (duplicates=first).",
    "last": "hold an item that the user had again later and were left out (duplicates=last).",
}


def summarise(read: Interactions, kept: Interactions, sequences: Sequences, splits: Splits) -> dict[str, Any]:
    """The counts of a table before (`read`) and after (`kept`) filtering and of its split; JSON can hold them."""
    trained = np.zeros(len(sequences.items) + 1, bool)
    lengths = splits.train.stops - splits.train.starts
    inside = trained_positions(sequences, splits)
    trained[sequences.item_indices[inside]] = True

    def cold(rows: Rows) -> int:
        return int((~trained[sequences.item_indices[rows.targets]]).sum())

    users, items = len(sequences.users), len(sequences.items)
    return {
        "source": read.source,
        "columns": dict(read.columns),
        "users": users,
        "items": items,
        "interactions": len(kept),
        "dropped": {
            "interactions": len(read) - len(kept),
            "users": read.num_users - users,
            "items": read.num_items - kept.num_items,
        },
        "median_history_length": float(np.median(sequences.lengths)),
        "train_histories": len(splits.train),
        "train_interactions": int(lengths.sum()),
        "validation_users": len(np.unique(splits.validation.users)),
        "test_users": len(np.unique(splits.test.users)),
        "validation_targets": len(splits.validation),
        "test_targets": len(splits.test),
        "ties": tie_shares(sequences, splits, inside),
        "validation_cold_targets": cold(splits.validation),
        "test_cold_targets": cold(splits.test),
    }


def describe(s: Mapping[str, Any], recommend_seen: bool) -> str:
    """The summary in a few lines of text."""
    columns = ", ".join(f"{role} = {name!r}" for role, name in s["columns"].items())
    if "time" not in s["columns"]:
        columns += ", time = the order of the rows"
    dropped = s["dropped"]
    lines = [
        f"Data      {s['source']}: {columns}",
        f"          {s['interactions']:,} interactions, {s['users']:,} users, {s['items']:,} items, "
        f"median history {s['median_history_length']:g}",
    ]
    if any(dropped.values()):
        left_out = "Left out  " + ", ".join(f"{count:,} {what}" for what, count in dropped.items())
        unknown = s.get("unknown_to_model", {"items": 0})
        if unknown["items"]:
            left_out += (
                f"; the model does not know {unknown['items']:,} of the items "
                f"({unknown['interactions']:,} interactions)"
            )
        lines.append(left_out)
    lines += [f"Note      {printable(note)}" for note in [*s.get("notes", []), *note_on_ties(s.get("ties", {}))]]
    lines.append(
        f"Split     {s['split']}: {s['train_histories']:,} training histories with {s['train_interactions']:,} "
        f"interactions; evaluated: {_targets(s, 'validation')}, {_targets(s, 'test')}"
    )
    new = s.get("new_to_model", {"items": 0})
    if new["items"]:
        lines.append(
            f"New       {new['items']:,} items that the model did not know ({new['interactions']:,} interactions)"
        )
    if shares := s.get("recurring_targets"):
        lines.append(
            f"Repeated  {shares['train']:.1%} of the training targets stood in the history before (test: "
            f"{shares['test']:.1%}): past items are {'' if recommend_seen else 'not '}recommended again"
        )
    cold = s["validation_cold_targets"], s["test_cold_targets"]
    if any(cold):
        lines.append(f"          targets never seen in training: {cold[0]:,} validation, {cold[1]:,} test")
    if ITEMS in s:
        lines.append(describe_items(s[ITEMS]))
    return "\n".join(lines)


def _targets(summary: Mapping[str, Any], part: str) -> str:
    users = summary[f"{part}_users"]
    targets = summary.get(f"{part}_targets", users)
    return f"{users:,} {part}" if targets == users else f"{targets:,} {part} targets of {users:,} users"


def note_on_repeated_rows(policy: str, repeated: int, rows: int) -> list[str]:
    """A sentence where rows were left out as duplicates, or where exact copies stay because of `"keep"`."""
    return [f"{repeated:,} of {rows:,} rows {REPEATED[policy]}"] if repeated else []


def trained_positions(sequences: Sequences, splits: Splits) -> np.ndarray:
    """bool, one value for each of `Sequences.item_indices`: whether it is in a training history."""
    inside = np.zeros(len(sequences.item_indices) + 1, np.int8)  # Training rows do not overlap: the sums are 0 or 1.
    np.add.at(inside, splits.train.starts, 1)
    np.add.at(inside, splits.train.stops, -1)
    return np.cumsum(inside[:-1], dtype=np.int8) > 0


def tie_shares(sequences: Sequences, splits: Splits, trained: np.ndarray) -> dict[str, float]:
    """For each part of the split the share of its targets, 0 to 1, whose place only the order of the file decides.

    The time (and the value of the order column) of such a target is also that of the item before or after it. The order
    within a basket that is held out does not matter. `trained` comes from `trained_positions`.
    """
    tied = sequences.tied
    either = tied.copy()
    either[:-1] |= tied[1:]  # This stays within a user, whose first position is never tied.
    begins = splits.train.starts[splits.train.stops > splits.train.starts]
    learned, targets = int((either & trained).sum() - either[begins].sum()), int(trained.sum() - len(begins))
    return {
        "train": learned / max(targets, 1),
        "validation": _tied_share(tied, splits.validation),
        "test": _tied_share(tied, splits.test),
    }


def _tied_share(tied: np.ndarray, rows: Rows) -> float:
    targets = rows.targets
    assert targets is not None
    before = tied[targets] & (rows.stops == targets)
    after = np.append(tied, False)[targets + 1]
    after[:-1] &= rows.stops[1:] != rows.stops[:-1]  # The next target of the same basket does not count.
    return float((before | after).mean()) if len(rows) else 0.0


def note_on_ties(ties: dict[str, float]) -> list[str]:
    """A sentence on ties where the share of the test targets in `tie_shares` is not small."""
    share = ties.get("test", 0.0)
    if share <= FEW_TIES:
        return []
    return [
        f"{100 * share:.1f} % of the test targets share their time with another item of the same user: their order is "
        "the file's; --order_column sorts within a time"
    ]


def notes_on_given_split(interactions: Interactions, sequences: Sequences, splits: Splits) -> list[str]:
    """Sentences on users and rows of a given split that no split of this package would have."""
    assert sequences.parts is not None
    notes = []
    per_part = np.bincount(sequences.parts, minlength=3)
    if not per_part[1]:
        notes.append(
            "There is no --validation_data: the last training item of each user validates and is not trained on."
        )
    for part, (name, rows) in enumerate((("validation", splits.validation), ("test", splits.test)), start=1):
        if (left_out := per_part[part] - len(rows)) > 0:
            notes.append(
                f"{left_out:,} of {per_part[part]:,} rows of the {name} file were left out: their users have no row in "
                "the training file."
            )
        assert rows.targets is not None
        earlier = int((sequences.timestamps[rows.targets] < sequences.timestamps[rows.stops - 1]).sum())
        if earlier:
            notes.append(
                f"{earlier:,} of {len(np.unique(rows.users)):,} users have an item in the {name} file that is older "
                "than the newest item of their history: this split does not follow time."
            )
    if both := int(exact_copies(interactions.frame.drop("part")).sum()):
        notes.append(
            f"{both:,} of {len(interactions):,} rows stand in more than one of the files, or twice in one: such "
            "targets were trained on."
        )
    return notes


def recurring_training_targets(split: Dataset) -> float:
    """Share of the targets of training histories (all items but the first) that stood in the history before, 0 to 1."""
    recurring = targets = 0
    for items, lengths in iterate_flat_histories(split):
        rows = np.repeat(np.arange(len(lengths)), lengths)
        pairs = rows * (int(items.max(initial=0)) + 1) + items
        pairs.sort()  # This is 25 times as fast as np.unique.
        recurring += int(np.count_nonzero(pairs[1:] == pairs[:-1]))
        targets += len(items) - int(np.count_nonzero(lengths))
    return recurring / max(targets, 1)


def recurring_targets(split: Dataset) -> float:
    """Share of the evaluation rows whose `target` stands in their `item_ids`, 0 to 1."""
    recurring = 0
    for table in arrow_view(split, ["item_ids", "target"]).iter(ROWS_PER_BLOCK):
        items, lengths = flat_histories(table)
        targets = table["target"].to_numpy()
        rows = np.repeat(np.arange(len(lengths)), lengths)
        recurring += len(np.unique(rows[items == targets[rows]]))
    return recurring / max(len(split), 1)
