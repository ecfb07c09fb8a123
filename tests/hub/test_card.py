"""The card of a finished run: what it says, and that clients read it back."""

from __future__ import annotations

import json
import re

import pytest
from huggingface_hub import ModelCard
from transformers import AutoModel

from modeling_glintru.hub import push_folder, write_card
from modeling_glintru.hub.card_text import CardError, card_header, check_card, is_signed, sign, with_repository

from .conftest import copy_of


@pytest.fixture
def card(demo) -> str:
    return (demo[0] / "README.md").read_text()


def test_clients_read_the_results_back(hub, demo):
    push_folder(demo[0], "ann/demo")
    data = ModelCard.load("ann/demo").data
    assert data.library_name == "transformers" and "sequential-recommendation" in data.tags
    metrics = json.loads((demo[0] / "metrics.json").read_text())
    assert metrics["main"] == "test"
    metrics = metrics["test"]
    results = {result.metric_type: result for result in data.eval_results}
    assert set(results) == {"ndcg@10", "hr@10", "mrr@10", "ndcg@20", "hr@20", "mrr@20"}
    for name, result in results.items():
        assert result.metric_value == pytest.approx(metrics[name]["value"], abs=1e-4)
        assert result.metric_args["low"] == pytest.approx(metrics[name]["low"], abs=1e-4)
        assert (result.dataset_name, result.dataset_split) == ("demo", "test")
        assert result.metric_args["protocol"] == "leave_one_out, all items ranked, past items excluded"


def test_what_it_says(demo, card):
    metrics = json.loads((demo[0] / "metrics.json").read_text())
    value = metrics["test"]["ndcg@10"]
    assert f"| GLINT-RU | {value['value']:.4f} [{value['low']:.4f}, {value['high']:.4f}] |" in card
    for text in (
        "| popularity | ",
        "| item-kNN | ",
        "`demo`: 18,331 interactions of 800 users with 240 items",
        "Split leave-one-out: the last item of each user is the target of the test",
        "All 240 items ranked; the user's past items are left out of the ranking:",
        "![Learning curves](learning_curves.png)",
        f"{metrics['training']['num_parameters']:,} parameters; 2 epochs",
        f"on {metrics['training']['processor']}, ",
        f"transformers {metrics['versions']['transformers']}",
        "doi       = {10.1145/3690624.3709304}",
        "The newest 32 items of a history are read.",
    ):
        assert text in card
    recipe = re.search(r"^```yaml\n(.*?)^```$", card, flags=re.DOTALL | re.MULTILINE)
    assert recipe is not None and recipe[1].strip() == (demo[0] / "recipe.yaml").read_text().strip()
    assert "$" not in card and "None" not in card and str(demo[0]) not in card
    assert is_signed(card)


def test_the_card_of_a_baseline_loads_it_without_the_package(glintru, tmp_path):
    folder = tmp_path / "my sasrec"
    words = ("--set", "num_train_epochs=1", "--set", "protocols=[full, pop100]", "--set", "split=temporal", "--quiet")
    result = glintru("train", "--recipe", "demo", "--model", "sasrec", "--output_dir", folder, *words)
    assert result.exit_code == 0, result.output
    card = (folder / "README.md").read_text()
    assert 'name = "YOUR_NAME/my-sasrec"' in card and "from_pretrained(name, trust_remote_code=True)" in card
    assert "Recommender.from_pretrained" not in card
    assert "## Stream" not in card and "one of those that the package `glintru` compares GLINT-RU with" in card
    assert "| SASRec | " in card and "sasrec" in card_header(card)["tags"]
    assert "100 items drawn by their popularity ranked, not comparable with the above" in card
    assert "Split temporal: the newest 10% of all interactions are the test" in card


def test_a_card_edited_by_hand_is_not_lost_with_an_earlier_model(glintru, demo, tmp_path):
    folder = copy_of(demo[0], tmp_path / "demo")
    words = (
        "train",
        "--recipe",
        "demo",
        "--output_dir",
        folder,
        "--overwrite",
        "--set",
        "num_train_epochs=1",
        "--quiet",
    )
    with open(folder / "README.md", "a") as file:
        file.write("mine\n")
    result = glintru(*words)
    assert result.exit_code == 2 and "holds what is not of a GLINT-RU run ('README.md')" in result.stderr
    assert AutoModel.from_pretrained(folder)
    write_card(folder, "demo")
    result = glintru(*words)
    assert result.exit_code == 0, result.output
    assert "; 1 epochs," in (folder / "README.md").read_text()


def test_signatures():
    text = sign("# a\r\nb\n\n\n")
    assert text.startswith("# a\nb\n\n<!-- ") and is_signed(text) and sign(text) == text
    assert is_signed(text.replace("\n", "\r\n"))  # a checkout on another system is no edit
    assert not is_signed(text.replace("b", "c")) and not is_signed("# a\n") and not is_signed(text + "more\n")


def test_the_name_of_the_repository():
    assert with_repository('"YOUR_NAME/my-model.v2" YOUR_NAME', "ann/x") == '"ann/x" YOUR_NAME'


def test_headers():
    assert card_header("# no header\n") == {} == card_header("---\n---\n")
    assert card_header("---\r\ntags: [a]\r\n---\r\n# x") == {"tags": ["a"]}
    check_card("---\nlicense: mit\nanything: 3\n---\n")
    with pytest.raises(CardError, match=r"is broken: line 2: mapping values are not allowed here"):
        check_card("---\na: b: c\n---\n")
