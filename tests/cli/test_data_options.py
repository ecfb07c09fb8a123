"""From the options of the command line to data: how a table is read, what is held out, splits that are given."""

from __future__ import annotations

import inspect
import json
import typing
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import typer
from typer.testing import CliRunner

from modeling_glintru.cli import options as cli_options
from modeling_glintru.cli.evaluate import evaluate
from modeling_glintru.cli.prepare import prepare
from modeling_glintru.cli.recommend import recommend
from modeling_glintru.cli.train import train
from modeling_glintru.data import load_prepared, sources, synthetic_interactions
from modeling_glintru.data.reading import ReadingOptions
from modeling_glintru.recipe import load_recipe

from ..data.cases import CASES
from .conftest import EPOCHS
from .test_bad_input import refused


def names_of(verb: Any) -> set[str]:
    return set(inspect.signature(verb).parameters)


def test_each_verb_that_reads_a_table_has_every_reading_option():
    reading = set(inspect.signature(ReadingOptions).parameters)
    split_files = {"train_data", "validation_data", "test_data"}
    for verb in (train, prepare, evaluate, recommend):
        assert reading <= names_of(verb), verb
        assert (split_files <= names_of(verb)) is (verb is not recommend)


def test_options_arrive_as_a_recipe_holds_them():
    taken = []

    @cli_options.with_options_of(ReadingOptions, into="reading")
    def verb(first: typing.Annotated[str, typer.Option("--first")], *, reading: dict[str, Any]) -> None:
        taken.append((first, reading))

    app = typer.Typer()
    app.command()(verb)
    run = CliRunner().invoke
    words = ["--first", "x", "--where", "a > 1", "--where", "b == 'c,d'", "--columns", 'a, "b,c"', "--drop_missing"]
    assert run(app, words).exit_code == 0
    assert run(app, ["--first", "y"]).exit_code == 0
    assert run(app, ["--first", "z", "--where", ""]).exit_code == 0
    reading = {"where": ("a > 1", "b == 'c,d'"), "columns": ("a", "b,c"), "drop_missing": True}
    assert taken == [("x", reading), ("y", {}), ("z", {"where": ()})]


@pytest.fixture
def handed_on(monkeypatch):
    """What reaches `read_interactions`, one mapping a call; the options themselves are left to the reader's tests."""
    calls: list[dict[str, Any]] = []
    real = sources.read_interactions

    def read(source, **options):
        calls.append(options)
        return real(source, **{name: value for name, value in options.items() if name.endswith("_column")})

    opened = sources.open_table
    monkeypatch.setattr(sources, "open_table", lambda source, split="train", **form: opened(source, split))
    monkeypatch.setattr(sources, "read_interactions", read)
    return calls


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    file = tmp_path_factory.mktemp("log") / "october.csv"
    synthetic_interactions(num_users=60).frame.rename({"user_id": "who"}).write_csv(file)
    return file


OPTIONS = ("--user_column", "who", "--where", "timestamp >= 0", "--drop_missing", "--encoding", "latin-1")
READING = {"user_column": "who", "where": ("timestamp >= 0",), "drop_missing": True, "encoding": "latin-1"}


