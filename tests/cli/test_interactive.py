"""`glintru recommend --interactive`."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from modeling_glintru import GlintRUProcessor
from modeling_glintru.cli import app
from modeling_glintru.cli.interactive import CHOICES, TitleIndex

from ..model.helpers import small_model


def talk(folder, *lines, top_k=10):
    """What the command prints when these lines are typed, and then the input ends."""
    words = ["recommend", str(folder), "--interactive", "--top_k", str(top_k)]
    result = CliRunner().invoke(app, words, input="".join(f"{line}\n" for line in lines))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_ids_and_titles_and_undo(demo, glintru):
    folder, _ = demo
    text = talk(
        folder, "saga-01-volume-1", "", "SAGA 1, volume 2", "undo", "undo", "undo", "quit", "never read", top_k=3
    )
    assert "Saga 1, volume 1 (saga-01-volume-1), 1 item so far. Next:" in text
    assert "Saga 1, volume 2 (saga-01-volume-2), 2 items so far. Next:" in text
    assert "Without Saga 1, volume 2 (saga-01-volume-2): 1 item so far" in text
    assert "there is nothing to undo" in text and "never read" not in text
    history = "saga-01-volume-1,saga-01-volume-2"
    expected = json.loads(glintru("recommend", folder, "--history", history, "--top_k", 3, "--json").stdout)
    after_two = text.split("2 items so far. Next:")[1]
    assert re.findall(r"^ *\d  (\S+)", after_two, re.M)[:3] == [x["item_id"] for x in expected["recommendations"]]


def test_several_titles_are_a_choice(demo):
    text = talk(demo[0], "saga 1, v", "2", "saga 1, v", "9999", "saga 1, v", "", "no such thing", "saga")
    assert re.search(r" 1  Saga 1, volume 1 \(saga-01-volume-1\)$", text, re.M)
    assert "Saga 1, volume 2 (saga-01-volume-2), 1 item so far" in text
    assert text.count("None of them.") == 3  # two wrong answers, and the end of the input
    assert "No item has the id 'no such thing', and no title begins with it." in text
    assert "and more: type more of the title" in text


def test_integer_ids_without_titles(tmp_path):
    small_model(vocab_size=4).save_pretrained(tmp_path)
    GlintRUProcessor([10, 20, 30]).save_pretrained(tmp_path)
    text = talk(tmp_path, "20", "ten", "99", top_k=2)
    assert "Type an item id;" in text and "20, 1 item so far" in text
    assert "id 'ten'" in text and "id '99'" in text


@pytest.mark.parametrize(
    ("text", "found"),
    [("a", ["a"]), ("Alp", ["b", "c"]), ("alpha", ["b"]), ("dup", ["d", "e"]), ("x", []), ("Straße", ["f"])],
)
def test_an_index_of_titles(text, found):
    titles = ["Zero", "Alpha", "Alphabet", "Dup", "dup", "STRASSE", None]
    assert TitleIndex(GlintRUProcessor(list("abcdefg"), titles)).find(text) == found


def test_not_too_many_choices():
    index = TitleIndex(GlintRUProcessor(list(range(100)), [f"Same {number}" for number in range(100)]))
    assert len(index.find("same")) == CHOICES + 1
