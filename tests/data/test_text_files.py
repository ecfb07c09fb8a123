"""Files of text as people have them: encodings, separators, headers, quotes, and where a row stands."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path
from unittest import mock

import polars as pl
import pyarrow as pa
import pytest

from modeling_glintru.data import files
from modeling_glintru.data.readers import Table, open_table
from modeling_glintru.data.text_layout import TextOptions, recognise_layout
from modeling_glintru.errors import DataError

CASES = Path(__file__).resolve().parents[1] / "cases"
NAMES = ("user_id", "item_id", "timestamp")
ROWS = [("u1", "i7", "5"), ("u2", "i8", "6"), ("u1", "i9", "7")]


def text(separator: str = ",", end: str = "\n", rows: list[tuple[str, ...]] = [NAMES, *ROWS]) -> str:  # noqa: B006
    return "".join(separator.join(row) + end for row in rows)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, **options: object) -> tuple[Table, list[tuple]]:
    table = open_table(path, **options)  # type: ignore[arg-type]
    return table, table.load(table.names).rows()


def refused(path: Path, match: str, wanted: list[str] | None = None, **options: object) -> None:
    with pytest.raises(DataError, match=match) as caught:
        table = open_table(path, **options)  # type: ignore[arg-type]
        table.load(wanted or table.names)
    assert "\n" not in str(caught.value)


# The small tables of real life.


@pytest.mark.parametrize("wanted", [None, ["user_id", "item_id", "timestamp"], ["name"]])
def test_a_broken_row_is_named(wanted: list[str] | None) -> None:
    match = "^Line 32 of clicks.csv has 5 cells where the header has 4: 'u2,sku05,a, b,1700002360'"
    refused(CASES / "broken_row/clicks.csv", match, wanted)


def test_a_row_cut_short_is_named(tmp_path: Path) -> None:
    lines = (CASES / "broken_row/clicks.csv").read_text().splitlines()
    lines[31] = lines[31].replace(", ", " ")
    lines[200] = "u1,sku02"
    path = write(tmp_path / "a.csv", "\n".join(lines))
    refused(path, "^Line 201 of a.csv has 2 cells where the header has 4: 'u1,sku02'", ["user_id"])


def test_an_unquoted_separator_is_named() -> None:
    path = CASES / "unquoted_separator/clicks.csv"
    refused(path, "^Line 32 of clicks.csv has 6 cells where the header has 5: '7,8,9,108,", ["userId", "movieId"])


def test_stray_quotes_in_a_tsv_are_text() -> None:
    path = CASES / "unbalanced_quote_tsv/plays.tsv"
    _, rows = read(path)
    assert rows == [tuple(line.split("\t")) for line in path.read_text().splitlines()[1:]]
    assert len(rows) == 286 and sum(row[2] == '"unbalanced' for row in rows) > 5


def test_utf_16_with_a_byte_order_mark() -> None:
    table, rows = read(CASES / "utf16_excel/clicks.tsv")
    assert table.names == NAMES and len(rows) == 278 and rows[0] == ("u28", "sku03", "1700028480")


def test_byte_order_mark_semicolons_and_carriage_returns() -> None:
    table, rows = read(CASES / "utf8_bom_crlf/clicks.csv")
    assert table.names == NAMES and len(rows) == 298 and rows[0] == ("u8", "sku16", "1700008360")


def test_a_column_that_is_not_needed_may_be_in_any_encoding() -> None:
    path = CASES / "latin1_unused_column/ratings.csv"
    frame = open_table(path).load(NAMES)
    assert frame.height == 277 and frame.row(0) == ("u23", "sku29", "1700023060")
    refused(path, r"Column 'title' of ratings.csv is not in UTF-8, first on line 2: b'Am\\xe9lie'; .*latin-1")
    assert open_table(path, encoding="latin-1").load(["title"])["title"][0] == "Amélie"


def test_movielens_dat() -> None:
    table, rows = read(CASES / "double_colon_dat/ratings.dat")
    assert table.names == ("user_id", "item_id", "rating", "timestamp") and not table.has_no_time
    assert len(rows) == 274 and rows[0] == ("29", "119", "5", "1700029180")
    assert table.place(0) == "line 1"


def test_the_text_of_sasrec() -> None:
    table, rows = read(CASES / "sasrec_txt/ml.txt")
    assert table.names == ("user_id", "item_id") and table.has_no_time
    assert len(rows) == 291 and rows[:2] == [("1", "21"), ("1", "22")]


def test_blanks_that_separate() -> None:
    table, rows = read(CASES / "space_separated_inter/x.inter")
    assert table.names == ("user_id:token", "item_id:token", "timestamp:float")
    assert len(rows) == 273 and rows[0] == ("u5", "sku18", "1700005120")


def test_token_sequences_are_cells() -> None:
    _, rows = read(CASES / "session_lists/sessions.inter")
    assert len(rows) == 40 and rows[0] == ("0", "17 18 19 20 21 22 23", "24")


def test_ids_of_21_digits() -> None:
    _, rows = read(CASES / "huge_ids/clicks.csv")
    assert len(rows) == 276 and rows[0][1] == "622188820004259020019"


# What is recognised, and what is said.


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".dat", ".inter", ".item"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|", "::", " "])
def test_separators_are_recognised(suffix: str, separator: str, tmp_path: Path) -> None:
    table, rows = read(write(tmp_path / f"a{suffix}", text(separator)))
    assert (table.names, rows) == (NAMES, ROWS)


@pytest.mark.parametrize(
    ("separator", "word"),
    [("\t", "tab"), (",", "comma"), (";", "semicolon"), ("|", "pipe"), (" ", "blank"), ("\t", "\\t"), ("::", "::")],
)
def test_separators_by_name(separator: str, word: str, tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.csv", text(separator)), separator=word)[1] == ROWS


@pytest.mark.parametrize("separator", ["~", "||", "§", "\x01", " - "])
def test_separators_that_are_given(separator: str, tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.csv", text(separator)), separator=separator)[1] == ROWS


def test_the_separator_is_not_what_cells_hold(tmp_path: Path) -> None:
    rows = [("user_id", "item_id", "event name"), ("u1", "1,5", "big sale; red"), ("u2", "2,5", "a|b")]
    table, read_rows = read(write(tmp_path / "a.csv", text(";", rows=[rows[0], ("u1", "1,5", "big sale"), rows[2]])))
    assert (table.names, read_rows) == (rows[0], [("u1", "1,5", "big sale"), ("u2", "2,5", "a|b")])
    dated = [NAMES, ("u1", "7", "2024-05-31 18:00:00 UTC")]
    assert read(write(tmp_path / "b.csv", text(rows=dated)))[1] == dated[1:]


def test_any_number_of_blanks_and_tabs(tmp_path: Path) -> None:
    content = "  user_id   item_id\ttimestamp \r\nu1  i7 \t 5\r\n\r\n  u2 i8 6  \r\n"
    table, rows = read(write(tmp_path / "a.txt", content), separator=" ")
    assert (table.names, rows) == (NAMES, ROWS[:2])
    assert table.place(1) == "line 4"


def test_a_longer_separator_in_a_quoted_cell_is_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'a::b\n"x::y"::z\n')
    assert read(path, separator="::")[1] == [("x::y", "z")]


@pytest.mark.parametrize("separator", ["", "a", '"', "x1", "\n"])
def test_separators_that_cannot_be(separator: str, tmp_path: Path) -> None:
    refused(write(tmp_path / "a.csv", text()), "separator.* cannot stand between cells", separator=separator)


def test_columns_of_a_file_without_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", text(rows=ROWS))
    for columns in (NAMES, list(NAMES), "user_id, item_id,timestamp"):
        table, rows = read(path, columns=columns)
        assert (table.names, rows, table.place(2)) == (NAMES, ROWS, "line 3")
    refused(path, "--columns gives 2 names, but line 1 of a.csv has 3 cells: 'u1,i7,5'", columns=["a", "b"])
    refused(path, "one name each, all of them different", columns=["a", "b", "a"])
    refused(write(path, text()), "Line 1 of a.csv has these names itself: leave --columns out", columns=NAMES)
    refused(
        write(path, text(rows=[*ROWS, ("u", "i")])), "^Line 4 of a.csv has 2 cells where line 1 has 3", columns=NAMES
    )


@pytest.mark.parametrize("suffix", [".csv", ".dat", ".txt", ".tsv"])
@pytest.mark.parametrize("row", ["1,2,3", "1,2,3,4,5", "A1YJ,0140503528,5.0,1474329600", "17"])
def test_a_missing_header_is_told(suffix: str, row: str, tmp_path: Path) -> None:
    refused(
        write(tmp_path / f"a{suffix}", f"{row}\n" * 5), "holds numbers and no names .*--columns user_id,item_id,time"
    )


def test_only_what_is_surely_movielens_or_sasrec_is_named(tmp_path: Path) -> None:
    for content in ("1 2\n1 3\n1 x\n", "1::2::5::1700000000\n1::2::5::7\n", "7 1 2 1700000000\n7 1 500 1700000000\n"):
        refused(write(tmp_path / "a.dat", content), "--columns user_id,item_id,timestamp")
    refused(write(tmp_path / "a.csv", "1,2\n3,4\n"), "--columns")
    table, rows = read(write(tmp_path / "u.txt", "196\t242\t3\t881250949\n186\t302\t3.5\t891717742\n"))
    assert table.names[2:] == ("rating", "timestamp") and rows[1] == ("186", "302", "3.5", "891717742")


@pytest.mark.parametrize(
    ("rating", "time", "is_movielens"),
    [("100", "100000000", True), ("101", "100000000", False), ("100", "99999999", False)],
)
def test_the_limits_of_what_is_movielens(rating: str, time: str, is_movielens: bool, tmp_path: Path) -> None:
    path = write(tmp_path / "a.dat", f"1::2::{rating}::{time}\n" * 3)
    if is_movielens:
        assert read(path)[0].names == ("user_id", "item_id", "rating", "timestamp")
    else:
        refused(path, "^Line 1 of a.dat holds numbers and no names of columns")


def test_the_line_without_names_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "\n\n" + text(rows=ROWS))
    refused(path, "--columns gives 2 names, but line 3 of a.csv has 3 cells", columns=["a", "b"])
    refused(write(path, "\n\n1,2\n"), "^Line 3 of a.csv holds numbers and no names")
    refused(write(path, "\n\n" + text()), "^Line 3 of a.csv has these names itself", columns=NAMES)


@pytest.mark.parametrize(
    ("lines", "separator"),
    [
        (["u i,x t", "1 2 3", "1 3 4", "2 3 4"], " "),  # a comma in one cell of four lines
        (["u,i x,t", "1,2 x,3", "1,3 x,4", "2 3"], ","),  # a blank in every line, commas in most
    ],
)
def test_blanks_separate_only_where_nothing_else_does(lines: list[str], separator: str) -> None:
    layout = recognise_layout("".join(f"{line}\n" for line in lines).encode(), ".txt", "a.txt", TextOptions())
    assert layout.separator == separator


def test_a_place_before_anything_is_read(tmp_path: Path) -> None:
    assert open_table(write(tmp_path / "a.csv", 'a,b\n\n1,"x\ny"\n2,z\n')).place(1) == "line 5"


def test_numbered_columns_are_names(tmp_path: Path) -> None:
    for header in ("0,1,2", ",0,1"):
        assert read(write(tmp_path / "a.csv", f"{header}\nu1,i7,5\n"))[1] == [ROWS[0]]


def test_one_column(tmp_path: Path) -> None:
    table, rows = read(write(tmp_path / "a.csv", "item_id\ni 7\n\ni8\n"))
    assert (table.names, rows, table.place(1)) == (("item_id",), [("i 7",), ("i8",)], "line 4")


def test_names_are_stripped_and_cells_are_not(tmp_path: Path) -> None:
    table, rows = read(write(tmp_path / "a.csv", "user_id, item_id\n u1, i7 \n,\n"))
    assert (table.names, rows) == (("user_id", "item_id"), [(" u1", " i7 "), (None, None)])


def test_columns_by_name(tmp_path: Path) -> None:
    table = open_table(write(tmp_path / "a.csv", "a,b,a,c\n1x,2,3,4\n"))
    assert table.load(["c", "b"]).rows() == [("4", "2")]
    with pytest.raises(DataError, match="2 columns named 'a'"):
        table.load(["a"])
    with pytest.raises(DataError, match="no column 'd'"):
        table.load(["d"])


# Quotes.


def test_quoted_cells(tmp_path: Path) -> None:
    content = '"user_id",item_id,"say ""hi"""\n"u,1","i\n7",""\nu2,6" pipe,\n'
    table, rows = read(write(tmp_path / "a.csv", content))
    assert (table.names, rows) == (("user_id", "item_id", 'say "hi"'), [("u,1", "i\n7", None), ("u2", '6" pipe', None)])
    assert (table.place(0), table.place(1)) == ("line 2", "line 4")