def test_the_options_are_kept_in_the_recipe_and_followed_from_then_on(log, handed_on, glintru, tmp_path):
    out, expected = tmp_path / "out", {"split": "train", **READING}
    quick = ("--set", "reference_models=[]", "--set", "num_bootstrap=20", *EPOCHS)
    done = glintru("train", "--recipe", "ml-100k", "--data", log, "--output_dir", out, *OPTIONS, *quick)
    assert done.exit_code == 0, done.output
    assert handed_on == [expected]
    data = load_recipe(out / "recipe.yaml").data
    assert data.reading == READING and data.source == "october.csv"
    assert glintru("evaluate", out, "--data", log, "--quiet").exit_code == 0
    assert glintru("recommend", out, "--all", "--data", log, "--output", tmp_path / "a.csv", "--quiet").exit_code == 0
    user = pl.read_csv(log)["who"][0]
    assert glintru("recommend", out, "--users", log, "--user_ids", user).exit_code == 0
    assert handed_on == [expected] * 4
    # Another table: another column of users, another kind of file, and conditions that are lifted.
    later = tmp_path / "later.tsv"
    pl.read_csv(log).rename({"who": "user_id"}).write_csv(later, separator="\t")
    handed_on.clear()
    assert glintru("evaluate", out, "--data", later, "--where", "", "--as_is", "--quiet").exit_code == 0
    assert glintru("recommend", out, "--all", "--data", later, "--output", tmp_path / "b.csv", "--quiet").exit_code == 0
    tuned = ("--from", out, "--data", later, "--output_dir", tmp_path / "tuned", "--max_minutes", "1e-9")
    glintru("train", *tuned)
    assert handed_on == [
        {"split": "train", "drop_missing": True},
        *[{"split": "train", "drop_missing": True, "where": READING["where"]}] * 2,
    ]


def test_prepared_data_says_how_it_was_read(log, handed_on, glintru, tmp_path):
    prepared, out = tmp_path / "prepared", tmp_path / "out"
    words = ("prepare", "--recipe", "ml-100k", "--data", log, "--output_dir", prepared, *OPTIONS)
    assert glintru(*words).exit_code == 0
    assert json.loads((prepared / "summary.json").read_text())["reading"] == {**READING, "where": ["timestamp >= 0"]}
    train = ("train", "--recipe", "ml-100k", "--data", prepared, "--output_dir", out)
    assert glintru(*train, "--where", "another > 1", *EPOCHS).exit_code == 0
    assert load_recipe(out / "recipe.yaml").data.reading == READING


def test_notes_of_the_reader_are_printed_and_kept(log, glintru, tmp_path, monkeypatch):
    from dataclasses import replace

    real = sources.read_interactions
    noted = lambda *words, **options: replace(real(*words, **options), notes=("two rows lack a user",))  # noqa: E731
    monkeypatch.setattr(sources, "read_interactions", noted)
    out = tmp_path / "prepared"
    result = glintru("prepare", "--data", log, "--output_dir", out, "--user_column", "who")
    assert result.exit_code == 0 and "\nNote      two rows lack a user\n" in result.stdout, result.output
    assert load_prepared(out).summary["notes"] == ["two rows lack a user"]


def test_titles_are_found_by_the_name_that_the_interactions_have(glintru, tmp_path):
    log = synthetic_interactions(num_users=60).frame.rename({"item_id": "prod"})
    log.write_csv(tmp_path / "clicks.csv")
    first = log["prod"][0]
    (tmp_path / "titles.csv").write_text(f"prod,label\n{first},The first\n")
    words = ("prepare", "--data", tmp_path / "clicks.csv", "--item_column", "prod", "--output_dir", tmp_path / "out")
    titles = ("--item_titles", tmp_path / "titles.csv")
    refused(glintru(*words, *titles), "titles.csv has no column of titles", "--title_column")
    result = glintru(*words, *titles, "--title_column", "label")
    assert result.exit_code == 0, result.output
    assert load_prepared(tmp_path / "out").processor.title(first) == "The first"


