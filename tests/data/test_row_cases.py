"""Tables as people have them: every row is read or named."""

from __future__ import annotations

import csv
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from modeling_glintru.data.interactions import Interactions, read_interactions
from modeling_glintru.errors import DataError

from .cases import at, case


def cells(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def refused(path: Path, match: str, **options: Any) -> None:
    with pytest.raises(DataError, match=match):
        read_interactions(path, **options)


def note(read: Interactions, beginning: str) -> str:
    return next(text for text in read.notes if text.startswith(beginning))


def test_missing_some() -> None:
    path = case("missing_some/clicks.csv")
    rows = cells(path)
    first = next(number for number, row in enumerate(rows, 1) if not row["item_id"])
    refused(
        path, rf"missing values in 3 of {len(rows)} rows: 3 in 'item_id' \(the first in {at(first)}\).*--drop_missing"
    )
    read = read_interactions(path, drop_missing=True)
    kept = [(row["user_id"], row["item_id"], int(row["timestamp"])) for row in rows if row["item_id"]]
    assert read.frame.rows() == kept
    assert f"3 of {len(rows)} rows have missing values and were left out: 3 in 'item_id'." in read.notes


def test_na_users() -> None:
    path = case("na_users/train-item-views.csv")
    rows = cells(path, ";")
    unknown = sum(row["userId"] == "NA" for row in rows)
    refused(path, f"{unknown} in 'userId' .*'NA'.*'sessionId' looks like a session: --user_column sessionId")
    read = read_interactions(path, user_column="sessionId", order_column="timeframe")
    assert read.frame["user_id"].to_list() == [int(row["sessionId"]) for row in rows]
    assert read.frame["order"].to_list() == [int(row["timeframe"]) for row in rows]
    both = read_interactions(path, session_column="sessionId", drop_missing=True)
    assert len(both) == len(rows) - unknown
    assert both.frame["user_id"][0] == "9025/26"


def test_padded_ids() -> None:
    path = case("padded_ids/clicks.csv")
    rows = cells(path)
    padded = sum(row["item_id"] != row["item_id"].strip() for row in rows)
    read = read_interactions(path)
    assert read.frame["item_id"].to_list() == [row["item_id"].strip() for row in rows]
    assert note(read, "Blanks") == f"Blanks around {padded} cells of 'item_id' were taken away."


def test_one_stray_id() -> None:
    path = case("one_stray_id/clicks.csv")
    rows = cells(path)
    place = next(number for number, row in enumerate(rows, 1) if row["item_id"] == "unknown")
    read = read_interactions(path)
    said = note(read, "All ids in 'item_id' are text because 1 of ")
    assert re.search(f"'unknown' in {at(place)}", said)
    assert """--where "item_id != 'unknown'\"""" in said
    kept = read_interactions(path, where="item_id != 'unknown'").frame
    assert kept["item_id"].to_list() == [int(row["item_id"]) for row in rows if row["item_id"] != "unknown"]


def test_float_ids() -> None:
    refused(case("float_ids/clicks.csv"), rf"floating-point numbers \('123.0' in {at(1)}, 288 of 288\)")


def test_leading_zeros() -> None:
    path = case("leading_zeros/clicks.csv")
    assert read_interactions(path).frame["item_id"].to_list() == [row["item_id"] for row in cells(path)]


def test_huge_ids() -> None:
    path = case("huge_ids/clicks.csv")
    assert read_interactions(path).frame["item_id"].to_list() == [row["item_id"] for row in cells(path)]


def test_tz_offsets() -> None:
    path = case("tz_offsets/clicks.csv")
    moments = [datetime.fromisoformat(row["timestamp"].replace("Z", "+00:00")) for row in cells(path)]
    read = read_interactions(path)
    assert read.has_dates
    assert read.frame["timestamp"].to_list() == [int(moment.timestamp()) * 1_000_000 for moment in moments]


def test_utc_suffix() -> None:
    path = case("utc_suffix/2019-Oct.csv")
    rows = cells(path)
    read = read_interactions(path)
    moments = [datetime.fromisoformat(row["event_time"].replace(" UTC", "+00:00")) for row in rows]
    assert read.frame["timestamp"].to_list() == [int(moment.timestamp()) * 1_000_000 for moment in moments]
    unused = note(read, "Not used:")
    assert "--where \"event_type == 'purchase'\"" in unused
    assert "--session_column user_session" in unused
    assert "'price'" in unused
    bought = read_interactions(path, where="event_type == 'purchase'", session_column="user_session").frame
    assert bought["user_id"].to_list() == [
        f"{row['user_id']}/{row['user_session']}" for row in rows if row["event_type"] == "purchase"
    ]


def test_ms_float32() -> None:
    path = case("ms_float32/clicks.csv")
    times = read_interactions(path).frame["timestamp"]
    assert times.to_list() == [int(row["timestamp"]) for row in cells(path)]
    assert times.n_unique() == len(times)


def test_no_time_column() -> None:
    path = case("no_time_column/clicks.csv")
    refused(path, r"name it with --time_column, or say with --in_file_order")
    read = read_interactions(path, in_file_order=True)
    assert read.frame.rows() == [(row["user_id"], row["item_id"], at) for at, row in enumerate(cells(path))]
    assert not read.has_times
    assert "time = order of the rows" in read.describe()


def test_event_weights() -> None:
    path = case("event_weights/events.csv")
    rows = cells(path)
    read = read_interactions(path, where="event in ('transaction', 'addtocart')")
    assert read.frame["item_id"].to_list() == [int(row["itemid"]) for row in rows if row["event"] != "view"]
    assert note(read, "--where") == (
        f"--where \"event in ('transaction', 'addtocart')\" keeps {len(read)} of {len(rows)} rows."
    )
    refused(path, "No row .*'event' holds .*'transaction'", where="event == 'purchase'")


@pytest.mark.parametrize("name", ["sessions.inter", "sessions.parquet"])
def test_session_lists(name: str) -> None:
    events = pl.read_ndjson(case("session_lists/otto.jsonl")).iter_rows(named=True)
    expected = [(line["session"], event["aid"]) for line in events for event in line["events"]]
    read = read_interactions(case(f"session_lists/{name}"))
    assert read.frame.select("user_id", "item_id").rows() == expected
    assert note(read, "'item_id").endswith(f"40 rows became {len(expected)} interactions, in the order of the lists.")


def test_session_lists_of_objects() -> None:
    frame = pl.read_ndjson(case("session_lists/otto.jsonl"))
    expected = [
        (line["session"], event["aid"], event["ts"]) for line in frame.iter_rows(named=True) for event in line["events"]
    ]
    assert read_interactions(frame).frame.rows() == expected
    assert read_interactions(frame, item_column="events.aid", time_column="events.ts").frame.rows() == expected


def test_day_ties_with_order_column() -> None:
    path = case("day_ties_with_order_column/clicks.csv")
    assert "'timeframe' (--order_column timeframe)" in note(read_interactions(path), "Not used:")
    read = read_interactions(path, order_column="timeframe")
    assert read.frame["order"].to_list() == [int(row["timeframe"]) for row in cells(path)]
    assert read.columns["order"] == "timeframe"


def test_short_sessions() -> None:
    read = read_interactions(case("short_sessions/clicks.csv"))
    assert np.unique(read.frame["user_id"].to_numpy(), return_counts=True)[1].tolist() == [2] * read.num_users
