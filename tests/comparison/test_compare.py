"""`glintru compare`: a table, some models, and a page with paired intervals."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from modeling_glintru.cli import app
from modeling_glintru.comparison import Report, Results, Search, declare, queue, run_comparison
from modeling_glintru.comparison.compare import search_space
from modeling_glintru.comparison.page import terminal_table
from modeling_glintru.comparison.rows import MAIN, resampled_rows
from modeling_glintru.comparison.trials import FINAL, TUNE
from modeling_glintru.errors import DataError, RecipeError
from modeling_glintru.recipe import load_recipe
from modeling_glintru.recipe.rule import blank_recipe

from .helpers import pretend, tiny_data

QUICK = ["num_train_epochs=1", "hidden_size=8", "max_length=8"]


def glintru(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def declared(folder, models=("glintru", "gru4rec"), **options):
    return declare(
        str(tiny_data(folder)), models, say=lambda text: None, **{"changes": QUICK, "seeds": (1, 2), **options}
    )


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Two models with two seeds on a table, run in this process, and what was said."""
    folder = tmp_path_factory.mktemp("compare")
    comparison, said = declared(folder), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modeling_glintru.comparison.compare.run_queue", queue.work)
        written = run_comparison(comparison, folder / "out", say=said.append)
    return comparison, folder / "out", written, said


def test_every_model_has_the_settings_of_the_rule_and_the_same_split(compared):
    comparison, _, _, _ = compared
    ours, rival = comparison.rows["toy"].values()
    assert (ours.model_name, rival.model_name) == ("glintru", "gru4rec") and ours.data == rival.data
    assert ours.training.num_train_epochs == 1 and ours.model["hidden_size"] == 8  # as given
    assert ours.model["normalize_scores"] and ours.training.train_batch_targets  # as the rule chooses for few targets
    assert {"popularity", "item_knn"} <= set(comparison.references["toy"])


def test_the_files_hold_what_was_measured(compared):
    comparison, folder, written, said = compared
    assert {file.name for file in written} == {"comparison.md", "comparison.json", "comparison.png"}
    report = Report("toy", comparison, Results(folder / "trials"))
    found = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    page = (folder / "comparison.md").read_text(encoding="utf-8")
    assert set(found["models"]) == {"glintru", "gru4rec", *comparison.references["toy"]}
    lead = next(row for row in report.rows if row.name == "glintru")
    for row in report.rows:
        entry = found["models"][row.name]
        assert entry["test"]["ndcg@10"] == row.mean("test", MAIN, "ndcg@10")
        assert f"| {row.title} | {entry['test']['ndcg@10']:.4f} [" in page
        if row is lead:
            assert "difference" not in entry and len(row.lines) == 2
            continue
        value, low, high = report.difference(row, lead)
        assert entry["difference"]["value"] == value and low <= value <= high
        assert f"{value:+.4f} | [{low:+.4f}, {high:+.4f}] | {entry['difference']['is']} |" in page
    assert any(terminal_table(report, "glintru") in text for text in said)


def test_the_table_fits_a_terminal(compared):
    comparison, folder, _, _ = compared
    lines = terminal_table(Report("toy", comparison, Results(folder / "trials")), "glintru").splitlines()
    assert max(map(len, lines)) <= 80 and lines[2].split()[0] in ("GLINT-RU", "GRU4Rec", "Item-kNN", "Own")


def test_the_recipes_of_the_rows_can_be_trained_again(compared):
    comparison, folder, _, _ = compared
    again = load_recipe(folder / "recipes" / "gru4rec.yaml")
    row = comparison.rows["toy"]["gru4rec"]
    assert again.data.source is None and (again.model, again.loss, again.training) == (
        *(row.model, row.loss, row.training),
    )


def test_what_has_run_does_not_run_again(compared, tmp_path):
    comparison, folder, _, _ = compared
    before = Results(folder / "trials").file("toy").read_text(encoding="utf-8")
    words = ("--models", "glintru,gru4rec", "--seeds", "1,2", "--output_dir", folder)
    changes = [word for change in QUICK for word in ("--set", change)]
    result = glintru("compare", "--data", comparison.data["toy"].data.source, *words, *changes)
    assert result.exit_code == 0 and "Nothing is left to run." in result.stdout, result.output
    assert Results(folder / "trials").file("toy").read_text(encoding="utf-8") == before


def test_users_with_several_targets_are_drawn_whole():
    """Two targets of each user that are alike: the interval is that of half as many users."""
    values = np.random.default_rng(0).random(100)
    twice = np.repeat(values, 2)
    whole = resampled_rows({"a": [twice]}, 500, users=np.repeat(np.arange(100), 2))["a"]
    single = resampled_rows({"a": [values]}, 500)["a"]
    np.testing.assert_allclose(whole, single, rtol=1e-12)
    assert resampled_rows({"a": [twice]}, 500)["a"].std() < 0.8 * whole.std()


