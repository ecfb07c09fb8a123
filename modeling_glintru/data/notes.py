"""What `prepare` found that a person should know: repeated rows, ties in time, what a given split holds."""

from __future__ import annotations

import numpy as np

from .filtering import exact_copies
from .interactions import Interactions
from .sequences import Sequences
from .splits import Rows, Splits

__all__ = ["note_on_repeated_rows", "note_on_ties", "notes_on_given_split", "tie_shares", "trained_positions"]

FEW_TIES = 0.01  # of the test targets; up to here the order of the file decides nothing that matters

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


def note_on_repeated_rows(policy: str, repeated: int, rows: int) -> list[str]:
    """A sentence, where there are such rows.

    Args:
        policy: See `filter_interactions`.
        repeated: Rows that it left out; for `"keep"`, exact copies.
        rows: Rows of the table.
    """
    return [f"{repeated:,} of {rows:,} rows {REPEATED[policy]}"] if repeated else []


def trained_positions(sequences: Sequences, splits: Splits) -> np.ndarray:
    """bool, a value a position of `Sequences.item_indices`: whether it is in a training history."""
    inside = np.zeros(len(sequences.item_indices) + 1, np.int8)  # slices do not overlap: 0 or 1 once summed up
    np.add.at(inside, splits.train.starts, 1)
    np.add.at(inside, splits.train.stops, -1)
    return np.cumsum(inside[:-1], dtype=np.int8) > 0


def tie_shares(sequences: Sequences, splits: Splits, trained: np.ndarray) -> dict[str, float]:
    """For each part of the split the share of its targets whose place in the history the file alone decides.

    Such a target shares its time (and what the order column says) with the item before or after it. Items of a basket
    that is held out whole have no order among them.

    Args:
        sequences: The histories.
        splits: Their split.
        trained: From `trained_positions`.

    Returns:
        `train`, `validation` and `test`, each from 0 to 1; 0 where there is no target.
    """
    tied = sequences.tied
    either = tied.copy()
    either[:-1] |= tied[1:]  # never across users: the first position of a user is not tied
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
    after[:-1] &= rows.stops[1:] != rows.stops[:-1]  # the next target of the same basket
    return float((before | after).mean()) if len(rows) else 0.0


def note_on_ties(ties: dict[str, float]) -> list[str]:
    """A sentence on what `tie_shares` counted, where it matters."""
    share = ties.get("test", 0.0)
    if share <= FEW_TIES:
        return []
    return [
        f"{100 * share:.1f} % of the test targets share their time with another item of the same user: their order is "
        "the file's; --order_column sorts within a time"
    ]


def notes_on_given_split(interactions: Interactions, sequences: Sequences, splits: Splits) -> list[str]:
    """What a split that came with the data holds that a split of our own never would.

    Args:
        interactions: What is left after filters, with the column `part`.
        sequences: Its histories.
        splits: From `splits.given`.
    """
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