def test_stray_quotes_in_a_csv_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'a,b,c\n1,2,3\n1,"weird al" yankovic,3\n1,"open,3\n')
    refused(path, "Line 3 of a.csv has a quote that opens a cell .*'1,\"weird al\" yankovic,3'; .*--quote none", ["a"])
    assert read(path, quote="none")[1][1:] == [("1", '"weird al" yankovic', "3"), ("1", '"open', "3")]
    refused(write(path, 'a,b,c\n1,2,3\n\n1,"open,3\n1,2,3\n'), "^Line 4 of a.csv has a quote")
    refused(write(path, 'a,b\n1,"x\ny"z\n'), "^Line 2 of a.csv has a quote .*properly: '1,\"x'; repair")


def test_a_stray_quote_in_the_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'a,"b"x\n1,2\n')
    refused(path, "^Line 1 of a.csv has a quote that does not end its cell: 'a,\"b\"x'; .*--quote none")
    for file, options in ((path, {"quote": "none"}), (write(tmp_path / "a.txt", path.read_bytes()), {})):
        table, rows = read(file, **options)
        assert (table.names, rows) == (("a", '"b"x'), [("1", "2")])


def test_a_quote_that_may_close_on_another_line(tmp_path: Path) -> None:
    content = 'a,b,c\n1,2,3\n1,"open,3\n1,2,3\n4,close",6\n'
    path = write(tmp_path / "a.csv", content)
    refused(path, "Line 3 of a.csv opens a quote that another line closes, .*--quote none, or .*--quote '\"'", ["a"])
    assert len(read(path, quote="none")[1]) == 4
    assert read(path, quote='"')[1] == [("1", "2", "3"), ("1", "open,3\n1,2,3\n4,close", "6")]
    assert len(read(write(tmp_path / "a.txt", content))[1]) == 4


