"""One row a session becomes one row an item."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from modeling_glintru.data.interactions import Interactions, read_interactions
from modeling_glintru.errors import DataError

HISTORY = "session_id:token\titem_id_list:token_seq\titem_id:token\n"


def inter(folder: Path, rows: list[str], header: str = HISTORY) -> Interactions:
    path = folder / "a.inter"
    path.write_text(header + "".join(row + "\n" for row in rows))
    return read_interactions(path)


def histories(read: Interactions) -> list[tuple[Any, list]]:
    grouped = read.frame.group_by("user_id", maintain_order=True).agg("item_id")
    return [(user, items) for user, items in grouped.iter_rows()]


def refused(frame: pl.DataFrame, match: str, **options: Any) -> None:
    with pytest.raises(DataError, match=match):
        read_interactions(frame, **options)


def test_lists_with_one_time_for_all() -> None:
    frame = pl.DataFrame({"user": ["a", "b"], "item": [[3, 1], [2]], "time": [10, 5]})
    assert read_interactions(frame).frame.rows() == [("a", 3, 10), ("a", 1, 10), ("b", 2, 5)]


def test_lists_named_as_such() -> None:
    frame = pl.DataFrame({"user": ["a"], "item_id_list": [[3, 1]], "timestamps": [[7, 8]]})
    assert read_interactions(frame).frame.rows() == [("a", 3, 7), ("a", 1, 8)]


def test_arrays_of_fixed_size() -> None:
    items = pl.Series([[3, 1], [2, 5]], dtype=pl.Array(pl.Int64, 2))
    frame = pl.DataFrame({"user": ["a", "b"], "items": items, "time": [1, 2]})
    assert read_interactions(frame).frame["item_id"].to_list() == [3, 1, 2, 5]


@pytest.mark.parametrize("cell", ["[3, 1]", "['3', '1']", "3 1", "3,1", " 3  1 "])
def test_lists_in_cells_of_text(cell: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f'user,item_list\na,"{cell}"\nb,"{cell}"\n')
    read = read_interactions(path)
    assert read.frame.rows() == [("a", 3, 0), ("a", 1, 1), ("b", 3, 2), ("b", 1, 3)]
    assert not read.has_times


@pytest.mark.parametrize("name", ["item_list", "items", "item"])
@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("['a b', 'c']", ["a b", "c"]),
        ('["a, b", "c"]', ["a, b", "c"]),
        ("[\"it's\", 'c']", ["it's", "c"]),
        ("['a b' 'c']", ["a b", "c"]),  # as numpy prints it
        (r"['it\'s \"x\"', 'c']", ['it\'s "x"', "c"]),
        (r'["caf\u00e9 \ud83d\ude00", "c"]', ["café \U0001f600", "c"]),
        ("['a', 3]", ["a", "3"]),
        ("[a b, c]", ["a b", "c"]),
    ],
)
def test_elements_of_lists_in_cells_of_text_stay_whole(
    name: str, cell: str, expected: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    pl.DataFrame({"user": ["a", "b"], name: [cell, "[]"], "time": [1, 2]}).write_csv(path)
    assert read_interactions(path).frame["item_id"].to_list() == expected


def test_a_list_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    pl.DataFrame({"user": ["a", "b"], "item_list": ["['x']", "['x', ['y']]"], "time": [1, 2]}).write_csv(path)
    with pytest.raises(DataError, match=r"holds 1 lists that cannot be read, the first is .* in line 3"):
        read_interactions(path)


@pytest.mark.parametrize("name", ["item", "items", "item_ids"])
@pytest.mark.parametrize("ids", [["[Deluxe Edition]", "[X Y]"], ["Toy Story", "Heat"]])
def test_text_of_several_words_is_no_list(name: str, ids: list[str], tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    pl.DataFrame({"user": ["a", "b"], name: ids, "time": [1, 2]}).write_csv(path)
    assert read_interactions(path).frame["item_id"].to_list() == ids


def test_times_of_lists_in_cells_of_text_may_have_a_plural_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user,item_list,timestamps\na,3 1,7 8\n")
    assert read_interactions(path).frame.rows() == [("a", 3, 7), ("a", 1, 8)]


def test_brackets_tell_a_list_whatever_the_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('user,item,time\na,"[x, y]",1\nb,[],2\nb,[y],3\n')
    read = read_interactions(path)
    assert read.frame.rows() == [("a", "x", 1), ("a", "y", 1), ("b", "y", 3)]
    assert "1 of 3 rows have an empty list and were left out." in read.notes


def test_an_ordinary_column_of_text_with_blanks_is_no_list(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user,item,time\na,Toy Story,1\nb,Heat,2\n")
    assert read_interactions(path).frame["item_id"].to_list() == ["Toy Story", "Heat"]


def test_a_column_named_as_a_list_that_is_none() -> None:
    frame = pl.DataFrame({"user": ["a", "b"], "item_list": ["wishes", "gifts"], "item": ["x", "y"], "time": [1, 2]})
    assert read_interactions(frame).frame["item_id"].to_list() == ["x", "y"]


def test_the_item_after_the_list_and_its_time(tmp_path: Path) -> None:
    header = HISTORY.strip() + "\ttimestamp_list:float_seq\ttimestamp:float\n"
    read = inter(tmp_path, ["a\t3 1\t2\t10 11\t12", "b\t5\t6\t1 \t2"], header)
    assert read.frame.rows() == [("a", 3, 10), ("a", 1, 11), ("a", 2, 12), ("b", 5, 1), ("b", 6, 2)]


def test_a_named_column_decides() -> None:
    frame = pl.DataFrame({"user": ["a"] * 2, "item_list": [[1], [1, 2]], "item": [8, 9], "time": [1, 2]})
    assert read_interactions(frame, item_column="item").frame["item_id"].to_list() == [8, 9]
    assert read_interactions(frame, item_column="item_list").frame["item_id"].to_list() == [1, 1, 2]


def test_beginnings_of_a_session_count_once(tmp_path: Path) -> None:
    read = inter(tmp_path, ["a\t1 2\t3", "a\t1\t2", "b\t1\t2", "a\t1 2 3\t4", "b\t7\t8"])
    assert histories(read) == [("b", [1, 2, 7, 8]), ("a", [1, 2, 3, 4])]
    assert any(note.startswith("2 of 5 rows are the beginning of another row's history") for note in read.notes)
    assert any(note.startswith("1 rows are further rows of a 'session_id'") for note in read.notes)


def test_beginnings_under_ids_of_their_own_count_once(tmp_path: Path) -> None:
    sessions = [[1, 2, 3, 4], [1, 2], [1, 2, 5], [6, 7, 8], [9, 1, 2]]
    rows = [
        f"{' '.join(map(str, session[:end]))}\t{session[end]}"
        for session in sessions
        for end in range(len(session) - 1, 0, -1)
    ]
    read = inter(tmp_path, [f"{at}\t{row}" for at, row in enumerate(rows)])
    assert sorted(items for _, items in histories(read)) == sorted(sessions)


def test_sessions_that_happen_to_begin_alike_all_count(tmp_path: Path) -> None:
    sessions = ["1 2\t3", "1\t2", "4 5\t6", "7 8\t9", "4 5\t6"]
    read = inter(tmp_path, [f"{at}\t{row}" for at, row in enumerate(sessions)])
    assert [items for _, items in histories(read)] == [[1, 2, 3], [1, 2], [4, 5, 6], [7, 8, 9], [4, 5, 6]]


def test_several_rows_of_a_user_without_times_follow_each_other() -> None:
    frame = pl.DataFrame({"user": ["a", "b", "a"], "items": [["x", "y"], ["z"], ["w"]]})
    read = read_interactions(frame)
    assert read.frame.rows() == [("a", "x", 0), ("a", "y", 1), ("b", "z", 2), ("a", "w", 3)]
    assert any("its rows follow each other in the order of the table" in note for note in read.notes)


def test_lists_need_no_times_but_other_tables_do() -> None:
    refused(pl.DataFrame({"user": ["a"], "item": ["x"]}), "--time_column, or say with --in_file_order")


def test_lists_of_different_lengths() -> None:
    frame = pl.DataFrame({"user": ["a", "b"], "items": [[1], [1, 2]], "times": [[1], [1]]})
    refused(frame, "1 of 2 rows .*row 2, has 2 items in 'items' and 1 times in 'times'")


def test_lists_in_other_columns() -> None:
    frame = pl.DataFrame({"user": [["a"], ["b"]], "items": [[1], [2]], "time": [1, 2]})
    refused(frame, r"'user' of polars frame holds List\(String\), but a single value a row is needed")


def test_no_item_at_all() -> None:
    empty = pl.Series([[], None], dtype=pl.List(pl.Int64))
    refused(pl.DataFrame({"user": ["a", "b"], "items": empty}), "No row of polars frame has an item in 'items'")


def test_missing_elements_are_missing_items() -> None:
    frame = pl.DataFrame({"user": ["a", "b"], "items": [["x"], ["y", None]]})
    refused(frame, r"in 1 of 3 rows: 1 in 'items' \(the first in row 2\)")
    assert read_interactions(frame, drop_missing=True).frame["item_id"].to_list() == ["x", "y"]


def test_fields_of_objects() -> None:
    events = [[{"aid": 3, "at": 7}, {"aid": 1, "at": 8}], [{"aid": 2, "at": 9}]]
    frame = pl.DataFrame({"session": [0, 1], "events": events})
    assert read_interactions(frame, time_column="events.at").frame.rows() == [(0, 3, 7), (0, 1, 8), (1, 2, 9)]
    refused(frame, "the objects|objects in 'events' .* have no 'when'; they have", time_column="events.when")
    refused(frame, "holds no lists of objects", item_column="session.aid", user_column="session")


def test_a_path_names_a_field_of_the_events_in_json_lines_too() -> None:
    path = Path(__file__).resolve().parents[1] / "cases/session_lists/otto.jsonl"
    expected = read_interactions(path).frame
    named = read_interactions(path, user_column="session", item_column="events.aid", time_column="events.ts")
    assert named.frame.equals(expected) and expected.height > 0
    with pytest.raises(DataError, match=r"has no column 'events\.session' \(--user_column\)"):
        read_interactions(path, user_column="events.session")
