"""Bad input of each kind gives one clear sentence."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import polars as pl
import pytest

from modeling_glintru.data.interactions import read_interactions
from modeling_glintru.errors import DataError

from .cases import at

SOUND: dict[str, list[Any]] = {"user_id": ["a", "b", "c"], "item_id": ["x", "y", "z"], "timestamp": [1, 2, 3]}
CSV = "user_id,item_id,timestamp\na,x,1\nb,y,2\n"


def refused(source: Any, match: str, **options: Any) -> None:
    with pytest.raises(DataError, match=match) as caught:
        read_interactions(source, **options)
    assert "\n" not in str(caught.value)


def frame(**columns: Any) -> pl.DataFrame:
    return pl.DataFrame({**SOUND, **columns}, strict=False)


def test_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere.csv", "no file .*nowhere.csv.*give a table")


def test_missing_hub_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: Any) -> None:
        raise FileNotFoundError("Dataset 'owner/name' doesn't exist\nand more")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    refused("owner/name", r"no file 'owner/name', and .* Hub .*doesn't exist\)")


def test_missing_file_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def download(*_: Any, **__: Any) -> None:
        raise OSError("out of reach")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    refused("hf://datasets/owner/name/a.csv", r"cannot be had from the Hub \(out of reach\)")
    for address in ("hf://models/owner/name/a.csv", "hf://models/owner/name", "hf://datasets/owner/name"):
        refused(address, "the form is hf://datasets/owner/name/file")


@pytest.mark.parametrize("name", ["./nowhere", "~/nowhere", "owner\\folder/name", "folder/nowhere.csv", "a/b/c"])
def test_a_path_is_not_looked_for_on_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: pytest.fail("it was looked for"))
    refused(name, "^There is no file .*; give a table")


def test_empty_folder(tmp_path: Path) -> None:
    refused(tmp_path, "should hold part files of a table .*but it holds none")


@pytest.mark.parametrize("name", ["a.xlsx", "a", "a.parquet.gz", "a.gz"])
def test_unsupported_suffix(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(CSV)
    refused(path, rf"{name} has a suffix that is not known; known are .csv, .tsv, .parquet")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl", ".inter"])
def test_empty_file(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.touch()
    refused(path, "is empty")


@pytest.mark.parametrize(("suffix", "text"), [(".csv", "\n"), (".jsonl", "\n\n")])
def test_file_of_blank_lines(suffix: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text(text)
    refused(path, "is empty")


def test_header_without_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(CSV.splitlines()[0] + "\n")
    refused(path, "is empty: it has columns but no rows")
    refused(frame().clear(), "is empty: it has columns but no rows")


@pytest.mark.parametrize(("column", "role"), [("user_id", "user"), ("item_id", "item"), ("timestamp", "time")])
def test_missing_column(column: str, role: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    frame().rename({column: "other"}).write_csv(path)
    refused(path, rf"a.csv has no column that looks like the {role}; name it with --{role}_column.*'other'")


def test_one_column_in_two_roles() -> None:
    refused(
        frame(), "'item_id' .* both the user and the item; .*--user_column and --item_column", user_column="item_id"
    )


@pytest.mark.parametrize("column", list(SOUND))
def test_missing_values(column: str) -> None:
    refused(
        frame(**{column: [SOUND[column][0], None, None]}),
        rf"missing values in 2 of 3 rows: 2 in '{column}' \(the first in row 2\); .* --drop_missing",
    )


def test_missing_values_in_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('user_id,item_id,timestamp\n,x,1\n"",y,2\nc,z,\n')
    refused(
        path, rf"in 3 of 3 rows: 2 in 'user_id' \(the first in {at(1)}\), 1 in 'timestamp' \(the first in {at(3)}\)"
    )


def test_missing_values_in_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"user_id": "a", "item_id": "x", "timestamp": 1}\n{"user_id": "a", "timestamp": 2}\n')
    refused(path, "1 in 'item_id'")


@pytest.mark.parametrize(
    ("times", "match"),
    [
        ([1.0, math.nan, 2.0], "missing values in 1 of 3 rows: 1 in 'timestamp' .*" + at(2)),
        ([1.0, math.inf, -math.inf], "2 of 3 times that are not finite, the first is inf in " + at(2)),
    ],
)
def test_times_that_are_not_finite(times: list[float], match: str, tmp_path: Path) -> None:
    refused(frame(timestamp=times), match)
    refused(frame(timestamp=times).to_pandas(), match)
    path = tmp_path / "a.csv"
    frame(timestamp=[str(time) for time in times]).write_csv(path)
    refused(path, match)


@pytest.mark.parametrize(
    ("times", "bad"),
    [
        (["1", "2", "soon"], "1 of 3 .*'soon' in row 3"),
        (["2024-01-01", "May 2024", "2024-01-03"], "1 of 3 .*'May 2024' in row 2"),
        (["x", "y", "z"], "3 of 3 .*'x' in row 1"),
    ],
)
def test_times_that_are_no_times(times: list[str], bad: str) -> None:
    refused(frame(timestamp=times), r"neither numbers nor dates such as .*--time_column")
    refused(frame(timestamp=times), bad)


@pytest.mark.parametrize("times", [[True, False, True], [[1], [2], [3]], [2**64 - 1] * 3])
def test_times_of_a_wrong_type(times: list) -> None:
    refused(pl.DataFrame({**SOUND, "timestamp": pl.Series(times)}), "Time column 'timestamp' of polars frame")


@pytest.mark.parametrize("column", ["user_id", "item_id"])
def test_mixed_ids(column: str, tmp_path: Path) -> None:
    refused(pd.DataFrame({**SOUND, column: [1, "b", 3]}), rf"Column '{column}' of the pandas frame holds mixed types")
    path = tmp_path / "a.jsonl"
    pd.DataFrame({**SOUND, column: [1, "b", 3]}).to_json(path, orient="records", lines=True)
    refused(
        path, rf"Column '{column}' of a.jsonl mixes types: .* 1 is text \(\"b\" on line 2\), the others are integers"
    )


def test_mixed_ids_far_down_in_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    row = '{"user_id": 1, "item_id": 2, "timestamp": 3}\n'
    path.write_text(row * 2000 + '{"user_id": "one", "item_id": 2, "timestamp": 3}\n')
    refused(path, "Column 'user_id' of a.jsonl mixes types: .*\"one\" on line 2001")


@pytest.mark.parametrize("ids", [[1.0, 2.0, math.nan], [1.5, 2.0, 3.0]])
def test_ids_that_are_floats(ids: list[float], tmp_path: Path) -> None:
    match = r"holds ids that are floating-point numbers \(1.* in row 1, .* of 3\).*missing values"
    refused(frame(item_id=ids), match)
    refused(pd.DataFrame({**SOUND, "item_id": ids}), match)


def test_ids_that_are_floats_written_as_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user_id,item_id,timestamp\na,1.0,1\nb,2.0,2\n")
    refused(path, rf"floating-point numbers \('1.0' in {at(1)}, 2 of 2\)")


@pytest.mark.parametrize("ids", [[True, False, True], [{"x": 1}] * 3, [2**64 - 1] * 3])
def test_ids_of_a_wrong_type(ids: list) -> None:
    refused(pl.DataFrame({**SOUND, "item_id": pl.Series(ids)}), "Column 'item_id' of polars frame")


def test_two_pandas_columns_of_one_name() -> None:
    twice = pd.DataFrame([["a", "b", "x", 1]], columns=["user_id", "user_id", "item_id", "timestamp"])
    refused(twice, "more than one column that could be the user")
    refused(twice, "2 columns named 'user_id'", user_column="user_id")


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.98])
def test_damaged_parquet(keep: float, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({name: values * 1000 for name, values in SOUND.items()}).write_parquet(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)] or b"no parquet at all")
    refused(path, "a.parquet cannot be read as Parquet")


def test_damaged_pages_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({name: values * 1000 for name, values in SOUND.items()}).write_parquet(path)
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    path.write_bytes(bytes(content))
    refused(path, "a.parquet cannot be read as Parquet")


def test_ragged_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(CSV + "c,z,3,4,5\n")
    refused(path, "Line 4 of a.csv has 5 cells where the header has 3: 'c,z,3,4,5'; .*--separator")


def test_text_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(CSV.encode() + "c,Käse,3\n".encode("latin-1"))
    refused(path, r"Column 'item_id' of a.csv is not in UTF-8, first on line 4: b'K\\xe4se'; .*--encoding latin-1")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_truncated_gzip(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}.gz"
    row = "%d,%d,%d\n" if suffix == ".csv" else '{"user_id": %d, "item_id": %d, "timestamp": %d}\n'
    text = CSV.splitlines(keepends=True)[0] * (suffix == ".csv") + "".join(row % (i, 7 * i, i**2) for i in range(9999))
    path.write_bytes(gzip.compress(text.encode())[:-5000])
    refused(path, "cannot be read as")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('[{"user_id": 1}]', "one JSON list"),
        ("[\n{}\n]", "one JSON list"),
        ("1\n2\n", "each line must be one object"),
        ("{nonsense", "cannot be read as JSON lines"),
    ],
)
def test_json_that_is_not_lines_of_objects(text: str, match: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    refused(path, match)


def test_json_that_is_damaged_far_down(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"user_id": 1, "item_id": 2, "timestamp": 3}\n' * 2000 + '{"user_id": 1, "it\n')
    refused(path, "cannot be read as JSON lines")


def test_missing_split() -> None:
    refused(datasets.DatasetDict({"test": datasets.Dataset(frame().to_arrow())}), "no split 'train' .*it has: 'test'")


@pytest.mark.parametrize("source", [None, 5, {"user_id": [1]}])
def test_sources_of_an_unknown_kind(source: Any) -> None:
    refused(source, f"cannot be read from a {type(source).__name__}")


@pytest.mark.parametrize("source", [[], [1, 2]])
def test_a_list_of_something_else_than_paths(source: Any) -> None:
    refused(source, "must be a list of paths of files of one kind")
