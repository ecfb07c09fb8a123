"""`glintru train --from MODEL`: the same shop later, new items, another shop."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import polars as pl
import pytest
from safetensors.torch import load_file

from modeling_glintru import GlintRUProcessor
from modeling_glintru.data import synthetic_interactions
from modeling_glintru.models.configuration_glintru import write_manifest
from modeling_glintru.models.loading import load_model_folder
from modeling_glintru.recipe import load_recipe
from modeling_glintru.training.start import weights_checksum

from .test_bad_input import refused

QUIET = ("--quiet", "--set", "evaluation.reference_models=[]", "--set", "num_bootstrap=20")
AT_ONCE = ("--max_minutes", "1e-9")


@pytest.fixture(scope="module")
def later(tmp_path_factory):
    """A later month of the demo shop, with 20 items that the demo model does not know."""
    frame = synthetic_interactions(num_users=80, num_items=240, seed=9).frame
    new = frame["item_id"].unique().sort()[::12]
    file = tmp_path_factory.mktemp("later") / "later.csv"
    renamed = pl.when(pl.col("item_id").is_in(new.implode())).then("new-" + pl.col("item_id")).otherwise("item_id")
    frame.with_columns(renamed.alias("item_id")).write_csv(file)
    return file


def run(glintru, *words):
    result = glintru("train", *words, *QUIET)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def tuned(demo, later, glintru, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned") / "out"
    return folder, run(glintru, "--from", demo[0], "--data", later, "--output_dir", folder)


def test_the_vocabulary_has_grown(demo, tuned):
    folder, printed = tuned
    assert "New       20 items that the model did not know" in printed
    old, now = (GlintRUProcessor.from_pretrained(name).item_ids for name in (demo[0], folder))
    assert now[: len(old)] == old and len(now) == len(old) + 20 and now[-1].startswith("new-")


def test_the_settings_are_gentler_ones_of_the_model(demo, tuned):
    before, now = load_recipe(demo[0] / "recipe.yaml"), load_recipe(tuned[0] / "recipe.yaml")
    assert now.training.learning_rate < before.training.learning_rate
    assert (now.training.num_train_epochs, now.training.warmup_steps) == (1, 0)
    assert now.training.max_length == before.training.max_length and now.name == "demo-tuned"
    assert now.model["hidden_size"] == before.model["hidden_size"]


def test_the_recipe_says_what_it_started_from(demo, tuned):
    start = load_recipe(tuned[0] / "recipe.yaml").fine_tuning
    assert (start.from_model, start.items) == ("demo", "add")  # the name of the folder alone
    assert start.from_weights == weights_checksum(load_model_folder(demo[0])[0])
    for file in tuned[0].iterdir():
        assert str(demo[0].parent).encode() not in file.read_bytes(), file.name


def test_the_model_as_it_was_stands_beside_it(tuned):
    metrics = json.loads((tuned[0] / "metrics.json").read_text())
    assert 0 < metrics["before"]["test"]["ndcg@10"]["value"] < metrics["test"]["ndcg@10"]["value"]
    assert "\nbefore " in tuned[1] and "Fine-tuning brought validation ndcg@10 from" in tuned[1]


def test_its_recipe_runs_again(demo, later, tuned, glintru, tmp_path, monkeypatch):
    again = tmp_path / "again"
    words = ("--recipe", tuned[0] / "recipe.yaml", "--data", later, "--output_dir", again)
    refused(glintru("train", *words), "no model folder demo", "--from")
    run(glintru, *words, "--from", demo[0])
    assert (again / "model.safetensors").read_bytes() == (tuned[0] / "model.safetensors").read_bytes()
    monkeypatch.chdir(demo[0].parent)  # where the name alone is enough
    run(glintru, *words, "--overwrite")
    refused(glintru("train", *words, "--overwrite", "--from", tuned[0]), "starts from weights", "from_weights=null")


def test_it_goes_on_after_a_stop(demo, later, tuned, glintru, tmp_path):
    words = ("--from", demo[0], "--data", later, "--output_dir", tmp_path / "out")
    run(glintru, *words, *AT_ONCE)
    refused(glintru("train", *words, *QUIET, "--resume", "--set", "items=known"), "fine_tuning.items (known, was add)")
    run(glintru, *words, "--resume")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (tuned[0] / "model.safetensors").read_bytes()


def test_a_refit_starts_from_the_same_model(demo, later, glintru, tmp_path):
    """With steps that change nothing, the weights of the known items are still those of the start."""
    words = ("--from", demo[0], "--data", later, "--set", "learning_rate=1e-12", "--output_dir", tmp_path / "out")
    assert "were then trained once more on everything" in run(glintru, *words, "--refit").replace("\n", " ")
    old, now = (load_file(folder / "model.safetensors") for folder in (demo[0], tmp_path / "out"))
    for name, tensor in old.items():
        assert now[name][: len(tensor)].allclose(tensor, rtol=0, atol=1e-6), name
    processor = GlintRUProcessor.from_pretrained(tmp_path / "out")
    assert processor.item_counts.sum() == pl.read_csv(later).height and processor.item_counts[-20:].all()


def test_a_refit_is_asked_for_each_time(demo, later, glintru, tmp_path):
    """It costs a training more; and figures on what the start was refitted on would be too good, which is said."""
    base = tmp_path / "base"
    shutil.copytree(demo[0], base)
    before = load_recipe(base / "recipe.yaml")
    replace(before, training=replace(before.training, refit=True)).save(base / "recipe.yaml")
    write_manifest(base)
    printed = run(glintru, "--from", base, "--data", later, "--output_dir", tmp_path / "out")
    assert not load_recipe(tmp_path / "out" / "recipe.yaml").training.refit
    assert "base was trained on everything that its data held" in printed


def test_stopped_in_place(tuned, later, glintru, tmp_path):
    """The model that it started from is gone, so that there is nothing to go on from."""
    folder = tmp_path / "shop"
    shutil.copytree(tuned[0], folder)
    printed = run(glintru, "--from", folder, "--data", later, "--output_dir", folder, "--overwrite", *AT_ONCE)
    assert "Stopped   by --max_minutes" in printed and "--resume" not in printed
    assert not (folder / "checkpoints").exists() and load_model_folder(folder)


def test_in_place_month_after_month(tuned, later, glintru, tmp_path):
    folder = tmp_path / "shop"
    shutil.copytree(tuned[0], folder)
    run(glintru, "--from", folder, "--data", later, "--output_dir", folder, "--overwrite")
    before, now = load_recipe(tuned[0] / "recipe.yaml"), load_recipe(folder / "recipe.yaml")
    assert now.training == before.training and now.name == "demo-tuned"  # no gentler every time
    assert now.fine_tuning.from_weights != before.fine_tuning.from_weights


def test_known_items_only(demo, later, glintru, tmp_path):
    run(glintru, "--from", demo[0], "--items", "known", "--data", later, "--output_dir", tmp_path / "out")
    old, now = (GlintRUProcessor.from_pretrained(name).item_ids for name in (demo[0], tmp_path / "out"))
    assert now == old


@pytest.fixture(scope="module")
def other_shop(tmp_path_factory):
    frame = synthetic_interactions(num_users=60, num_items=40, seed=3).frame
    file = tmp_path_factory.mktemp("other") / "log.csv"
    frame.select(
        pl.col("user_id").alias("shopper"), ("sku/" + pl.col("item_id")).alias("sku"), pl.col("timestamp").alias("time")
    ).write_csv(file)
    return file


def test_another_shop_needs_a_word(demo, other_shop, glintru, tmp_path):
    words = ("train", "--from", demo[0], "--data", other_shop, "--user_column", "shopper", "--output_dir")
    refused(glintru(*words, tmp_path / "out"), "knows none of the items", "--items new")
    assert not (tmp_path / "out").exists()


def test_another_shop(demo, other_shop, glintru, tmp_path):
    """After training for no time to speak of, the block is still the demo model's, and the embeddings are new."""
    out = tmp_path / "out"
    words = ("--from", demo[0], "--items", "new", "--data", other_shop, "--user_column", "shopper")
    run(glintru, *words, "--output_dir", out, "--set", "learning_rate=1e-12", "--set", "num_train_epochs=1")
    old, now = (load_file(folder / "model.safetensors") for folder in (demo[0], out))
    assert now["model.embed_items.weight"].shape[0] == 41
    for name in old.keys() - {"model.embed_items.weight"}:
        assert old[name].allclose(now[name], rtol=0, atol=1e-6), name
    assert all(raw.startswith("sku/") for raw in GlintRUProcessor.from_pretrained(out).item_ids)
    assert "before" not in json.loads((out / "metrics.json").read_text())


