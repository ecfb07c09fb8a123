"""`glintru recommend`: filters from files, cold users, stray ids, seen items, devices."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from modeling_glintru import GlintRUError, GlintRUProcessor
from modeling_glintru.cli.item_files import parse_item_id

from ..model.helpers import small_model

ITEMS = [50, 172, 181, *range(300, 327)]
COUNTS = [1, 9, 0, 4] + [2] * 26
POPULAR = [172, 300, *range(301, 327), 50, 181]
HISTORY = "user_id,item_id,timestamp\n1,50,1\n1,172,2\n2,999999,1\n2,999998,3\n"
STRAY = "user_id,item_id,timestamp\n1,50,1\n1,172,2\n2,181,1\n3,abc,4\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recommend")
    small_model().save_pretrained(folder)
    GlintRUProcessor(ITEMS, item_counts=COUNTS).save_pretrained(folder)
    return folder


@pytest.fixture
def ask(folder, glintru):
    def ask(*words):
        result = glintru("recommend", folder, *words)
        assert result.exit_code == 0, result.output
        return result

    return ask


def ids(line):
    return [item["item_id"] for item in json.loads(line)["recommendations"]]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_cold_users_get_popular_items_and_are_marked(ask, tmp_path, suffix):
    (tmp_path / "history.csv").write_text(HISTORY)
    output = tmp_path / f"x{suffix}"
    result = ask("--all", "--data", tmp_path / "history.csv", "--output", output, "--top_k", 4)
    assert "2 of 4 interactions are with items that are unknown" in result.stdout
    assert "Users without an item that the model knows: 1; they got the most popular items" in result.stdout
    if suffix == ".jsonl":
        first, second = map(json.loads, output.read_text().splitlines())
        assert (first["cold_start"], second["cold_start"]) == (False, True)
        assert [item["item_id"] for item in second["recommendations"]] == POPULAR[:4]
        return
    rows = pl.read_csv(output) if suffix == ".csv" else pl.read_parquet(output)
    assert rows.columns == ["user_id", "rank", "item_id", "score", "cold_start"]
    cold = rows.filter("cold_start")
    assert cold["user_id"].to_list() == [2] * 4 and cold["item_id"].to_list() == POPULAR[:4]
    assert cold["score"].to_list() == [0.0] * 4 and cold["rank"].to_list() == [1, 2, 3, 4]
    assert rows.filter(pl.col("user_id") == 1)["score"].n_unique() == 4


def test_cold_users_are_told_so_in_a_line_and_in_json(ask, tmp_path):
    (tmp_path / "history.csv").write_text(HISTORY)
    line = "The model knows no item of this user, so these are the most popular items"
    for words in (("--users", tmp_path / "history.csv"), ("--history", "999999"), ("--history", "")):
        assert ask(*words).stdout.count(line) == 1
        last = ask(*words, "--json", "--top_k", 3).stdout.splitlines()[-1]
        assert json.loads(last)["cold_start"] is True and ids(last) == POPULAR[:3]
    known = ask("--history", "50", "--json").stdout
    assert json.loads(known)["cold_start"] is False and line not in ask("--history", "50").stdout


def test_a_text_among_integer_ids_is_only_unknown(ask, folder, glintru, tmp_path):
    (tmp_path / "log.csv").write_text(STRAY)
    lines = ask("--users", tmp_path / "log.csv", "--json").stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["num_unknown_items"] for row in rows] == [0, 0, 1]
    assert [row["cold_start"] for row in rows] == [False, False, True]
    assert ids(lines[0]) == ids(ask("--history", "50,172", "--json").stdout)
    assert "User 3: abc" in ask("--users", tmp_path / "log.csv").stdout
    ask("--all", "--data", tmp_path / "log.csv", "--output", tmp_path / "x.parquet", "--quiet")
    assert pl.read_parquet(tmp_path / "x.parquet").filter("cold_start")["user_id"].unique().to_list() == [3]
    for words in (("--users", tmp_path / "log.csv"), ("--all", "--data", tmp_path / "log.csv", "--output", "y.csv")):
        refused = glintru("recommend", folder, *words, "--unknown_items", "error")
        assert refused.exit_code == 2 and "'abc'" in refused.stderr
        assert not any(good in refused.stderr for good in ("50", "172", "181"))


def test_lists_of_items_from_any_kind_of_file(ask, tmp_path):
    wanted = [181, 305, 172, 310]
    expected = ids(ask("--history", "50,172", "--json", "--top_k", 30).stdout)
    expected = [item for item in expected if item in wanted]
    assert len(expected) == 3  # 172 was seen
    rows = pl.DataFrame({"item_id": wanted, "name": list("abcd")})
    rows.write_csv(tmp_path / "list.csv")
    rows.rename({"item_id": "sku"}).write_parquet(tmp_path / "list.parquet")
    (tmp_path / "list.txt").write_text("\n".join(map(str, [*wanted, " 305 ", "", "abc", 999])))
    for name, options in (("list.csv", ()), ("list.parquet", ("--item_column", "sku")), ("list.txt", ())):
        found = ask("--history", "50,172", "--json", "--allowed", tmp_path / name, *options)
        assert ids(found.stdout) == expected
        assert ("--allowed list.txt: 2 of 6 items are unknown to the model" in found.stderr) == (name == "list.txt")
    out = ask("--history", "50,172", "--json", "--exclude", tmp_path / "list.csv", "--top_k", 30).stdout
    assert len(ids(out)) == 25 and not set(ids(out)) & set(wanted)


def test_interactive_obeys_filters_and_seen_items(folder, tmp_path):
    from typer.testing import CliRunner

    from modeling_glintru.cli import app

    (tmp_path / "list.txt").write_text("50\n181\n305\n")
    for word, shown in (("--exclude_seen", {"181", "305"}), ("--include_seen", {"50", "181", "305"})):
        words = ["recommend", str(folder), "--interactive", word, "--allowed", str(tmp_path / "list.txt")]
        result = CliRunner().invoke(app, words, input="50\n")
        assert result.exit_code == 0, result.output
        table = result.stdout.split("Next:")[1].splitlines()[2:]
        assert {line.split()[1] for line in table if line.strip() and line != "> "} == shown


def test_seen_items_come_as_the_training_decided_or_as_asked(folder, glintru, tmp_path):
    small_model().save_pretrained(tmp_path)
    GlintRUProcessor(ITEMS, item_counts=COUNTS, recommend_seen=True).save_pretrained(tmp_path)
    (tmp_path / "log.csv").write_text(HISTORY)

    def seen(model, *words):
        line = glintru("recommend", model, "--history", "50,172", "--top_k", 30, "--json", *words).stdout
        output = ("--all", "--data", tmp_path / "log.csv", "--output", tmp_path / "x.parquet", "--overwrite", "--quiet")
        assert glintru("recommend", model, *output, "--top_k", 30, *words).exit_code == 0
        rows = pl.read_parquet(tmp_path / "x.parquet").filter(pl.col("user_id") == 1)["item_id"].to_list()
        assert rows == ids(line)
        return {50, 172} <= set(rows)

    for words, by_folder in (
        ((), (False, True)),
        (("--include_seen",), (True,) * 2),
        (("--exclude_seen",), (False,) * 2),
    ):
        assert (seen(folder, *words), seen(tmp_path, *words)) == by_folder


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "abc\n7\n", "--allowed a.txt has no item that the model knows among its 2 items"),
        ("a.txt", "", "--allowed a.txt has no item that the model knows among its 0 items"),
        ("a.txt", b"\xff\xfe\x00", "--allowed a.txt cannot be read as a text with one id a line"),
        ("a.csv", "price\n1\n", "has no column that looks like the item"),
        ("missing.txt", None, "--allowed missing.txt cannot be read"),
        ("missing.csv", None, "There is no file 'missing.csv'"),
    ],
)
def test_lists_that_cannot_be_used(folder, glintru, tmp_path, monkeypatch, name, content, message):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    result = glintru("recommend", folder, "--history", "50", "--allowed", name)
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words", [("--history", "50"), ("--interactive",), ("--all", "--data", "d", "--output", "x.csv")]
)
def test_a_device_that_is_not_there(folder, glintru, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = glintru("recommend", folder, *words, "--device", "cuda:99")
    assert result.exit_code == 2 and "there is no device 'cuda:99' to compute on" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_device_makes_no_difference_to_the_answer(ask, tmp_path):
    (tmp_path / "log.csv").write_text(HISTORY)
    assert ask("--history", "50", "--device", "cpu", "--json").stdout == ask("--history", "50", "--json").stdout
    words = ("--all", "--data", tmp_path / "log.csv", "--output", tmp_path / "x.csv", "--overwrite", "--quiet")
    written = []
    for device in ("cpu", "auto"):
        ask(*words, "--device", device)
        written.append(pl.read_csv(tmp_path / "x.csv"))
    assert written[0].drop("score").equals(written[1].drop("score"))
    np.testing.assert_allclose(written[0]["score"], written[1]["score"], atol=1e-4)


def test_parse_item_id():
    strings, integers = GlintRUProcessor(["007"]), GlintRUProcessor([7])
    assert parse_item_id(strings, "007") == "007"
    assert parse_item_id(integers, "007") == 7
    assert parse_item_id(integers, " -12 ") == -12
    for text in ("seven", "1.0", "", "1_000", "-+5", "٣"):
        with pytest.raises(GlintRUError, match="integers"):
            parse_item_id(integers, text)
