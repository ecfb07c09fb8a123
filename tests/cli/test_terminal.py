"""What a person reads fits 80 columns and holds no character that a terminal obeys."""

from __future__ import annotations

import io
import json
import sys

import polars as pl
import pytest

from modeling_glintru.cli.printing import history_line, print_recommendation, recommendation_table
from modeling_glintru.data import synthetic_interactions
from modeling_glintru.serving import Recommendation
from modeling_glintru.terminal import fold, print_error, printable

EVIL = ["\x1b[2J", "\x9b31m", "a\nb\r", "\u202egnp.exe", "\u2066left", "\u2028"]


def narrow(text: str, *paths: object) -> bool:
    """Whether each line fits 80 columns, those with one of the paths aside."""
    lines = [line for line in text.splitlines() if not any(str(path) in line for path in paths)]
    return max(map(len, lines)) <= 80


def harmless(text: str) -> bool:
    """Whether a terminal obeys none of the characters but the ends of lines."""
    return printable(text.replace("\n", "")) == text.replace("\n", "")


def test_escapes_are_readable_and_made_once():
    assert printable("\x1b[2J") == "\\x1b[2J" and printable("\x9b31m") == "\\x9b31m"
    assert printable("\u202egnp.exe") == "\\u202egnp.exe" and printable("a\nb") == "a\\nb"
    assert printable("\udc9b") == "\\udc9b" and printable(17) == "17"
    for text in ("Amélie → 東京, 9 €", "C:\\x1b", *map(printable, EVIL)):
        assert printable(text) == text


def test_long_lines_are_folded_below_their_text():
    words = "word " * 30
    labelled = fold(f"Split     {words}\nshort").splitlines()
    assert labelled[0].startswith("Split     word") and labelled[1].startswith(" " * 12 + "word")
    assert labelled[-1] == "short" and max(map(len, labelled)) <= 80
    assert all(line.startswith("word") for line in fold(words).splitlines())
    assert fold("/" + "x" * 100) == "/" + "x" * 100  # a path is never broken


def test_a_terminal_gets_a_folded_error_and_a_file_one_line(monkeypatch):
    for is_terminal in (True, False):
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda answer=is_terminal: answer, raising=False)
        monkeypatch.setattr(sys, "stderr", stream)
        print_error("there is no item '\x1b[2J' " + "in this file " * 10)
        text = stream.getvalue()
        assert text.startswith("glintru: there is no item '\\x1b[2J'") and harmless(text)
        assert narrow(text) == is_terminal and (text.count("\n") == 1) != is_terminal


@pytest.mark.parametrize("evil", EVIL)
def test_a_table_of_items_is_harmless_and_narrow(evil, capsys):
    items = [{"item_id": evil + "x" * 90, "title": evil + "y" * 90, "score": 1.0}, {"item_id": "b", "score": 0.5}]
    table = recommendation_table(Recommendation(items, 0))
    assert harmless(table) and narrow(table) and len(table.splitlines()) == 3
    assert printable(evil) in table
    without = recommendation_table(Recommendation([{"item_id": "z" * 60, "score": 1.0}], 0))
    assert "z" * 60 in without  # an id is whole where there is room
    line = history_line([evil * 20] * 5, [None, None, None, evil, None])
    assert harmless(line) and narrow(line)
    processor = type("Known", (), {"title": lambda self, raw: evil, "__contains__": lambda self, raw: True})()
    print_recommendation(processor, f"user {evil}", ["a", "b"], Recommendation(items, 0), as_json=False)
    printed = capsys.readouterr().out
    assert harmless(printed) and f"User user {printable(evil)}: {printable(evil)} → " in printed
    print_recommendation(processor, evil, ["a"], Recommendation(items, 0), as_json=True)
    assert json.loads(capsys.readouterr().out)["user_id"] == evil


def test_the_lines_of_all_commands_fit(demo, glintru, tmp_path):
    folder, printed = demo
    assert narrow(printed, folder) and "hidden_dropout" in printed
    table = tmp_path / "interactions.csv"
    synthetic_interactions().frame.write_csv(table)
    quick = ("--set", "num_train_epochs=1", "--set", "num_bootstrap=20", "--quiet")
    for words in (
        ("train", "--data", table, "--output_dir", tmp_path / "rule", *quick),
        ("evaluate", folder, "--quiet"),
        ("evaluate", folder, tmp_path / "rule", "--data", table, "--quiet"),
        ("recommend", folder, "--users", table, "--user_ids", "user-0001"),
        ("recommend", folder, "--history", "saga-01-volume-1,saga-01-volume-2"),
        ("prepare", "--data", table, "--output_dir", tmp_path / "prepared"),
        ("push", tmp_path / "rule", "a/b", "--dry_run"),
    ):
        result = glintru(*words)
        assert result.exit_code == 0, result.output
        assert narrow(result.stdout, folder, tmp_path), result.stdout


def test_ids_of_a_table_reach_the_terminal_escaped(demo, glintru, tmp_path):
    rows = [("\x1b[2J", "\x9b31m", 1), ("\x1b[2J", "saga-01-volume-1", 2), ("anna", "saga-01-volume-2", 3)]
    table = tmp_path / "users.parquet"
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_parquet(table)
    shown = glintru("recommend", demo[0], "--users", table)
    assert shown.exit_code == 0 and harmless(shown.stdout), shown.output
    assert "User \\x1b[2J: \\x9b31m → Saga 1, volume 1" in shown.stdout
    rows = glintru("recommend", demo[0], "--users", table, "--json").stdout.splitlines()
    assert json.loads(rows[0])["user_id"] == "\x1b[2J" and "\\u001b[2J" in rows[0]
    refused = glintru("recommend", demo[0], "--users", table, "--unknown_items", "error")
    assert refused.exit_code == 2 and harmless(refused.stderr) and "x9b31m" in refused.stderr
