from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modeling_glintru.data.prepare as prepare_module
from modeling_glintru.data.interactions import Interactions, read_interactions
from modeling_glintru.data.prepare import PreparedData, load_prepared, prepare
from modeling_glintru.errors import DataError

from .helpers import make_interactions, naive_histories, random_interactions


def check_leave_one_out(read: Interactions, prepared: PreparedData) -> None:
    """The data sets hold what the obvious Python gives, raw ids put back."""
    raw = prepared.processor.raw_id
    histories = {user: [item for _, item in history] for user, history in naive_histories(read).items()}
    train = {row["user_id"]: [raw(index) for index in row["item_ids"]] for row in prepared.dataset["train"]}
    assert train == {user: items[:-2] if len(items) >= 3 else items for user, items in histories.items()}
    for part, cut in (("validation", 2), ("test", 1)):
        rows = {row["user_id"]: row for row in prepared.dataset[part]}
        assert set(rows) == {user for user, items in histories.items() if len(items) >= 3}
        for user, row in rows.items():
            assert [raw(index) for index in row["item_ids"]] == histories[user][:-cut]
            assert raw(row["target"]) == histories[user][-cut]
    seen = Counter(item for items in train.values() for item in items)
    expected = [0, *(seen[raw(index)] for index in range(1, prepared.processor.vocab_size))]
    assert prepared.item_counts.tolist() == expected
    assert prepared.item_counts.dtype == np.int64


@pytest.mark.parametrize("on_disk", [False, True])
def test_leave_one_out_end_to_end(on_disk: bool, tmp_path: Path) -> None:
    read = random_interactions(3, rows=150)
    prepared = prepare(read, tmp_path / "out" if on_disk else None)
    check_leave_one_out(read, prepared)
    features = {name: str(feature) for name, feature in prepared.dataset["test"].features.items()}
    assert list(features) == ["user_id", "item_ids", "target"]
    assert "int32" in features["item_ids"]
    assert "int32" in features["target"]
    assert "string" in features["user_id"]


def test_many_rows_go_into_several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare_module, "ROWS_PER_CHUNK", 4)
    read = random_interactions(4)
    prepared = prepare(read)
    assert prepared.dataset["train"].data.column("item_ids").num_chunks > 5
    check_leave_one_out(read, prepared)


@pytest.mark.parametrize("split", ["leave_one_out", "temporal", "user"])
def test_folder_round_trip(split: str, tmp_path: Path) -> None:
    read = random_interactions(5, rows=800, num_times=400)
    titles = {100: "A film", 101: None}
    memory = prepare(read, split=split, item_titles=titles, max_length=17, seed=7)
    written = prepare(read, tmp_path / "a" / "b", split=split, item_titles=titles, max_length=17, seed=7)
    loaded = load_prepared(tmp_path / "a" / "b")
    for data in (written, loaded):
        for part in ("train", "validation", "test"):
            assert data.dataset[part].to_dict() == memory.dataset[part].to_dict()
            assert data.dataset[part].cache_files  # memory-mapped from the folder
        assert data.processor.item_ids == memory.processor.item_ids == tuple(sorted(set(read.frame["item_id"])))
        assert data.processor.title(100) == "A film"
        assert data.processor.max_length == 17
        assert memory.summary.items() <= data.summary.items()
        np.testing.assert_array_equal(data.item_counts, memory.item_counts)
    assert sorted(entry.name for entry in (tmp_path / "a").iterdir()) == ["b"]


def test_train_never_holds_a_target_of_the_user() -> None:
    # Each interaction has its own item, so that an item tells which interaction it was.
    users = np.random.default_rng(0).integers(0, 20, 300).tolist()
    for split in ("leave_one_out", "temporal", "user"):
        prepared = prepare(make_interactions(users, list(range(300)), list(range(300))), split=split)
        trained = {item for row in prepared.dataset["train"] for item in row["item_ids"]}
        for part in ("validation", "test"):
            assert not trained & set(prepared.dataset[part]["target"])


