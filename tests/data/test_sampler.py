from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from modeling_glintru.data.batches import LengthBucketSampler, TargetBatchSampler
from modeling_glintru.data.interactions import read_interactions
from modeling_glintru.data.prepare import prepare
from modeling_glintru.data.windows import TrainingWindows
from modeling_glintru.errors import DataError

from .helpers import STEADY

LENGTHS = np.random.default_rng(0).geometric(0.02, 5000).clip(1, 200)


def padding_share(lengths: np.ndarray, order: list[int], batch_size: int) -> float:
    """Share of the positions of padded batches that hold no item, for rows of these lengths taken in `order`."""
    taken = np.asarray(lengths)[np.asarray(order)]
    cuts = np.arange(0, len(taken), batch_size)
    sizes = np.minimum(batch_size, len(taken) - cuts)
    total = int((np.maximum.reduceat(taken, cuts) * sizes).sum())
    return 1 - int(taken.sum()) / total


@STEADY
@given(st.lists(st.integers(1, 50), min_size=1, max_size=200), st.integers(1, 12), st.integers(1, 5), st.booleans())
def test_every_row_exactly_once(lengths: list[int], batch_size: int, buckets: int, drop_last: bool) -> None:
    sampler = LengthBucketSampler(lengths, batch_size, bucket_batches=buckets, drop_last=drop_last)
    order = list(sampler)
    left = len(lengths) % batch_size if drop_last else 0
    assert len(order) == len(sampler) == len(lengths) - left
    assert len(set(order)) == len(order)
    assert set(order) <= set(range(len(lengths)))


def test_order_is_determined_by_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = LengthBucketSampler(LENGTHS, 32, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)
    sampler = LengthBucketSampler(LENGTHS, 32)
    assert list(sampler) == list(sampler)


def test_batches_mix_rows_and_are_shuffled_themselves() -> None:
    sampler = LengthBucketSampler(LENGTHS, 32, bucket_batches=50)
    first = np.array(list(sampler)[: 32 * 20]).reshape(20, 32)
    sampler.set_epoch(1)
    second = np.array(list(sampler)[: 32 * 20]).reshape(20, 32)
    # The same rows hardly ever meet again, and batches do not come in order of length.
    assert not {frozenset(batch) for batch in first.tolist()} & {frozenset(batch) for batch in second.tolist()}
    means = LENGTHS[first].mean(axis=1)
    assert 5 < (np.diff(means) > 0).sum() < 15


@pytest.mark.parametrize("batch_size", [32, 128])
def test_little_padding(batch_size: int) -> None:
    shuffled = np.random.default_rng(1).permutation(len(LENGTHS))
    assert padding_share(LENGTHS, shuffled, batch_size) > 0.5
    sampler = LengthBucketSampler(LENGTHS, batch_size)
    assert padding_share(LENGTHS, list(sampler), batch_size) < 0.08


def test_padding_share_by_hand() -> None:
    # Batches (4, 2) and (1): 7 items in 9 positions.
    assert padding_share(np.array([1, 2, 4]), [2, 1, 0], 2) == pytest.approx(2 / 9)


def test_lengths_are_asked_anew_each_epoch() -> None:
    class Moving:
        lengths = np.arange(1, 101)

    rows = Moving()
    sampler = LengthBucketSampler(rows, 10, bucket_batches=10)
    assert padding_share(rows.lengths, list(sampler), 10) < 0.1
    rows.lengths = np.random.default_rng(0).permutation(rows.lengths)
    assert padding_share(rows.lengths, list(sampler), 10) < 0.1


def test_with_a_data_loader() -> None:
    sampler = LengthBucketSampler(LENGTHS, 32)
    loader = DataLoader(LENGTHS.tolist(), batch_size=32, sampler=sampler, collate_fn=list)
    batches = list(loader)
    assert sum(map(len, batches)) == len(LENGTHS)
    assert np.mean([max(batch) - min(batch) for batch in batches]) < 10


def test_settings_out_of_range() -> None:
    with pytest.raises(DataError, match="batch_size must be a positive integer, but got 0"):
        LengthBucketSampler(LENGTHS, 0)
    with pytest.raises(DataError, match="bucket_batches must be a positive integer"):
        LengthBucketSampler(LENGTHS, 5, bucket_batches=0)
    with pytest.raises(DataError, match="at least one row"):
        LengthBucketSampler([], 5)


class Rows:
    def __init__(self, lengths: np.ndarray) -> None:
        self.lengths = lengths


@STEADY
@given(st.lists(st.integers(1, 20), min_size=1, max_size=200), st.integers(20, 90), st.integers(1, 5))
def test_batches_of_like_targets(lengths: list[int], batch_targets: int, buckets: int) -> None:
    rows = Rows(np.array(lengths))
    sampler = TargetBatchSampler(rows, batch_targets, bucket_batches=buckets)
    batches = list(sampler)
    assert len(batches) == len(sampler) == max(1, sum(lengths) // batch_targets)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    share = sum(lengths) / len(batches)
    assert all(abs(rows.lengths[batch].sum() - share) < max(lengths) for batch in batches)
    assert list(sampler) == batches


def test_batches_of_like_targets_change_with_the_epoch_and_hold_like_lengths() -> None:
    sampler = TargetBatchSampler(Rows(LENGTHS), 2000)
    first = list(sampler)
    sampler.set_epoch(1)
    assert {frozenset(batch) for batch in first}.isdisjoint(frozenset(batch) for batch in sampler)
    widths = sum(len(batch) * int(LENGTHS[batch].max()) for batch in first)
    assert 1 - LENGTHS.sum() / widths < 0.08
    with pytest.raises(DataError, match=r"batch_targets must be at least 200 \(max_length\), not 199"):
        TargetBatchSampler(Rows(LENGTHS), 199)


@pytest.mark.needs_data
@pytest.mark.parametrize("random_shift", [False, True])
@pytest.mark.parametrize("batch_size", [32, 128])
def test_padding_on_ml_1m_is_under_five_percent(shared_data: Path, batch_size: int, random_shift: bool) -> None:
    prepared = prepare(read_interactions(shared_data / "ml-1m" / "interactions.parquet"))
    windows = TrainingWindows(prepared.dataset["train"], 200, random_shift=random_shift)
    assert windows.num_targets == 999_611 - 3 * 6040
    sampler = LengthBucketSampler(windows, batch_size)
    for epoch in range(3):
        windows.set_epoch(epoch)
        sampler.set_epoch(epoch)
        assert padding_share(windows.lengths, list(sampler), batch_size) < 0.05
