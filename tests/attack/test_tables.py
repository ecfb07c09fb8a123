"""Damaged and strange tables: read right, or refused in one sentence of the package; no row goes without a word."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from modeling_glintru.data import Interactions, read_interactions
from modeling_glintru.data.readers import open_table
from modeling_glintru.data.rows import MISSING_TEXT
from modeling_glintru.errors import DataError

from .conftest import tries

HEADER = ["user_id", "item_id", "timestamp"]
STRANGE = [
    *("", " ", "NA", "-1", "0", "007", "1e3", "1.0", "+5", "-0", "nan", "inf", "None", "\\N", "true", "[1]", "{}", "'"),
    *(
        '"',
        '""',
        'a"b',
        '"a',
        'a"',
        "a,b",
        "a;b",
        "a\tb",
        "a\nb",
        "a\rb",
        "a\r\nb",
        "a\0b",
        "\ufeffa",
        "é",
        "日本",
        "\u2028",
    ),
    *(
        "\x1f",
        "\x85",
        "a" * 3000,
        "9" * 25,
        str(2**63),
        str(2**63 - 1),
        str(-(2**63)),
        str(2**64),
        "2024-05-31",
        "1970",
    ),
    *("31/12/2023 10:00", "2024-02-30T25:00:00", "9999-12-31T23:59:59", "0001-01-01", "1e400", "0x10", "١٢"),
]


def plain(draw: random.Random) -> list[list[str]]:
    """Rows of users, items and times, of one of the kinds that people have."""
    user, item, time = draw.choice(
        [("u{}", "i{}", "{}"), ("{}", "{}", "17000{:05}"), ("{}", "sku-{}", "2024-01-{:02}")]
    )
    rows = range(draw.choice([1, 2, 5, 30]))
    return [[user.format(draw.randrange(9)), item.format(draw.randrange(20)), time.format(1 + n % 28)] for n in rows]


def with_strange_cells(draw: random.Random, rows: list[list[str]]) -> None:
    for _ in range(draw.choice([0, 1, 1, 2, 5])):
        draw.choice(rows)[draw.randrange(3)] = draw.choice(STRANGE)


def damaged(draw: random.Random, content: bytes) -> bytes:
    """Some bytes are changed, taken away, repeated or put in, or the end is lost."""
    changed = bytearray(content)
    for _ in range(draw.choice([0, 0, 1, 1, 3, 20])):
        place, kind = draw.randrange(len(changed) + 1), draw.randrange(6)
        if kind == 0 and place < len(changed):
            changed[place] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del changed[place : place + draw.choice([1, 1, 5, 100])]
        elif kind == 2:
            changed[place:place] = draw.choice(
                [b"\0", b'"', b"\r", b"\n", b"\r\n", b",", b"\xff", b"\xef\xbb\xbf", b"\\"]
            )
        elif kind == 3:
            changed[place:place] = changed[place : place + draw.choice([1, 20])]
        elif kind == 4:
            changed[place : place + 1] = bytes([draw.randrange(256)])
        elif kind == 5 and draw.random() < 0.2:
            del changed[place:]
    return bytes(changed)


def read(path: Path, **options: Any) -> Interactions | None:
    """The interactions of a file, or None where it is refused as it should be."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            found = read_interactions(path, **options)
        except DataError as error:
            assert "\n" not in str(error) and len(str(error)) < 2000
            return None
    assert len(found) and found.frame["user_id"].null_count() == found.frame["item_id"].null_count() == 0
    assert found.frame["timestamp"].null_count() == 0 and found.frame["timestamp"].is_finite().all()
    return found


def attack(folder: Path, number: int, name: str, make: Callable, check: Callable) -> None:
    read_at_all = 0
    for seed in range(number):
        draw = random.Random(f"{name} {seed}")
        content = make(draw)
        path = folder / f"clicks.{name}"
        path.write_bytes(content)
        try:
            found = read(path, **options_of(draw))
            if found is not None:
                check(content, found)
                read_at_all += 1
        except BaseException as error:
            raise AssertionError(f"{name}, try {seed}: {content[:2000]!r}") from error
    assert number / 50 < read_at_all < number


