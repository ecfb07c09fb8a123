"""`glintru evaluate` and `glintru recommend` on a trained folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from modeling_glintru.data import synthetic_interactions
from modeling_glintru.models.loading import load_model_folder


def test_evaluate_gives_the_numbers_of_the_run(demo, glintru, tmp_path):
    folder, _ = demo
    metrics = json.loads((folder / "metrics.json").read_text())
    for split in ("test", "validation"):
        result = glintru("evaluate", folder, "--split", split, "--json", "--output", tmp_path / f"{split}.json")
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert found == json.loads((tmp_path / f"{split}.json").read_text())
        assert found[split] == metrics[split]
        assert found[f"{split}_with_history"] == metrics[f"{split}_with_history"]
    assert glintru("evaluate", folder, "--json").stdout == glintru("evaluate", folder, "--json").stdout


def test_evaluate_with_a_sampled_protocol_on_a_file(demo, glintru, tmp_path):
    folder, _ = demo
    file = tmp_path / "log.parquet"
    synthetic_interactions().frame.write_parquet(file)
    result = glintru("evaluate", folder, "--data", file, "--set", "protocols=[full, pop100]", "--quiet")
    assert result.exit_code == 0, result.output
    assert "pop100" in result.stdout and "popularity" in result.stdout


def test_a_history(demo, glintru):
    folder, _ = demo
    history = ["saga-01-volume-1", "saga-01-volume-2", "nobody-knows"]
    result = glintru("recommend", folder, "--history", ", ".join(history), "--top_k", 4)
    assert result.exit_code == 0, result.output
    assert "1 of 3 items are unknown" in result.stdout and "Saga 1, volume 3" in result.stdout
    as_json = json.loads(glintru("recommend", folder, "--history", ",".join(history), "--top_k", 4, "--json").stdout)
    assert as_json["history"] == history and as_json["num_unknown_items"] == 1
    model, processor = load_model_folder(folder)
    inputs = processor([history[:2]])
    logits = model(**inputs, exclude_item_ids=inputs["input_ids"]).logits
    assert as_json["recommendations"] == processor.decode_top_k(logits, 4)[0]
    assert not {item["item_id"] for item in as_json["recommendations"]} & set(history)
    seen = glintru("recommend", folder, "--history", history[0], "--top_k", 240, "--include_seen", "--json")
    assert history[0] in {item["item_id"] for item in json.loads(seen.stdout)["recommendations"]}


def test_users_of_a_table(demo, glintru, tmp_path):
    folder, _ = demo
    frame = synthetic_interactions().frame.sample(fraction=1.0, shuffle=True, seed=3)
    frame.write_csv(tmp_path / "log.csv")
    result = glintru("recommend", folder, "--users", tmp_path / "log.csv", "--top_k", 5, "--json")
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["user_id"] for row in rows] == sorted(frame["user_id"].unique())
    seen = dict(frame.group_by("user_id").agg("item_id").iter_rows())
    for row in rows:
        items = [item["item_id"] for item in row["recommendations"]]
        assert len(items) == 5 and not set(items) & set(seen[row["user_id"]])
    few = glintru("recommend", folder, "--users", "demo", "--user_ids", "user-0002,user-0007", "--json", "--top_k", 5)
    picked = [json.loads(line) for line in few.stdout.splitlines()]
    assert [row["user_id"] for row in picked] == ["user-0002", "user-0007"]
    among_all = next(row for row in rows if row["user_id"] == "user-0002")
    for one, other in zip(picked[0]["recommendations"], among_all["recommendations"], strict=True):
        assert one["item_id"] == other["item_id"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)


def test_a_reader_that_has_enough_is_no_error(demo):
    script = Path(sys.executable).with_name("glintru")
    words = [script, "recommend", demo[0], "--users", "demo", "--top_k", "200", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        first = process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert json.loads(first)["user_id"] == "user-0001"
    assert "glintru:" not in errors and "Traceback" not in errors


def test_integer_ids_stay_integers(glintru, tmp_path):
    integers = {name: pl.col(name).rank("dense").cast(pl.Int64) * 10 for name in ("user_id", "item_id")}
    synthetic_interactions(num_users=100).frame.with_columns(**integers).write_parquet(tmp_path / "log.parquet")
    folder = tmp_path / "out"
    options = ("--set", "num_train_epochs=1", "--quiet")
    done = glintru("train", "--recipe", "demo", "--data", tmp_path / "log.parquet", "--output_dir", folder, *options)
    assert done.exit_code == 0, done.output
    found = json.loads(glintru("recommend", folder, "--history", "10, 20", "--json").stdout)
    assert found["history"] == [10, 20]
    assert all(type(item["item_id"]) is int and item["item_id"] % 10 == 0 for item in found["recommendations"])
    users = glintru("recommend", folder, "--users", tmp_path / "log.parquet", "--user_ids", "30", "--json")
    assert json.loads(users.stdout)["user_id"] == 30
    wrong = glintru("recommend", folder, "--history", "ten")
    assert wrong.exit_code == 2 and "integers" in wrong.stderr


def test_ids_with_commas_are_quoted(demo, glintru):
    folder, _ = demo
    result = glintru("recommend", folder, "--history", '"a,b",saga-01-volume-1', "--json")
    assert json.loads(result.stdout)["history"] == ["a,b", "saga-01-volume-1"]
    spaced = glintru("recommend", folder, "--history", ' saga-01-volume-1 , "a,b",', "--json")
    assert json.loads(spaced.stdout)["history"] == ["saga-01-volume-1", "a,b"]


def test_users_with_commas_are_quoted(demo, glintru, tmp_path):
    table = pl.DataFrame({"user_id": ["Doe, J", "x"], "item_id": ["saga-01-volume-1"] * 2, "timestamp": [1, 2]})
    table.write_parquet(tmp_path / "log.parquet")
    words = ("--users", tmp_path / "log.parquet", "--user_ids", '"Doe, J"', "--json")
    result = glintru("recommend", demo[0], *words)
    assert json.loads(result.stdout)["user_id"] == "Doe, J"


def test_an_empty_history_is_a_new_user(demo, glintru):
    result = glintru("recommend", demo[0], "--history", "", "--json", "--top_k", 3)
    found = json.loads(result.stdout)
    assert found["history"] == [] and len(found["recommendations"]) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "either --history IDS or --users FILE"),
        (("--history", "a", "--users", "demo"), "either --history IDS or --users FILE"),
        (("--history", "a", "--user_ids", "x"), "--user_ids chooses among the users"),
        (("--users", "demo", "--user_ids", "nobody"), "no user nobody"),
        (("--users", "demo", "--user_ids", " ,"), "--user_ids names no user"),
        (("--history", '"saga-01-volume-1,b'), "--history must be one line of ids separated by commas"),
        (("--history", "a\nb\rc"), "--history must be one line of ids separated by commas"),
        (("--history", "a", "--top_k", "0"), "top_k must be between 1 and the number of items (240), got 0"),
        (("--history", "a", "--top_k", "241"), "top_k must be between 1"),
        (("--history", "nobody-knows", "--unknown_items", "error"), "nobody-knows"),
        (("--history", "a", "--unknown_items", "ignore"), "unknown_items"),
    ],
)
def test_what_cannot_be_recommended(demo, glintru, words, message):
    result = glintru("recommend", demo[0], *words)
    assert result.exit_code == 2
    assert message in result.stderr and result.stderr.count("\n") == 1


def test_the_recipe_decides_the_number_of_resamples(demo, glintru):
    few, many = (
        json.loads(glintru("evaluate", demo[0], "--json", *words).stdout)["test"]["ndcg@10"]
        for words in (("--set", "num_bootstrap=2"), ())
    )
    assert few["value"] == many["value"]
    assert few["high"] - few["low"] != many["high"] - many["low"]
