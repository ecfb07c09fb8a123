"""Splits: which part of each history is for training, and which targets are evaluated after which part.

A split copies no interactions. It names slices of the flat array of `Sequences`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DataError
from .sequences import Sequences

__all__ = [
    "HOLD_OUT",
    "PARTS",
    "SPLITS",
    "WHOLE",
    "Rows",
    "Splits",
    "cut_users",
    "given",
    "held_out_users",
    "leave_one_out",
    "split_sequences",
    "temporal",
]

PARTS = ("train", "validation", "test")
WHOLE = "whole"  # A further part: the complete histories of the users of whom the other parts hold only a beginning.
HOLD_OUT = ("item", "basket")


@dataclass(frozen=True)
class Rows:
    """The rows of one part of a split as int64 arrays of one length; a user with several targets has several rows.

    Args:
        users: Positions in `Sequences.users`.
        starts: Where the row's history begins in `Sequences.item_indices`.
        stops: Where it ends (exclusive).
        targets: Position of the target in `Sequences.item_indices`, or None for training rows.
    """

    users: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    targets: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class Splits:
    """The three parts of a split."""

    train: Rows
    validation: Rows
    test: Rows


def leave_one_out(sequences: Sequences, *, hold_out: str = "item") -> Splits:
    """The usual split of the literature: the last item of a user is the test target, the one before it for validation.

    Users with fewer than three interactions are only trained on. This split leaks along the time axis of all users,
    because other users' training items may be later than a target; `temporal` does not leak.

    Args:
        sequences: The histories.
        hold_out: `"basket"` holds out all interactions of a user's last time for the test, and those of the time before
            it for validation. Each of them is a target in a row of its own, after the history that ended before the
            basket. Users with fewer than three times are only trained on.

    Raises:
        DataError: `hold_out` is unknown, or all histories are shorter than three.
    """
    if hold_out not in HOLD_OUT:
        raise DataError(f"hold_out must be one of {', '.join(map(repr, HOLD_OUT))}, but got {hold_out!r}.")
    starts, ends = sequences.offsets[:-1], sequences.offsets[1:]
    if hold_out == "item":
        steps, test, validation = sequences.lengths, ends - 1, ends - 2
    else:
        begins = _baskets(sequences)
        first = np.searchsorted(begins, sequences.offsets)  # User u has the baskets begins[first[u] : first[u + 1]].
        steps, test, validation = np.diff(first), begins[first[1:] - 1], begins[np.maximum(first[1:] - 2, 0)]
    evaluated = steps >= 3
    if not evaluated.any():
        what = "interactions" if hold_out == "item" else "times"
        raise DataError(
            f"All {len(starts)} histories are shorter than three {what}, so leave_one_out has nobody to evaluate; "
            "the split user holds out some users whole and needs two interactions a user: --set split=user."
        )
    users = np.flatnonzero(evaluated)
    train_ends = np.where(evaluated, validation, ends)
    validation, test = validation[users], test[users]
    return Splits(
        train=Rows(np.arange(len(starts)), starts, train_ends),
        validation=_target_rows(users, starts[users], validation, test, validation),
        test=_target_rows(users, starts[users], test, ends[users], test),
    )


def _baskets(sequences: Sequences) -> np.ndarray:
    """The positions at which the interactions of one user at one time begin."""
    new = np.diff(sequences.timestamps, prepend=sequences.timestamps[:1]) != 0
    new[sequences.offsets[:-1]] = True
    return np.flatnonzero(new)


def _target_rows(
    users: np.ndarray, starts: np.ndarray, first: np.ndarray, end: np.ndarray, stops: np.ndarray | None = None
) -> Rows:
    """A row for each target at first ... end - 1 of each user, after the history up to `stops` or to the target."""
    counts = end - first
    before = np.cumsum(counts) - counts
    targets = np.arange(counts.sum()) + np.repeat(first - before, counts)
    ends = targets if stops is None else np.repeat(stops, counts)
    return Rows(np.repeat(users, counts), np.repeat(starts, counts), ends, targets)


def given(sequences: Sequences) -> Splits:
    """The split that came with the data, `Sequences.parts`.

    Each interaction of the validation and the test file is a target. Its history is what the user has in the earlier
    files, and earlier in the same file. Where there is no validation file, the last training item of each user with at
    least two is the validation target and is not trained on. Users without an interaction in the training file are not
    evaluated.

    Raises:
        DataError: There are no parts, or nobody can be evaluated.
    """
    if sequences.parts is None:
        raise DataError("The split given needs the files of a split: --train_data FILE and --test_data FILE.")
    starts, ends = sequences.offsets[:-1], sequences.offsets[1:]
    train_ends, validation_ends = (
        starts + _count_per_user(sequences.parts < part, sequences.offsets) for part in (1, 2)
    )
    trained = np.flatnonzero(train_ends > starts)
    learned_from = train_ends
    if (validation_ends == train_ends).all():  # no validation file
        able = train_ends - starts >= 2
        learned_from = np.where(able, train_ends - 1, train_ends)
    begin, middle, end = starts[trained], validation_ends[trained], ends[trained]
    splits = Splits(
        train=Rows(trained, begin, learned_from[trained]),
        validation=_target_rows(trained, begin, learned_from[trained], middle),
        test=_target_rows(trained, begin, middle, end),
    )
    for name, part in (("validation", splits.validation), ("test", splits.test)):
        if len(part) == 0:
            raise DataError(f"No user of the {name} file has a history in the training file: is it of the same users?")
    return splits


def temporal(sequences: Sequences, *, validation_fraction: float = 0.1, test_fraction: float = 0.1) -> Splits:
    """Cuts the time of all users at t1 < t2, so that nothing leaks from later to earlier.

    Training is everything before t1. The validation target of a user with a history before t1 is the first item in
    [t1, t2). The test target of a user with a history before t2 is the first item at t2 or later.

    Args:
        sequences: The histories; their times must mean the same for all users.
        validation_fraction: Approximate share of the interactions between the cuts, since equal times stay together.
        test_fraction: Approximate share of the interactions from t2 on.

    Raises:
        DataError: The fractions are out of range, the times allow no such cuts, or nobody can be evaluated.
    """
    _check_fractions(validation_fraction, test_fraction)
    times, offsets = sequences.timestamps, sequences.offsets
    positions = np.arange(len(times)) - np.repeat(offsets[:-1], sequences.lengths)
    if len(sequences.lengths) > 1 and np.array_equal(times, positions):
        raise DataError(
            "The temporal split needs times on one axis for all users, but in this table every user's times count "
            "0, 1, 2, ...: they are positions in the history; use leave_one_out or user."
        )
    ordered, total = np.sort(times), len(times)
    first_cut = ordered[int(total * (1 - validation_fraction - test_fraction))]
    second_cut = ordered[min(int(total * (1 - test_fraction)), total - 1)]
    if not ordered[0] < first_cut < second_cut:
        raise DataError(
            "The temporal split needs two different cuts in time, but too many interactions share the same time "
            f"(cuts at {first_cut} and {second_cut}); use other fractions or another split."
        )
    # A user's times are sorted, so that the history before a cut ends after as many items as are earlier.
    starts, ends = offsets[:-1], offsets[1:]
    before_first = starts + _count_per_user(times < first_cut, offsets)
    before_second = starts + _count_per_user(times < second_cut, offsets)

    def rows(history_end: np.ndarray, limit: np.ndarray) -> Rows:
        users = np.flatnonzero((history_end > starts) & (history_end < limit))
        return Rows(users, starts[users], history_end[users], history_end[users])

    trained = np.flatnonzero(before_first > starts)
    splits = Splits(
        train=Rows(trained, starts[trained], before_first[trained]),
        validation=rows(before_first, before_second),
        test=rows(before_second, ends),
    )
    for name, part in (("validation", splits.validation), ("test", splits.test)):
        if len(part) == 0:
            raise DataError(
                f"The temporal split leaves nobody for {name}: no user has interactions on both sides of its cut; "
                "use other fractions or another split."
            )
    return splits


def held_out_users(
    sequences: Sequences, *, validation_fraction: float = 0.1, test_fraction: float = 0.1, seed: int = 42
) -> Splits:
    """The split `"user"`: some users are never trained on, and their last item is the target.

    Args:
        sequences: The histories.
        validation_fraction: Share of the users with two or more interactions that validate.
        test_fraction: Share of the same users for the test.
        seed: Seed of the draw of users.

    Raises:
        DataError: The fractions are out of range, or fewer than three users have two or more interactions.
    """
    _check_fractions(validation_fraction, test_fraction)
    starts, ends = sequences.offsets[:-1], sequences.offsets[1:]
    able = np.flatnonzero(sequences.lengths >= 2)
    num_validation = max(1, round(validation_fraction * len(able)))
    num_test = max(1, round(test_fraction * len(able)))
    if num_validation + num_test >= len(able):
        raise DataError(
            f"The user split needs users for training, validation and test, but only {len(able)} have two or more "
            "interactions."
        )
    drawn = np.random.default_rng(seed).permutation(able)
    validation, test = np.sort(drawn[:num_validation]), np.sort(drawn[num_validation : num_validation + num_test])
    trained = np.setdiff1d(np.arange(len(starts)), np.concatenate([validation, test]))

    def held_out(users: np.ndarray) -> Rows:
        return Rows(users, starts[users], ends[users] - 1, ends[users] - 1)

    return Splits(Rows(trained, starts[trained], ends[trained]), held_out(validation), held_out(test))


SPLITS: dict[str, Callable[..., Splits]] = {
    "leave_one_out": leave_one_out,
    "temporal": temporal,
    "user": held_out_users,
    "given": given,
}


def split_sequences(
    sequences: Sequences,
    split: str,
    *,
    hold_out: str = "item",
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 42,
) -> Splits:
    """Splits by the name of a split (`SPLITS`), which is given those of the options that it has.

    Raises:
        DataError: The split is unknown or raises one itself, or no training history holds two items.
    """
    if split not in SPLITS:
        raise DataError(f"split must be one of {', '.join(map(repr, SPLITS))}, but got {split!r}.")
    if hold_out != "item" and split != "leave_one_out":
        raise DataError(f"hold_out {hold_out!r} is for the split leave_one_out, not for {split}.")
    fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    options: dict[str, dict[str, Any]] = {
        "leave_one_out": {"hold_out": hold_out},
        "temporal": fractions,
        "user": fractions | {"seed": seed},
    }
    splits = SPLITS[split](sequences, **options.get(split, {}))
    if not (splits.train.stops - splits.train.starts >= 2).any():
        raise DataError(
            f"No training history of the {split} split holds two items, so there is nothing to learn from; "
            "longer histories are needed."
        )
    return splits


def cut_users(sequences: Sequences, splits: Splits) -> Rows:
    """The complete histories of the users of whom no row of the split holds everything.

    Only the split `temporal` has such users: what follows the first item after the last cut is in none of its rows.
    """
    starts, ends = sequences.offsets[:-1], sequences.offsets[1:]
    reached = starts.copy()
    for name in PARTS:
        part = getattr(splits, name)
        stops = part.stops if part.targets is None else part.stops + (part.targets == part.stops)
        np.maximum.at(reached, part.users, stops)
    users = np.flatnonzero(reached < ends)
    return Rows(users, starts[users], ends[users])


def _count_per_user(chosen: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    running = np.concatenate([[0], np.cumsum(chosen)])
    return running[offsets[1:]] - running[offsets[:-1]]


def _check_fractions(validation_fraction: float, test_fraction: float) -> None:
    if not (0 < validation_fraction < 1 and 0 < test_fraction < 1 and validation_fraction + test_fraction < 1):
        raise DataError(
            "validation_fraction and test_fraction must be above 0 and together below 1, but got "
            f"{validation_fraction} and {test_fraction}."
        )