def options_of(draw: random.Random) -> dict[str, Any]:
    return {"drop_missing": draw.random() < 0.5}


# ---------------------------------------------------------------------- text


def written(draw: random.Random) -> bytes:
    rows = plain(draw)
    with_strange_cells(draw, rows)
    separator, end = draw.choice(",,,\t;|"), draw.choice(["\n", "\n", "\r\n", "\r"])
    text = io.StringIO(newline="")
    quoting = draw.choice([csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    csv.writer(text, delimiter=separator, lineterminator=end, quoting=quoting).writerows([HEADER, *rows])
    if draw.random() < 0.3:  # lines of a program that knows no quotes
        text = io.StringIO("".join(separator.join(row) + end for row in [HEADER, *rows]), newline="")
    lines = text.getvalue()
    if draw.random() < 0.2:  # line ends of several kinds
        lines = "".join(
            line.rstrip("\r\n") + draw.choice(["\n", "\r\n", "\n\n"]) for line in lines.splitlines(keepends=True)
        )
    encoding = draw.choice(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"])
    return damaged(draw, lines.encode(encoding, "replace"))


LONE_RETURN, RETURN = re.compile(r"\r(?!\n)"), "\ue000"


def readings(content: bytes) -> list[list[list[str]]]:
    """The rows below the header, as Python's csv reads them, with quotes and without, for each separator."""
    marks = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
    encoding = next((name for mark, name in marks.items() if content.startswith(mark)), "utf-8")
    text = content.decode(encoding, "surrogateescape")
    if "\n" not in text:
        text = text.replace("\r", "\n")
    text = LONE_RETURN.sub(RETURN, re.sub(r"\r+\n", "\n", text))  # csv knows it as the end of a line
    found = []
    for separator in ",\t;|":
        for options in ({"strict": True}, {"quoting": csv.QUOTE_NONE, "quotechar": None}):
            try:
                rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, **options))
            except csv.Error:
                continue
            filled = [row for row in rows if any(cell.strip(" ") for cell in row) or len(row) > 1]
            found.append([[cell.replace(RETURN, "\r") for cell in row] for row in filled[1:]])
    return found


def check_text(content: bytes, found: Interactions) -> None:
    """One of the readings of csv has these rows, but for those that a note counts."""
    if any("holds lists" in note for note in found.notes):  # such as [1]
        return
    assert any(is_reading(rows, found) for rows in readings(content)), found


def is_reading(rows: list[list[str]], found: Interactions) -> bool:
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        return False
    ids = [[row[name].strip() for row in rows] for name in range(min(3, len(rows[0])))]
    left_out = [note for note in found.notes if "were left out" in note]
    count = int(re.match(r"([\d,]+) of", left_out[0]).group(1).replace(",", "")) if left_out else 0
    if len(rows) - count != len(found):
        return False
    users, items = ([one_end(str(value)) for value in found.frame[name]] for name in ("user_id", "item_id"))
    if not count:
        return users in ids and items in ids
    pairs = list(zip(*ids[:2], strict=True))
    return is_part(list(zip(users, items, strict=True)), pairs) or is_part(list(zip(items, users, strict=True)), pairs)


def one_end(cell: str) -> str:
    return re.sub(r"\r+\n", "\n", cell).strip()


def is_part(few: list, many: list) -> bool:
    """Whether `few` stand in `many`, in this order."""
    rest = iter(many)
    return all(one in rest for one in few)


@pytest.mark.parametrize("name", ["csv", "tsv"])
def test_text(tmp_path, name):
    attack(tmp_path, tries(150), name, written, check_text)


def test_compressed_text(tmp_path):
    """A damaged archive is never read in part."""
    sound = [gzip.compress(written(random.Random(f"gz {seed}"))) for seed in range(10)]

    def make(draw):
        return damaged(draw, draw.choice(sound))

    def check(content, found):
        check_text(gzip.decompress(content), found)

    attack(tmp_path, tries(60), "csv.gz", make, check)


# ---------------------------------------------------------------------- JSON lines and Parquet


VALUES = [None, "", "a", 0, 1, -1, 2**63, 2**64, 10**30, 1.5, 1e300, True, [], [1], {}, {"a": 1}, "é", "\ud800", "NA"]


def test_json_lines(tmp_path):
    def make(draw):
        rows = [dict(zip(HEADER, row, strict=True)) for row in plain(draw)]
        if draw.random() < 0.5:
            rows = [{**row, "timestamp": number} for number, row in enumerate(rows)]
        for _ in range(draw.choice([0, 0, 1, 2])):
            draw.choice(rows)[draw.choice(HEADER)] = draw.choice(VALUES)
        end = draw.choice(["\n", "\n", "\r\n", "\n\n"])
        return damaged(draw, "".join(json.dumps(row) + end for row in rows).encode())

    def check(content, found):
        if any("holds lists" in note for note in found.notes):  # such as [1]
            return
        rows = [json.loads(line) for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()]
        users, items = found.columns["user"], found.columns["item"]
        there = [row for row in rows if not any(is_missing(row.get(name)) for name in found.columns.values())]
        assert len(there) == len(rows) or any("were left out" in note for note in found.notes)
        assert [str(row[users]) for row in there] == [str(value) for value in found.frame["user_id"]]
        assert [str(row[items]) for row in there] == [str(value) for value in found.frame["item_id"]]

    attack(tmp_path, tries(150), "jsonl", make, check)


def is_missing(value: Any) -> bool:
    return value is None or value == "" or value != value


def test_parquet(tmp_path):
    """Parquet has no checksums by itself: a damaged file is read as something, or refused; nothing else happens."""

    def make(draw):
        rows = plain(draw)
        columns = {name: [row[place] for row in rows] for place, name in enumerate(HEADER)}
        columns["timestamp"] = list(range(len(rows)))
        if draw.random() < 0.3:
            columns[draw.choice(HEADER)] = [draw.choice([None, 1, 2**62]) for _ in rows]
        stream = io.BytesIO()
        compression = draw.choice(["zstd", "snappy", "uncompressed"])
        pl.DataFrame(columns).write_parquet(stream, compression=compression, use_pyarrow=draw.random() < 0.3)
        return damaged(draw, stream.getvalue())

    def check(content, found):
        assert len(found) <= 30

    attack(tmp_path, tries(150), "parquet", make, check)


# ---------------------------------------------------------------------- times


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_times_at_the_limits(tmp_path, kind):
    """Whole numbers of 64 bits stay what they are; beyond them there is a sentence, or the nearest number."""
    limits = [*(2**63 + n for n in (-2, -1, 0, 1)), *(-(2**63) + n for n in (-1, 0, 1)), 2**64 - 1, 2**64, 10**400]
    for time in limits:
        path = tmp_path / f"clicks.{kind}"
        if kind == "csv":
            path.write_text(f"user_id,item_id,timestamp\nu,a,{time}\nu,b,5\n")
        elif not -(2**63) <= time < 2**64:
            continue
        else:
            dtype = pl.UInt64 if time > 0 else pl.Int64
            times = pl.Series([time, 5], dtype=dtype)
            pl.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"], "timestamp": times}).write_parquet(path)
        found = read(path)
        if -(2**63) <= time < 2**63:
            assert found is not None and found.frame["timestamp"].to_list() == [time, 5]
        elif found is not None:
            assert found.frame["timestamp"].to_list() == [float(time), 5.0]


def test_missing_values_are_those_that_are_documented(tmp_path):
    for text in MISSING_TEXT:
        (tmp_path / "clicks.csv").write_text(f"user_id,item_id,timestamp\nu,a,1\nu,{text},5\n")
        assert read(tmp_path / "clicks.csv") is None
        assert len(read(tmp_path / "clicks.csv", drop_missing=True)) == 1
    assert open_table(tmp_path / "clicks.csv").names == tuple(HEADER)
