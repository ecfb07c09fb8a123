from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from modeling_glintru.data.interactions import read_interactions
from modeling_glintru.data.sequences import build_sequences

from .helpers import make_interactions, naive_histories, random_interactions


@pytest.mark.parametrize("seed", range(5))
def test_histories_equal_the_obvious_stable_sort(seed: int) -> None:
    read = random_interactions(seed, num_times=4)  # about five ties at each time
    sequences = build_sequences(read)
    expected = naive_histories(read)
    assert sequences.users.to_list() == sorted(expected)
    assert sequences.items.to_list() == sorted(set(read.frame["item_id"]))
    for place, user in enumerate(sequences.users):
        part = slice(sequences.offsets[place], sequences.offsets[place + 1])
        raw = [sequences.items[int(index) - 1] for index in sequences.item_indices[part]]
        assert list(zip(sequences.timestamps[part], raw, strict=True)) == expected[user]


def test_a_table_in_the_order_of_time_gives_the_same_histories() -> None:
    """Such a table is sorted in another way, and ties keep the order of the file in both."""
    shuffled = random_interactions(3, num_times=4)
    in_order = replace(shuffled, frame=shuffled.frame.sort("timestamp", maintain_order=True))
    one, other = build_sequences(shuffled), build_sequences(in_order)
    assert np.array_equal(one.item_indices, other.item_indices) and np.array_equal(one.timestamps, other.timestamps)
    assert np.array_equal(one.offsets, other.offsets)


def test_types_and_index_order() -> None:
    sequences = build_sequences(make_interactions([10, 9, 10], ["b", "B", "ä"], [1.5, 1.0, 0.5]))
    assert sequences.users.to_list() == [9, 10]
    assert sequences.items.to_list() == ["B", "b", "ä"]  # by code point
    assert sequences.item_indices.tolist() == [1, 3, 2]
    assert sequences.item_indices.dtype == np.int32
    assert sequences.offsets.dtype == np.int64
    assert sequences.lengths.tolist() == [1, 2]
    # Integers by value, not by their digits.
    assert build_sequences(make_interactions([1, 1], [10, 9], [0, 1])).items.to_list() == [9, 10]


@pytest.mark.needs_data
@pytest.mark.parametrize("name", ["ml-1m", "amazon-beauty", "amazon-video-games"])
def test_published_order_survives(shared_data: Path, name: str) -> None:
    # The published files are in time order per user, ties included: sorting must change nothing.
    read = read_interactions(shared_data / name / "interactions.parquet")
    sequences = build_sequences(read)
    in_file_order = read.frame.group_by("user_id", maintain_order=True).agg("item_id").sort("user_id")
    assert sequences.users.equals(in_file_order["user_id"], null_equal=False)
    flat = in_file_order["item_id"].explode().to_numpy()
    np.testing.assert_array_equal(sequences.items.to_numpy()[sequences.item_indices - 1], flat)


@pytest.mark.needs_data
def test_beauty_has_ties_that_a_test_can_see(shared_data: Path) -> None:
    read = read_interactions(shared_data / "amazon-beauty" / "interactions.parquet")
    sequences = build_sequences(read)
    last = sequences.offsets[1:] - 1
    tied = np.mean(sequences.timestamps[last] == sequences.timestamps[last - 1])
    assert tied == pytest.approx(0.43, abs=0.01)
