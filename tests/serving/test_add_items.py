"""Items that nobody has taken yet, by their features: in Python, by the command, and where the package is not."""

from __future__ import annotations

import json
import shutil

import numpy as np
import polars as pl
import pytest
import torch

from modeling_glintru import GlintRUError, Recommender
from modeling_glintru.data import ItemEncoder, synthetic_interactions
from modeling_glintru.errors import DataError
from modeling_glintru.hub import plan_push
from modeling_glintru.models.item_projection import ItemProjection
from modeling_glintru.models.loading import load_model_folder
from modeling_glintru.models.processing_glintru import VocabularyError
from modeling_glintru.serving import StreamingRecommender

from ..cli.conftest import glintru  # noqa: F401 (a fixture)
from ..cli.test_bad_input import refused
from ..hub.conftest import python  # noqa: F401 (a fixture)

pytest.importorskip("sklearn")
HISTORY = ["saga-03-volume-2", "saga-03-volume-3"]
QUICK = {"num_train_epochs": 3, "evaluation.reference_models": [], "evaluation.num_bootstrap": 10, "loss": "bpr"}


def catalogue(ids) -> pl.DataFrame:
    """What is known of books: their saga and volume are in their titles."""
    words = [item.replace("-", " ").replace("saga ", "saga_") for item in ids]
    return pl.DataFrame({"item_id": ids, "title": words, "pages": [100 + len(word) for word in words]})


@pytest.fixture(scope="module")
def books() -> pl.DataFrame:
    return synthetic_interactions(num_users=150, num_items=80).frame


@pytest.fixture(scope="module")
def folder(books, tmp_path_factory):
    """A model that has never seen volume 4 of saga 3."""
    without = books.filter(pl.col("item_id") != "saga-03-volume-4")
    items = catalogue(sorted(without["item_id"].unique()))
    output = tmp_path_factory.mktemp("books") / "model"
    settings = {"num_train_epochs": 3, "evaluation.reference_models": [], "evaluation.num_bootstrap": 10}
    Recommender.fit(without, items=items, output_dir=output, settings=settings, seed=0, verbose=False)
    return output


@pytest.fixture
def new() -> pl.DataFrame:
    frame = catalogue(["saga-03-volume-4", "saga-03-volume-3"])
    strange = pl.DataFrame({"item_id": ["strange"], "title": ["zzz qqq"], "pages": [None]}, schema=frame.schema)
    return pl.concat([frame, strange])


def test_a_folder_with_features_is_a_plain_model(folder):
    names = {entry.name for entry in folder.iterdir()}
    assert {"item_projection.safetensors", "item_encoder.json", "item_encoder.safetensors"} <= names
    model, processor = load_model_folder(folder)
    assert not [name for name in model.state_dict() if "parametrizations" in name or "projection" in name]
    assert processor.title("saga-03-volume-3") == "saga_03 volume 3"
    described = json.loads((folder / "manifest.json").read_text())["files"]
    assert {"item_projection.safetensors", "item_encoder.json", "item_encoder.safetensors"} <= set(described)


@pytest.mark.parametrize("boost", [0.0, 0.15])
def test_new_items_are_rows_and_old_scores_stay(folder, new, boost):
    recommender, before = Recommender.from_pretrained(folder), Recommender.from_pretrained(folder)
    number = len(before.processor)
    added = recommender.add_items(new, boost=boost)
    assert (added.num_new, added.num_with_features, added.num_known) == (2, 1, 1)
    vectors, _ = ItemEncoder.load(folder).encode(new.filter(pl.col("item_id") == "saga-03-volume-4"))
    row = ItemProjection.load(folder).rows(torch.from_numpy(vectors), boost)[0]
    index = recommender.processor.index_of("saga-03-volume-4")
    table = recommender.model.get_input_embeddings().weight
    torch.testing.assert_close(table[index], row)
    assert torch.equal(table[: number + 1], before.model.get_input_embeddings().weight)
    assert recommender.processor.title("saga-03-volume-4") == "saga_03 volume 4"
    ids = before.processor([HISTORY])["input_ids"]
    old, now = before.model(ids), recommender.model(ids)
    assert torch.equal(old.last_hidden_state, now.last_hidden_state)
    torch.testing.assert_close(now.logits[:, : number + 1], old.logits, rtol=1e-6, atol=0)
    assert recommender.add_items(new).num_new == 0


def test_more_boost_recommends_more_new_items(folder, new, books):
    """Scores of new items rise on average; those of known items stay."""
    histories = books.group_by("user_id", maintain_order=True).agg("item_id")["item_id"].to_list()
    means = []
    for boost in (0.0, 0.2, 0.8):
        recommender = Recommender.from_pretrained(folder)
        recommender.add_items(new, boost=boost)
        ids = recommender.processor(histories)["input_ids"]
        means.append(recommender.model(ids).logits[:, recommender.processor.index_of("saga-03-volume-4")].mean().item())
    assert means[0] < means[1] < means[2]
    with pytest.raises(GlintRUError, match="boost must be between 0 and 1, got -1"):
        Recommender.from_pretrained(folder).add_items(new, boost=-1)


def test_an_item_without_features_is_the_mean(folder):
    recommender = Recommender.from_pretrained(folder)
    table = recommender.model.get_input_embeddings().weight.detach().clone()
    added = recommender.add_items(pl.DataFrame({"item_id": ["nothing"], "title": ["zzz qqq"]}))
    assert (added.num_new, added.num_with_features) == (1, 0)
    torch.testing.assert_close(recommender.model.get_input_embeddings().weight[-1], table[1:].mean(0))


