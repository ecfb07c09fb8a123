"""Bad input: one line that says what to do, exit code 2, nothing half-written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from safetensors.torch import load_file, save_file

from modeling_glintru import GlintRUForSequentialRecommendation, GlintRUProcessor
from modeling_glintru.data import synthetic_interactions


def refused(result, *messages) -> str:
    """The one line on standard error, after checking its form and that it holds the messages."""
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("glintru: ") and result.stderr.count("\n") == 1, result.stderr
    assert "Traceback" not in result.output
    for message in messages:
        assert message in result.stderr, result.stderr
    return result.stderr


def frame(**changes) -> pl.DataFrame:
    """Three users with four items each."""
    table = {
        "user_id": [u for u in ("a", "b", "c") for _ in range(4)],
        "item_id": ["w", "x", "y", "z"] * 3,
        "timestamp": [float(t) for t in range(12)],
    }
    return pl.DataFrame(table | changes, strict=False)


TABLES = {
    "missing column": (frame().rename({"item_id": "thing"}), ["thing", "--item_column"]),
    "nulls": (frame(item_id=["w", None, "y", "z"] * 3), ["item_id", "3"]),
    "NaN times": (frame(timestamp=[float("nan")] + [1.0] * 11), ["timestamp"]),
    "infinite times": (frame(timestamp=[float("inf")] + [1.0] * 11), ["timestamp"]),
    "a single user": (frame(user_id=["a"] * 12), ["single user", "--user_column"]),
    "a single item": (frame(item_id=["w"] * 12), ["single item", "--item_column"]),
    "short histories": (frame().group_by("user_id", maintain_order=True).head(2), ["three"]),
    "no rows": (frame().head(0), ["empty"]),
}


@pytest.mark.parametrize("case", TABLES)
@pytest.mark.parametrize("command", ["train", "prepare"])
def test_tables(glintru, tmp_path, case, command):
    table, messages = TABLES[case]
    table.write_parquet(tmp_path / "log.parquet")
    out = tmp_path / "out"
    refused(glintru(command, "--recipe", "ml-100k", "--data", tmp_path / "log.parquet", "--output_dir", out), *messages)
    assert [file.name for file in tmp_path.iterdir()] == ["log.parquet"]


def test_mixed_id_types(glintru, tmp_path):
    rows = [{"user_id": "a", "item_id": 1, "timestamp": 1}, {"user_id": "a", "item_id": "x", "timestamp": 2}]
    (tmp_path / "log.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    words = ("train", "--recipe", "ml-100k", "--data", tmp_path / "log.jsonl", "--output_dir", tmp_path / "out")
    refused(glintru(*words), "item_id")


@pytest.mark.parametrize(
    ("name", "content", "messages"),
    [
        ("missing.csv", None, ["missing.csv"]),
        ("empty.csv", "", ["empty"]),
        ("log.xlsx", "x", [".xlsx"]),
        ("broken.parquet", "not parquet", ["broken.parquet"]),
    ],
)
def test_files(glintru, tmp_path, name, content, messages):
    if content is not None:
        (tmp_path / name).write_text(content)
    refused(
        glintru("train", "--recipe", "ml-100k", "--data", tmp_path / name, "--output_dir", tmp_path / "out"), *messages
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (("--recipe", "ml100k"), ["'ml-100k'"]),
        (("--recipe", "nowhere/own.yaml"), ["nowhere/own.yaml"]),
        ((), ["--data FILE", "--recipe", "demo", "ml-1m"]),
        (("--data", "missing.csv"), ["no file 'missing.csv'"]),
        (("--data", "demo", "--set", "hiden_size=64"), ["hiden_size", "'hidden_size'"]),
        (("--data", "demo", "--set", "split=random"), ["leave_one_out"]),
        (("--data", "demo", "--model", "sasrek"), ["'sasrec'"]),
        (("--recipe", "ml-1m"), ["--data FILE"]),
        (("--recipe", "demo", "--set", "learning_rat=1"), ["learning_rat", "'learning_rate'"]),
        (("--recipe", "demo", "--set", "learning_rate"), ["key=value"]),
        (("--recipe", "demo", "--set", "learning_rate=fast"), ["learning_rate", "fast"]),
        (("--recipe", "demo", "--set", "learning_rate=-1"), ["above 0"]),
        (("--recipe", "demo", "--set", "hidden_size=33"), ["hidden_size must be a multiple", "33"]),
        (("--recipe", "demo", "--set", "hidden_dropout=1.5"), ["hidden_dropout must be at least 0 and below 1"]),
        (("--recipe", "demo", "--set", "loss=bce"), ["loss.name must be one of", "'bce'"]),
        (("--recipe", "demo", "--set", "metric=auc"), ["ndcg@K"]),
        (("--recipe", "demo", "--set", "split=random"), ["leave_one_out"]),
        (("--recipe", "demo", "--seed", "-1"), ["seed must be between 0 and"]),
        (("--recipe", "demo", "--item_titles", "missing.csv"), ["no file 'missing.csv'"]),
    ],
)
def test_recipes(glintru, tmp_path, words, messages):
    refused(glintru("train", *words, "--output_dir", tmp_path / "out"), *messages)
    assert not any(tmp_path.iterdir())


def snapshot(folder) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_another_model_is_not_overwritten_by_accident(demo, glintru, tmp_path):
    folder = shutil.copytree(demo[0], tmp_path / "mine")
    before = snapshot(folder)
    words = ("train", "--recipe", "demo", "--output_dir", folder, "--set", "num_train_epochs=1", "--quiet")
    refused(glintru(*words), "--overwrite")
    assert snapshot(folder) == before
    # With --overwrite it goes only when the run can start.
    refused(glintru(*words, "--overwrite", "--data", tmp_path / "missing.csv"))
    assert snapshot(folder) == before
    assert glintru(*words, "--overwrite").exit_code == 0
    assert snapshot(folder)["metrics.json"] != before["metrics.json"]


@pytest.mark.parametrize("command", ["train", "prepare"])
def test_other_files_are_never_deleted(glintru, tmp_path, command):
    (tmp_path / "thesis.txt").write_text("ten years of work")
    refused(glintru(command, "--recipe", "demo", "--output_dir", tmp_path, "--overwrite"), "choose another")
    assert snapshot(tmp_path) == {"thesis.txt": b"ten years of work"}


def test_an_output_folder_that_is_a_file(glintru, tmp_path):
    (tmp_path / "out").write_text("")
    refused(glintru("train", "--recipe", "demo", "--output_dir", tmp_path / "out"), "is a file")


def cut_weights(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def drop_tensor(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.0.mix_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def reshape_tensor(folder):
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mix_proj.weight"] = weights["model.layers.0.mix_proj.weight"][:3].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def cut_into_shards(folder):
    model = GlintRUForSequentialRecommendation.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="40KB")


def drop_shard(folder):
    cut_into_shards(folder)
    next(folder.glob("model-00001-of-*.safetensors")).unlink()


def drop_index(folder):
    cut_into_shards(folder)
    (folder / "model.safetensors.index.json").unlink()


def change_config(**values):
    def change(folder):
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return change


DAMAGES = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), ["no weights"]),
    "truncated weights": (cut_weights, ["model.safetensors", "damaged or cut short"]),
    "a missing tensor": (drop_tensor, ["missing keys", "mix_proj.weight"]),
    "a misshapen tensor": (reshape_tensor, ["mix_proj.weight"]),
    "no vocabulary": (lambda f: (f / "item_vocabulary.safetensors").unlink(), ["item_vocabulary.safetensors"]),
    "another vocabulary": (lambda f: GlintRUProcessor(["a", "b"]).save_pretrained(f), ["2 items", "240"]),
    "another model type": (change_config(model_type="bert", auto_map={}), ["'bert'", "glintru, ", "sasrec"]),
    "another model type with its code": (change_config(model_type="bert"), ["'bert'", "--trust_remote_code"]),
    "a wrong config": (change_config(hidden_dropout=3.0), ["hidden_dropout"]),
    "a broken config": (lambda f: (f / "config.json").write_text("{"), ["config.json", "damaged"]),
    "a config that is a list": (lambda f: (f / "config.json").write_text("[]"), ["config.json", "not a JSON object"]),
    "no config": (lambda f: (f / "config.json").unlink(), ["no config.json"]),
    "no processor": (lambda f: (f / "preprocessor_config.json").unlink(), ["preprocessor_config.json is missing"]),
    "a broken processor": (lambda f: (f / "preprocessor_config.json").write_text("{"), ["preprocessor_config.json"]),
    "a processor that is a list": (
        lambda f: (f / "preprocessor_config.json").write_text("[]"),
        ["preprocessor_config.json", "not a JSON object"],
    ),
    "a truncated vocabulary": (
        lambda f: (f / "item_vocabulary.safetensors").write_bytes(b"\x10\0\0"),
        ["item_vocabulary.safetensors", "damaged or cut short"],
    ),
    "a part of the weights is missing": (drop_shard, ["00001-of-"]),
    "parts without their index": (drop_index, ["no weights"]),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_model_folders(demo, glintru, tmp_path, case):
    folder = shutil.copytree(demo[0], tmp_path / "model")
    damage, messages = DAMAGES[case]
    damage(folder)
    (folder / "manifest.json").unlink()  # it would name the file before anything else is looked at
    for words in (("recommend", folder, "--history", "saga-01-volume-1"), ("evaluate", folder)):
        refused(glintru(*words), *messages)


def test_no_model_folder(glintru, tmp_path):
    refused(glintru("recommend", tmp_path / "nowhere", "--history", "a"), "there is no model folder")
    (tmp_path / "file").write_text("")
    refused(glintru("evaluate", tmp_path / "file"), "is a file")


def test_evaluation_on_items_that_the_model_does_not_know(demo, glintru, tmp_path):
    frame().write_csv(tmp_path / "other.csv")
    refused(glintru("evaluate", demo[0], "--data", tmp_path / "other.csv"), "knows none of the items")


def test_evaluation_of_integers_on_text(demo, glintru, tmp_path):
    folder = shutil.copytree(demo[0], tmp_path / "integers")
    GlintRUProcessor(list(range(1, 241))).save_pretrained(folder)
    refused(glintru("evaluate", folder), "text such as 'saga-", "the model's are integers")
    refused(glintru("recommend", folder, "--users", "demo"), "of this model are integers, but got 'saga-")
    words = ("--all", "--data", "demo", "--output", tmp_path / "x.csv")
    refused(glintru("recommend", folder, *words), "of this model are integers, but got 'saga-")


def test_evaluation_when_the_table_is_gone_or_the_recipe_is(demo, glintru, tmp_path):
    folder = shutil.copytree(demo[0], tmp_path / "model")
    (folder / "manifest.json").unlink()
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("source: demo", "source: moved-away.csv"))
    refused(glintru("evaluate", folder), "no file 'moved-away.csv'")
    recipe.write_text("data: [")
    refused(glintru("evaluate", folder), "YAML error", "recipe.yaml")
    recipe.unlink()
    refused(glintru("evaluate", folder), "no recipe.yaml")


def test_where_numbers_cannot_be_written_nothing_is_measured(demo, glintru, tmp_path):
    result = glintru("evaluate", demo[0], "--output", tmp_path / "no" / "numbers.json")
    refused(result, "there is no folder", "--output")
    assert result.stdout == "" and not any(tmp_path.iterdir())


def test_prepared_data_is_not_prepared_again(glintru, tmp_path):
    assert glintru("prepare", "--recipe", "demo", "--output_dir", tmp_path / "a").exit_code == 0
    words = ("prepare", "--recipe", "demo", "--data", tmp_path / "a", "--output_dir", tmp_path / "b")
    refused(glintru(*words), "prepared already", "--data")
    assert not (tmp_path / "b").exists()


def test_prepared_data_of_other_items(demo, glintru, tmp_path):
    frame().write_csv(tmp_path / "log.csv")
    words = ("prepare", "--recipe", "ml-100k", "--data", tmp_path / "log.csv", "--output_dir", tmp_path / "other")
    assert glintru(*words).exit_code == 0
    refused(glintru("evaluate", demo[0], "--data", tmp_path / "other"), "other items than the model's")


def test_the_script_and_the_traceback_on_request(tmp_path):
    script = Path(sys.executable).with_name("glintru")
    words = ["train", "--recipe", "nope", "--output_dir", str(tmp_path / "out")]
    plain = subprocess.run([script, *words], capture_output=True, text=True)
    assert (plain.returncode, plain.stdout) == (2, "")
    assert plain.stderr.startswith("glintru: There is no recipe named 'nope'") and plain.stderr.count("\n") == 1
    debug = subprocess.run([script, "--debug", *words], capture_output=True, text=True)
    assert debug.returncode != 0 and "Traceback" in debug.stderr and "RecipeError" in debug.stderr
    assert not any(tmp_path.iterdir())


def test_an_unreadable_user_table(demo, glintru, tmp_path):
    synthetic_interactions(num_users=5).frame.drop("timestamp").write_csv(tmp_path / "users.csv")
    refused(glintru("recommend", demo[0], "--users", tmp_path / "users.csv"), "--time_column")
