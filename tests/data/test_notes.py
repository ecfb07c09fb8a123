"""What prepare counts and says: ties in time, copies, splits that are given."""

from __future__ import annotations

import polars as pl
import pytest

from modeling_glintru.data.interactions import read_interactions
from modeling_glintru.data.prepare import prepare
from modeling_glintru.data.sequences import Sequences, build_sequences
from modeling_glintru.data.splits import Splits, split_sequences
from modeling_glintru.data.summary import tie_shares, trained_positions

from .helpers import make_interactions, random_interactions


def naive_shares(sequences: Sequences, splits: Splits) -> dict[str, float]:
    """Position by position: is the neighbour before or after one of the same user and time?"""
    owner = [user for user, length in enumerate(sequences.lengths) for _ in range(length)]

    def same(one: int, other: int) -> bool:
        inside = 0 <= other < len(owner)
        return inside and (owner[one], sequences.timestamps[one]) == (owner[other], sequences.timestamps[other])

    def share(targets: list[int]) -> float:
        return sum(same(t, t - 1) or same(t, t + 1) for t in targets) / len(targets)

    spans = zip(splits.train.starts, splits.train.stops, strict=True)
    return {
        "train": share([position for start, stop in spans for position in range(start + 1, stop)]),
        "validation": share(list(splits.validation.targets)),  # type: ignore[arg-type]
        "test": share(list(splits.test.targets)),  # type: ignore[arg-type]
    }


@pytest.mark.parametrize("split", ["leave_one_out", "temporal", "user"])
def test_ties_equal_the_obvious_count(split: str) -> None:
    sequences = build_sequences(random_interactions(2, num_times=25))
    splits = split_sequences(sequences, split, validation_fraction=0.2, test_fraction=0.2)
    shares = tie_shares(sequences, splits, trained_positions(sequences, splits))
    assert shares == pytest.approx(naive_shares(sequences, splits))
    assert 0.05 < shares["train"] < 0.95
    assert 0 < max(shares["validation"], shares["test"]) < 1


def test_an_order_column_decides_ties() -> None:
    read = make_interactions(["a"] * 4 + ["b"] * 4, [1, 2, 3, 4, 4, 3, 2, 1], [1, 1, 2, 2] * 2)
    summary = prepare(read).summary
    assert summary["ties"] == {"train": 1.0, "validation": 1.0, "test": 1.0}
    read.frame.insert_column(3, pl.Series("order", [2, 1, 2, 1, 1, 2, 2, 2]))
    prepared = prepare(read)
    assert prepared.summary["ties"] == {"train": 0.0, "validation": 0.5, "test": 0.5}  # b's last two are still tied
    assert [row["target"] for row in prepared.dataset["test"]] == [3, 1]
    assert [row["item_ids"] for row in prepared.dataset["test"]] == [[2, 1, 4], [4, 3, 2]]


@pytest.mark.parametrize(("tied", "said"), [(0, None), (2, None), (3, "1.5 %"), (60, "30.0 %")])
def test_ties_are_said_above_one_percent(tied: int, said: str | None) -> None:
    users = [user for user in range(200) for _ in range(4)]
    times = [0, 1, 2, 2] * tied + [0, 1, 2, 3] * (200 - tied)
    text = prepare(make_interactions(users, [k % 7 for k in range(800)], times)).describe()
    if said is None:
        assert "Note" not in text
    else:
        assert (
            f"\nNote      {said} of the test targets share their time with another item of the same user: their order "
            "is the file's; --order_column sorts within a time\n"
        ) in text


@pytest.mark.parametrize(
    ("policy", "rows", "said"),
    [
        ("keep", 2, "2 of 12 rows are exact copies of another row (the same user, item and time); they stay"),
        ("exact", 2, "2 of 12 rows are exact copies of another row (the same user, item and time) and were left out; "),
        (
            "consecutive",
            3,
            "3 of 12 rows repeat the item directly before them, or are exact copies of another row, and were left out",
        ),
        ("first", 4, "4 of 12 rows hold an item that the user had before and were left out"),
        ("last", 4, "4 of 12 rows hold an item that the user had again later and were left out"),
    ],
)
def test_repeated_rows_are_counted_and_said(policy: str, rows: int, said: str) -> None:
    users = ["a"] * 8 + ["b"] * 4
    items = [1, 1, 1, 1, 2, 3, 1, 4, 4, 3, 2, 1]
    times = [1, 1, 1, 2, 3, 4, 5, 6, 1, 2, 3, 4]
    prepared = prepare(make_interactions(users, items, times), duplicates=policy)
    assert prepared.summary["repeated_rows"] == rows
    assert prepared.summary["dropped"]["interactions"] == (0 if policy == "keep" else rows)
    assert said in prepared.summary["notes"][0]
    assert f"Note      {prepared.summary['notes'][0]}" in prepared.describe()


def test_a_table_without_copies_is_the_same_by_default() -> None:
    read = random_interactions(3)
    kept, default = prepare(read, duplicates="keep"), prepare(read)
    assert all(kept.dataset[part].to_dict() == default.dataset[part].to_dict() for part in default.dataset)
    assert default.summary["notes"] == kept.summary["notes"] == []


@pytest.mark.needs_data
@pytest.mark.parametrize("name", ["ml-1m", "amazon-beauty", "amazon-video-games"])
def test_the_published_data_has_no_copies(shared_data, name: str) -> None:
    read = read_interactions(shared_data / name / "interactions.parquet")
    summary = prepare(read).summary
    assert summary["repeated_rows"] == 0
    assert summary["ties"]["test"] == pytest.approx(0.43 if name == "amazon-beauty" else 0, abs=0.01)
