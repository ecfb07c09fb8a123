"""JSON lines: ids of any length, lists, events, and lines that are named."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import polars as pl
import pytest

from modeling_glintru.data import files
from modeling_glintru.data.readers import Table, open_table
from modeling_glintru.errors import DataError

CASES = Path(__file__).resolve().parents[1] / "cases"
HUGE = 622188820004259020019


def write(path: Path, rows: list) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> tuple[Table, pl.DataFrame]:
    table = open_table(path)
    return table, table.load(table.names)


def refused(path: Path, match: str, **options: str) -> None:
    with pytest.raises(DataError, match=match) as caught:
        table = open_table(path, **options)  # type: ignore[arg-type]
        table.load(table.names)
    assert "\n" not in str(caught.value)


def test_ids_of_21_digits() -> None:
    path = CASES / "huge_ids/clicks.jsonl"
    _, frame = read(path)
    assert frame.schema == {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
    rows = [json.loads(line, parse_int=str) for line in path.read_text().splitlines()]
    assert frame["item_id"].to_list() == [row["item_id"] for row in rows]
    assert frame["timestamp"].to_list() == [int(row["timestamp"]) for row in rows]


def test_events_of_a_session_are_rows() -> None:
    path = CASES / "session_lists/otto.jsonl"
    table, frame = read(path)
    assert table.names == ("session", "aid", "ts", "type")
    expected = [
        (row["session"], event["aid"], event["ts"], event["type"], f"line {number}")
        for number, row in enumerate(map(json.loads, path.read_text().splitlines()), start=1)
        for event in row["events"]
    ]
    assert frame.rows() == [row[:4] for row in expected]
    assert [table.place(row) for row in range(frame.height)] == [row[4] for row in expected]
    assert table.load(["session"]).height == table.load(["ts", "session"]).height == len(expected)


def test_lists_are_lists(tmp_path: Path) -> None:
    rows = [{"s": 1, "items": [1, 2], "tags": ["x"]}, {"s": 2, "items": [], "tags": None}, {"s": 3, "items": [HUGE]}]
    path = write(tmp_path / "a.jsonl", rows)
    _, frame = read(path)
    assert frame["items"].to_list() == [["1", "2"], [], [str(HUGE)]] and frame["s"].to_list() == [1, 2, 3]
    assert frame["tags"].to_list() == [["x"], None, None]
    assert read(write(path, rows[:2]))[1]["items"].to_list() == [[1, 2], []]
    frame = read(CASES / "session_lists/sessions.parquet")[1]
    assert frame["item_id"][0].to_list() == [17, 18, 19, 20, 21, 22, 23, 24] and frame.height == 40


def test_events_with_huge_ids_and_sessions_without_any(tmp_path: Path) -> None:
    rows = [
        {"session": 1, "events": [{"aid": 5, "ts": 1}, {"aid": HUGE}]},
        {"session": 2, "events": []},
        "\n",
        {"session": 3, "events": None},
        {"session": 4, "events": [{"ts": 2, "aid": -7}]},
    ]
    table, frame = read(write(tmp_path / "a.jsonl", rows))
    assert frame.rows() == [(1, "5", 1), (1, str(HUGE), None), (4, "-7", 2)]
    assert [table.place(row) for row in range(3)] == ["line 1", "line 1", "line 5"]


def test_a_name_in_two_places(tmp_path: Path) -> None:
    refused(write(tmp_path / "a.jsonl", [{"ts": 1, "events": [{"ts": 1}]}]), "'ts' beside the list 'events'")


@pytest.mark.parametrize("size", [40, 2**20])
def test_blocks(size: int, tmp_path: Path) -> None:
    rows = [{"u": f"ü{place}", "i": place} for place in range(50)]
    path = write(tmp_path / "a.jsonl", [*rows[:20], "\n", " \n", *rows[20:]])
    with mock.patch.object(files, "BLOCK_BYTES", size):
        table, frame = read(path)
        assert frame.to_dicts() == rows
        assert (table.place(19), table.place(20), table.place(49)) == ("line 20", "line 23", "line 52")
        path.write_text(path.read_text() + '{"u": "x", "i": "text"}\n')
        refused(path, r"Column 'i' of a.jsonl mixes types: of the first 51 values 1 is text \(\"text\" on line 53\)")
        many = ["{}\n"] * 1000
        refused(
            write(path, [*rows, *many, {"u": "x", "i": "text"}]),
            r"Column 'i' of a.jsonl mixes types: .* 1 is text \(\"text\" on line 1051\), the others are integers",
        )
        _, frame = read(write(path, [*rows, *many, {"u": "x", "i": 1.5}]))
        assert frame["i"].dtype == pl.Float64 and frame["i"][-1] == 1.5 and frame["i"][49] == 49


def test_integers_that_a_fraction_would_round_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"i": 2**53 + 1}, {"i": 2}, {"i": 0.5}])
    refused(path, r"mixes types: of the first 3 values 1 is a number with a fraction \(0.5 on line 3\)")


@pytest.mark.parametrize("value", ["007", 7.0, "1e3"])
def test_what_is_no_integer_among_huge_ones(value: object, tmp_path: Path) -> None:
    rows = [{"i": HUGE}, *[{"i": 1}] * 1000, {"i": value}]
    refused(write(tmp_path / "a.jsonl", rows), "a.jsonl mixes types.* on line 1002")


def test_integers_of_any_length_are_exact(tmp_path: Path) -> None:
    _, frame = read(write(tmp_path / "a.jsonl", [{"i": 10**80}, {"i": -7}, {"i": None}]))
    assert frame["i"].to_list() == [str(10**80), "-7", None]


@pytest.mark.parametrize("line", ['{"i": 1}{"i": 2}\n', '{"i": 1},{"i": 2}\n', '{"i": 1,\n"u": 2}\n'])
def test_each_line_is_one_object(line: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [*[{"i": 1}] * 1001, line])
    refused(path, "Line 1002 of a.jsonl cannot be read as JSON lines .*; each line must be one object")


@pytest.mark.parametrize("lines_before", [4, 1500])
@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("garbage", r"cannot be read as JSON lines \(Expecting value at character 1\): 'garbage'"),
        ('{"i":7 "j":8}', r"cannot be read as JSON lines \(Expecting ',' delimiter at character 8\)"),
        ('{"i": 7 "j": 8}', r"cannot be read as JSON lines \(Expecting ',' delimiter at character 9\)"),
        ('{"i": ' + "[" * 99_999, r"cannot be read as JSON lines \(maximum recursion depth .*\): '{\"i\": \[+';"),
        ("7", "is not JSON lines: it is '7', but each line must be one object"),
        ("null", "is not JSON lines: it is 'null', but each line must be one object"),
        ("[1,2,3]", r"is not JSON lines: it is '\[1,2,3\]'"),
        ('{"i":', r"cannot be read as JSON lines \(its object does not end on this line\): '{\"i\":'"),
        ('{"i": "caf\udce9"}', r"is not text in UTF-8 \(the byte 0xe9 after '.*caf'\); .* --encoding latin-1"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(lines_before: int, line: str, match: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    text = '{"i": "a"}\n' * lines_before + f"\n{line}\n"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(path, rf"^Line {lines_before + 2} of a\.jsonl {match}")


def test_mixed_types_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"i": 1}, {"i": None}, {"i": 2.5}, {"i": "x"}, {"i": "y"}, {"i": 3}])
    refused(path, r"of the first 5 values 2 are text \(the first is \"x\" on line 4\), the others are integers or num")
    path = write(path, [*[{"e": [{"i": 1}, {"i": 2}]}] * 1000, {"e": [{"i": 1}, {"i": "x"}]}, {"e": [{"i": "y"}]}])
    refused(path, r"'i' of a\.jsonl mixes .* 2 are text \(the first is \"x\" on line 1001\), the others are integers")
    refused(write(path, [{"i": 1}, {"i": {"a": 1}}, {"i": 2}]), r"1 is an object \({\"a\": 1} on line 2\)")
    refused(write(path, [{"i": {"a": 1}}]), r"'i' of a\.jsonl nests objects, the first is {\"a\": 1} on line 1")
    refused(write(path, [{"i": [[5], [6]]}]), r"'i' of a\.jsonl nests lists, the first is \[5\] on line 1")


def test_mixed_types_of_part_files(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{"i": 1}])
    write(tmp_path / "b.jsonl", [{"i": 2}, {"i": "x"}])
    refused(tmp_path, r"1 is text \(\"x\" on line 2 of b\.jsonl\)")
    write(tmp_path / "b.jsonl", [{"i": 2}, {"i": 3}])
    table, frame = read(tmp_path)
    assert frame["i"].to_list() == [1, 2, 3] and table.files == ("a.jsonl", "b.jsonl")
    assert [table.place(row) for row in range(3)] == [
        f"line {at}" for at in ("1 of a.jsonl", "1 of b.jsonl", "2 of b.jsonl")
    ]
    with pytest.raises(IndexError):
        table.place(3)


def test_encodings(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for encoding in ("utf-16", "utf-8-sig"):
        path.write_text('{"i": "é"}\n', encoding=encoding)
        assert read(path)[1].rows() == [("é",)]
    path.write_text('{"i": "a"}\n' * 1001 + '{"i": "é"}\n', encoding="latin-1")
    refused(path, "is not text in UTF-8 .*--encoding latin-1")
    assert open_table(path, encoding="latin-1").load(["i"])["i"][-1] == "é"
    refused(path, "--quote, --separator are for files of text", separator=",", quote="'")


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl has no column 'x'"):
        open_table(write(tmp_path / "a.jsonl", [{"i": 1}])).load(["x"])
