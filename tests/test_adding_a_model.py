"""The worked example of docs/adding_a_model.md: its file, its line, its commands."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from modeling_glintru import AutoModelForSequentialRecommendation
from modeling_glintru.cli import app
from modeling_glintru.models import auto

TEXT = (Path(__file__).parent.parent / "docs" / "adding_a_model.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE))


@pytest.fixture(scope="module")
def meanrec(tmp_path_factory):
    """The class of the example, registered by its line and forgotten afterwards."""
    path = BLOCKS[""].strip().strip('",')
    name = f"modeling_glintru.models.{path.rpartition('.')[0]}"
    file = tmp_path_factory.mktemp("model") / "modeling_meanrec.py"
    file.write_text(BLOCKS["python"], encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, name, module)  # as if the file lay in the package
        spec.loader.exec_module(module)
        patch.setattr(auto, "OUR_MODELS", (path,))
        auto.register()
        yield module.MeanRecForSequentialRecommendation
    del auto.MODELS["meanrec"]


def test_the_commands(meanrec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for line in BLOCKS["bash"].strip().splitlines():
        words = shlex.split(line)[1:]
        if words[0] == "train":
            words += ["--quiet", "--set", "num_train_epochs=2"]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{line}\n{result.output}"
    model = AutoModelForSequentialRecommendation.from_pretrained("outputs/meanrec")
    assert type(model) is meanrec and model.config.hidden_size == 32


def test_the_model_is_causal_and_reads_no_padding(meanrec):
    model = meanrec(meanrec.config_class(vocab_size=11, hidden_size=8)).eval()
    ids = torch.tensor([[0, 0, 3, 5, 7], [3, 5, 9, 0, 0]])
    states = model(ids).last_hidden_state
    torch.testing.assert_close(states[0, 2:4], states[1, :2])
    torch.testing.assert_close(model(ids[:1, 2:]).logits, model(ids[:1]).logits)


def test_bad_values_are_refused(meanrec):
    with pytest.raises(Exception, match="hidden_dropout must be at least 0 and below 1"):
        meanrec.config_class(hidden_dropout=2.0)
