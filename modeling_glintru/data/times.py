"""Reads times: numbers stay as they are, dates become moments, and the order of day and month is never guessed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

import polars as pl

from ..errors import DataError
from .columns import OPTIONS
from .rows import first_of, shown
from .table import first_line

__all__ = ["DAY_FIRST", "ISO_TIME_TEXT", "MONTH_FIRST", "date_times", "duration_seconds", "read_times"]

DAY_FIRST, MONTH_FIRST = "day_first", "month_first"
ISO_TIME_TEXT = r"^\d{4}-\d{2}-\d{2}($|[T ])"
CLOCK_AND_OFFSET = r"^(.*\d:\d{2}(?::\d{2}(?:\.\d+)?)?)\s*(Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)$"
SLASHED_DATE = r"^(\d{1,2})[/.\-](\d{1,2})[/.\-](\d{2}|\d{4})(?:$|[T, ])"
ISO_FORMS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")
CLOCKS = ("", " %H:%M:%S%.f", " %H:%M", " %I:%M:%S %p", " %I:%M %p")
PROBE, PART = 1000, 500_000
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
FIRST_YEAR = -30_610_224_000  # 1000-01-01 in Unix seconds: an earlier date was written with a year of two digits.
EXACT_FLOAT32, EXACT_FLOAT64 = 2**24, 2**53
INTEGER_TEXT = r"^[+-]?[0-9]+$"


def read_times(
    column: pl.Series,
    where: str,
    place: Callable[[int], str],
    time_format: str | None = None,
    notes: list[str] | None = None,
) -> tuple[pl.Series, bool]:
    """Times as Int64 or Float64 (dates: whole microseconds since 1970 in UTC), and whether they were dates.

    Args:
        column: Numbers, dates, or text of either; missing values stay null.
        where: The beginning of the errors: "Time column 'ts' of log.csv".
        place: How an error names a row of the column.
        time_format: `"day_first"`, `"month_first"`, or signs such as `"%d/%m/%Y %H:%M"`; not for ISO dates.
        notes: A list to which a sentence is added where numbers or dates have lost digits.

    Raises:
        DataError: Values are neither numbers nor dates, or not finite; numbers stand beside dates; integers would lose
            digits beside other numbers; or day and month of the dates cannot be told apart.
    """
    if time_format is not None and time_format not in (DAY_FIRST, MONTH_FIRST) and "%" not in time_format:
        raise DataError(
            f"--time_format must be {DAY_FIRST}, {MONTH_FIRST} or signs such as '%d/%m/%Y %H:%M', but got "
            f"{time_format!r}."
        )
    kind = column.dtype
    if time_format is not None and kind.is_integer():
        column = column.cast(pl.String)  # 20240531
    if column.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        text = column.cast(pl.String)
        column = _from_text(text, where, place, time_format)
        # The first search is much faster than the expression.
        if isinstance(column.dtype, pl.Datetime) and text.str.contains(".", literal=True).any():
            _note_cut_times(text.str.contains(r":\d{2}\.\d{6}\d*[1-9]"), where, notes)
    elif time_format is not None:
        raise DataError(f"{where} has the type {kind}: only text needs --time_format, leave it out.")
    kind = column.dtype
    if kind == pl.Date or isinstance(kind, pl.Datetime):
        if kind == pl.Datetime("ns"):
            _note_cut_times(column.dt.epoch("ns") % 1000 != 0, where, notes)
        return (column.cast(pl.Datetime("us")) if kind == pl.Date else column).dt.epoch("us"), True
    if kind.is_integer():
        times = column.cast(pl.Int64, strict=False)
        if times.null_count() > column.null_count():
            raise DataError(f"{where} holds integers that do not fit in 64 bits.")
        return times, False
    if kind.is_float() or kind.is_decimal():
        if kind == pl.Float32 and notes is not None and bool((column.abs() > EXACT_FLOAT32).any()):
            notes.append(f"{where} holds 32-bit floats, which are not exact at this size: times may have become equal.")
        times = column.cast(pl.Float64).fill_nan(None)
        if (infinite := times.is_infinite()).any():
            raise DataError(
                f"{where} holds {int(infinite.sum()):,} of {len(times):,} times that are not finite, the first is "
                f"{first_of(times, infinite, place)}; drop or repair those rows first."
            )
        return times, False
    raise DataError(f"{where} has the type {kind}, but times are numbers or dates (another column? {OPTIONS['time']}).")


def date_times(texts: pl.Series) -> pl.Series:
    """ISO dates and times, with or without an offset, as Datetime in UTC without a zone; null where a text is none.

    A time without an offset is in UTC; `Z`, ` UTC`, ` GMT` and offsets such as `+02:00` may stand in one column.
    """
    probe = texts.drop_nulls().head(PROBE)
    suffix = next((suffix for suffix in (" UTC", " GMT") if probe.str.ends_with(suffix).all()), "")
    plain = texts.str.strip_suffix(suffix) if suffix and len(probe) else texts
    if plain.str.contains(ISO_TIME_TEXT).all():
        try:
            dates = plain.str.to_datetime(time_unit="us", strict=False)
        except pl.exceptions.PolarsError:
            pass
        else:
            if dates.null_count() == texts.null_count():
                return _without_zone(dates)
    return _in_parts(texts, _any_iso)


def duration_seconds(text: str | int | float, option: str) -> tuple[float, bool]:
    """A length of time such as `"30m"`, `"1h"`, `"45s"`, `"2d"` or a number: in seconds, and whether it has a unit.

    Raises:
        DataError: The text is no length of time above zero.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([smhdw]?)\s*", str(text))
    if match is None or float(match[1]) <= 0:
        raise DataError(
            f"{option} must be a length of time above zero such as 30m, 1h, 45s or 2d, or a number, but got {text!r}."
        )
    return float(match[1]) * UNITS.get(match[2], 1), bool(match[2])


