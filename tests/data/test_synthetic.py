from __future__ import annotations

import numpy as np
import pytest

from modeling_glintru.data.example_data import synthetic_interactions, synthetic_item_titles
from modeling_glintru.data.prepare import prepare
from modeling_glintru.errors import DataError


def test_shape_and_order() -> None:
    read = synthetic_interactions()
    assert (read.num_users, read.num_items) == (800, 240)
    assert read.frame["timestamp"].is_sorted()
    lengths = read.frame.group_by("user_id").len()["len"]
    assert lengths.min() == 6
    assert lengths.max() == 40
    assert read.source == "demo"


def test_the_seed_decides() -> None:
    assert synthetic_interactions(50, 40, seed=1).frame.equals(synthetic_interactions(50, 40, seed=1).frame)
    assert not synthetic_interactions(50, 40, seed=1).frame.equals(synthetic_interactions(50, 40, seed=2).frame)


def test_last_item_predicts_the_next_and_popularity_does_not() -> None:
    prepared = prepare(synthetic_interactions())
    following = np.zeros((prepared.processor.vocab_size, prepared.processor.vocab_size))
    for row in prepared.dataset["train"]:
        np.add.at(following, (row["item_ids"][:-1], row["item_ids"][1:]), 1)
    test = prepared.dataset["test"]
    targets = np.array(test["target"])
    last = np.array([row[-1] for row in test["item_ids"]])
    assert np.mean(following[last].argmax(axis=1) == targets) > 0.6
    popular = np.argsort(-prepared.item_counts)[:10]
    assert np.mean(np.isin(targets, popular)) < 0.12
    assert prepared.item_counts.max() < 0.01 * prepared.item_counts.sum()


def test_titles_fit() -> None:
    titles = synthetic_item_titles()
    assert set(titles) >= set(synthetic_interactions().frame["item_id"])
    assert titles["saga-03-volume-5"] == "Saga 3, volume 5"


@pytest.mark.parametrize(("num_users", "num_items"), [(1, 240), (10, 15)])
def test_too_small(num_users: int, num_items: int) -> None:
    with pytest.raises(DataError, match="at least 2 users and 16 items"):
        synthetic_interactions(num_users, num_items)


def test_odd_number_of_items() -> None:
    assert set(synthetic_interactions(300, 19).frame["item_id"]) == set(synthetic_item_titles(19))
