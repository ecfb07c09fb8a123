"""`--items`: a table of what is known of the items, in runs that are resumed, prepared before, or fine-tuned."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import torch

from modeling_glintru.data import ItemEncoder
from modeling_glintru.jobs import prepare_data
from modeling_glintru.models.item_projection import ItemProjection
from modeling_glintru.models.loading import load_model_folder
from modeling_glintru.recipe import load_recipe
from modeling_glintru.recipe.resolve import request, told_apart, with_data
from modeling_glintru.training.start import open_start

from .conftest import EPOCHS
from .test_bad_input import refused

pytest.importorskip("sklearn")
AT_ONCE = ("--max_minutes", "1e-9")
QUIET = ("--quiet", "--set", "evaluation.reference_models=[]", "--set", "num_bootstrap=20")


@pytest.fixture(scope="module")
def items(demo, tmp_path_factory):
    """What is known of the books of the demo shop; of one of them nothing."""
    ids = load_model_folder(demo[0])[1].item_ids
    titles = [item.replace("-", " ") for item in ids]
    frame = pl.DataFrame({"item_id": ids, "title": titles, "saga": [item[:7] for item in ids]})
    file = tmp_path_factory.mktemp("items") / "items.csv"
    frame[1:].write_csv(file)
    return file


@pytest.fixture(scope="module")
def whole(items, glintru, tmp_path_factory):
    """The run that the others are compared with, and what it printed."""
    folder = tmp_path_factory.mktemp("items") / "whole"
    result = glintru(*words(items), folder)
    assert result.exit_code == 0, result.output
    return folder, result.stdout


def words(items):
    return ("train", "--recipe", "demo", *EPOCHS, "--items", items, *QUIET, "--output_dir")


def test_the_run_says_what_it_recognised(whole):
    folder, printed = whole
    text = " ".join(printed.split())
    assert "items.csv" in text and "'title'" in text and "'saga'" in text
    assert json.loads((folder / "metrics.json").read_text())["data"]["item_features"]["known"] == 239
    assert load_recipe(folder / "recipe.yaml").data.items == "items.csv"
    assert load_model_folder(folder)[1].title("saga-03-volume-4") == "saga 03 volume 4"


def test_a_run_in_pieces_equals_a_whole_one(items, whole, glintru, tmp_path):
    result = glintru(*words(items), tmp_path / "out", *AT_ONCE)
    assert result.exit_code == 0, result.output
    result = glintru(*words(items), tmp_path / "out", "--resume")
    assert result.exit_code == 0, result.output
    for name in ("model.safetensors", "item_projection.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (whole[0] / name).read_bytes()


def test_prepared_with_items(items, whole, glintru, tmp_path):
    prepared = tmp_path / "prepared"
    result = glintru("prepare", "--recipe", "demo", "--items", items, "--output_dir", prepared)
    assert result.exit_code == 0, result.output
    train = ("train", "--recipe", "demo", *EPOCHS, "--data", prepared, *QUIET, "--output_dir", tmp_path / "out")
    assert glintru(*train).exit_code == 0
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (whole[0] / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def more(items, tmp_path_factory):
    """Interactions with a new book, and a table that knows it."""
    folder = tmp_path_factory.mktemp("more")
    known = pl.read_csv(items)
    new = pl.DataFrame({"item_id": ["saga-03-volume-9"], "title": ["saga 03 volume 9"], "saga": ["saga-03"]})
    pl.concat([known, new]).write_csv(folder / "items.csv")
    rng, ids = np.random.default_rng(0), [*known["item_id"], "saga-03-volume-9"]
    rows = [
        {"user_id": f"u{user}", "item_id": ids[-1] if place == 3 else ids[rng.integers(239)], "timestamp": place}
        for user in range(60)
        for place in range(6)
    ]
    pl.DataFrame(rows).write_csv(folder / "clicks.csv")
    return folder


def begun(whole, more, items_word=None):
    """The model that a fine-tuning begins with, and its data."""
    asked = request(None, [], from_model=str(whole[0]), items=items_word, source=str(more / "clicks.csv"))
    recipe = with_data(asked.recipe, str(more / "clicks.csv"), {"items": str(more / "items.csv")})
    start = open_start(recipe.fine_tuning)
    vocabulary = None if items_word == "new" else start.processor
    options = {"processor": vocabulary, "add_items": items_word != "new", "encoder": start.encoder}
    data = prepare_data(recipe, say=lambda text: None, **options)
    return start, data, start.model_for(start.fitted(recipe), data)


def test_a_new_item_begins_where_its_features_put_it(whole, more):
    start, data, model = begun(whole, more)
    old, index = len(start.processor), data.processor.index_of("saga-03-volume-9")
    table = model.get_input_embeddings().weight.detach()
    expected = ItemProjection.load(whole[0]).rows(torch.from_numpy(data.item_features.matrix[[index]]))[0]
    assert index == old + 1
    torch.testing.assert_close(table[index], expected)
    assert torch.equal(table[: old + 1], start.model.get_input_embeddings().weight)


def test_another_shop_keeps_the_encoder(whole, more, glintru, tmp_path):
    start, data, _ = begun(whole, more, "new")
    encoder = ItemEncoder.load(whole[0])
    vectors, _ = encoder.encode(pl.read_csv(more / "items.csv").filter(pl.col("item_id") == "saga-03-volume-9"))
    index = data.processor.index_of("saga-03-volume-9")
    np.testing.assert_array_equal(data.item_features.matrix[index], vectors[0])
    words = ("train", "--from", whole[0], "--items", "new", "--items", more / "items.csv", *QUIET, *EPOCHS)
    result = glintru(*words, "--data", more / "clicks.csv", "--output_dir", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert ItemProjection.load(tmp_path / "out").weight.shape == start.projection.weight.shape


def test_words_and_tables(items, tmp_path, glintru):
    assert told_apart(["new", str(items)]) == ("new", str(items)) == told_apart([items, "new"])
    assert told_apart([]) == (None, None)
    demo = ("train", "--recipe", "demo", "--output_dir", tmp_path / "out")
    refused(glintru(*demo, "--items", items, "--items", items), "--items takes one table")
    refused(glintru(*demo, "--items", tmp_path / "no.csv"), "there is no file", "no.csv")
    refused(glintru(*demo, "--items", items, "--text_encoder", "word3vec"), "text_encoder", "word3vec")
    assert not (tmp_path / "out").exists()


def test_a_table_of_other_items(tmp_path, glintru):
    pl.DataFrame({"item_id": ["x", "y"], "title": ["A", "B"]}).write_csv(tmp_path / "others.csv")
    result = glintru("train", "--recipe", "demo", "--items", tmp_path / "others.csv", "--output_dir", tmp_path / "out")
    refused(result, "others.csv")
    assert not (tmp_path / "out").exists()