@pytest.mark.parametrize("by_recipe", [False, True])
def test_a_model_that_began_with_co_occurrence(demo, later, glintru, tmp_path, by_recipe):
    base = tmp_path / "base"
    shutil.copytree(demo[0], base)
    before = load_recipe(base / "recipe.yaml")
    training = replace(before.training, cooccurrence_start=0.5, cooccurrence_smoothing=0.5)
    replace(before, training=training).save(base / "recipe.yaml")
    write_manifest(base)
    words = ["--recipe", base / "recipe.yaml"] if by_recipe else []
    run(glintru, "--from", base, *words, "--data", later, "--output_dir", tmp_path / "out")
    tuned = load_recipe(tmp_path / "out" / "recipe.yaml").training
    assert tuned.cooccurrence_start == tuned.cooccurrence_smoothing == 0
    words += ["--set", "cooccurrence_start=0.5", "--data", later, "--output_dir", tmp_path / "other"]
    refused(glintru("train", "--from", base, *words), "cooccurrence_start is for new weights")


def test_a_model_without_recipe(demo, later, glintru, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(demo[0], base)
    (base / "recipe.yaml").unlink()
    printed = run(glintru, "--from", base, "--data", later, "--output_dir", tmp_path / "out")
    recipe = load_recipe(tmp_path / "out" / "recipe.yaml")
    assert recipe.model["hidden_size"] == 32 and recipe.fine_tuning.from_model == "base"
    assert f"learning rate {recipe.training.learning_rate:g}" in " ".join(printed.split())


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (("--items", "known"), ["--items", "--from MODEL"]),
        (("--from", "nowhere"), ["there is no model folder nowhere"]),
        (("--from", "DEMO", "--items", "some"), ["add, known, new", "'some'"]),
        (("--from", "DEMO", "--set", "hidden_size=64"), ["model.hidden_size is 32", "64"]),
        (("--from", "DEMO", "--model", "sasrec"), ["model.name is 'glintru'", "sasrec"]),
        (("--from", "DEMO", "--set", "new_vectors=zeros"), ["neighbours, mean"]),
        (("--from", "DEMO", "--set", "lora_rank=-1"), ["lora_rank must be at least 0"]),
        (("--from", "DEMO", "--recipe", "ml-1m"), ["fine-tuning keeps"]),
    ],
)
def test_what_is_refused(demo, later, glintru, tmp_path, words, messages):
    words = [demo[0] if word == "DEMO" else word for word in words]
    refused(glintru("train", *words, "--data", later, "--output_dir", tmp_path / "out"), *messages)
    assert not (tmp_path / "out").exists()


def test_data_has_to_be_given(demo, glintru, tmp_path):
    refused(glintru("train", "--from", demo[0], "--output_dir", tmp_path / "out"), "--data FILE")


def test_prepared_data(demo, later, tuned, glintru, tmp_path):
    """With the model's own items it may be used; other items would be other indices."""
    prepared = tmp_path / "prepared"
    assert glintru("prepare", "--recipe", "demo", "--data", later, "--output_dir", prepared).exit_code == 0
    words = ("train", "--from", demo[0], "--data", prepared, "--output_dir", tmp_path / "out")
    refused(glintru(*words), "prepared with other items than the model's")
    assert glintru("prepare", "--recipe", "demo", "--output_dir", tmp_path / "own").exit_code == 0
    run(glintru, "--from", demo[0], "--data", tmp_path / "own", "--output_dir", tmp_path / "out")
