"""A split that came with the data: files for training, validation and test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from modeling_glintru.data.interactions import read_interactions
from modeling_glintru.data.prepare import PreparedData, load_prepared, prepare
from modeling_glintru.data.sequences import build_sequences
from modeling_glintru.data.sources import read_given_split
from modeling_glintru.data.splits import split_sequences
from modeling_glintru.errors import DataError

from .helpers import random_interactions

TRAIN = [("a", "x", 1), ("a", "y", 2), ("a", "z", 3), ("b", "y", 1), ("b", "x", 2), ("c", "z", 9)]
VALIDATION = [("a", "w", 4), ("b", "z", 3)]
TEST = [("a", "x", 6), ("a", "v", 5), ("b", "w", 4), ("c", "x", 10)]


def table(rows: Sequence[tuple]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=["user_id", "item_id", "timestamp"], orient="row")


def read(train: Any = TRAIN, validation: Any = VALIDATION, test: Any = TEST) -> Any:
    return read_given_split(table(train), None if validation is None else table(validation), table(test))


def rows(prepared: PreparedData, part: str) -> list[tuple]:
    raw = prepared.processor.raw_id
    return [
        (
            row["user_id"],
            "".join(raw(index) for index in row["item_ids"]),
            *([raw(row["target"])] if "target" in row else []),
        )
        for row in prepared.dataset[part]
    ]


def test_the_files_are_the_split() -> None:
    prepared = prepare(read(), split="given")
    assert rows(prepared, "train") == [("a", "xyz"), ("b", "yx"), ("c", "z")]
    assert rows(prepared, "validation") == [("a", "xyz", "w"), ("b", "yx", "z")]
    # One row a target, each after all that is before it in time.
    assert rows(prepared, "test") == [("a", "xyzw", "v"), ("a", "xyzwv", "x"), ("b", "yxz", "w"), ("c", "z", "x")]
    assert prepared.processor.item_ids == ("v", "w", "x", "y", "z")
    summary = prepared.summary
    assert (summary["split"], summary["source"]) == ("given", " + ".join(["polars frame"] * 3))
    assert (summary["test_users"], summary["test_targets"], summary["notes"]) == (3, 4, [])
    assert "evaluated: 2 validation, 4 test targets of 3 users" in prepared.describe()


def test_leave_one_out_as_three_files_is_leave_one_out(tmp_path: Path) -> None:
    whole = random_interactions(4)
    sequences = build_sequences(whole)
    splits = split_sequences(sequences, "leave_one_out")
    parts = {name: [] for name in ("train", "validation", "test")}
    histories = zip(splits.train.users, splits.train.starts, splits.train.stops, strict=True)
    for user, start, stop in histories:
        parts["train"] += [(user, position) for position in range(start, stop)]
    for name, part in (("validation", splits.validation), ("test", splits.test)):
        parts[name] = list(zip(part.users, part.targets, strict=True))
    for name, positions in parts.items():
        written = [
            (sequences.users[int(u)], sequences.items[int(sequences.item_indices[p]) - 1], int(sequences.timestamps[p]))
            for u, p in positions
        ]
        table(written).write_csv(tmp_path / f"{name}.csv")
    given = read_given_split(*(tmp_path / f"{name}.csv" for name in parts))
    assert given.source == "train.csv + validation.csv + test.csv"
    one, other = prepare(given, tmp_path / "out", split="given"), prepare(whole)
    assert one.processor.item_ids == other.processor.item_ids
    assert all(one.dataset[part].to_dict() == other.dataset[part].to_dict() for part in other.dataset)
    assert load_prepared(tmp_path / "out").summary["split"] == "given"


def test_without_validation_file_the_last_training_item_validates() -> None:
    prepared = prepare(read(validation=None), split="given")
    assert rows(prepared, "train") == [("a", "xy"), ("b", "y"), ("c", "z")]
    assert rows(prepared, "validation") == [("a", "xy", "z"), ("b", "y", "x")]
    assert rows(prepared, "test")[0] == ("a", "xyz", "v")
    assert prepared.summary["notes"] == [
        "There is no --validation_data: the last training item of each user validates and is not trained on."
    ]


def test_users_without_training_history_are_left_out_and_counted() -> None:
    prepared = prepare(
        read(test=[*TEST, ("new", "x", 1), ("new", "y", 2)], validation=[*VALIDATION, ("new", "z", 0)]), split="given"
    )
    assert {row[0] for row in rows(prepared, "test")} == {row[0] for row in TEST}
    assert prepared.summary["notes"] == [
        "1 of 3 rows of the validation file were left out: their users have no row in the training file.",
        "2 of 6 rows of the test file were left out: their users have no row in the training file.",
    ]


def test_what_a_split_in_time_never_has_is_said() -> None:
    prepared = prepare(read(test=[("a", "x", 0), ("b", "z", 3), ("c", "x", 10)]), split="given")
    assert prepared.summary["notes"] == [
        "1 of 3 users have an item in the test file that is older than the newest item of their history: this split "
        "does not follow time.",
        "1 of 11 rows stand in more than one of the files, or twice in one: such targets were trained on.",
    ]


def test_copies_leave_within_a_file_only() -> None:
    prepared = prepare(read(train=[*TRAIN, TRAIN[0]], test=[*TEST, VALIDATION[0]]), split="given")
    assert prepared.summary["repeated_rows"] == 1
    assert rows(prepared, "train")[0] == ("a", "xyz")
    assert len(rows(prepared, "test")) == 5


def test_ids_of_two_kinds_are_text_in_all() -> None:
    train = pl.DataFrame({"user_id": [1] * 3 + [2] * 2, "item_id": [10, 20, 30, 10, 30], "timestamp": [1, 2, 3, 1, 2]})
    test = pl.DataFrame({"user_id": [1, 2], "item_id": ["20", "new"], "timestamp": [4, 4]})
    prepared = prepare(read_given_split(train, None, test), split="given")
    assert prepared.processor.item_ids == ("10", "20", "30", "new")
    assert prepared.dataset["test"]["user_id"][:] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        ({}, {"duplicates": "first"}, "duplicates=first is not for a split that is given"),
        ({}, {"min_item_interactions": 5}, "min_item_interactions=5 is not for a split that is given"),
        ({"test": [("new", "x", 1)]}, {}, "No user of the test file has a history in the training file"),
    ],
)
def test_what_is_refused(arguments: dict, options: dict, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        prepare(read(**arguments), split="given", **options)


def test_dates_and_numbers_are_not_one_time() -> None:
    dates = table(TEST).with_columns(timestamp=pl.lit("2024-05-31"))
    with pytest.raises(DataError, match="The times of polars frame are dates, but those of polars frame are numbers"):
        read_given_split(table(TRAIN), None, dates)


def test_one_table_is_not_a_split() -> None:
    with pytest.raises(DataError, match="needs the files of a split: --train_data FILE and --test_data FILE"):
        prepare(read_interactions(table(TRAIN)), split="given")
