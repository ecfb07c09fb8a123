"""`glintru evaluate A B`: each model's metrics and the paired difference, on the same test users."""

from __future__ import annotations

import json

import pytest

from modeling_glintru.data import synthetic_interactions

QUICK = ("--set", "num_train_epochs=1", "--set", "hidden_size=16", "--quiet")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Trains with some options and gives the folder."""
    from typer.testing import CliRunner

    from modeling_glintru.cli import app

    root = tmp_path_factory.mktemp("several")
    table = root / "mine.csv"
    synthetic_interactions(num_users=80, num_items=50, seed=1).frame.write_csv(table)

    def train(name, *options):
        words = ["train", "--data", table, "--output_dir", root / name, *QUICK, *options]
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return root / name

    return table, train("ours"), train("sasrec", "--model", "sasrec"), train("later", "--set", "split=temporal")


def test_the_difference_is_paired_and_that_of_the_means(models, glintru):
    table, ours, rival, _ = models
    result = glintru("evaluate", ours, rival, "--data", table, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert list(found["models"]) == [str(ours), str(rival)]
    one, other = (numbers[numbers["main"]]["ndcg@10"]["value"] for numbers in found["models"].values())
    difference = found["differences"][str(rival)]
    assert difference["to"] == str(ours) and difference["metric"] == "ndcg@10"
    assert difference["value"] == pytest.approx(other - one, abs=1e-12)
    assert difference["low"] <= difference["value"] <= difference["high"]
    low, high = difference["low"], difference["high"]
    assert difference["is"] == ("better" if low > 0 else "worse" if high < 0 else "open")
    alone = json.loads(glintru("evaluate", ours, "--data", table, "--json").stdout)
    assert alone == found["models"][str(ours)]


def test_the_table_is_readable(models, glintru, monkeypatch):
    monkeypatch.chdir(models[0].parent)
    printed = glintru("evaluate", "ours", "sasrec", "--data", "mine.csv", "--quiet").stdout
    assert "sasrec minus ours:" in printed and "80 users" in printed
    table_lines = printed.partition("95 % intervals\n")[2].splitlines()
    assert max(map(len, table_lines)) <= 80


def test_models_of_other_splits_are_refused(models, glintru):
    table, ours, _, later = models
    result = glintru("evaluate", ours, later, "--data", table)
    assert result.exit_code == 2 and len(result.stderr.strip().splitlines()) == 1
    assert "data.split 'leave_one_out'" in result.stderr and "'temporal'" in result.stderr
    assert "not compared with itself" in glintru("evaluate", ours, ours, "--data", table).stderr


def test_models_of_other_items_are_refused(models, glintru, tmp_path):
    """The vocabulary of one lacks items of the other, so that a rank means another thing."""
    table, ours, _, _ = models
    rows = table.read_text(encoding="utf-8").splitlines(keepends=True)
    fewer = tmp_path / "fewer.csv"
    fewer.write_text("".join(rows[: len(rows) // 8]), encoding="utf-8")
    folder = tmp_path / "other"
    assert glintru("train", "--data", fewer, "--output_dir", folder, *QUICK).exit_code == 0
    result = glintru("evaluate", ours, folder, "--data", table, "--quiet")
    assert result.exit_code == 2 and "do not rank the same items" in result.stderr, result.output
