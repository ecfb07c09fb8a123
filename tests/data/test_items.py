from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from datasets import Dataset

from modeling_glintru.data.items import ItemColumn, ItemTable, read_items
from modeling_glintru.errors import DataError

FRAME = pl.DataFrame(
    {
        "item_id": [3, 1, 2],
        "title": ["A red lamp", None, "A blue chair"],
        "description": ["It gives light.", "One sits on it.", None],
        "brand": ["Smith, Inc.", "Smith, Inc.", ""],
        "genres": [["light", "home"], [], None],
        "categories": [[["Home", "Lamps"], ["Home", "Red"]], None, [[]]],
        "price": [1.5, None, float("nan")],
        "stock": [4, 5, None],
        "released": [date(2020, 1, 1), None, date(1969, 12, 31)],
        "on_sale": [True, False, None],
        "vector": [[1.0, 2.0], None, [3.0, 4.0]],
    }
)


def kinds(table: ItemTable) -> dict[str, str]:
    return {column.name: column.kind for column in table.columns}


def test_columns_by_type() -> None:
    table = read_items(FRAME)
    assert kinds(table) == {
        **dict.fromkeys(("title", "description"), "text"),
        **dict.fromkeys(("brand", "genres", "categories"), "categories"),
        **dict.fromkeys(("price", "stock"), "number"),
        "released": "date",
        "on_sale": "categories",
        "vector": "vector",
    }
    assert table.frame.schema["vector"] == pl.Array(pl.Float32, 2)
    assert table.frame.to_dict(as_series=False) | {"vector": table.frame["vector"].to_list()} == {
        "item_id": [1, 2, 3],  # in sorted order
        "title": [None, "A blue chair", "A red lamp"],
        "description": ["One sits on it.", None, "It gives light."],
        "brand": [["Smith, Inc."], None, ["Smith, Inc."]],
        "genres": [None, None, ["light", "home"]],
        "categories": [None, None, ["Home", "Lamps", "Red"]],
        "price": [None, None, 1.5],
        "stock": [5.0, None, 4.0],
        "released": [None, -86_400.0, 1_577_836_800.0],
        "on_sale": [["false"], None, ["true"]],
        "vector": [None, [3.0, 4.0], [1.0, 2.0]],
    }
    assert table.titles == {2: "A blue chair", 3: "A red lamp"}


@pytest.mark.parametrize("form", ["pandas", "arrow", "datasets", "parquet", "jsonl"])
def test_every_kind_of_source(form: str, tmp_path: Path) -> None:
    frame = FRAME.drop("released", "categories", "on_sale")
    source: Any
    if form == "pandas":
        source = frame.to_pandas()
    elif form == "arrow":
        source = frame.to_arrow()
    elif form == "datasets":
        source = Dataset(frame.to_arrow())
    elif form == "parquet":
        frame.write_parquet(source := tmp_path / "items.parquet")
    else:
        lines = (json.dumps({key: value for key, value in row.items() if value == value}) for row in frame.to_dicts())
        (source := tmp_path / "items.jsonl").write_text("\n".join(lines))
    table, expected = read_items(source), read_items(frame)
    assert table.frame.equals(expected.frame)
    assert table.columns == expected.columns
    assert table.titles == expected.titles


def test_arrays_of_numpy_are_vectors() -> None:
    vectors = np.arange(6, dtype=np.float16).reshape(3, 2)
    by_polars = read_items(pl.DataFrame({"item_id": [1, 2, 3], "v": vectors.astype(np.float32)}))
    by_pandas = read_items(pd.DataFrame({"item_id": [1, 2, 3], "v": list(vectors.astype(np.float64))}))
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(range(6), pa.int8()), 2)
    by_arrow = read_items(pa.table({"item_id": [1, 2, 3], "v": fixed}))
    for table in (by_polars, by_pandas, by_arrow):
        assert kinds(table) == {"v": "vector"}
        np.testing.assert_array_equal(table.frame["v"].to_numpy(), vectors)