def test_quoting_in_a_tsv_is_all_or_nothing(tmp_path: Path) -> None:
    quoted = '"user_id"\titem_id\n"u1"\t"a\tb"\n'
    path = write(tmp_path / "a.tsv", quoted)
    table, rows = read(path)
    assert (table.names, rows) == (("user_id", "item_id"), [("u1", "a\tb")])
    assert read(write(path, '"user_id"\titem_id\n"u1"\t"a"\n"u2"\t"b" c\n'))[1] == [('"u1"', '"a"'), ('"u2"', '"b" c')]
    # With quotes as cells the third line is too long; without, the second is: the file means the former.
    refused(write(path, quoted + "u2\tb\tc\n"), "^Line 3 of a.tsv has 3 cells where the header has 2: .*--quote none")
    refused(write(path, quoted + 'u2\t"b" c\n'), "^Line 2 of a.tsv has 3 cells where the header has 2")


def test_other_quotes(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.csv", "a,b\n'x, y',6\" pipe\n"), quote="'")[1] == [("x, y", '6" pipe')]
    for quote in ("", "ab", "a"):
        refused(tmp_path / "a.csv", "must be one character", quote=quote)
    refused(write(tmp_path / "a.txt", "a b\n1x 2\n"), "leave --quote out", quote="'", separator=" ")