def test_sessions_of_two_clicks_are_offered_another_split(glintru, tmp_path):
    rows = {"session_id": [k // 2 for k in range(80)], "item_id": [k % 7 for k in range(80)], "timestamp": range(80)}
    pl.DataFrame(rows).write_csv(tmp_path / "clicks.csv")
    words = ("prepare", "--data", tmp_path / "clicks.csv", "--output_dir", tmp_path / "out")
    refused(glintru(*words), "All 40 histories are shorter than three interactions", "--set split=user")
    assert glintru(*words, "--set", "split=user").exit_code == 0


def test_baskets_are_held_out_whole(glintru, tmp_path):
    rows = [(user, 10 * step + k, step) for user in range(20) for step in range(6) for k in range(1 + step % 3)]
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(tmp_path / "log.csv")
    out = tmp_path / "out"
    words = ("--data", tmp_path / "log.csv", "--set", "hold_out=basket", "--quiet", *EPOCHS[:2])
    result = glintru("train", *words, "--output_dir", out)
    assert result.exit_code == 0, result.output
    assert "evaluated: 40 validation targets of 20 users, 60 test targets of 20 users" in " ".join(
        result.stdout.split()
    )
    assert "Test, 20 users with 60 targets: " in result.stdout
    assert "On the test split (20 users with 60 targets)" in (out / "README.md").read_text()
    assert load_recipe(out / "recipe.yaml").data.hold_out == "basket"
    assert json.loads((out / "metrics.json").read_text())["data"]["ties"]["test"] == 0


# ---------------------------------------------------------------- splits that are given


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Leave-one-out of the synthetic shop, as three files."""
    folder = tmp_path_factory.mktemp("parts")
    frame = synthetic_interactions(num_users=200, num_items=60).frame.sort("user_id", "timestamp", maintain_order=True)
    left = pl.len().over("user_id") - pl.int_range(pl.len()).over("user_id")
    for name, part in (("train", left > 2), ("valid", left == 2), ("test", left == 1)):
        frame.filter(part).write_csv(folder / f"{name}.csv")
    frame.write_csv(folder / "whole.csv")
    return folder


def given(parts: Path, *names: str) -> list[Any]:
    options = {"train": "--train_data", "valid": "--validation_data", "test": "--test_data"}
    return [word for name in names for word in (options[name], parts / f"{name}.csv")]


def test_a_split_of_a_paper(parts, glintru, tmp_path, monkeypatch):
    out, files = tmp_path / "out", given(parts, "train", "valid", "test")
    quick = ("--recipe", "ml-100k", "--set", "reference_models=[]", "--set", "num_bootstrap=20", *EPOCHS)
    done = glintru("train", *files, "--output_dir", out, *quick)
    assert done.exit_code == 0, done.output
    assert "train.csv + valid.csv + test.csv" in done.stdout and "Split     given" in done.stdout
    data = load_recipe(out / "recipe.yaml").data
    assert (data.split, data.source) == ("given", None)
    assert (data.train_data, data.validation_data, data.test_data) == ("train.csv", "valid.csv", "test.csv")
    for file in out.iterdir():
        assert str(parts).encode() not in file.read_bytes(), file.name
    metrics = json.loads((out / "metrics.json").read_text())
    again = json.loads(glintru("evaluate", out, *files, "--json").stdout)
    assert again["test"] == metrics["test"]
    monkeypatch.chdir(parts)
    assert json.loads(glintru("evaluate", out, "--json").stdout)["test"] == metrics["test"]
    # The same split, made by us.
    whole = glintru("train", "--data", parts / "whole.csv", "--output_dir", tmp_path / "whole", *quick)
    assert whole.exit_code == 0
    assert json.loads((tmp_path / "whole" / "metrics.json").read_text())["test"] == metrics["test"]


@pytest.mark.parametrize(
    ("words", "parts_of_it"),
    [
        (["--data", "x.csv", "--train_data", "y.csv"], ["--data is one table and --train_data a part of a split"]),
        (["--train_data", "y.csv"], ["needs both --train_data FILE and --test_data FILE"]),
        (["--test_data", "y.csv"], ["needs both --train_data FILE and --test_data FILE"]),
    ],
)
def test_what_does_not_go_together(words, parts_of_it, glintru, tmp_path):
    for recipe in ((), ("--recipe", "ml-1m")):
        refused(glintru("prepare", *recipe, *words, "--output_dir", tmp_path / "out"), *parts_of_it)
        assert not (tmp_path / "out").exists()


def test_a_given_split_is_not_uploaded_as_one_table(parts, glintru, tmp_path):
    words = ("prepare", *given(parts, "train", "test"), "--output_dir", tmp_path / "out")
    result = glintru(*words, "--push_to_hub", "me/data")
    assert result.exit_code == 2 and "--push_to_hub uploads one table" in result.stderr
    assert "no --validation_data: the last training item of each user validates" in " ".join(result.stdout.split())


# ---------------------------------------------------------------- tables as people have them


@pytest.fixture
def case():
    """Gives the path of a file of `tests/cases`."""
    return lambda *names: CASES.joinpath(*names)


def test_an_order_column_sorts_within_the_day(case, glintru, tmp_path):
    file = case("day_ties_with_order_column", "clicks.csv")
    words = ("prepare", "--data", file, "--output_dir")
    plain = glintru(*words, tmp_path / "plain")
    assert "of the test targets share their time" in plain.stdout and "--order_column" in plain.stdout
    ordered = glintru(*words, tmp_path / "ordered", "--order_column", "timeframe")
    assert ordered.exit_code == 0 and "share their time" not in ordered.stdout, ordered.output
    prepared = load_prepared(tmp_path / "ordered")
    last = pl.read_csv(file).sort("date", "timeframe").group_by("user_id").agg(pl.col("item_id").last())
    found = {row["user_id"]: prepared.processor.raw_id(row["target"]) for row in prepared.dataset["test"]}
    assert found == dict(last.iter_rows())


def test_titles_whose_column_has_the_name_of_the_interactions(case, glintru, tmp_path):
    words = ["prepare", "--data", case("titles_other_column", "clicks.csv"), "--output_dir", tmp_path / "out"]
    words += ["--user_column", "who", "--item_column", "prod", "--time_column", "when", "--item_titles"]
    result = glintru(*words, case("titles_other_column", "titles_prod.csv"))
    assert result.exit_code == 0, result.output
    assert load_prepared(tmp_path / "out").processor.title("sku00") == "T zero"
    assert glintru(*words, case("titles_other_column", "catalogue.csv"), "--overwrite").exit_code == 0
    assert load_prepared(tmp_path / "out").processor.title("sku00") == "T sku00"


def test_sessions_of_two_clicks(case, glintru, tmp_path):
    words = ("prepare", "--data", case("short_sessions", "clicks.csv"), "--output_dir", tmp_path / "out")
    refused(glintru(*words), "--set split=user")
    assert glintru(*words, "--set", "split=user").exit_code == 0


def test_a_model_of_some_rows_is_measured_on_them(case, glintru, tmp_path):
    words = ("--data", case("event_weights", "events.csv"), "--output_dir", tmp_path / "out", "--recipe", "ml-100k")
    done = glintru("train", *words, "--where", "event == 'view'", "--set", "reference_models=[]", *EPOCHS)
    assert done.exit_code == 0, done.output
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert load_recipe(tmp_path / "out" / "recipe.yaml").data.where == ("event == 'view'",)
    again = glintru("evaluate", tmp_path / "out", *words[:2], "--json")
    assert json.loads(again.stdout)["test"] == metrics["test"]


def test_a_title_that_cannot_be_read_does_not_matter(glintru, tmp_path):
    """Latin-1 in a column of titles that nobody asked for: the interactions are read, and the line says what to do."""
    rows = [f"{user},{item},{item},Am\xe9lie" for user in range(5) for item in range(4)]
    (tmp_path / "ratings.csv").write_bytes("\n".join(["user,item,time,title", *rows]).encode("latin-1"))
    words = ("prepare", "--data", tmp_path / "ratings.csv", "--output_dir")
    result = glintru(*words, tmp_path / "one")
    assert result.exit_code == 0 and "20 interactions" in result.stdout, result.output
    assert "The model has no titles of items: Column 'title'" in result.stdout and "latin-1" in result.stdout
    assert "no titles" not in glintru(*words, tmp_path / "two", "--encoding", "latin-1").stdout
    refused = glintru(*words, tmp_path / "three", "--title_column", "title")
    assert refused.exit_code == 2 and "--encoding latin-1" in refused.stderr
