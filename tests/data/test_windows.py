from __future__ import annotations

import itertools
import pickle
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from modeling_glintru.data.batches import SequenceCollator
from modeling_glintru.data.histories import history_lengths
from modeling_glintru.data.windows import TrainingWindows
from modeling_glintru.errors import DataError

from .helpers import STEADY


def split_of(lengths: list[int], rows_per_chunk: int = 3, kind: pa.DataType | None = None) -> datasets.Dataset:
    """Histories of running numbers, so that each item of the set is unique; in several chunks."""
    ends = np.cumsum(lengths)
    histories = [list(range(end - length + 1, end + 1)) for length, end in zip(lengths, ends, strict=True)]
    chunks = [histories[place : place + rows_per_chunk] for place in range(0, len(histories), rows_per_chunk)]
    column = pa.chunked_array(chunks, kind or pa.list_(pa.int32()))
    return datasets.Dataset(pa.table({"item_ids": column}))


def check_windows(windows: TrainingWindows, histories: list[list[int]]) -> None:
    """Every item but the first of each history is a target exactly once, and windows never cross histories."""
    targets: Counter = Counter()
    followed_by = {pair for history in histories for pair in itertools.pairwise(history)}
    for place in range(len(windows)):
        items = windows[place]["item_ids"]
        assert items.dtype == np.int32
        assert 2 <= len(items) <= windows.max_length + 1
        assert len(items) - 1 == windows.lengths[place]
        assert set(itertools.pairwise(items.tolist())) <= followed_by
        targets.update(items[1:].tolist())
    assert targets == Counter(item for history in histories for item in history[1:])
    assert windows.num_targets == sum(targets.values())


lists_of_lengths = st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(lambda lengths: max(lengths) >= 2)


@STEADY
@given(lists_of_lengths, st.integers(1, 15), st.booleans(), st.integers(0, 50), st.integers(0, 3))
def test_every_target_exactly_once(lengths: list[int], max_length: int, shift: bool, seed: int, epoch: int) -> None:
    split = split_of(lengths)
    windows = TrainingWindows(split, max_length, random_shift=shift, seed=seed)
    num_windows = len(windows)
    windows.set_epoch(epoch)
    assert len(windows) == num_windows == sum(-(-max(length - 1, 0) // max_length) for length in lengths)
    check_windows(windows, [list(history) for history in split["item_ids"]])


def test_windows_tile_from_the_newest_end() -> None:
    windows = TrainingWindows(split_of([8, 1, 2]), 3)
    found = [windows[place]["item_ids"].tolist() for place in range(len(windows))]
    assert found == [[5, 6, 7, 8], [2, 3, 4, 5], [1, 2], [10, 11]]
    assert windows.lengths.tolist() == [3, 3, 1, 1]


def test_shift_moves_the_borders_from_epoch_to_epoch() -> None:
    def borders(seed: int, epoch: int) -> list[list[int]]:
        windows = TrainingWindows(split_of([50] * 6), 20, random_shift=True, seed=seed)
        windows.set_epoch(epoch)
        return [windows[place]["item_ids"].tolist() for place in range(len(windows))]

    assert borders(1, 0) != borders(1, 1)
    assert borders(1, 0) != borders(2, 0)
    assert borders(1, 1) == borders(1, 1)
    # Back to an earlier epoch gives its borders again.
    windows = TrainingWindows(split_of([50] * 6), 20, random_shift=True, seed=1)
    before = windows.lengths.copy()
    windows.set_epoch(3)
    windows.set_epoch(0)
    np.testing.assert_array_equal(windows.lengths, before)


def test_without_shift_an_epoch_changes_nothing() -> None:
    windows = TrainingWindows(split_of([50] * 6), 20)
    before = windows.lengths.copy()
    windows.set_epoch(5)
    np.testing.assert_array_equal(windows.lengths, before)


def test_selected_and_shuffled_splits() -> None:
    split = split_of([5, 9, 2, 7]).select([3, 1])
    check_windows(TrainingWindows(split, 4), [list(history) for history in split["item_ids"]])


@pytest.mark.parametrize("kind", [pa.large_list(pa.int32()), pa.list_(pa.int64())])
def test_other_list_types(kind: pa.DataType) -> None:
    split = split_of([5, 9, 2, 7], kind=kind)
    check_windows(TrainingWindows(split, 4), [list(history) for history in split["item_ids"]])


def test_lengths_of_histories() -> None:
    split = split_of([5, 9, 2, 7, 1])
    assert history_lengths(split).tolist() == [5, 9, 2, 7, 1]
    assert history_lengths(split.select([3, 1, 1])).tolist() == [7, 9, 9]
    assert history_lengths(split.select([])).tolist() == []
    with pytest.raises(DataError, match="nulls"):
        history_lengths(datasets.Dataset(pa.table({"item_ids": pa.array([[1, 2], None])})))


def test_items_stay_in_the_mapped_file(tmp_path: Path) -> None:
    split_of([5000] * 40).save_to_disk(str(tmp_path / "split"))
    mapped = datasets.load_from_disk(str(tmp_path / "split"))
    before = pa.total_allocated_bytes()
    windows = TrainingWindows(mapped, 50)
    # 200,000 items are 800,000 bytes; Arrow has allocated none of them.
    assert pa.total_allocated_bytes() - before < 10_000
    # A pickle (for workers) carries the path, not the items or the windows.
    assert len(pickle.dumps(windows)) < 10_000


@pytest.mark.parametrize("num_workers", [0, 1])
def test_with_a_data_loader(num_workers: int) -> None:
    windows = TrainingWindows(split_of([12, 30, 4]), 7, random_shift=True)
    loader = DataLoader(windows, batch_size=4, collate_fn=SequenceCollator(7), num_workers=num_workers)
    targets = [int(label) for batch in loader for label in batch["labels"].flatten() if label != -100]
    assert sorted(targets) == sorted({*range(1, 47)} - {1, 13, 43})


def test_pickle_round_trip_keeps_the_epoch() -> None:
    windows = TrainingWindows(split_of([50] * 6), 20, random_shift=True)
    windows.set_epoch(4)
    again = pickle.loads(pickle.dumps(windows))
    np.testing.assert_array_equal(again.lengths, windows.lengths)
    np.testing.assert_array_equal(again[3]["item_ids"], windows[3]["item_ids"])


def test_items_of_a_batch_and_the_end() -> None:
    windows = TrainingWindows(split_of([8, 5]), 3)
    batch = windows.__getitems__([2, 0])
    assert [row["item_ids"].tolist() for row in batch] == [[1, 2], [5, 6, 7, 8]]
    with pytest.raises(IndexError):
        windows[len(windows)]


@pytest.mark.parametrize("max_length", [0, -1, 2.5, True])
def test_max_length_out_of_range(max_length: int) -> None:
    with pytest.raises(DataError, match="max_length must be a positive integer"):
        TrainingWindows(split_of([5]), max_length)


def test_unfit_data_sets() -> None:
    with pytest.raises(DataError, match=r"need a column 'item_ids', but the data set has \['x'\]"):
        TrainingWindows(datasets.Dataset.from_dict({"x": [1]}), 5)
    with pytest.raises(DataError, match="must hold lists of integers, but it holds"):
        TrainingWindows(datasets.Dataset.from_dict({"item_ids": [["a", "b"]]}), 5)
    with pytest.raises(DataError, match="nothing to learn from"):
        TrainingWindows(split_of([1, 0, 1]), 5)
