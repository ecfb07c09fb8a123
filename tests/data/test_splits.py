"""Each split by its definition, and the proof that no later interaction reaches training."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling_glintru.data.sequences import Sequences, build_sequences
from modeling_glintru.data.splits import Rows, Splits, held_out_users, leave_one_out, split_sequences, temporal
from modeling_glintru.errors import DataError

from .helpers import STEADY, make_interactions, random_interactions


def sequences_of(*lengths: int) -> Sequences:
    users = [user for user, length in enumerate(lengths) for _ in range(length)]
    return build_sequences(make_interactions(users, [k % 7 for k in range(len(users))], list(range(len(users)))))


def trained_positions(splits: Splits) -> set[int]:
    rows = zip(splits.train.starts, splits.train.stops, strict=True)
    positions = [position for start, stop in rows for position in range(start, stop)]
    assert len(positions) == len(set(positions))
    return set(positions)


def evaluated(rows: Rows) -> list[tuple[int, int, int, int]]:
    assert rows.targets is not None
    columns = (rows.users, rows.starts, rows.stops, rows.targets)
    return [tuple(map(int, row)) for row in zip(*columns, strict=True)]  # type: ignore[misc]


def owner(sequences: Sequences, position: int) -> int:
    return int(np.searchsorted(sequences.offsets, position, side="right")) - 1


def check_histories(sequences: Sequences, splits: Splits) -> None:
    """What holds for every split: a history is the user's whole past, and the target is what follows it."""
    for rows in (splits.validation, splits.test):
        for user, start, stop, target in evaluated(rows):
            assert start == sequences.offsets[user]
            assert start < stop == target < sequences.offsets[user + 1]


random_tables = st.builds(
    random_interactions,
    seed=st.integers(0, 10**6),
    num_users=st.integers(5, 60),
    rows=st.integers(150, 400),
    num_times=st.integers(10, 500),
)


@STEADY
@given(random_tables)
def test_leave_one_out_never_trains_on_a_target_or_later(read) -> None:
    sequences = build_sequences(read)
    splits = leave_one_out(sequences)
    check_histories(sequences, splits)
    trained = trained_positions(splits)
    assert splits.validation.users.tolist() == splits.test.users.tolist()
    for user, start, _, target in evaluated(splits.validation):
        assert target == sequences.offsets[user + 1] - 2
        assert {position for position in trained if owner(sequences, position) == user} == set(range(start, target))
    for user, *_, target in evaluated(splits.test):
        assert target == sequences.offsets[user + 1] - 1


def test_leave_one_out_trains_on_short_histories_and_does_not_evaluate_them() -> None:
    splits = leave_one_out(sequences_of(1, 4, 2, 3))
    assert (splits.train.stops - splits.train.starts).tolist() == [1, 2, 2, 1]
    assert evaluated(splits.validation) == [(1, 1, 3, 3), (3, 7, 8, 8)]
    assert evaluated(splits.test) == [(1, 1, 4, 4), (3, 7, 9, 9)]


@STEADY
@given(random_tables, st.floats(0.05, 0.4), st.floats(0.05, 0.4))
def test_temporal_never_trains_on_or_after_its_cut(read, validation_fraction: float, test_fraction: float) -> None:
    sequences = build_sequences(read)
    times = sequences.timestamps
    try:
        splits = temporal(sequences, validation_fraction=validation_fraction, test_fraction=test_fraction)
    except DataError:
        # Random tables with few times or few users may allow no such split; the next tests say when.
        return
    check_histories(sequences, splits)
    trained = trained_positions(splits)
    first_cut = min(time for position, time in enumerate(times) if position not in trained)
    # All before the cut is trained on, nothing at the cut or later.
    assert trained == set(np.flatnonzero(times < first_cut).tolist())
    second_cut = min(times[splits.test.targets])
    for _, start, stop, target in evaluated(splits.validation):
        assert max(times[start:stop]) < first_cut <= times[target] < second_cut
    for _, start, stop, target in evaluated(splits.test):
        assert max(times[start:stop]) < second_cut <= times[target]


