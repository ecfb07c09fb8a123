"""Dates in the forms that people write them."""

from __future__ import annotations

from datetime import datetime, timezone

import polars as pl
import pytest

from modeling_glintru.data.interactions import read_interactions
from modeling_glintru.data.times import date_times, duration_seconds, read_times
from modeling_glintru.errors import DataError


def microseconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()) * 1_000_000


def place(row: int) -> str:
    return f"line {row + 2}"


def read(texts: list, time_format: str | None = None) -> list:
    return read_times(pl.Series("when", texts), "Time column 'when'", place, time_format)[0].to_list()


def refused(texts: list, match: str, time_format: str | None = None) -> None:
    with pytest.raises(DataError, match=match):
        read(texts, time_format)


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2024-05-31 18:00:00 UTC", "2024-05-31T18:00:00"),
        ("2024-05-31 18:00 GMT", "2024-05-31T18:00:00"),
        ("2024-05-31T18:00:00Z", "2024-05-31T18:00:00"),
        ("2024-05-31T18:00:00.250+02:00", "2024-05-31T16:00:00"),
        ("2024-05-31 18:00:00 -0530", "2024-05-31T23:30:00"),
        ("2024-05-31 18:00:00-05", "2024-05-31T23:00:00"),
        ("2024-05-31T00:10:00+00:30", "2024-05-30T23:40:00"),
        ("2024-05-31T00:10:00-00:30", "2024-05-31T00:40:00"),
        ("2024/05/31 18:00", "2024-05-31T18:00:00"),
        ("2024.5.31", "2024-05-31T00:00:00"),
        ("  2024-05-31  ", "2024-05-31T00:00:00"),
    ],
)
def test_iso_dates_with_and_without_offsets_side_by_side(text: str, utc: str) -> None:
    fraction = 250_000 if ".250" in text else 0
    assert read([text, "2020-01-01"]) == [microseconds(utc) + fraction, microseconds("2020-01-01")]
    assert read(["2020-01-01T10:00:00+02:00", text])[1] == microseconds(utc) + fraction


def test_missing_times_stay_missing() -> None:
    assert read([None, "2024-05-31 18:00 UTC"]) == [None, microseconds("2024-05-31T18:00")]
    assert read([None, "7"]) == [None, 7]
    assert read([None, None]) == [None, None]
    assert read_times(pl.Series([None, 1.5, float("nan")]), "Time", place)[0].to_list() == [None, 1.5, None]


def test_what_is_no_date_is_null() -> None:
    assert date_times(pl.Series(["2024-02-30", "soon", "2024-02-29"])).is_null().to_list() == [True, True, False]


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("day_first", "31/12/2024 18:05"),
        ("day_first", "31.12.2024 18:05:00"),
        ("day_first", "31-12-2024T18:05"),
        ("day_first", "31/12/24 6:05 pm"),
        ("day_first", "31/12/2024 19:05+01:00"),
        ("day_first", "2024-12-31 18:05"),
        ("month_first", "12/31/2024, 6:05 PM"),
        ("month_first", "12.31.24 18:05"),
        ("%d/%m/%Y %H:%M", "31/12/2024 18:05"),
        ("%d %b %Y %H:%M %z", "31 Dec 2024 19:05 +0100"),
        ("%Y%m%d%H%M", "202412311805"),
    ],
)
def test_a_given_form(form: str, text: str) -> None:
    assert read([text, None], form) == [microseconds("2024-12-31T18:05"), None]


def test_day_first_and_month_first_differ() -> None:
    assert read(["3/4/2024"], "day_first") == [microseconds("2024-04-03")]
    assert read(["3/4/2024"], "month_first") == [microseconds("2024-03-04")]


def test_integers_in_a_given_form() -> None:
    assert read([20241231, 20240101], "%Y%m%d") == [microseconds("2024-12-31"), microseconds("2024-01-01")]