def test_summary() -> None:
    users = ["a"] * 4 + ["b"] * 3 + ["c"] * 2 + ["d"]
    items = [1, 2, 3, 4, 1, 2, 5, 1, 2, 9]
    read = make_interactions(users, items, list(range(10)))
    summary = prepare(read, min_history_length=2, seed=3).summary
    assert summary == {
        "source": "table",
        "columns": {"user": "user_id", "item": "item_id", "time": "timestamp"},
        "users": 3,
        "items": 5,
        "interactions": 9,
        "dropped": {"interactions": 1, "users": 1, "items": 1},
        "median_history_length": 3.0,
        "train_histories": 3,
        "train_interactions": 5,
        "validation_users": 2,
        "test_users": 2,
        "validation_targets": 2,
        "test_targets": 2,
        "ties": {"train": 0.0, "validation": 0.0, "test": 0.0},
        # Trained on: a 1 2, b 1, c 1 2. Targets: a 3 then 4, b 2 then 5.
        "validation_cold_targets": 1,
        "test_cold_targets": 2,
        "recurring_targets": {"train": 0.0, "validation": 0.0, "test": 0.0},
        "repeated_rows": 0,
        "notes": [],
        "split": "leave_one_out",
        "options": {
            "duplicates": "exact",
            "min_user_interactions": 0,
            "min_item_interactions": 0,
            "min_history_length": 2,
            "seed": 3,
            "max_length": 200,
        },
    }
    assert json.loads(json.dumps(summary)) == summary


def test_describe_is_for_people() -> None:
    text = prepare(random_interactions(1), min_item_interactions=20).describe()
    assert "user = 'user_id', item = 'item_id', time = 'timestamp'" in text
    assert "leave_one_out" in text
    assert "Left out" in text


def test_filters_are_applied() -> None:
    read = random_interactions(6, rows=500)
    prepared = prepare(read, duplicates="last", min_user_interactions=8, min_item_interactions=10)
    assert prepared.summary["dropped"]["interactions"] > 0
    histories = [len(row["item_ids"]) + 1 for row in prepared.dataset["test"]]
    assert min(histories) >= 8
    assert all(len(set(row["item_ids"])) == len(row["item_ids"]) for row in prepared.dataset["test"])


def test_titles_of_another_id_type() -> None:
    read = make_interactions(["a"] * 4 + ["b"] * 3, ["1", "2", "3", "2", "2", "3", "x"], list(range(7)))
    processor = prepare(read, item_titles={1: "One", 3: "Three", 77: "?"}).processor
    assert processor.item_titles == ("One", None, "Three", None)
    read = make_interactions(["a"] * 4 + ["b"] * 3, [1, 2, 3, 2, 2, 3, 4], list(range(7)))
    assert prepare(read, item_titles={"one": "One", "2": "Two"}).processor.item_titles is None