def test_a_search_tries_the_rules_own_settings_first(tmp_path):
    comparison = declared(tmp_path, search=4, changes=["num_train_epochs=8", "max_length=8", "weight_decay=0.5"])
    search = comparison.rows["toy"]["glintru"]
    assert isinstance(search, Search) and len(search.settings) == 4 and search.settings[0] == {}
    assert all("weight_decay" not in setting for setting in search.settings)  # it was given
    assert search.rungs == (1, 3) and search.epochs == 8
    rival = comparison.rows["toy"]["gru4rec"]
    assert [s.get("hidden_size") for s in rival.settings] == [s.get("hidden_size") for s in search.settings]
    done = pretend(comparison, lambda trial: float(trial.index))
    finals = [step for step in comparison.plan(done) if (step.row, step.stage) == ("glintru", FINAL)]
    assert finals[0].trials[0].setting == search.settings[3]
    assert sum(len(step.trials) for step in comparison.plan(done) if step.stage == TUNE) == 2 * (4 + 2)


def test_a_space_of_ones_own(tmp_path):
    space = tmp_path / "space.yaml"
    space.write_text("learning_rate: [1e-3, 2e-3]\n", encoding="utf-8")
    search = declared(tmp_path, search=3, space=space).rows["toy"]["glintru"]
    assert sorted(s.get("learning_rate", 0) for s in search.settings) == [0, 1e-3, 2e-3]
    assert set(search_space(blank_recipe())) == {
        *("learning_rate", "dropout", "hidden_size", "num_hidden_layers", "weight_decay", "scores")
    }
    space.write_text("learning_rate: 1e-3\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="a list of values for each key"):
        declared(tmp_path, search=3, space=space)


def test_a_recipe_is_a_row_with_its_own_settings(tmp_path):
    comparison = declared(tmp_path, models=("glintru", "ml-100k"), changes=["num_train_epochs=1"])
    row, recipe = comparison.rows["toy"]["ml-100k"], load_recipe("ml-100k")
    assert row.model == recipe.model and row.training == replace(recipe.training, num_train_epochs=1)
    assert row.data == comparison.rows["toy"]["glintru"].data  # that of the table, not of the recipe


def test_a_dry_run_writes_nothing(tmp_path):
    result = glintru("compare", "--data", tiny_data(tmp_path), "--output_dir", tmp_path / "out", "--dry_run")
    assert result.exit_code == 0 and "runs, at most" in result.stdout, result.output
    assert not (tmp_path / "out").exists() and "sasrec" in result.stdout
    queue_lines = result.stdout.splitlines()[-10:]
    assert max(map(len, queue_lines)) <= 80


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--models", "sasrek"), "There is no model 'sasrek'; did you mean 'sasrec'"),
        (("--models", "sasrec,sasrec"), "sasrec stands twice"),
        (("--models", "popularity"), "popularity is not trained and stands in every comparison"),
        (("--models", ""), "--models must name at least one model"),
        (("--models", "."), "is a trained model; glintru evaluate A B"),
        (("--seeds", "one"), "--seeds must be numbers"),
        (("--seeds", "1,1"), "--seeds must be different numbers"),
        (("--search", "1"), "--search must be at least 2"),
        (("--space", "x.yaml"), "give --search N too"),
        (("--workers", "0"), "--workers must be at least 1"),
        (("--user_column", "nobody"), "nobody"),
        (("--set", "hidden_sise=8"), "hidden_size"),
        (("--set", "metric=ndcg@3"), "a comparison validates by ndcg@10"),
    ],
)
def test_bad_input_is_one_line(tmp_path, words, said):
    result = glintru("compare", "--data", tiny_data(tmp_path), "--output_dir", tmp_path / "out", *words)
    assert result.exit_code == 2 and said in result.stderr, result.output
    assert len(result.stderr.strip().splitlines()) == 1 and not (tmp_path / "out").exists()


def test_a_table_is_needed(tmp_path):
    assert "--data FILE" in glintru("compare").stderr
    lone = tmp_path / "lone.csv"
    lone.write_text("user_id,item_id,timestamp\n1,2,3\n2,3,4\n", encoding="utf-8")
    result = glintru("compare", "--data", lone)
    assert result.exit_code == 2 and len(result.stderr.strip().splitlines()) == 1, result.output


def test_another_table_in_the_same_folder_is_refused(compared, tmp_path):
    """Even where nothing is left to run, for the same settings are chosen for it."""
    comparison, folder, _, _ = compared
    counts = {"toy": comparison.counts["toy"] | {"interactions": 7}}
    with pytest.raises(DataError, match="about other data"):
        run_comparison(replace(comparison, counts=counts), folder, say=lambda text: None)