def test_day_and_month_are_never_guessed() -> None:
    both = "--time_format day_first or --time_format month_first"
    refused(
        ["2024-01-01", "03/04/2024"], f"1 of 2 dates such as '03/04/2024' in line 3, .*cannot be told apart.*{both}"
    )
    refused(["03.04.2024 10:00"] * 2, f"2 of 2 dates .*{both}")
    refused(["03/04/2024", "31/04/2024"], "1 fit only day_first: give --time_format day_first$|1 fit only day_first")
    refused(["03/04/2024", "04/31/2024"], "1 fit only month_first")
    refused(["13/04/2024", "04/31/2024"], "of both kinds: 1 can only begin with the day and 1 only with the month")


def test_a_form_that_does_not_fit_names_the_value() -> None:
    refused(["31/12/2024", "12/31/2024"], "1 of 2 times .*'day_first'.*'12/31/2024' in line 3", "day_first")
    refused(["31/12/24"], "'31/12/24' in line 2", "%d/%m/%Y")  # not the year 24
    refused(["1"], "day_first, month_first or signs", "european")


def test_dates_that_are_typed_need_no_form() -> None:
    with pytest.raises(DataError, match="only text needs --time_format"):
        read_times(pl.Series([datetime(2024, 1, 1)]), "Time", place, "day_first")


def test_one_bad_value_among_numbers_is_named() -> None:
    refused(["soon", "1", "2", "3"], "1 of 4 times .*'soon' in line 2")


def test_32_bit_floats_are_told_of() -> None:
    frame = pl.DataFrame(
        {"user": ["a", "b"], "item": ["x", "y"], "time": pl.Series([1.7e12, 1.7e12], dtype=pl.Float32)}
    )
    assert any("32-bit floats" in note for note in read_interactions(frame).notes)
    assert not read_interactions(frame.with_columns(time=pl.Series([1, 2], dtype=pl.Float32))).notes


def test_durations() -> None:
    texts = ["45s", "30m", "1h", "2d", "1.5h", "90"]
    assert [duration_seconds(text, "--x")[0] for text in texts] == [45, 1800, 3600, 172_800, 5400, 90]
    assert duration_seconds(90, "--x") == (90, False)
    for wrong in ("0m", "-5", "half an hour", "", "5y"):
        with pytest.raises(DataError, match="--x must be a length of time"):
            duration_seconds(wrong, "--x")


def test_large_integers_stay_exact() -> None:
    assert read(["1600000000123456789", "5"]) == [1600000000123456789, 5]
    assert read(["9007199254740991", "0.5"]) == [2**53 - 1, 0.5]
    for texts in (["1.6e9", "1600000000123456789"], ["5", "9" * 20]):
        with pytest.raises(
            DataError, match=rf"holds 1 of 2 integers that would lose digits, the first is '{texts[1]}'"
        ):
            read(texts)


def test_times_that_are_cut_are_noted() -> None:
    def notes(column: pl.Series) -> list[str]:
        found: list[str] = []
        read_times(column, "Time column 'when'", place, None, found)
        return found

    said = ["Time column 'when' holds 1 of 2 times finer than a microsecond: they were cut to it."]
    assert notes(pl.Series(["2024-05-31T18:00:00.123456789", "2024-05-31T18:00:00"])) == said
    assert notes(pl.Series(["2024-5-1 1:00:00.1234567", "2024-05-31T18:00:00"])) == said
    assert notes(pl.Series(["2024-05-31T18:00:00.123456000", "2024-05-31T18:00:00.123456+02:00"])) == []
    assert notes(pl.Series([1_001, 2_000]).cast(pl.Datetime("ns"))) == said
    assert notes(pl.Series([1_001, 2_000]).cast(pl.Datetime("us"))) == []


def test_numbers_beside_dates_are_both_named() -> None:
    refused(
        ["5", "2024-01-01", "6"],
        "mixes numbers and dates: 2 of 3 times are numbers, the first is '5' in line 2, and 1 are dates, the first is "
        "'2024-01-01' in line 3",
    )
    refused(["2024-01-01", "2024-01-02", "6"], "mixes numbers and dates: 1 of 3 times are numbers")


def test_only_bad_times_are_named_as_bad() -> None:
    refused(["5", "0x10"], r"holds 1 of 2 times that are neither .*the first is '0x10' in line 3")
    refused(["5", "2024-01-01", "soon"], r"holds 1 of 3 times that are neither .*the first is 'soon' in line 4")