def test_progress_bars_stay_as_they_were(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from datasets.utils import are_progress_bars_disabled

    before = are_progress_bars_disabled()
    prepare(random_interactions(1), tmp_path / "out")
    assert are_progress_bars_disabled() == before
    assert capfd.readouterr() == ("", "")


# ---------------------------------------------------------------- bad input


def refused(match: str, read: Interactions, *arguments: Any, **options: Any) -> None:
    with pytest.raises(DataError, match=match) as caught:
        prepare(read, *arguments, **options)
    assert "\n" not in str(caught.value)


def test_a_single_user() -> None:
    read = make_interactions(["a"] * 5, list(range(5)), list(range(5)))
    refused(r"table has a single user \('a'\), but at least two are needed; is --user_column right", read)


def test_a_single_item() -> None:
    read = make_interactions(["a", "a", "a", "b", "b"], [7] * 5, list(range(5)))
    refused(r"table has a single item \(7\), but at least two are needed; is --item_column right", read)


def test_a_single_user_after_filtering() -> None:
    read = make_interactions(["a"] * 5 + ["b"], list(range(6)), list(range(6)))
    refused("single user after filtering", read, min_user_interactions=2)


def test_histories_all_shorter_than_three() -> None:
    read = make_interactions(["a", "a", "b", "b"], [1, 2, 1, 2], list(range(4)))
    refused("All 2 histories are shorter than three", read)


def test_nothing_left_after_filtering(tmp_path: Path) -> None:
    refused("Nothing is left", random_interactions(0), tmp_path / "out", min_item_interactions=1000)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- the output folder


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_prepared_data_is_replaced_only_on_request(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    prepare(random_interactions(1), folder)
    before = tree(folder)
    refused("out already holds prepared data; .*--overwrite", random_interactions(2), folder)
    assert tree(folder) == before
    prepare(random_interactions(2), folder, overwrite=True)
    check_leave_one_out(random_interactions(2), load_prepared(folder))
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_others_is_never_touched(overwrite: bool, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    refused(r"holds something else \('thesis.txt'\)", random_interactions(1), tmp_path, overwrite=overwrite)
    assert tree(tmp_path) == {"thesis.txt": b"years of work"}


def test_prepared_data_with_a_foreign_file_in_it_is_never_touched(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    prepare(random_interactions(1), folder)
    (folder / "notes.txt").write_text("mine")
    before = tree(folder)
    refused(r"holds something else \('notes.txt'\)", random_interactions(2), folder, overwrite=True)
    assert tree(folder) == before


def test_a_summary_of_others_is_no_licence_to_overwrite(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"format": "other"}')
    (tmp_path / "dataset").mkdir()
    refused("holds something else", random_interactions(1), tmp_path, overwrite=True)
    assert tree(tmp_path) == {"summary.json": b'{"format": "other"}'}


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    prepare(random_interactions(1), tmp_path)
    check_leave_one_out(random_interactions(1), load_prepared(tmp_path))


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    refused("out is a file", random_interactions(1), tmp_path / "out")
    refused("cannot be written", random_interactions(1), tmp_path / "out" / "deeper")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_half_written(error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    prepare(random_interactions(1), folder)
    before = tree(folder)

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(prepare_module, "write_summary", fail)
    with pytest.raises((DataError, KeyboardInterrupt), match=r"No space left|^$"):
        prepare(random_interactions(2), folder, overwrite=True)
    assert tree(folder) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


# ---------------------------------------------------------------- damaged folders


@pytest.fixture(scope="module")
def sound_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared") / "sound"
    prepare(random_interactions(1), folder)
    return folder


def summary_with(folder: Path, **changes: Any) -> None:
    file = folder / "summary.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def forget_checksums(folder: Path) -> None:
    """Makes the folder one that an earlier version wrote."""
    file = folder / "summary.json"
    content = json.loads(file.read_text())
    del content["checksums"], content["summary_checksum"]
    file.write_text(json.dumps(content))


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def swap_test_for_train(folder: Path) -> None:
    shutil.rmtree(folder / "dataset" / "test")
    shutil.copytree(folder / "dataset" / "train", folder / "dataset" / "test")


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (shutil.rmtree, "There is no folder"),
        (lambda folder: (folder / "summary.json").unlink(), "not prepared data: it has no summary.json"),
        (lambda folder: truncate(folder / "summary.json"), "summary.json is damaged"),
        (lambda folder: (folder / "summary.json").write_text("[]"), "summary.json is of another kind"),
        (lambda folder: summary_with(folder, format="other"), "summary.json is of another kind"),
        (lambda folder: summary_with(folder, format_version=99), "prepared in format 99"),
        (lambda folder: summary_with(folder, items=3), "do not belong together"),
        (lambda folder: summary_with(folder, test_targets=1), "do not belong together"),
        (lambda folder: shutil.rmtree(folder / "dataset"), "data sets of .* are missing or damaged"),
        (lambda folder: shutil.rmtree(folder / "dataset" / "test"), "data sets of .* are missing or damaged"),
        (lambda folder: truncate(next((folder / "dataset" / "train").glob("*.arrow"))), "missing or damaged"),
        (lambda folder: truncate(folder / "dataset" / "train" / "dataset_info.json"), "missing or damaged"),
        (swap_test_for_train, "do not belong together"),
        (lambda folder: (folder / "item_vocabulary.safetensors").unlink(), "item vocabulary of .* is missing"),
        (
            lambda folder: truncate(folder / "item_vocabulary.safetensors"),
            "item vocabulary of .* is missing or damaged",
        ),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "item vocabulary of .* is missing or damaged"),
        (lambda folder: truncate(folder / "preprocessor_config.json"), "item vocabulary of .* is missing or damaged"),
    ],
)
def test_damaged_folders(damage: Any, match: str, sound_folder: Path, tmp_path: Path) -> None:
    """Those of earlier versions, without checksums; see `tests/attack/test_prepared.py` for the others."""
    folder = tmp_path / "copy"
    shutil.copytree(sound_folder, folder)
    forget_checksums(folder)
    load_prepared(folder)
    damage(folder)
    with pytest.raises(DataError, match=match) as caught:
        load_prepared(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.needs_data
def test_leave_one_out_targets_of_ml_1m(shared_data: Path, tmp_path: Path) -> None:
    read = read_interactions(shared_data / "ml-1m" / "interactions.parquet")
    prepared = prepare(read, tmp_path / "out")
    assert prepared.summary["validation_users"] == prepared.summary["test_users"] == 6040
    # The published file is in time order: each user's last row in it is the test target.
    last = dict(read.frame.group_by("user_id").last().select("user_id", "item_id").iter_rows())
    test = prepared.dataset["test"]
    targets = prepared.processor.decode(test["target"][:])
    assert dict(zip(test["user_id"][:], targets, strict=True)) == last
