"""Interactions to the Hub and back."""

from __future__ import annotations

import polars as pl
import pytest
from huggingface_hub import DatasetCard

from modeling_glintru.data import load_source, load_titles, read_interactions, readers
from modeling_glintru.data.example_data import synthetic_interactions, synthetic_item_titles
from modeling_glintru.errors import DataError, HubError
from modeling_glintru.hub import push_interactions

from ..hub_server import BOB

FRAME = pl.DataFrame(
    {
        "user_id": ["zoe@home", "adam@home", "zoe@home", "eve@home", "adam@home"],
        "item_id": ["a", "b", "b", "a", "c"],
        "timestamp": [5, 1, 2, 9, 3],
    }
)


def test_the_round_trip(hub):
    result = push_interactions(read_interactions(FRAME), "ann/clicks", item_titles={"a": "Apple"})
    assert result.url == f"{hub.url}/datasets/ann/clicks"
    repo = hub.repo("ann/clicks", "dataset")
    assert repo.private and len(repo.branches["main"]) == 2
    assert not [path for path, data in repo.files().items() if b"@home" in data or b"zoe" in data]
    for source in ("ann/clicks", "hf://datasets/ann/clicks/data/train-00000-of-00001.parquet"):
        read = load_source(source)
        assert read.frame.rows() == [(1, "a", 5), (2, "b", 1), (1, "b", 2), (3, "a", 9), (2, "c", 3)]
        assert load_titles(source) == {"a": "Apple"}
    assert read_interactions("ann/clicks").source == "ann/clicks"
    again = push_interactions(read_interactions(FRAME), "ann/clicks", item_titles={"a": "Apple"})
    assert again.changed == ()


def test_dates_stay_dates(hub):
    dates = FRAME.with_columns(pl.from_epoch("timestamp", "s"))
    push_interactions(read_interactions(dates), "ann/dated")
    for source in ("ann/dated", "hf://datasets/ann/dated/data/train-00000-of-00001.parquet"):
        read = load_source(source)
        assert read.has_dates and read.frame["timestamp"].equals(read_interactions(dates).frame["timestamp"])


def test_a_large_one_is_streamed(hub, monkeypatch):
    push_interactions(read_interactions(FRAME), "ann/clicks")
    expected = load_source("ann/clicks").frame
    monkeypatch.setattr(readers, "STREAMED_BYTES", 10)
    monkeypatch.setattr(readers, "STREAMED_ROWS", 2)
    kinds = []
    original = readers.open_dataset
    monkeypatch.setattr(
        readers, "open_dataset", lambda loaded, *rest: kinds.append(type(loaded).__name__) or original(loaded, *rest)
    )
    assert load_source("ann/clicks").frame.equals(expected)
    assert kinds == ["IterableDatasetDict"]


def test_its_card(hub):
    push_interactions(read_interactions(FRAME), "ann/clicks", private=False)
    assert not hub.repo("ann/clicks", "dataset").private
    card = DatasetCard.load("ann/clicks")
    assert card.data.to_dict()["tags"] == ["recommendation", "sequential-recommendation"]
    assert "5 interactions of 3 users with 3\nitems, median history 2. Made by" in card.text
    assert "glintru train --data ann/clicks --output_dir" in card.text and "`title`" not in card.text


def test_the_command_and_training_from_it(glintru, hub, tmp_path):
    table = tmp_path / "clicks.csv"
    synthetic_interactions().frame.write_csv(table)
    pl.DataFrame({"item_id": list(synthetic_item_titles()), "title": list(synthetic_item_titles().values())}).write_csv(
        tmp_path / "items.csv"
    )
    words = ("prepare", "--data", table, "--item_titles", tmp_path / "items.csv", "--output_dir", tmp_path / "prepared")
    result = glintru(*words, "--push_to_hub", "ann/clicks")
    assert result.exit_code == 0, result.output
    said = f"The interactions are at {hub.url}/datasets/ann/clicks. Train on them with --data ann/clicks"
    assert said in " ".join(result.stdout.split())
    files = hub.repo("ann/clicks", "dataset").files()
    assert not [path for path, data in files.items() if str(tmp_path).encode() in data]
    words = ("--recipe", "demo", "--data", "ann/clicks", "--set", "num_train_epochs=1", "--quiet")
    result = glintru("train", *words, "--output_dir", tmp_path / "model")
    assert result.exit_code == 0, result.output
    card = (tmp_path / "model" / "README.md").read_text()
    assert "datasets:\n- ann/clicks\n" in card and "`ann/clicks`: 18,331 interactions of 800 users" in card
    assert "source: ann/clicks" in (tmp_path / "model" / "recipe.yaml").read_text()
    assert "Saga 1, volume" in glintru("recommend", tmp_path / "model", "--history", "saga-01-volume-1").stdout
    # What is prepared has no times any more.
    result = glintru(
        "prepare", "--data", tmp_path / "prepared", "--output_dir", tmp_path / "x", "--push_to_hub", "ann/y"
    )
    assert result.exit_code == 2


def test_what_to_do_where_a_data_set_is_not_to_be_had(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", BOB)
    with pytest.raises(HubError, match="this login may not write ann/clicks"):
        push_interactions(read_interactions(FRAME), "ann/clicks")
    hub.add("ann/secret", {"a.csv": b"user_id,item_id,timestamp\n1,2,3\n"}, "dataset", private=True)
    hub.add("ann/gated", {"a.csv": b"user_id,item_id,timestamp\n1,2,3\n"}, "dataset", gated=True)
    for name in ("ann/secret", "ann/nowhere", "ann/gated"):
        with pytest.raises(DataError, match=f"'{name}'.* log in with `hf auth login`"):
            load_source(name)
        with pytest.raises(DataError, match="log in with `hf auth login`"):
            load_source(f"hf://datasets/{name}/a.csv")
