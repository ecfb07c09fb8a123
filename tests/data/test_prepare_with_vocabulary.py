"""`prepare` with the vocabulary of an existing model."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
from datasets import concatenate_datasets

from modeling_glintru import GlintRUProcessor
from modeling_glintru.data import Interactions, load_prepared, read_interactions, synthetic_interactions
from modeling_glintru.data.prepare import prepare
from modeling_glintru.errors import DataError


def table(items: list) -> Interactions:
    """Three users who share the items in turn."""
    users = [user for user in ("a", "b", "c") for _ in range(len(items) // 3)]
    return read_interactions(pl.DataFrame({"user_id": users, "item_id": items, "timestamp": range(len(items))}))


def rows(prepared) -> dict:
    return {part: prepared.dataset[part].to_list() for part in ("train", "validation", "test")}


def test_the_same_data_with_its_own_vocabulary_is_the_same():
    interactions = synthetic_interactions(num_users=30)
    first = prepare(interactions)
    again = prepare(interactions, processor=first.processor)
    assert rows(again) == rows(first)
    assert again.summary == first.summary | {"unknown_to_model": {"interactions": 0, "items": 0}}
    assert again.describe() == first.describe()
    assert (again.item_counts == first.item_counts).all()


def test_unknown_items_are_left_out_and_known_ones_keep_their_index():
    processor = GlintRUProcessor(["z", "x", "y", "v"])  # an order of its own, and an item that the data lacks
    prepared = prepare(table(["x", "new", "y", "z", "x"] * 3), processor=processor)
    assert prepared.dataset["test"][0] == {"user_id": "a", "item_ids": [2, 3, 1], "target": 2}
    assert prepared.summary["dropped"] == {"interactions": 3, "users": 0, "items": 1}
    assert prepared.summary["unknown_to_model"] == {"interactions": 3, "items": 1}
    assert "the model does not know 1 of the items (3 interactions)" in prepared.describe()
    assert prepared.summary["items"] == 4 and len(prepared.item_counts) == 5
    assert prepared.processor.item_ids == processor.item_ids and processor.item_counts is None


def test_filtered_is_not_unknown():
    items = ["x", "y", "new", "x", "y", "x", "y", "new", "x", "y", "x", "y", "x", "y", "rare"]
    prepared = prepare(table(items), min_item_interactions=2, processor=GlintRUProcessor(["x", "y", "rare"]))
    assert prepared.summary["dropped"] == {"interactions": 3, "users": 0, "items": 2}
    assert prepared.summary["unknown_to_model"] == {"interactions": 2, "items": 1}


def test_a_prepared_folder_with_a_given_vocabulary_opens_again(tmp_path):
    processor = GlintRUProcessor(["z", "x", "y", "v"])
    prepared = prepare(table(["x", "y", "z", "x"] * 3), tmp_path / "out", processor=processor)
    assert rows(load_prepared(tmp_path / "out")) == rows(prepared)


def test_a_file_of_plain_numbers_meets_a_vocabulary_of_strings():
    prepared = prepare(table([10, 20, 30, 10] * 3), processor=GlintRUProcessor(["10", "20", "30"]))
    assert prepared.dataset["test"][0]["item_ids"] == [1, 2, 3]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["x", "y", "z", "x"] * 3, "are text such as 'x', but the model's are integers"),
        ([7, 8, 9, 7] * 3, "knows none"),
    ],
)
def test_a_vocabulary_that_does_not_fit(items, message):
    with pytest.raises(DataError, match=message):
        prepare(table(items), processor=GlintRUProcessor([1, 2, 3]))


def test_shards_by_user_with_one_vocabulary_are_the_whole():
    read = synthetic_interactions(num_users=60)
    whole = prepare(read)
    shards = [
        prepare(replace(read, frame=part), processor=whole.processor)
        for _, part in read.frame.group_by(pl.col("user_id").hash(0) % 3)
    ]
    for split in whole.dataset:
        joined = concatenate_datasets([shard.dataset[split] for shard in shards])
        assert sorted(joined, key=lambda row: row["user_id"]) == list(whole.dataset[split])


def test_unknown_items_are_added_behind_the_known_ones(tmp_path):
    processor = GlintRUProcessor(["z", "x"], {"x": "The X"})
    read = table(["x", "b", "z", "a"] * 3)
    prepared = prepare(read, processor=processor, add_items=True, item_titles={"b": "B", "x": "another X"})
    assert prepared.processor.item_ids == ("z", "x", "a", "b") and processor.item_ids == ("z", "x")
    assert (prepared.processor.title("b"), prepared.processor.title("x")) == ("B", "The X")
    assert prepared.dataset["test"][0] == {"user_id": "a", "item_ids": [2, 4, 1], "target": 3}
    assert prepared.summary["new_to_model"] == {"interactions": 6, "items": 2}
    assert prepared.summary["dropped"]["interactions"] == 0
    assert "New       2 items that the model did not know (6 interactions)" in prepared.describe()
    prepare(read, tmp_path / "out", processor=processor, add_items=True)
    assert load_prepared(tmp_path / "out").processor.item_ids == ("z", "x", "a", "b")


def test_none_known_is_not_the_same_shop():
    with pytest.raises(DataError, match=r"knows none of the items .* --items new"):
        prepare(table(["x", "y", "z", "x"] * 3), processor=GlintRUProcessor(["1", "2"]), add_items=True)


def test_one_text_id_among_integers_is_only_unknown_itself():
    read = table(["1", "2", "abc", "3", "1", "007"] * 3)
    prepared = prepare(read, processor=GlintRUProcessor([1, 2, 3, 7]))
    assert prepared.dataset["test"][0] == {"user_id": "a", "item_ids": [1, 2, 3], "target": 1}
    assert prepared.summary["unknown_to_model"] == {"interactions": 6, "items": 2}
    added = prepare(read, processor=GlintRUProcessor([1, 2]), add_items=True)
    assert added.processor.item_ids == (1, 2, 3)
    assert added.summary["unknown_to_model"] == {"interactions": 6, "items": 2}
    assert added.summary["new_to_model"] == {"interactions": 3, "items": 1}