def test_temporal_by_hand() -> None:
    # Times 0 ... 9; cuts at the times of rank 6 and 8.
    users = ["a", "a", "b", "a", "b", "c", "a", "b", "b", "c"]
    sequences = build_sequences(make_interactions(users, list(range(10)), list(range(0, 100, 10))))
    splits = temporal(sequences, validation_fraction=0.2, test_fraction=0.2)
    # Flat: a 0 10 30 60 | b 20 40 70 80 | c 50 90.
    assert sorted(sequences.timestamps[sorted(trained_positions(splits))]) == [0, 10, 20, 30, 40, 50]
    assert evaluated(splits.validation) == [(0, 0, 3, 3), (1, 4, 6, 6)]
    assert evaluated(splits.test) == [(1, 4, 7, 7), (2, 8, 9, 9)]


def test_temporal_keeps_ties_at_a_cut_together() -> None:
    users = [user for user in range(10) for _ in range(4)]
    times = [0, 1, 1, 2] * 10
    sequences = build_sequences(make_interactions(users, list(range(40)), times))
    splits = temporal(sequences, validation_fraction=0.3, test_fraction=0.25)
    assert sequences.timestamps[sorted(trained_positions(splits))].tolist() == [0] * 10
    assert (sequences.timestamps[splits.validation.targets] == 1).all()
    assert (sequences.timestamps[splits.test.targets] == 2).all()


@STEADY
@given(random_tables, st.integers(0, 5))
def test_held_out_users_are_never_trained_on(read, seed: int) -> None:
    sequences = build_sequences(read)
    splits = held_out_users(sequences, seed=seed)
    check_histories(sequences, splits)
    trained = {owner(sequences, position) for position in trained_positions(splits)}
    validation, test = set(splits.validation.users.tolist()), set(splits.test.users.tolist())
    assert not validation & test
    assert not trained & (validation | test)
    assert trained | validation | test == set(range(len(sequences.users)))
    assert len(trained_positions(splits)) == sum(sequences.lengths[user] for user in trained)
    for rows in (splits.validation, splits.test):
        assert rows.targets is not None
        assert (rows.targets == sequences.offsets[rows.users + 1] - 1).all()


def test_held_out_users_share_and_seed() -> None:
    sequences = sequences_of(*[3] * 100)
    splits = held_out_users(sequences, validation_fraction=0.2, test_fraction=0.3, seed=1)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (50, 20, 30)
    again = held_out_users(sequences, validation_fraction=0.2, test_fraction=0.3, seed=1)
    assert again.test.users.tolist() == splits.test.users.tolist()
    other = held_out_users(sequences, validation_fraction=0.2, test_fraction=0.3, seed=2)
    assert other.test.users.tolist() != splits.test.users.tolist()


@STEADY
@given(random_tables)
def test_the_last_baskets_are_held_out_whole(read) -> None:
    sequences = build_sequences(read)
    splits = leave_one_out(sequences, hold_out="basket")
    trained = trained_positions(splits)
    found: dict[int, list] = {}
    for name, rows in (("validation", splits.validation), ("test", splits.test)):
        for user, start, stop, target in evaluated(rows):
            found.setdefault(user, []).append((name, start, stop, target))
    assert splits.test.users.tolist() == sorted(splits.test.users)
    for user, (start, end) in enumerate(zip(sequences.offsets[:-1], sequences.offsets[1:], strict=True)):
        baskets: dict = {}
        for position in range(start, end):
            baskets.setdefault(sequences.timestamps[position], []).append(position)
        *before, validation, test = [[], [], *baskets.values()]
        if len(baskets) < 3:
            assert user not in found
            assert set(range(start, end)) <= trained
            continue
        assert found[user] == [
            *(("validation", start, validation[0], position) for position in validation),
            *(("test", start, test[0], position) for position in test),
        ]
        own = {position for position in trained if start <= position < end}
        assert own == {position for basket in before for position in basket}