def _from_text(column: pl.Series, where: str, place: Callable[[int], str], time_format: str | None) -> pl.Series:
    if column.null_count() == len(column):
        return column.cast(pl.Int64)
    if time_format is not None:
        return _of_format(column, where, place, time_format)
    known = column.drop_nulls().head(PROBE)
    if 2 * known.cast(pl.Float64, strict=False).null_count() < len(known):
        return _numbers(column, where, place)
    times = date_times(column)
    if times.null_count() > column.null_count():
        raise _no_times(column, where, place)
    return times


def _note_cut_times(finer: pl.Series, where: str, notes: list[str] | None) -> None:
    if notes is not None and (count := int(finer.sum())):
        notes.append(f"{where} holds {count:,} of {len(finer):,} times finer than a microsecond: they were cut to it.")


def _numbers(column: pl.Series, where: str, place: Callable[[int], str]) -> pl.Series:
    """Text as Int64 where every one is a whole number, else as Float64."""
    integers = column.cast(pl.Int64, strict=False)
    if integers.null_count() == column.null_count():
        return integers
    times = column.cast(pl.Float64, strict=False)
    if times.null_count() > column.null_count():
        raise _no_times(column, where, place)
    inexact = column.str.contains(INTEGER_TEXT) & (times.abs() >= EXACT_FLOAT64)
    if inexact.any():
        raise DataError(
            f"{where} holds {int(inexact.sum()):,} of {len(column):,} integers that would lose digits, the first is "
            f"{first_of(column, inexact, place)}: integers stay exact where all times are integers of 64 bits. Write "
            "all times as such integers, in one unit."
        )
    return times


def _no_times(column: pl.Series, where: str, place: Callable[[int], str]) -> DataError:
    """The error for text that is neither all numbers nor all dates."""
    numbers, dates = column.cast(pl.Float64, strict=False).is_not_null(), date_times(column).is_not_null()
    wrong = column.is_not_null() & ~numbers & ~dates
    if not wrong.any():
        return DataError(
            f"{where} mixes numbers and dates: {int(numbers.sum()):,} of {len(column):,} times are numbers, the first "
            f"is {first_of(column, numbers, place)}, and {int(dates.sum()):,} are dates, the first is "
            f"{first_of(column, dates, place)}; write them all in one form."
        )
    row = wrong.arg_true()[0]
    slashed = column.str.contains(SLASHED_DATE)
    if slashed[row]:
        return DataError(
            f"{where} holds {int(slashed.sum()):,} of {len(column):,} dates such as {shown(column[row])} in "
            f"{place(row)}, {_advice(column, slashed)}."
        )
    return DataError(
        f"{where} holds {int(wrong.sum()):,} of {len(column):,} times that are neither numbers nor dates such as "
        f"2024-05-31T18:00:00, the first is {shown(column[row])} in {place(row)} (another form? --time_format; another "
        f"column? {OPTIONS['time']})."
    )


def _advice(column: pl.Series, slashed: pl.Series) -> str:
    """The end of an error: which `time_format` fits dates with slashes or dots."""
    parts = column.filter(slashed).str.extract_groups(SLASHED_DATE).struct
    firsts, seconds = (parts.field(name).cast(pl.Int64) for name in ("1", "2"))
    begin_with_day, begin_with_month = int((firsts > 12).sum()), int((seconds > 12).sum())
    if begin_with_day and begin_with_month:
        return (
            f"and they are of both kinds: {begin_with_day:,} can only begin with the day and {begin_with_month:,} only "
            "with the month; write them all in one form"
        )
    if begin_with_day or begin_with_month:
        fitting = DAY_FIRST if begin_with_day else MONTH_FIRST
        return f"of which {begin_with_day or begin_with_month:,} fit only {fitting}: give --time_format {fitting}"
    return (
        "of which day and month cannot be told apart: give --time_format day_first or --time_format month_first, or "
        "the signs, such as --time_format '%d/%m/%Y %H:%M'"
    )


