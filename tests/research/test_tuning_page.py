"""research/tuning.md says what its files say, and the validation like the test asks what it claims to ask."""

from __future__ import annotations

import numpy as np

from modeling_glintru.data.example_data import synthetic_interactions
from modeling_glintru.data.prepare import prepare
from research import default_rule, few_to_validate, last_item_out, tuning


def test_the_page_is_the_file():
    assert tuning.PAGE.read_text(encoding="utf-8") == tuning.page()


def test_the_validation_like_the_test_asks_for_the_same_targets_after_an_item_that_was_not_trained():
    data = prepare(synthetic_interactions(60, 40), time_gaps=True)
    before = {row["user_id"]: row for row in data.dataset["train"]}
    again, ends = last_item_out.split_again(data)
    assert again.dataset["validation"] is data.dataset["validation"]
    assert len(again.dataset["train"]) == len(ends) == sum(len(row["item_ids"]) > 2 for row in before.values()) > 30
    assert again.item_counts.sum() == sum(len(row["item_ids"]) for row in again.dataset["train"])
    for row, end in zip(again.dataset["train"], ends, strict=True):
        whole = before[row["user_id"]]
        assert [*row["item_ids"], end["target"]] == whole["item_ids"] and end["item_ids"] == row["item_ids"]
        assert row["time_gaps"] == [*whole["time_gaps"][:-2], -1] and end["time_gaps"] == whole["time_gaps"][:-1]


def test_a_part_of_the_data_is_whole_users_and_the_newest_interactions():
    whole = synthetic_interactions(60, 40)
    part_of = default_rule.part_of
    some = part_of(whole, 0.25, 1.0)
    assert some.num_users == 15 and some.frame.equals(
        whole.frame.filter(whole.frame["user_id"].is_in(some.frame["user_id"].unique().implode()))
    )
    newest = part_of(whole, 1.0, 0.5)
    assert len(newest) == round(len(whole) / 2)
    kept = newest.frame["timestamp"]
    assert (whole.frame["timestamp"] > kept.min()).sum() <= len(kept) <= (whole.frame["timestamp"] >= kept.min()).sum()
    assert part_of(whole, 1.0, 1.0).frame.equals(whole.frame)


def test_a_text_with_one_user_a_line(tmp_path):
    file = tmp_path / "some.txt"
    file.write_text("7 3 1 3\n2 5\n", encoding="utf-8")
    read = default_rule.load_sequences(file)
    rows = [("7", "3", 0), ("7", "1", 1), ("7", "3", 2), ("2", "5", 0)]
    assert read.frame.rows() == rows and read.frame.columns == ["user_id", "item_id", "timestamp"]


def test_early_stopping_is_simulated_as_the_trainer_does_it():
    values = np.array([0.3, 0.1, 0.2, 0.5, 0.5, 0.1])
    assert few_to_validate.stopped_at(values, 2) == (0, 3)  # the best so far, and the epochs that were run
    assert few_to_validate.stopped_at(values, 3) == few_to_validate.stopped_at(values, None) == (3, 6)
    # A tenth of the users get all of the second epoch: whoever chooses takes it, and the others get a tenth of it.
    users = np.full((2, 100), [[0.5], [0.0]])
    users[1, :10] = 100.0
    rows = few_to_validate.simulate(users, draws=200)
    assert {row["validating"] for row in rows} == {40} and {row["patience"] for row in rows} == {5, 10, None}
    assert all(row["epochs"] == 2 and 9 < row["ndcg@10"] < 11 and row["lowest 5 %"] < 8 for row in rows)