def test_baskets_by_hand() -> None:
    # User 0: 1 | 2 3 | 4 5. User 1: two times only.
    read = make_interactions([0, 0, 0, 0, 0, 1, 1], [1, 2, 3, 4, 5, 1, 2], [1, 2, 2, 3, 3, 1, 2])
    splits = leave_one_out(build_sequences(read), hold_out="basket")
    assert evaluated(splits.validation) == [(0, 0, 1, 1), (0, 0, 1, 2)]
    assert evaluated(splits.test) == [(0, 0, 3, 3), (0, 0, 3, 4)]
    assert splits.train.stops.tolist() == [1, 7]


def test_baskets_are_of_leave_one_out() -> None:
    with pytest.raises(DataError, match="hold_out 'basket' is for the split leave_one_out, not for user"):
        split_sequences(sequences_of(5, 5, 5), "user", hold_out="basket")
    with pytest.raises(DataError, match="hold_out must be one of 'item', 'basket', but got 'session'"):
        split_sequences(sequences_of(5, 5), "leave_one_out", hold_out="session")
    one_time = make_interactions([1, 1, 1, 2, 2, 2], [1, 2, 3, 1, 2, 3], [5] * 6)
    with pytest.raises(DataError, match="All 2 histories are shorter than three times"):
        split_sequences(build_sequences(one_time), "leave_one_out", hold_out="basket")


def test_all_histories_too_short() -> None:
    with pytest.raises(DataError, match=r"All 4 histories are shorter than three interactions, .*--set split=user"):
        split_sequences(sequences_of(2, 1, 2, 2), "leave_one_out")


def test_nothing_to_learn_from() -> None:
    with pytest.raises(DataError, match="No training history of the leave_one_out split holds two items"):
        split_sequences(sequences_of(3, 3, 1), "leave_one_out")


def test_too_few_users_to_hold_out() -> None:
    with pytest.raises(DataError, match="only 2 have two or more"):
        split_sequences(sequences_of(5, 5, 1), "user")


def test_temporal_refuses_positions_in_the_history() -> None:
    read = make_interactions([1, 1, 2, 2, 2], [1, 2, 1, 2, 3], [0, 1, 0, 1, 2])
    with pytest.raises(DataError, match="positions in the history; use leave_one_out or user"):
        split_sequences(build_sequences(read), "temporal")


def test_temporal_needs_different_times() -> None:
    read = make_interactions([1, 1, 2, 2], [1, 2, 1, 2], [5, 5, 5, 5])
    with pytest.raises(DataError, match="too many interactions share the same time"):
        split_sequences(build_sequences(read), "temporal")


def test_temporal_needs_users_on_both_sides_of_a_cut() -> None:
    read = make_interactions([user for user in range(10) for _ in range(10)], list(range(100)), list(range(100)))
    with pytest.raises(DataError, match="leaves nobody for validation"):
        split_sequences(build_sequences(read), "temporal")


@pytest.mark.parametrize("split", ["temporal", "user"])
@pytest.mark.parametrize("fractions", [(0.0, 0.1), (0.1, 1.0), (0.5, 0.5), (-0.1, 0.1), (float("nan"), 0.1)])
def test_fractions_out_of_range(split: str, fractions: tuple[float, float]) -> None:
    with pytest.raises(DataError, match="must be above 0 and together below 1"):
        split_sequences(sequences_of(5, 5, 5, 5), split, validation_fraction=fractions[0], test_fraction=fractions[1])


def test_unknown_split() -> None:
    with pytest.raises(DataError, match="'leave_one_out', 'temporal', 'user', 'given', but got 'random'"):
        split_sequences(sequences_of(5, 5), "random")
