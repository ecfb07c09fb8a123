"""A shop where the time since the last item decides what comes next: only a model that knows it can tell."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from modeling_glintru.cli import app
from modeling_glintru.errors import DataError
from modeling_glintru.evaluation import ModelScorer, evaluate
from modeling_glintru.jobs import prepare_data
from modeling_glintru.models.loading import load_model_folder
from modeling_glintru.recipe import load_recipe
from modeling_glintru.serving import Recommender

DAY = 86_400
SETTINGS = ["hidden_size=16", "num_attention_heads=2", "num_train_epochs=12", "learning_rate=1e-2", "max_length=12"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Item n is followed by n + 1 on the same day, and by n + 10 (of 20, round and round) a month later."""
    random = np.random.default_rng(0)
    rows = []
    for user in range(150):
        item, time = int(random.integers(20)), 10 * DAY
        for _ in range(12):
            rows.append((f"u{user}", f"i{item:02d}", time))
            later = random.random() < 0.5
            item, time = (item + (10 if later else 1)) % 20, time + (30 * DAY if later else 0)
    file = tmp_path_factory.mktemp("shop") / "interactions.csv"
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(file)
    return file


@pytest.fixture(scope="module")
def trained(shop, tmp_path_factory):
    folder = tmp_path_factory.mktemp("timed") / "model"
    changes = [word for change in [*SETTINGS, "use_time_gaps=true"] for word in ("--set", change)]
    done = CliRunner().invoke(
        app, ["train", "--recipe", "demo", "--data", str(shop), "--output_dir", str(folder), *changes]
    )
    assert done.exit_code == 0, done.output
    return folder


def test_it_learns_what_only_the_time_tells(shop, trained):
    model, _ = load_model_folder(trained)
    recipe = load_recipe("demo", [f"source={shop}", *SETTINGS, "use_time_gaps=true"])
    test = prepare_data(recipe, say=lambda text: None).dataset["test"]

    def hits(**options):
        found = evaluate(ModelScorer(model, 12, **options), test, ks=(1,), progress=False)
        return found.table("full_with_history")["hr@1"]["value"]

    assert hits() > 0.85
    assert 0.3 < hits(time_gaps=False) < 0.7  # as good as a coin, and no worse


def test_a_person_gets_the_answer_of_the_day(trained):
    recommender = Recommender.from_pretrained(trained)
    found = recommender.recommend([["i03"], ["i03"]], 1, exclude_seen=True, time_gaps=[0, 30 * DAY])
    assert [each.items[0]["item_id"] for each in found] == ["i04", "i13"]


def test_data_prepared_without_times_says_so(shop, trained, tmp_path):
    recipe = load_recipe("demo", [f"source={shop}"])
    data = prepare_data(recipe, say=lambda text: None)
    model, _ = load_model_folder(trained)
    with pytest.raises(DataError, match="prepared without times between items"):
        evaluate(ModelScorer(model, 12), data.dataset["test"], progress=False)
    evaluate(ModelScorer(model, 12, time_gaps=False), data.dataset["test"], progress=False)


def test_times_that_say_nothing_are_refused(tmp_path):
    """As in tables whose times are places in the history."""
    rows = [(f"u{user}", f"i{(user + n) % 7}", n) for user in range(9) for n in range(5)]
    file = tmp_path / "places.csv"
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(file)
    words = ["train", "--recipe", "demo", "--data", str(file), "--output_dir", str(tmp_path / "model")]
    done = CliRunner().invoke(app, [*words, "--set", "use_time_gaps=true"])
    assert done.exit_code != 0 and "All times between items are the same" in done.output


def test_the_card_says_what_the_figures_were_given(trained):
    card = " ".join((trained / "README.md").read_text(encoding="utf-8").split())
    assert "past items ranked too, time of the request given" in card and '"time_gap": ...' in card
