from __future__ import annotations

import numpy as np
import pytest
import torch

from modeling_glintru.data.batches import SequenceCollator
from modeling_glintru.errors import DataError

WINDOWS = [{"item_ids": np.array([4, 5, 6, 7], np.int32)}, {"item_ids": [8, 9]}]
ROWS = [
    {"user_id": "a", "item_ids": [3, 1, 3, 2, 5], "target": 6},
    {"user_id": "b", "item_ids": np.array([7, 9], np.int32), "target": np.int32(9)},
]


def check(batch: dict[str, torch.Tensor], **expected: list) -> None:
    assert set(batch) == set(expected)
    for name, values in expected.items():
        assert batch[name].dtype == torch.int64
        assert batch[name].tolist() == values, name


def test_training_rows() -> None:
    check(
        SequenceCollator(10)(WINDOWS),
        input_ids=[[4, 5, 6], [8, 0, 0]],
        attention_mask=[[1, 1, 1], [1, 0, 0]],
        labels=[[5, 6, 7], [9, -100, -100]],
    )


def test_training_rows_left() -> None:
    check(
        SequenceCollator(10, padding_side="left")(WINDOWS),
        input_ids=[[4, 5, 6], [0, 0, 8]],
        attention_mask=[[1, 1, 1], [0, 0, 1]],
        labels=[[5, 6, 7], [-100, -100, 9]],
    )


def test_training_rows_keep_the_newest() -> None:
    check(
        SequenceCollator(2)(WINDOWS),
        input_ids=[[5, 6], [8, 0]],
        attention_mask=[[1, 1], [1, 0]],
        labels=[[6, 7], [9, -100]],
    )


def test_evaluation_rows() -> None:
    check(
        SequenceCollator(4)(ROWS),
        input_ids=[[1, 3, 2, 5], [7, 9, 0, 0]],
        attention_mask=[[1, 1, 1, 1], [1, 1, 0, 0]],
        labels=[[-100, -100, -100, 6], [-100, 9, -100, -100]],
        # The full history, each item once, a target that recurs too.
        exclude_item_ids=[[1, 2, 3, 5], [7, 9, 0, 0]],
    )


def test_evaluation_rows_left() -> None:
    check(
        SequenceCollator(4, padding_side="left", exclude_seen=False)(ROWS),
        input_ids=[[1, 3, 2, 5], [0, 0, 7, 9]],
        attention_mask=[[1, 1, 1, 1], [0, 0, 1, 1]],
        labels=[[-100, -100, -100, 6], [-100, -100, -100, 9]],
    )


def test_seen_items_outside_the_window_are_excluded_too() -> None:
    batch = SequenceCollator(1)([{"item_ids": [5, 4, 3], "target": 9}])
    assert batch["input_ids"].tolist() == [[3]]
    assert batch["exclude_item_ids"].tolist() == [[3, 4, 5]]


def test_a_history_of_nothing_but_the_target() -> None:
    batch = SequenceCollator(5)([{"item_ids": [9, 9], "target": 9}])
    assert batch["exclude_item_ids"].tolist() == [[9]]  # it is not recommended again, so this row is a miss
    assert batch["labels"].tolist() == [[-100, 9]]


def test_wrong_rows() -> None:
    with pytest.raises(DataError, match="use one kind"):
        SequenceCollator(5)([ROWS[0], WINDOWS[0]])
    with pytest.raises(DataError, match="A training row needs at least 2"):
        SequenceCollator(5)([{"item_ids": [1]}])
    with pytest.raises(DataError, match="An evaluation row needs at least 1"):
        SequenceCollator(5)([{"item_ids": [], "target": 3}])


def test_wrong_settings() -> None:
    with pytest.raises(DataError, match="max_length must be a positive integer, but got 0"):
        SequenceCollator(0)
    with pytest.raises(DataError, match="padding_side must be 'left' or 'right', but got 'top'"):
        SequenceCollator(5, padding_side="top")
