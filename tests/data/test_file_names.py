"""A name is a name; folders and patterns are part files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from modeling_glintru.data.readers import Table, open_table
from modeling_glintru.errors import DataError

FRAME = pl.DataFrame({"user_id": ["u1"], "item_id": ["a"]})


def write(path: Path, *items: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pl.DataFrame({"user_id": ["u1"] * len(items), "item_id": items}, schema=FRAME.schema)
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in frame.to_dicts()))
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(frame.write_csv().encode()))
    else:
        path.write_text(frame.write_csv())
    return path


def items(table: Table) -> list[str]:
    return table.load(["item_id"])["item_id"].to_list()


def refused(name: Path, match: str) -> None:
    with pytest.raises(DataError, match=match) as caught:
        open_table(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
@pytest.mark.parametrize("name", ["data[1]", "data*", "data?", "data[!x]", "a{1,2}", "[ab]", "**"])
def test_a_name_is_a_name(name: str, suffix: str, tmp_path: Path) -> None:
    for other in ("data1", "data2", "a1", "a"):
        write(tmp_path / f"{other}{suffix}", "wrong")
    table = open_table(write(tmp_path / f"{name}{suffix}", "right"))
    assert items(table) == ["right"]
    assert (table.source, table.files) == (f"{name}{suffix}", ())
    folder = f"run[2]{suffix}*"
    write(tmp_path / "run2" / f"x{suffix}", "wrong")
    assert items(open_table(write(tmp_path / folder / f"{name}{suffix}", "right"))) == ["right"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl", ".csv.gz"])
def test_part_files_of_a_folder(suffix: str, tmp_path: Path) -> None:
    folder = tmp_path / "events"
    for number, cells in ((2, ["c"]), (10, ["d", "e"]), (1, ["a", "b"])):
        write(folder / f"part-{number:04}{suffix}", *cells)
    for hidden in ("_SUCCESS", f".part-0001{suffix}.crc", "_committed_7"):
        (folder / hidden).touch()
    (folder / f"part-0000{suffix}").touch()  # Spark writes parts without rows
    names = tuple(f"part-{number:04}{suffix}" for number in (1, 2, 10))
    for source in (folder, f"{folder}/"):
        table = open_table(source)
        assert items(table) == ["a", "b", "c", "d", "e"]
        assert (table.source, table.files) == ("events/ (3 files)", names)
    word = "row" if suffix == ".parquet" else "line"
    first = 2 if ".csv" in suffix else 1
    assert table.place(1) == f"{word} {first + 1} of {names[0]}"
    assert table.place(2) == f"{word} {first} of {names[1]}"
    assert table.place(4) == f"{word} {first + 1} of {names[2]}"
    table = open_table(f"{tmp_path}/ev*/part-000?{suffix}")
    assert items(table) == ["a", "b", "c"] and table.files == names[:2]
    assert table.source == f"part-000?{suffix} (2 files)"


def test_brackets_of_a_folder_are_no_pattern(tmp_path: Path) -> None:
    write(tmp_path / "run2" / "part-1.csv", "wrong")
    write(tmp_path / "run[2]" / "part-1.csv", "right")
    table = open_table(tmp_path / "run[2]" / "part-*.csv")
    assert items(table) == ["right"] and table.source == "part-*.csv (1 file)"


def test_what_is_no_table_of_part_files(tmp_path: Path) -> None:
    folder = tmp_path / "events"
    write(folder / "a.csv", "a")
    write(folder / "b.parquet", "b")
    refused(folder, r"events/ should hold part files of one kind .* but it holds a.csv, b.parquet; .*'folder/\*.csv'")
    assert items(open_table(folder / "*.csv")) == ["a"]
    (folder / "b.parquet").rename(folder / "README")
    refused(folder, "part files of one kind .* README, a.csv")
    refused(tmp_path / "*.txt", r"No file is named like '.*\*.txt'")
    write(tmp_path / "days" / "day=1" / "a.csv", "a")
    refused(tmp_path / "days", "only 1 folder .*pattern")
    assert items(open_table(f"{tmp_path}/days/*/*.csv")) == ["a"]
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.csv").touch()
    refused(tmp_path / "none", "none/ holds 1 file, which is empty")


def test_folders_in_a_folder_are_not_left_out_silently(tmp_path: Path) -> None:
    folder = tmp_path / "events"
    write(folder / "a.csv", "a")
    (folder / "pictures").mkdir()
    (folder / "pictures" / "cover.png").touch()
    write(folder / "_temporary" / "x" / "c.csv", "wrong")
    assert items(open_table(folder)) == ["a"]
    write(folder / "day=1" / "hour=2" / "b.csv", "b")
    refused(folder, r"^events/ holds 1 file and 1 folder with further tables \(day=1\); .*'folder/\*\*/\*\.csv'")
    assert items(open_table(f"{folder}/*.csv")) == ["a"]
    assert items(open_table(f"{folder}/*/*/*.csv")) == ["b"]
    assert sorted(items(open_table(f"{folder}/**/*.csv"))) == ["a", "b"]
    assert items(open_table(f"{folder}/_temporary/*/*.csv")) == ["wrong"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_parts_with_other_columns(suffix: str, tmp_path: Path) -> None:
    write(tmp_path / f"a{suffix}", "a")
    frame = FRAME.rename({"item_id": "product"})
    frame.write_parquet(tmp_path / f"b{suffix}") if suffix == ".parquet" else frame.write_csv(tmp_path / f"b{suffix}")
    refused(tmp_path, rf"b{suffix} has other columns than a{suffix}: .*'product'.* instead of .*'item_id'")


def test_parts_with_columns_in_another_order(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "a")
    FRAME.select("item_id", "user_id").with_columns(item_id=pl.lit("b")).write_csv(tmp_path / "b.csv")
    assert open_table(tmp_path).load(["user_id", "item_id"]).rows() == [("u1", "a"), ("u1", "b")]


def test_parts_whose_types_differ(tmp_path: Path) -> None:
    FRAME.write_parquet(tmp_path / "a.parquet")
    FRAME.with_columns(item_id=pl.lit(1)).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(
        DataError, match=r"'item_id' of .* \(2 files\) has several types: String in a.parquet, but Int32 in b.parquet"
    ):
        open_table(tmp_path).load(["item_id"])


def test_parts_without_header(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text(f"u1,{name}\n")
    table = open_table(tmp_path, columns=["user_id", "item_id"])
    assert items(table) == ["a", "b"] and table.place(1) == "line 1 of b.csv"


def test_one_decision_on_quotes_for_all_parts(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('user_id\titem_id\n1\t"x"\n')
    (tmp_path / "b.tsv").write_text('user_id\titem_id\n1\t"x" y\n1\tz\n')
    table = open_table(tmp_path)
    assert items(table) == items(table) == ['"x"', '"x" y', "z"]
    (tmp_path / "b.tsv").write_text("user_id\titem_id\n1\tz\textra\n")
    with pytest.raises(DataError, match=r"^Line 2 of b\.tsv has 3 cells"):
        items(open_table(tmp_path))
