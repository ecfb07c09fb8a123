"""The front door: from a frame to recommendations, a frame of them, a folder and a repository."""

from __future__ import annotations

import gc
import json

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import modeling_glintru
from modeling_glintru import Recommender, StreamingRecommender, evaluate, train
from modeling_glintru.cli import app
from modeling_glintru.data import synthetic_interactions, synthetic_item_titles
from modeling_glintru.errors import DataError, GlintRUError, ModelFolderError, RecipeError
from modeling_glintru.models.processing_glintru import UnknownItemError
from modeling_glintru.serving.offline import UserHistories, recommend_all

from ..hub_server import ANN

FRAME = synthetic_interactions(num_users=120, num_items=48).frame
TITLES = synthetic_item_titles(48)
SMALL = {"num_train_epochs": 2, "hidden_size": 16}
NAMES = {"user_id": "visitor", "item_id": "product", "timestamp": "when"}
COLUMNS = {"user_column": "visitor", "item_column": "product", "time_column": "when"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("front") / "shop"


@pytest.fixture(scope="module")
def recommender(folder):
    options = {"settings": SMALL, "titles": TITLES, "seed": 3, "verbose": False}
    return Recommender.fit(FRAME.to_pandas(), output_dir=folder, **options)


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_fit_is_what_the_command_trains(recommender, folder, tmp_path):
    table, titles, other = tmp_path / "clicks.csv", tmp_path / "titles.csv", tmp_path / "by_command"
    FRAME.write_csv(table)
    pl.DataFrame({"item_id": list(TITLES), "title": list(TITLES.values())}).write_csv(titles)
    words = ["train", "--data", str(table), "--item_titles", str(titles), "--output_dir", str(other), "--seed", "3"]
    words += ["--quiet", "--set", "num_train_epochs=2", "--set", "hidden_size=16"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert same(weights(folder), weights(other))
    assert {file.name for file in folder.iterdir()} == {file.name for file in other.iterdir()}
    measured = json.loads((other / "metrics.json").read_text())
    assert recommender.metrics == {name: entry["value"] for name, entry in measured[measured["main"]].items()}
    assert recommender.metrics["ndcg@10"] > 0
    assert str(tmp_path) not in (folder / "recipe.yaml").read_text()


def test_recommendations(recommender):
    history = ["saga-01-volume-1", "saga-01-volume-2"]
    (found,) = recommender.recommend([history], top_k=3)
    assert len(found.items) == 3 and found.items[0].keys() == {"item_id", "title", "score"}
    with StreamingRecommender(recommender.model, recommender.processor) as streaming:
        for item in history:
            streaming.observe("anna", item)
        assert streaming.recommend("anna", top_k=3).items[0]["item_id"] == found.items[0]["item_id"]


def renamed(kind, tmp_path):
    frame = FRAME.rename(NAMES)
    if kind == "pandas":
        return frame.to_pandas()
    if kind == "arrow":
        return frame.to_arrow()
    if kind == "datasets":
        return datasets.Dataset(frame.to_arrow())
    if kind == "list of paths":
        half, files = len(frame) // 2, [tmp_path / "a.parquet", tmp_path / "b.parquet"]
        frame[:half].write_parquet(files[0])
        frame[half:].write_parquet(files[1])
        return files
    return frame


@pytest.mark.parametrize(
    ("kind", "returned"),
    [
        ("pandas", pd.DataFrame),
        ("polars", pl.DataFrame),
        ("arrow", pa.Table),
        ("datasets", datasets.Dataset),
        ("list of paths", pl.DataFrame),
    ],
)
def test_a_table_of_any_kind_in_and_one_of_the_same_kind_out(recommender, kind, returned, tmp_path):
    found = recommender.recommend_frame(renamed(kind, tmp_path), top_k=4, **COLUMNS)
    assert isinstance(found, returned)
    if kind == "datasets":
        found = found.data.table
    found = found if isinstance(found, pl.DataFrame) else pl.DataFrame(found)
    assert found.columns == ["user_id", "rank", "item_id", "title", "score", "cold_start"]
    assert found.equals(found.sort("user_id", "rank")) and found["rank"].to_list() == [1, 2, 3, 4] * 120
    users = UserHistories.of(FRAME, recommender.processor)
    blocks = list(recommend_all(recommender.model, users, recommender.processor.max_length, 4))
    best = [recommender.processor.item_ids[index - 1] for items, _ in blocks for index in items.ravel()]
    assert found["item_id"].to_list() == best
    history = FRAME.filter(pl.col("user_id") == found["user_id"][0]).sort("timestamp")["item_id"].to_list()
    (alone,) = recommender.recommend([history], top_k=4)
    assert found["item_id"].to_list()[:4] == [item["item_id"] for item in alone.items]


def test_only_some_users_and_filters(recommender):
    allowed = list(TITLES)[:5]
    found = recommender.recommend_frame(FRAME, top_k=3, users=["user-0002", "user-0009"], allowed=allowed)
    assert found["user_id"].unique().sort().to_list() == ["user-0002", "user-0009"]
    assert set(found["item_id"]) <= set(allowed)
    with pytest.raises(DataError, match="has no user nobody"):
        recommender.recommend_frame(FRAME, users=["nobody", "user-0002"])
    with pytest.raises(DataError, match="list of raw user ids"):
        recommender.recommend_frame(FRAME, users="user-0002")
    with pytest.raises(DataError, match="names no user"):
        recommender.recommend_frame(FRAME, users=[])


def test_similar_items_are_the_nearest_by_cosine(recommender):
    ids, vectors = recommender.item_vectors()
    assert ids == list(recommender.processor.item_ids)
    assert vectors.shape == (len(ids), 16) and vectors.dtype == np.float32
    normal = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = normal @ normal[7]
    expected = [number for number in np.argsort(-cosines) if number != 7][:5]
    similar, others = recommender.similar_items([ids[7], ids[8]], top_k=5)
    assert [item["item_id"] for item in similar] == [ids[number] for number in expected]
    np.testing.assert_allclose([item["score"] for item in similar], cosines[expected], atol=1e-5)
    assert similar[0]["title"] == TITLES[similar[0]["item_id"]] and ids[8] not in [item["item_id"] for item in others]
    everything = recommender.similar_items([ids[7]], top_k=len(ids))[0]
    assert len(everything) == len(ids) - 1
    only = recommender.similar_items([ids[7]], top_k=3, allowed=ids[20:22], exclude=ids[20:21])[0]
    assert [item["item_id"] for item in only] == [ids[21]]
    assert recommender.similar_items([]) == []
    with pytest.raises(UnknownItemError):
        recommender.similar_items(["no such item"])
    with pytest.raises(GlintRUError, match="list of raw item ids"):
        recommender.similar_items(ids[0])
    with pytest.raises(GlintRUError, match="top_k must be between"):
        recommender.similar_items([ids[0]], top_k=0)


def test_scores_are_computed_from_the_item_vectors(recommender):
    inputs = recommender.processor([["saga-01-volume-1"]])
    model = recommender.model
    with torch.inference_mode():
        logits = model(**inputs).logits[0, 1:]
        query = model.query_vectors(model(**inputs).last_hidden_state[:, 0])
    np.testing.assert_allclose(recommender.item_vectors()[1] @ query[0].numpy(), logits.numpy(), atol=1e-4)


def test_a_saved_recommender_is_a_whole_model_folder(recommender, folder, tmp_path):
    target = tmp_path / "my-shop"
    recommender.save_pretrained(target)
    assert {file.name for file in target.iterdir()} == {file.name for file in folder.iterdir()}
    assert same(weights(folder), weights(target))
    assert "# my-shop" in (target / "README.md").read_text() and "# shop" in (folder / "README.md").read_text()
    again = Recommender.from_pretrained(target)
    assert again.metrics == recommender.metrics and again.folder == target
    history = [["saga-02-volume-1"]]
    assert again.recommend(history) == recommender.recommend(history)
    (target / "README.md").write_text("my own words")
    again.save_pretrained(target)
    recommender.save_pretrained(target)
    assert (target / "README.md").read_text() == "my own words"


def test_a_model_that_was_never_saved(recommender, tmp_path):
    bare = Recommender(recommender.model, recommender.processor)
    assert bare.metrics == {} and bare.folder is None
    bare.save_pretrained(tmp_path / "bare")
    assert not (tmp_path / "bare" / "metrics.json").exists()
    assert Recommender.from_pretrained(tmp_path / "bare").metrics == {}


def test_push(recommender, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", ANN)
    result = recommender.push_to_hub("ann/shop", private=True)
    assert result.repo_id == "ann/shop" and hub.repo("ann/shop").private
    assert {"model.safetensors", "metrics.json", "README.md", "handler.py"} <= set(result.changed)
    pulled = Recommender.from_pretrained("ann/shop")
    assert pulled.metrics == recommender.metrics
    assert evaluate(pulled, FRAME) == pytest.approx(recommender.metrics)


def test_without_an_output_folder_the_folder_lives_as_long_as_the_recommender(tmp_path, capfd):
    recommender = Recommender.fit(FRAME, settings={**SMALL, "num_train_epochs": 1}, verbose=False)
    assert capfd.readouterr() == ("", "")
    folder = recommender.folder
    assert (folder / "README.md").is_file()
    recommender.save_pretrained(tmp_path / "model")
    del recommender
    gc.collect()
    assert not folder.exists() and Recommender.from_pretrained(tmp_path / "model").metrics["ndcg@10"] > 0


def test_train_and_evaluate(tmp_path, capsys):
    path = tmp_path / "clicks.csv"
    FRAME.rename(NAMES).write_csv(path)
    options = {"settings": {**SMALL, "num_train_epochs": 1}, "seed": 5, **COLUMNS}
    result = train(path, tmp_path / "model", model="sasrec", **options)
    printed = capsys.readouterr().out
    assert "user = 'visitor'" in printed and "Chosen    max_length" in printed
    assert result.output_dir == tmp_path / "model" and result.model.config.model_type == "sasrec"
    assert next(iter(result.evaluations)) == "SASRec" and "popularity" in result.evaluations
    assert (result.output_dir / "recipe.yaml").read_text().count("seed: 5") == 1
    # The columns of the training are known; the same rows, in a frame or a file, give the same figures.
    for given in (path, FRAME.rename(NAMES)):
        assert evaluate(result.output_dir, given) == pytest.approx(result.metrics)
    assert evaluate(result, path, split="validation") != pytest.approx(result.metrics)
    assert set(evaluate(result, path, settings={"top_k": [5]})) == {"ndcg@5", "hr@5", "mrr@5"}
    tuned = train(FRAME, tmp_path / "tuned", from_model=str(result.output_dir), verbose=False)
    assert tuned.model.config.model_type == "sasrec" and set(tuned.evaluations) > {"before"}
    capsys.readouterr()
    found = Recommender.from_pretrained(result.output_dir).recommend_frame(FRAME.rename(NAMES), top_k=1)
    assert len(found) == 120 and capsys.readouterr().out == ""


def test_a_recipe_by_name(tmp_path):
    result = train(recipe="demo", settings={"num_train_epochs": 1, "hidden_size": 16}, verbose=False)
    assert result.metrics["ndcg@10"] > 0 and "name: demo" in (result.output_dir / "recipe.yaml").read_text()


def test_bad_input_of_train_and_evaluate(folder, recommender, tmp_path):
    quiet = {"verbose": False}
    with pytest.raises(RecipeError, match="no recipe key 'epoch'; did you mean 'epochs'"):
        train(FRAME, settings={"epoch": 3}, **quiet)
    with pytest.raises(RecipeError, match="no option 'user' for reading interactions; did you mean 'user_column'"):
        train(FRAME, user="visitor", **quiet)
    with pytest.raises(RecipeError, match="numbers, texts, switches"):
        train(FRAME, settings={"hidden_size": object()}, **quiet)
    with pytest.raises(DataError, match="give one of the two"):
        train(FRAME, train_data="train.csv", test_data="test.csv", **quiet)
    with pytest.raises(DataError, match=r"needs interactions: .* \(in Python, --data is the argument interactions\)"):
        train(**quiet)
    with pytest.raises(RecipeError, match=r"--from MODEL too \(in Python, --from is the argument from_model\)"):
        train(FRAME, items="add", **quiet)
    with pytest.raises(DataError, match="cannot be read from a int"):
        train(5, **quiet)
    with pytest.raises(DataError, match="column of titles"):
        train(FRAME, titles=pl.DataFrame({"item_id": list(TITLES)}), **quiet)
    with pytest.raises(ModelFolderError, match="already holds a model"):
        train(FRAME, folder, **quiet)
    with pytest.raises(RecipeError, match="split must be test or validation"):
        evaluate(folder, FRAME, split="train")
    with pytest.raises(ModelFolderError, match="folder of a model"):
        evaluate(Recommender(recommender.model, recommender.processor), FRAME)
    with pytest.raises(RecipeError, match="trained with data"):
        evaluate(folder, FRAME, split="test", min_item_interactions=9)


def test_a_list_of_files_is_one_table(tmp_path):
    files = renamed("list of paths", tmp_path)
    options = {"settings": {**SMALL, "num_train_epochs": 1}, "seed": 5, "verbose": False}
    first, second = train(files, **COLUMNS, **options), train(FRAME, **options)
    assert same(weights(first.output_dir), weights(second.output_dir))


def test_a_list_of_files_must_be_of_one_kind(tmp_path, recommender):
    FRAME.write_csv(tmp_path / "a.csv")
    FRAME.write_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"one kind, but these are of several: \.csv, \.parquet"):
        recommender.recommend_frame([tmp_path / "a.csv", tmp_path / "b.parquet"])
    with pytest.raises(DataError, match=r"no file 'nowhere\.csv'"):
        recommender.recommend_frame(["nowhere.csv"])
    with pytest.raises(DataError, match="list of paths"):
        recommender.recommend_frame([1, 2])


def test_k_is_still_taken_with_a_warning(recommender):
    with StreamingRecommender(recommender.model, recommender.processor) as streaming:
        streaming.observe("anna", "saga-01-volume-1")
        expected = streaming.recommend("anna", top_k=3)
        with pytest.warns(FutureWarning, match="k is called top_k"):
            assert streaming.recommend("anna", k=3) == expected
        with pytest.warns(FutureWarning, match="k is called top_k"):
            assert streaming.recommend_many(["anna"], k=3) == [expected]
        assert streaming.recommend("anna", 3) == expected
        queries = np.zeros((1, 16), np.float32)
        with pytest.warns(FutureWarning, match="k is called top_k"):
            assert streaming.index.top_k(queries, k=2)[0].shape == (1, 2)


def test_nothing_is_printed_on_loading(folder, capfd):
    Recommender.from_pretrained(folder)
    StreamingRecommender.from_pretrained(folder).close()
    assert capfd.readouterr() == ("", "")


def test_the_package_under_both_names():
    import glintru

    assert glintru.Recommender is modeling_glintru.Recommender is Recommender and glintru.train is train
    assert glintru.__version__ == modeling_glintru.__version__ and "Recommender" in dir(glintru)
    with pytest.raises(AttributeError):
        _ = glintru.no_such_name
