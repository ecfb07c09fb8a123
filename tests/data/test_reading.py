"""Reading options: one list for recipes, the command line and Python, and what of it holds for another table."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from modeling_glintru.data import sources
from modeling_glintru.data.reading import ReadingOptions
from modeling_glintru.data.sources import load_source, options_for
from modeling_glintru.recipe import DataRecipe

ALL = ReadingOptions(
    user_column="who",
    item_column="what",
    order_column="place",
    session_gap="30m",
    where=("kind == 'buy'",),
    drop_missing=True,
    encoding="latin-1",
    columns=("who", "what", "when"),
)


def test_only_what_is_given_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(sources, "read_interactions", lambda source, **options: calls.append(options))
    load_source("a.csv", **dict.fromkeys(inspect.signature(ReadingOptions).parameters))
    load_source("a.csv", **DataRecipe(where=("x > 1",), in_file_order=True, columns=("a", "b")).reading)
    assert calls == [
        {"split": "train"},
        {"split": "train", "where": ("x > 1",), "in_file_order": True, "columns": ("a", "b")},
    ]


@pytest.mark.parametrize(
    ("names", "same_form", "left_out"),
    [
        (["who", "what", "place", "kind"], True, set()),
        (["who:token", "what:token", "place:float"], True, set()),
        (["user_id", "what"], True, {"user_column", "order_column"}),
        (["who", "what", "place"], False, {"encoding", "columns"}),
    ],
)
def test_what_fits_another_table(names: list[str], same_form: bool, left_out: set[str]) -> None:
    given = ALL.given()
    assert len(given) == 8
    assert ALL.fitting(names, same_form) == {name: given[name] for name in given if name not in left_out}


def test_a_field_of_a_column_fits_where_the_column_is() -> None:
    options = ReadingOptions(item_column="events.aid", time_column="when.ts")
    assert options.fitting(["session", "events"], same_form=True) == {"item_column": "events.aid"}


def test_the_options_of_a_recipe_for_a_later_table(tmp_path: Path) -> None:
    options = ReadingOptions(user_column="shopper", item_column="sku", where=("n > 1",))
    pl.DataFrame({"shopper": [1], "item_id": [2], "timestamp": [3]}).write_csv(tmp_path / "november.csv")
    expected = {"user_column": "shopper", "where": ("n > 1",)}
    assert options_for(str(tmp_path / "november.csv"), options, "october.csv") == expected
    assert options_for("demo", options, "october.csv") == {}
    assert options_for(str(tmp_path / "november.csv"), ReadingOptions(), None) == {}


def test_prepared_data_is_read_without_options(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text("{}")
    assert options_for(str(tmp_path), ALL, "october.csv") == {}
