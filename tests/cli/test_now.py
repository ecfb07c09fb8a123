"""`glintru recommend --now`: the time of the requests, for the users of a table."""

from __future__ import annotations

import json

import polars as pl
import pytest

from modeling_glintru import GlintRUProcessor

from ..model.helpers import small_model

ITEMS = [f"item-{number}" for number in range(1, 31)]
HISTORIES = {"anna": ["item-3", "item-4"], "ben": ["item-9"], "zoe": ["nobody-knows"]}
DAYS = {"anna": "2024-05-30", "ben": "2024-05-01", "zoe": "2024-05-01"}
FILES = {"LOG": "log.csv", "COUNTS": "counts.csv"}
NOW, TO_NOW = "2024-05-31", {"anna": 86_400, "ben": 30 * 86_400}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("timed")
    small_model(use_time_gaps=True).save_pretrained(folder)
    GlintRUProcessor(ITEMS, max_length=10).save_pretrained(folder)
    rows = [(user, item, DAYS[user]) for user, items in HISTORIES.items() for item in items]
    rows.append(("ben", "nobody-knows", "2024-05-20"))  # is not what the answer goes on from
    pl.DataFrame(rows, ["user_id", "item_id", "timestamp"], orient="row").write_csv(folder / "log.csv")
    counted = [(user, item, place) for user, items in HISTORIES.items() for place, item in enumerate(items)]
    pl.DataFrame(counted, ["user_id", "item_id", "timestamp"], orient="row").write_csv(folder / "counts.csv")
    return folder


def lines(text):
    found = [json.loads(line) for line in text.splitlines()]
    return {one["user_id"]: [item["item_id"] for item in one["recommendations"]] for one in found}


def test_the_gap_is_from_the_newest_known_item_to_now(folder, glintru, tmp_path):
    words = ("recommend", folder, "--top_k", 30, "--include_seen")
    users = glintru(*words, "--users", folder / "log.csv", "--now", NOW, "--json")
    assert users.exit_code == 0, users.output
    file = tmp_path / "all.jsonl"
    assert glintru(*words, "--all", "--data", folder / "log.csv", "--output", file, "--now", NOW).exit_code == 0
    listed, everyone = lines(users.stdout), lines(file.read_text())
    untimed = lines(glintru(*words, "--users", folder / "log.csv", "--json").stdout)
    for user, gap in TO_NOW.items():
        history = ",".join(HISTORIES[user])
        one = json.loads(glintru(*words, "--history", history, "--time_gap", gap, "--json").stdout)
        assert listed[user] == everyone[user] == [item["item_id"] for item in one["recommendations"]]
        assert listed[user] != untimed[user]
    assert listed["zoe"] == untimed["zoe"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--users", "LOG", "--now", "2024-05-29"), "users with an item after the time of the request: 1"),
        (("--users", "LOG", "--now", "today"), "must be a number or a date such as"),
        (("--users", "LOG", "--now", "inf"), "must be finite"),
        (("--users", "COUNTS", "--now", NOW), "give a number in the same unit"),
        (("--users", "LOG", "--now", NOW, "--time_gap", "3"), "--now is for --users and --all, without --time_gap"),
        (("--history", "item-3", "--now", NOW), "--now is for --users and --all"),
        (("--interactive", "--now", NOW), "--now is for --users and --all"),
    ],
)
def test_bad_input(folder, glintru, words, message):
    result = glintru("recommend", folder, *(folder / FILES[word] if word in FILES else word for word in words))
    assert result.exit_code == 2, result.output
    assert message in result.stderr and result.stderr.count("\n") == 1


def test_a_model_that_knows_nothing_of_time_refuses(demo, glintru, tmp_path):
    output = tmp_path / "all.csv"
    for words in (("--users", "demo"), ("--all", "--data", "demo", "--output", output)):
        result = glintru("recommend", demo[0], *words, "--now", 10**12)
        assert result.exit_code == 2 and "this one was made without" in result.stderr
    assert not output.exists()
