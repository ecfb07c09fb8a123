"""`glintru prepare`: interactions once, for many runs."""

from __future__ import annotations

import json

import polars as pl
import pytest

from modeling_glintru.data import load_prepared, synthetic_interactions


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table with names that need saying, a catalogue beside it."""
    folder = tmp_path_factory.mktemp("tables")
    frame = synthetic_interactions(num_users=60).frame
    frame.rename({"user_id": "who", "item_id": "what", "timestamp": "when"}).write_csv(folder / "log.csv")
    catalogue = frame.select("item_id", ("Title of " + pl.col("item_id")).alias("title")).unique()
    catalogue.write_parquet(folder / "catalogue.parquet")
    return folder


COLUMNS = ("--user_column", "who", "--item_column", "what", "--time_column", "when")


def test_a_table_with_named_columns_and_titles(table, glintru, tmp_path):
    out = tmp_path / "prepared"
    words = ("prepare", "--recipe", "ml-100k", "--data", table / "log.csv", "--output_dir", out, *COLUMNS)
    result = glintru(*words, "--item_titles", table / "catalogue.parquet")
    assert result.exit_code == 0, result.output
    assert "user = 'who', item = 'what', time = 'when'" in result.stdout
    assert " ".join(result.stdout.split()).endswith(f"Train on it with --data {out}")
    prepared = load_prepared(out)
    assert prepared.summary["users"] == 60 == prepared.dataset["test"].num_rows
    raw = prepared.processor.raw_id(1)
    assert prepared.processor.title(raw) == f"Title of {raw}"
    for file in out.rglob("*"):
        if file.is_file():
            assert str(tmp_path.parent).encode() not in file.read_bytes(), file


def test_the_recipe_decides_and_set_changes_it(table, glintru, tmp_path):
    def summary(*changes):
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        words = ("prepare", "--recipe", "ml-100k", "--data", table / "log.csv", "--output_dir", out, *COLUMNS)
        result = glintru(*words, *changes)
        assert result.exit_code == 0, result.output
        return json.loads((out / "summary.json").read_text())

    assert summary()["split"] == "leave_one_out"
    temporal = summary("--set", "split=temporal", "--set", "test_fraction=0.2")
    assert temporal["split"] == "temporal" and temporal["options"]["test_fraction"] == 0.2
    core = summary("--set", "data.min_item_interactions=6")
    assert core["items"] < temporal["items"] and core["dropped"]["items"] > 0


def test_prepared_data_is_replaced_only_on_request(glintru, tmp_path):
    words = ("prepare", "--recipe", "demo", "--output_dir", tmp_path / "prepared")
    assert glintru(*words).exit_code == 0
    before = (tmp_path / "prepared" / "summary.json").read_bytes()
    again = glintru(*words, "--set", "split=user")
    assert again.exit_code == 2 and "--overwrite" in again.stderr
    assert (tmp_path / "prepared" / "summary.json").read_bytes() == before
    assert glintru(*words, "--set", "split=user", "--overwrite").exit_code == 0
    assert load_prepared(tmp_path / "prepared").summary["split"] == "user"
    assert [entry.name for entry in tmp_path.iterdir()] == ["prepared"]