def test_the_new_volume_follows_the_one_before_it(folder, new):
    """Among all items; the model has never seen it, only that volumes follow each other in other sagas."""
    recommender = Recommender.from_pretrained(folder)
    recommender.add_items(new)
    allowed = ["saga-03-volume-4", "strange"]
    first = recommender.recommend([HISTORY], 2, allowed=allowed)[0].items[0]
    assert first["item_id"] == "saga-03-volume-4"
    nearest = recommender.similar_items(["saga-03-volume-4"], 5)[0]
    assert any(item["item_id"].startswith("saga-03") for item in nearest)


def test_states_stay_valid(folder, new, tmp_path):
    model, processor = load_model_folder(folder)
    with StreamingRecommender(model, processor, tmp_path / "users.db") as old:
        old.observe_many([("anna", item) for item in HISTORY])
    recommender = Recommender.from_pretrained(folder)
    recommender.add_items(new)
    with StreamingRecommender(recommender.model, recommender.processor, tmp_path / "users.db") as grown:
        assert grown.observe("anna", "saga-03-volume-4").known
        found = [item["item_id"] for item in grown.recommend("anna").items]
    whole = recommender.recommend([[*HISTORY, "saga-03-volume-4"]])[0].items
    assert found == [item["item_id"] for item in whole]


def test_by_command_in_place_and_elsewhere(folder, new, glintru, tmp_path):  # noqa: F811
    new.write_parquet(tmp_path / "new.parquet")
    here = tmp_path / "here"
    shutil.copytree(folder, here)
    (here / "notes.txt").write_text("mine")
    result = glintru("add-items", here, "--items", tmp_path / "new.parquet")
    assert result.exit_code == 0, result.output
    assert "2 items were added" in " ".join(result.stdout.split())
    assert (here / "notes.txt").read_text() == "mine"
    elsewhere = tmp_path / "elsewhere"
    result = glintru("add-items", folder, "--items", tmp_path / "new.parquet", "--output_dir", elsewhere)
    assert result.exit_code == 0, result.output
    expected = Recommender.from_pretrained(folder)
    expected.add_items(new)
    for place in (here, elsewhere):
        found = Recommender.from_pretrained(place)
        assert found.processor.item_ids == expected.processor.item_ids
        assert found.recommend([HISTORY]) == expected.recommend([HISTORY])
        assert found.add_items(pl.concat([new, catalogue(["saga-99-volume-1"])])).num_new == 1  # and once more
        assert (place / "recipe.yaml").is_file() and (place / "metrics.json").is_file()
    refused(glintru("add-items", folder, "--items", tmp_path / "new.parquet", "--output_dir", here), "notes.txt")
    refused(glintru("add-items", "ann/shop", "--items", tmp_path / "new.parquet"), "--output_dir")


def test_a_push_takes_what_adds_items(folder):
    paths = {file.path for file in plan_push(folder, "me/books").files}
    assert {"item_projection.safetensors", "item_encoder.json", "item_encoder.safetensors"} <= paths


def test_without_the_package_the_new_item_is_recommended(folder, new, tmp_path, python):  # noqa: F811
    recommender = Recommender.from_pretrained(folder)
    recommender.add_items(new)
    recommender.save_pretrained(tmp_path / "grown")
    code = f"""
from transformers import AutoModel, AutoProcessor
model = AutoModel.from_pretrained({str(tmp_path / "grown")!r}, trust_remote_code=True)
processor = AutoProcessor.from_pretrained({str(tmp_path / "grown")!r}, trust_remote_code=True)
scores = model(**processor([{HISTORY!r}])).logits[0]
print(processor.index_of("saga-03-volume-4"), scores[processor.index_of("saga-03-volume-4")].item())
"""
    index, score = python(code).split()[-2:]
    ids = recommender.processor([HISTORY])["input_ids"]
    expected = recommender.model(ids).logits[0, int(index)].item()
    assert float(score) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        (pl.DataFrame({"item_id": ["a"], "colour": ["red"]}), DataError, "title"),
        (
            pl.DataFrame({"item_id": [1, 2], "title": ["a", "b"]}),
            (DataError, VocabularyError),
            "are strings, but got 1",
        ),
        (pl.DataFrame({"title": ["a"]}), DataError, "item"),
        ("nowhere.parquet", DataError, "nowhere.parquet"),
    ],
)
def test_tables_that_do_not_fit(folder, table, error, message):
    recommender = Recommender.from_pretrained(folder)
    number = len(recommender.processor)
    with pytest.raises(error, match=message):
        recommender.add_items(table)
    assert len(recommender.processor) == number == recommender.model.config.vocab_size - 1


def test_a_model_without_features(books, new, tmp_path):
    plain = Recommender.fit(
        books, output_dir=tmp_path / "plain", settings={**QUICK, "num_train_epochs": 1}, verbose=False
    )
    with pytest.raises(GlintRUError, match=r"trained without features of items.*--items TABLE"):
        plain.add_items(new)


def test_a_sampled_loss_trains_with_features(books, tmp_path):
    """Its optimizer moves single rows where there are no features; with them every row moves."""
    items = catalogue(sorted(books["item_id"].unique()))
    found = Recommender.fit(books, items=items, output_dir=tmp_path / "bpr", settings=QUICK, verbose=False)
    assert np.isfinite(found.metrics["ndcg@10"])
