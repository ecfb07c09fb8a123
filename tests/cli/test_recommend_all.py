"""`glintru recommend --all`."""

from __future__ import annotations

import json

import polars as pl
import pytest

from modeling_glintru.data import synthetic_interactions


def test_all_users_of_a_table(demo, glintru, tmp_path):
    folder, _ = demo
    file = tmp_path / "all.jsonl"
    frame = synthetic_interactions().frame
    stranger = pl.DataFrame({"user_id": ["zz"], "item_id": ["nobody-knows"], "timestamp": [frame["timestamp"].max()]})
    pl.concat([frame, stranger.cast(frame.schema)]).write_parquet(tmp_path / "log.parquet")
    words = ("recommend", folder, "--data", tmp_path / "log.parquet", "--all", "--top_k", 5)
    result = glintru(*words, "--output", file)
    assert result.exit_code == 0, result.output
    assert f"written to {file}" in " ".join(result.stdout.split()) and "Recommending" in result.stderr
    assert "1 of" in result.stdout
    assert "Users without an item that the model knows: 1; they got the most popular items" in result.stdout
    found = [json.loads(line) for line in file.read_text().splitlines()]
    single = glintru("recommend", folder, "--users", "demo", "--top_k", 5, "--json").stdout.splitlines()
    assert len(found) == len(single) + 1
    assert [one["cold_start"] for one in found] == [False] * len(single) + [True]
    for one, line in zip(found, single, strict=False):
        other = json.loads(line)
        assert one["user_id"] == other["user_id"]
        assert [item["title"] for item in one["recommendations"]] == [x["title"] for x in other["recommendations"]]
    for suffix, read in ((".parquet", pl.read_parquet), (".csv", pl.read_csv)):
        output = tmp_path / f"all{suffix}"
        assert glintru(*words, "--output", output, "--quiet", "--include_seen").exit_code == 0
        table = read(output)
        assert table.columns == ["user_id", "rank", "item_id", "title", "score", "cold_start"]
        assert table.filter("cold_start")["user_id"].unique().to_list() == ["zz"]
        assert table["user_id"].n_unique() == len(found) and table.height == 5 * len(found)


def test_an_old_file_stays_without_overwrite(demo, glintru, tmp_path):
    file = tmp_path / "out.csv"
    file.write_text("old")
    words = ("recommend", demo[0], "--all", "--data", "demo", "--output", file, "--quiet")
    refused = glintru(*words)
    assert refused.exit_code == 2 and "--overwrite" in refused.stderr and file.read_text() == "old"
    failed = glintru(*words, "--overwrite", "--top_k", 0)
    assert failed.exit_code == 2 and "top_k" in failed.stderr and file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]
    assert glintru(*words, "--overwrite").exit_code == 0 and file.read_text() != "old"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--all",), "--all needs --data FILE and --output FILE"),
        (("--all", "--data", "demo"), "--all needs --data FILE and --output FILE"),
        (("--all", "--interactive"), "say for whom"),
        (("--all", "--history", "a"), "say for whom"),
        (("--history", "a", "--output", "x.csv"), "belong to --all"),
        (("--all", "--data", "demo", "--output", "x.txt"), "must end in .parquet, .csv, .jsonl"),
        (("--all", "--data", "demo", "--output", "x.csv", "--json"), "end in .jsonl"),
        (("--all", "--data", "nowhere.csv", "--output", "x.csv"), "nowhere.csv"),
        (("--interactive", "--top_k", "0"), "top_k must be between 1"),
        (("--interactive", "--json"), "--json is for"),
    ],
)
def test_bad_input(demo, glintru, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = glintru("recommend", demo[0], *words)
    assert result.exit_code == 2
    assert message in result.stderr and result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