# Lines, encodings, compression.


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_line_ends_and_encodings(end: str, encoding: str, tmp_path: Path) -> None:
    rows = [NAMES, ("ü1", "i€", "5"), ("u2", "i8", "6")]
    path = write(tmp_path / "a.csv", text(end=end, rows=rows).encode(encoding))
    for size in (120, 2**20):
        with mock.patch.object(files, "BLOCK_BYTES", size):
            table, read_rows = read(path)
        assert (table.names, read_rows) == (NAMES, rows[1:])


def test_encodings_that_are_given(tmp_path: Path) -> None:
    rows = [NAMES, ("Käse", "ñ", "5")]
    for encoding in ("latin-1", "cp1252", "utf-16-le", "mac_roman"):
        path = write(tmp_path / "a.csv", text(rows=rows).encode(encoding))
        assert read(path, encoding=encoding)[1] == rows[1:]
    refused(tmp_path / "a.csv", "encoding 'klingon' .*is not known; usual ones are utf-8", encoding="klingon")
    refused(tmp_path / "a.csv", "is not known", encoding="zlib")
    path = write(tmp_path / "b.csv", text(rows=rows).encode("utf-16-le"))
    refused(path, "b.csv is not text in UTF-8 .*--encoding utf-16-le")
    path = write(tmp_path / "c.csv", text(rows=rows).encode("latin-1"))
    refused(path, r"Column 'user_id' of c.csv is not in ascii, first on line 2: b'K\\xe4se'", encoding="ascii")
    assert open_table(path, encoding="ascii").load(["timestamp"]).rows() == [("5",)]
    refused(path, "c.csv is not text in utf-16", encoding="utf-16")


