from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import modeling_glintru.data as data
from modeling_glintru.data import sources
from modeling_glintru.data.sources import (
    NamedSource,
    load_source,
    load_titles,
    synthetic_interactions,
    synthetic_item_titles,
)
from modeling_glintru.errors import DataError

FRAME = pl.DataFrame({"user_id": ["a", "b"], "item_id": [7, 8], "timestamp": [1, 2]})


def test_named_sources() -> None:
    assert set(sources.NAMED_SOURCES) == {"demo", "ml-100k"}
    assert load_source("demo").frame.equals(synthetic_interactions().frame)
    assert load_titles("demo") == synthetic_item_titles()


def test_ml_100k_is_movielens(monkeypatch: pytest.MonkeyPatch) -> None:
    from modeling_glintru.data.sources import load_movielens_100k, movielens_100k_titles

    assert sources.NAMED_SOURCES["ml-100k"] == NamedSource(load_movielens_100k, movielens_100k_titles)


def test_anything_else_is_read(tmp_path: Path) -> None:
    FRAME.write_csv(tmp_path / "a.csv")
    assert load_source(tmp_path / "a.csv").frame.equals(FRAME)
    assert load_source(FRAME.rename({"user_id": "who"}), user_column="who").frame.equals(FRAME)


def test_named_source_refuses_options() -> None:
    with pytest.raises(DataError, match="fixed columns and rows: leave --item_column, --where out"):
        load_source("demo", item_column="x", where=["y > 1"], in_file_order=False)


def test_titles_of_a_catalogue(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text('movieId,title,genres\n7,"Seven, again",x\n8,,y\n7,Other,z\n')
    assert load_titles(path) == {7: "Seven, again"}
    path.write_text("movieId,title\n007,Bond\n")
    assert load_titles(path) == {"007": "Bond"}


def test_titles_that_stand_beside_interactions() -> None:
    assert load_titles(FRAME.with_columns(movie_title=pl.Series(["S", "E"]))) == {7: "S", 8: "E"}


def test_named_columns_of_a_catalogue() -> None:
    frame = pl.DataFrame({"code": ["a"], "label": ["A"], "title": ["no"]})
    assert load_titles(frame, item_column="code", title_column="label") == {"a": "A"}
    with pytest.raises(DataError, match=r"no column 'labl' \(--title_column\); did you mean 'label'"):
        load_titles(frame, item_column="code", title_column="labl")


def test_the_item_column_of_the_interactions_is_looked_for_in_the_titles(tmp_path: Path) -> None:
    path = tmp_path / "titles.csv"
    path.write_text("prod,label,title\n1,x,One\n")
    assert load_titles(path, item_column="prod") == {1: "One"}
    assert load_titles(path, item_column="prod", title_column="label") == {1: "x"}
    path.write_text("item_id,title\n1,One\n")
    assert load_titles(path, item_column="prod") == {1: "One"}  # a usual name, where it has another one
    path.write_text("code,title\n1,One\n")
    with pytest.raises(DataError, match="neither 'prod', as --item_column says, nor a usual name; rename the column"):
        load_titles(path, item_column="prod")
    with pytest.raises(DataError, match="no column that looks like the item"):
        load_titles(path)


def test_tables_without_titles() -> None:
    assert load_titles(FRAME) is None
    assert load_titles(FRAME.with_columns(title=pl.lit(None, pl.String))) is None


def test_ambiguous_titles() -> None:
    frame = FRAME.with_columns(title=pl.lit("x"), movie_title=pl.lit("y"))
    with pytest.raises(DataError, match="more than one column that could be the title"):
        load_titles(frame)


def test_public_names_exist() -> None:
    for name in data.__all__:
        assert getattr(data, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = data.nonsense


@pytest.mark.needs_data
def test_titles_of_ml_1m(shared_data: Path) -> None:
    titles = load_titles(shared_data / "ml-1m" / "items.csv")
    assert titles is not None
    assert titles[1] == "Toy Story (1995)"
    read = load_source(shared_data / "ml-1m" / "interactions.parquet")
    assert set(read.frame["item_id"].unique()) <= set(titles)
