"""`TrainingPrefixes`: every target once, with what came before it and nothing else."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from modeling_glintru.data import LengthBucketSampler, SequenceCollator, TrainingPrefixes
from modeling_glintru.errors import DataError

from .test_windows import split_of

LENGTHS = [1, 5, 2, 0, 9, 3, 1]


def rows_of(prefixes: TrainingPrefixes) -> list[tuple[list[int], int]]:
    return [(row["item_ids"].tolist(), row["target"]) for row in (prefixes[i] for i in range(len(prefixes)))]


@pytest.mark.parametrize("max_length", [1, 3, 100])
def test_every_target_has_its_prefix_once(max_length):
    split = split_of(LENGTHS)
    expected = [
        (items[max(0, t - max_length) : t], items[t]) for items in split["item_ids"] for t in range(1, len(items))
    ]
    prefixes = TrainingPrefixes(split, max_length)
    assert rows_of(prefixes) == expected
    assert prefixes.num_targets == len(prefixes) == 15
    assert prefixes.lengths.tolist() == [len(items) for items, _ in expected]
    prefixes.set_epoch(3)
    assert rows_of(pickle.loads(pickle.dumps(prefixes))) == expected


def test_a_share_is_drawn_anew_each_epoch():
    split = split_of(LENGTHS * 20)
    every = {target: items for items, target in rows_of(TrainingPrefixes(split, 4))}
    prefixes = TrainingPrefixes(split, 4, share=0.25, seed=1)
    draws = []
    for epoch in (0, 1):
        prefixes.set_epoch(epoch)
        rows = rows_of(prefixes)
        assert len(rows) == len({target for _, target in rows}) == 75
        assert all(every[target] == items for items, target in rows)
        draws.append(rows)
    assert draws[0] != draws[1]
    again = TrainingPrefixes(split, 4, share=0.25, seed=1)
    assert rows_of(again) == draws[0] and len(TrainingPrefixes(split, 4, share=1e-9)) == 1


def test_a_batch_asks_for_the_item_after_the_last_one():
    prefixes = TrainingPrefixes(split_of(LENGTHS), 4)
    order = list(LengthBucketSampler(prefixes, 4, seed=0))[:4]
    batch = SequenceCollator(4)(prefixes.__getitems__(order))
    asked = batch["labels"] != -100
    assert asked.sum(1).tolist() == [1] * 4
    for row, index in enumerate(order):
        last = int(batch["attention_mask"][row].sum()) - 1
        assert asked[row, last] and batch["labels"][row, last] == prefixes[index]["target"]
        # items are running numbers: a later one would be larger
        assert batch["input_ids"][row].max() == prefixes[index]["target"] - 1


def test_bad_values_are_named():
    for share in (0, 1.5, float("nan")):
        with pytest.raises(DataError, match="share must be above 0 and at most 1"):
            TrainingPrefixes(split_of(LENGTHS), 4, share=share)
    with pytest.raises(DataError, match="nothing to learn from"):
        TrainingPrefixes(split_of([1, 0]), 4)
    assert TrainingPrefixes(split_of([2]), 4)[0]["item_ids"].dtype == np.int32