def test_an_undecodable_cell_far_down_is_named(tmp_path: Path) -> None:
    content = b'user_id,title\n"u\n1",a\n\n' + b"u1,b\n" * 20 + b"u2,\xe9\n"
    path = write(tmp_path / "a.csv", content)
    with mock.patch.object(files, "BLOCK_BYTES", 30):
        assert open_table(path).load(["user_id"]).height == 22
        refused(path, r"'title' of a.csv is not in UTF-8, first on line 25: b'\\xe9'")


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        (".gz", gzip.compress),
        (".bz2", bz2.compress),
        (".xz", lzma.compress),
        (".zst", lambda content: pa.Codec("zstd").compress(content, asbytes=True)),
    ],
)
def test_compressed_files(suffix: str, pack, tmp_path: Path) -> None:
    content = text(rows=[NAMES, *ROWS * 500]).encode()
    path = write(tmp_path / f"a.csv{suffix}", pack(content))
    table, rows = read(path)
    assert rows == ROWS * 500 and table.source == f"a.csv{suffix}"
    refused(write(path, pack(content)[:-9]), "cannot be read as a table of text")


def test_places_count_empty_lines_and_broken_rows_across_blocks(tmp_path: Path) -> None:
    rows = [(f"u{place}", f"i{place}" if place % 3 else f"i\n\n{place}", "x") for place in range(40)]
    lines = "\n\na,b,c\n" + "".join(
        f'{user},"{item}",{time}\n' + ("\r\n" if place % 4 == 0 else "")
        for place, (user, item, time) in enumerate(rows)
    )
    path = write(tmp_path / "a.csv", lines)
    expected = [lines[: lines.index(f"u{place},")].count("\n") + 1 for place in range(40)]
    for size in (11, 100, 2**20):
        with mock.patch.object(files, "BLOCK_BYTES", size):
            table = open_table(path)
            assert table.load(["a", "b", "c"]).rows() == rows
            assert [table.place(place) for place in range(40)] == [f"line {line}" for line in expected]


def test_a_line_of_one_cell(tmp_path: Path) -> None:
    refused(
        write(tmp_path / "a.csv", "a,b\n1,2\n3\n"), "^Line 3 of a.csv has 1 cell where the header has 2: '3'", ["b"]
    )


def test_a_carriage_return_within_a_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a,b\nx\ry,2\nz,3\n")
    assert read(path)[1] == [("x\ry", "2"), ("z", "3")]
    assert read(write(path, 'a,b\n"q,",1\nx\ry,2\n'))[1] == [("q,", "1"), ("x\ry", "2")]
    match = r"^Line 4 of a.csv has a carriage return that does not end the line: '1,2\\r3,4'; remove it"
    refused(write(path, "a,b\n\n1,2\n1,2\r3,4\n"), match, ["b"])
    refused(write(path, 'a,b\n\n"q,",1\nx\ry,2\n'), match.replace("1,2", "x").replace("3,4", "y,2"), ["b"])


@pytest.mark.parametrize("quote", ["", '"'])
def test_lines_of_blanks_are_skipped(quote: str, tmp_path: Path) -> None:
    rows = f"1,{quote}x{quote}\n  \n\t\r\n\n2,{quote}y,{quote}\n \n" if quote else "1,x\n  \n\t\r\n\n2,y\n \n"
    table, found = read(write(tmp_path / "a.csv", f"a,b\n{rows}"))
    assert found == [("1", "x"), ("2", "y," if quote else "y")]
    assert table.place(1) == "line 6"
    assert read(write(tmp_path / "b.csv", 'a,b\n1,"x\n \ny"\n'))[1] == [("1", "x\n \ny")]
    assert read(write(tmp_path / "a.tsv", "a\tb\n1\tx\n\t\n \n2\ty\n"))[1] == [("1", "x"), (None, None), ("2", "y")]
    assert read(write(tmp_path / "c.csv", "a\nx\n \ny\n"))[1] == [("x",), (" ",), ("y",)]


def test_a_header_without_rows(tmp_path: Path) -> None:
    frame = open_table(write(tmp_path / "a.csv", "a,b")).load(["b"])
    assert frame.schema == {"b": pl.String} and frame.height == 0


def test_options_are_for_text(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": [1]})
    frame.write_parquet(tmp_path / "a.parquet")
    refused(
        tmp_path / "a.parquet", "--columns, --quote are for files of text, not for a.parquet", columns="a", quote="'"
    )
    with pytest.raises(DataError, match="--encoding is for files of text, not for a DataFrame"):
        open_table(frame, encoding="utf-8")