def _of_format(column: pl.Series, where: str, place: Callable[[int], str], time_format: str) -> pl.Series:
    try:
        if time_format in (DAY_FIRST, MONTH_FIRST):
            times = _day_or_month_first(column, time_format)
        else:
            times = _without_zone(column.str.to_datetime(time_format, time_unit="us", strict=False))
    except pl.exceptions.PolarsError as error:
        raise DataError(f"--time_format {time_format!r} is not understood ({first_line(error)}).") from error
    wrong = (times.is_null() | (times.dt.epoch("s") < FIRST_YEAR)) & column.is_not_null()
    if wrong.any():
        raise DataError(
            f"{where} holds {int(wrong.sum()):,} of {len(column):,} times that are not of the form {time_format!r} "
            f"(--time_format), the first is {first_of(column, wrong, place)}."
        )
    return times


def _any_iso(texts: pl.Series) -> pl.Series:
    clocks, offsets = _split_offset(texts.str.strip_chars())
    clocks = clocks.str.replace(r"^(\d{4})[/.](\d{1,2})[/.](\d{1,2})", "$1-$2-$3")
    clocks = clocks.str.replace(r"^(\d{4}-\d{1,2}-\d{1,2})T", "$1 ")
    return _parsed(clocks, ISO_FORMS) - offsets


def _day_or_month_first(column: pl.Series, order: str) -> pl.Series:
    """Dates with slashes, dots or hyphens of which the order of day and month is known."""
    signs = ("%d", "%m") if order == DAY_FIRST else ("%m", "%d")
    probe = column.drop_nulls().head(PROBE)
    # Most columns have one form, and one form is read several times as fast as a mixture.
    for mark, clock in itertools.product("/.-", CLOCKS):
        form = f"{mark.join(signs)}{mark}%Y{clock}"
        if _fits(probe.str.to_datetime(form, time_unit="us", strict=False), probe):
            dates = column.str.to_datetime(form, time_unit="us", strict=False)
            if _fits(dates, column):
                return dates
    return _in_parts(column, lambda texts: _any_of_order(texts, order))


def _any_of_order(column: pl.Series, order: str) -> pl.Series:
    dates, offsets = _split_offset(column)
    day, month = ("$1", "$2") if order == DAY_FIRST else ("$2", "$1")
    dates = dates.str.replace(r"^(\d{1,2})[/.\-](\d{1,2})[/.\-](\d{2})($|[T, ])", "$1/$2/20$3$4")
    dates = dates.str.replace(r"^(\d{1,2})[/.\-](\d{1,2})[/.\-](\d{4})", f"${{3}}-{month}-{day}")
    dates = dates.str.replace(r"^(\d{4}-\d{1,2}-\d{1,2})[T,]\s*", "$1 ")
    return _parsed(dates, [f"%Y-%m-%d{clock}" for clock in CLOCKS]) - offsets


def _fits(dates: pl.Series, texts: pl.Series) -> bool:
    """Whether every text became a date, and no date has a year of two digits."""
    return dates.null_count() == texts.null_count() and not (dates.dt.epoch("s") < FIRST_YEAR).any()


def _in_parts(texts: pl.Series, parse: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """`parse(texts)`, computed in parts, because parsing a large column at once needs much memory."""
    return pl.concat([parse(texts.slice(begin, PART)) for begin in range(0, max(len(texts), 1), PART)])


def _split_offset(texts: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Times without their offset from UTC, and the offsets as Duration (zero where a text has none)."""
    parts = texts.str.extract_groups(CLOCK_AND_OFFSET).struct
    clocks, offsets = parts.field("1"), parts.field("2").str.replace(":", "")
    hours = offsets.str.slice(0, 3).cast(pl.Int64, strict=False).fill_null(0)
    minutes = (offsets.str.slice(0, 1) + offsets.str.slice(3)).cast(pl.Int64, strict=False).fill_null(0)
    return clocks.fill_null(texts), ((hours * 60 + minutes) * 60_000_000).cast(pl.Duration("us"))


def _parsed(texts: pl.Series, forms: tuple[str, ...] | list[str]) -> pl.Series:
    """Each text by the first of the forms that fits it, as Datetime; null where none does."""
    times = pl.Series(texts.name, [None] * len(texts), dtype=pl.Datetime("us"))
    for form in forms:
        rest = texts.is_not_null() & times.is_null()
        if not rest.any():
            break
        found = texts.filter(rest).str.to_datetime(form, time_unit="us", strict=False)
        times = times.scatter(rest.arg_true(), found)
    return times


def _without_zone(dates: pl.Series) -> pl.Series:
    if isinstance(dates.dtype, pl.Datetime) and dates.dtype.time_zone is not None:
        return dates.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return dates