def test_text_files_are_recognised_by_their_cells(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text(
        "movieId,title,price,category_id,categories,v,genres,released,note\n"
        '1,One,2.5,7,"[[\'Home & Garden\', ""Men\'s, all""]]","[0.5, 2]",Comedy|Drama,2001-02-03,NA\n'
        "2,,,,[],,Drama,,\n"
    )
    table = read_items(tmp_path / "items.csv")
    assert kinds(table) == {
        **{"title": "text", "price": "number", "category_id": "categories", "categories": "categories"},
        **{"v": "vector", "genres": "categories", "released": "date"},
    }
    assert table.frame.row(0, named=True) | {"v": table.frame["v"][0].to_list()} == {
        **{"item_id": 1, "title": "One", "price": 2.5, "category_id": ["7"], "v": [0.5, 2.0]},
        **{"categories": ["Home & Garden", "Men's, all"], "genres": ["Comedy", "Drama"], "released": 981_158_400.0},
    }
    assert table.frame.row(1) == (2, None, None, None, None, None, ["Drama"], None)
    assert "Not used, because they are empty: 'note'." in table.notes


def test_atomic_files_of_recbole(tmp_path: Path) -> None:
    (tmp_path / "x.item").write_text(
        "item_id:token\tmovie_title:token_seq\tclass:token_seq\tyear:float\tmaker:token\tv:float_seq\n"
        "1\tToy Story\tAnimation Comedy\t1995\t12\t0.5 1\n2\tGolden Eye\tAction\t1996\t13\t1 2\n"
    )
    table = read_items(tmp_path / "x.item")
    assert [(column.kind, column.separator) for column in table.columns] == [
        *(("text", None), ("categories", " "), ("number", None), ("categories", None), ("vector", " ")),
    ]
    assert table.frame.row(0)[1:5] == ("Toy Story", ["Animation", "Comedy"], 1995.0, ["12"])
    assert table.frame["v:float_seq"].to_list() == [[0.5, 1.0], [1.0, 2.0]]
    assert table.titles == {1: "Toy Story", 2: "Golden Eye"}


def test_text_is_told_from_categories_by_its_values() -> None:
    n = 60
    frame = pl.DataFrame(
        {
            "item_id": range(n),
            "asin": [f"B{i:05}" for i in range(n)],  # another id
            "image": [f"https://example.org/{i}.jpg" for i in range(n)],
            "colour_of_it": ["red", "green", "blue"] * 20,
            "path": [f"All,Part {i % 3},Part {i % 7}" for i in range(n)],
            "tree": [f"All > Part {i % 3} > Part {i % 7}" for i in range(n)],
            "words": [f"a lamp with {i} feet, which stands on {i} tables, and shines {i} times" for i in range(n)],
            "shop": [f"Lamps {i % 40}, Ltd." if i % 3 == 0 else f"Lamps {i % 40}" for i in range(n)],
        }
    )
    table = read_items(frame)
    assert table.columns == (
        ItemColumn("colour_of_it", "categories"),
        ItemColumn("path", "categories", ","),
        ItemColumn("tree", "categories", " > "),
        ItemColumn("words", "text"),
        ItemColumn("shop", "categories"),
    )
    assert table.frame["tree"][8].to_list() == ["All", "Part 2", "Part 1"]
    assert "Not used, because they have another value for each item: 'asin'." in table.notes
    assert "Not used, because they hold addresses: 'image'." in table.notes
    assert kinds(read_items(frame, columns=["asin"])) == {"asin": "categories"}


def test_columns_as_shops_have_them() -> None:
    frame = pl.DataFrame(
        {
            "parent_asin": ["B1", "B2"],
            "item_id": [7, 8],
            "user_id": ["u", "v"],
            "description": [["It gives light.", "And warmth."], []],
            "about_it": [["A lamp for every room of a house", None], None],
            "price": ["$1,299.50", "€ 7"],
        }
    )
    table = read_items(frame, item_column="parent_asin")
    assert kinds(table) == {"description": "text", "about_it": "text", "price": "number"}
    assert table.frame.rows() == [
        ("B1", "It gives light. And warmth.", "A lamp for every room of a house", 1299.5),
        ("B2", None, None, 7.0),
    ]
    assert "Not used, because they name users: 'user_id'." in table.notes
    assert "Not used, because they are other ids of the items: 'item_id'." in table.notes


def test_named_columns() -> None:
    frame = FRAME.rename({"item_id": "code", "title": "label"})
    table = read_items(frame, item_column="code", title_column="label", columns=["stock", "brand"])
    assert kinds(table) == {"stock": "number", "brand": "categories"}
    assert table.frame.columns == ["item_id", "stock", "brand"]
    assert table.titles == {2: "A blue chair", 3: "A red lamp"}
    assert read_items(FRAME, item_column="code").item_column == "item_id"  # the name that the interactions have
    with pytest.raises(DataError, match=r"no column 'stok'; did you mean 'stock'\?"):
        read_items(FRAME, columns=["stok"])
    with pytest.raises(DataError, match=r"no column 'labl' \(--title_column\); did you mean 'label'"):
        read_items(frame, item_column="code", title_column="labl")


def test_describe_counts() -> None:
    text = read_items(FRAME).describe()
    assert text.splitlines()[:2] == [
        "Items     polars frame: item = 'item_id', title = 'title'",
        "          3 items; text: 'title' (2), 'description' (2); categories: 'brand' (2), 'genres' (1), 'categories' "
        "(1), 'on_sale' (2); numbers: 'price' (1), 'stock' (2); dates: 'released' (2); vectors: 'vector' (2)",
    ]


def test_repeated_rows() -> None:
    frame = pl.DataFrame(
        {
            "item_id": ["b", "a", "b", "a", None, "b"],
            "title": ["B", "A", "B", "another", "x", "B"],
            "genres": [["x"], ["y"], ["x"], ["y"], ["z"], ["z"]],
        }
    )
    table = read_items(frame)
    assert table.frame.rows() == [("a", "A", ["y"]), ("b", "B", ["x"])]
    assert (table.repeated_rows, table.differing_rows) == (1, 2)
    assert table.titles == {"a": "A", "b": "B"}
    assert "Rows that are exact copies of another row and were left out: 1." in table.describe()
    assert "because the first row of an item counts: 2." in table.describe()
    assert "Rows without an item id, which were left out: 1." in table.describe()


def test_order_of_rows_and_columns_of_other_kinds_do_not_matter() -> None:
    table = read_items(FRAME)
    assert read_items(FRAME.reverse()).frame.equals(table.frame)
    odd = FRAME.with_columns(struct=pl.struct("price", "stock"), blob=pl.lit(b"x"))
    assert read_items(odd).frame.equals(table.frame)
    assert "Not used, because they hold Struct: 'struct'." in read_items(odd).notes


def test_rows_of_a_vocabulary() -> None:
    table = read_items(FRAME)
    assert table.rows_of((2, 9, 3)).tolist() == [1, -1, 2]
    assert table.rows_of(("3", "x", "1")).tolist() == [2, -1, 0]  # integers of the table become text
    text = read_items(FRAME.with_columns(pl.col("item_id").cast(pl.String)))
    assert text.rows_of((2, 9, 3)).tolist() == [1, -1, 2]
    names = read_items(FRAME.with_columns(item_id=pl.Series(["a", "b", "c"])))
    with pytest.raises(DataError, match="are text such as 'a', but those of the vocabulary are integers"):
        names.rows_of((1, 2))
    with pytest.raises(DataError, match=r"none of the 2 items of the vocabulary: its ids are such as 1, .* such as 7"):
        table.rows_of((7, 8))


def test_columns_of_another_table() -> None:
    known = read_items(FRAME).columns
    few = pl.DataFrame({"item_id": [9], "brand": ["Smith, Inc."], "genres": ["light"], "price": ["3.5"], "new": [1]})
    table = read_items(few).read_as(known)
    assert kinds(table) == {"brand": "categories", "genres": "categories", "price": "number"}
    assert table.frame.row(0) == (9, ["Smith, Inc."], ["light"], 3.5)
    assert read_items(FRAME).take(np.array([1, 2])).read_as(known[2:4]).frame["item_id"].to_list() == [2, 3]
    with pytest.raises(DataError, match="none of the columns of which the features were made: 'title', "):
        read_items(few.select("item_id", "new")).read_as(known)
    with pytest.raises(DataError, match=r"Column 'price' of polars frame does not hold numbers \('cheap' in row 1\)"):
        read_items(few.with_columns(price=pl.lit("cheap"))).read_as(known)
    with pytest.raises(DataError, match="Column 'vector' of polars frame has the type Float64, but vectors are lists"):
        read_items(few.with_columns(vector=pl.lit(1.0))).read_as(known)
    with pytest.raises(DataError, match=r"Column 'released' of polars frame .* not hold dates"):
        read_items(few.with_columns(released=pl.lit("soon"))).read_as(known)


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"x": [1, 2], "title": ["a", "b"]}, "no column that looks like the item"),
        ({"item_id": [1, 2], "x": [None, None]}, "no column that tells something of its items beside 'item_id'"),
        ({"item_id": [1, 2]}, "no column that tells something of its items beside 'item_id'"),
        ({"item_id": [1, 2], "v": [[1.0, 2.0], [1.0]]}, "'v' .* different lengths: 2 numbers, but 1 in row 2"),
        ({"item_id": [1, 2], "v": [[1.0], [float("nan")]]}, "'v' .* no finite number, in row 2"),
        ({"item_id": [1, 2], "v": [[float("inf")], [1.0]]}, "'v' .* no finite number, in row 1"),
        ({"item_id": [1, 2], "v": [[1.0, None], [1.0, 2.0]]}, "'v' .* no finite number, in row 1"),
        ({"item_id": [1, 2], "v": [1.0, float("-inf")]}, "'v' .* not finite: -inf in row 2"),
        ({"item_id": [1.5, 2.5], "x": ["a", "b"]}, "ids that are floating-point numbers"),
    ],
)
def test_bad_tables(columns: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        read_items(pl.DataFrame(columns, strict=False))
