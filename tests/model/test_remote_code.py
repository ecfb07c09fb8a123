"""A saved folder works where this package is not installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from transformers import AutoModel, AutoProcessor

from modeling_glintru import GlintRUForSequentialRecommendation, GlintRUProcessor
from modeling_glintru.kernels import register
from modeling_glintru.models import ops_glintru

from .helpers import small_model

HISTORIES = [["b", "c", "a"], ["d", "a"]]

# Scores, those of a stored state that goes on, and the losses around one training step; the same lines run
# here and in the other process.
ANSWER = """
import torch

def answer(model, processor, histories):
    inputs = processor(histories)
    scores = model(**inputs).logits
    best = processor.decode_top_k(scores, 2)
    stored = model(**inputs, use_cache=True).state.to_bytes()
    state = model.state_class.from_bytes(stored)
    streamed = model(torch.tensor([[1], [2]]), state=state).logits
    labels = torch.where(inputs["attention_mask"] == 1, inputs["input_ids"].roll(-1, 1), -100)
    labels = labels.masked_fill(labels == 0, -100)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(0)
    losses = []
    for _ in range(2):
        loss = model.train()(**inputs, labels=labels).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    scores = torch.cat((scores, streamed))[:, 1:].tolist()
    return {"scores": scores, "best": best, "losses": losses}
"""

# First lines of a process that cannot import the package.
BLOCK = """
import importlib.abc, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "modeling_glintru":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Block())
try:
    import modeling_glintru
    raise SystemExit("the package must not be importable here")
except ModuleNotFoundError:
    pass
"""

# The same, then a model folder (the first argument) is loaded with its own code; the second argument is JSON.
LOAD = (
    BLOCK
    + """
import json
import torch
from transformers import AutoModel, AutoProcessor

folder, given = sys.argv[1], json.loads(sys.argv[2])
model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules."), type(model)
"""
)

# Prints what it computed as JSON.
REMOTE = (
    BLOCK
    + """
import json
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor

folder, again, histories = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
config, model, processor, extractor = (
    auto.from_pretrained(folder, trust_remote_code=True)
    for auto in (AutoConfig, AutoModel, AutoProcessor, AutoFeatureExtractor)
)
names = [type(thing).__name__ for thing in (config, model, processor, extractor)]
assert names == [
    "GlintRUConfig", "GlintRUForSequentialRecommendation", "GlintRUProcessor", "GlintRUProcessor"
], names
for thing in (config, model, processor, extractor):
    assert type(thing).__module__.startswith("transformers_modules."), type(thing)
model.save_pretrained(again)
processor.save_pretrained(again)
"""
    + ANSWER
    + """
print(json.dumps(answer(model, processor, histories)))
"""
)


def clean_environment(home):
    """The environment of a process with empty caches in the new folder `home`."""
    home.mkdir()
    folders = {"HF_HOME": str(home / "home"), "HF_MODULES_CACHE": str(home / "modules")}
    return {**os.environ, "HF_HUB_OFFLINE": "1", **folders}


def answer_without_the_package(folder, again, home):
    """What the folder computes in a process of its own, with empty caches; also saves it again, to `again`."""
    environment = clean_environment(home)
    command = [sys.executable, "-c", REMOTE, str(folder), str(again), json.dumps(HISTORIES)]
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("remote") / "model"
    options = dict.fromkeys(("embedding_dropout", "attention_dropout", "hidden_dropout"), 0.0)  # kernels draw otherwise
    model = small_model(vocab_size=5, num_hidden_layers=2, average_share=0.4, state_space_share=0.4, **options)
    model.save_pretrained(folder)
    processor = GlintRUProcessor(["a", "b", "c", "d"], {"a": "Apple"})
    processor.save_pretrained(folder)
    return folder


def test_the_folder_says_where_its_code_is(saved):
    config = json.loads((saved / "config.json").read_text())["auto_map"]
    assert config == {
        "AutoConfig": "configuration_glintru.GlintRUConfig",
        "AutoModel": "modeling_glintru.GlintRUForSequentialRecommendation",
    }
    processor = json.loads((saved / "preprocessor_config.json").read_text())["auto_map"]
    assert processor == dict.fromkeys(("AutoFeatureExtractor", "AutoProcessor"), "processing_glintru.GlintRUProcessor")
    names = {file.name for file in saved.glob("*.py")}
    wanted = ("configuration", "head", "modeling", "ops", "pipeline", "processing", "state")
    assert names == {f"{name}_glintru.py" for name in wanted}
    for file in saved.glob("*.py"):  # an auditor finds nothing that leaves Python and torch
        assert not re.search(r"ctypes|subprocess|os\.system|__attribute__|#include", file.read_text()), file.name


@pytest.mark.slow
def test_it_works_without_the_package(saved, tmp_path):
    folder, again = tmp_path / "first", tmp_path / "again"
    shutil.copytree(saved, folder)
    namespace: dict = {}
    exec(ANSWER, namespace)
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    here = namespace["answer"](model, processor, HISTORIES)
    assert here["losses"][0] != here["losses"][1]

    there = answer_without_the_package(folder, again, tmp_path / "one")
    assert_same(there, here)
    # What was saved there stands alone: nothing of the first folder or of the first process is left.
    shutil.rmtree(folder)
    assert_same(answer_without_the_package(again, tmp_path / "third", tmp_path / "two"), here)


def assert_same(there, here):
    torch.testing.assert_close(torch.tensor(there["scores"]), torch.tensor(here["scores"]), rtol=0, atol=5e-6)
    assert there["losses"] == pytest.approx(here["losses"], abs=5e-6)
    ids = [[item["item_id"] for item in row] for row in here["best"]]
    assert [[item["item_id"] for item in row] for row in there["best"]] == ids


@pytest.mark.parametrize("trust", [False, True])
def test_with_the_package_its_own_classes_are_used(saved, trust, tmp_path):
    model = AutoModel.from_pretrained(saved, trust_remote_code=trust)
    processor = AutoProcessor.from_pretrained(saved, trust_remote_code=trust)
    assert type(model) is GlintRUForSequentialRecommendation
    assert type(processor) is GlintRUProcessor
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert contents(tmp_path) == contents(saved)


def contents(folder):
    """Text by file name; safetensors files, and their digests, only by name: their metadata comes in no fixed order."""
    without = (".safetensors", "manifest.json")
    return {file.name: not file.name.endswith(without) and file.read_text() for file in folder.iterdir()}


KERNELS = """
import sys, torch
from transformers import AutoModel

model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
assert type(model).__module__.startswith("transformers_modules."), type(model)
ops = sys.modules[type(model).__module__.rpartition(".")[0] + ".ops_glintru"]
print(sorted(ops.FAST_FORMS))
print(model(torch.tensor([[1, 2, 3]])).logits[0, 1:].tolist())
"""


def test_code_from_the_hub_finds_the_kernels_of_an_installed_package(saved, tmp_path):
    """The model comes as remote code, since nobody imported the package; its operations are the fast ones."""
    environment = clean_environment(tmp_path / "home")
    command = [sys.executable, "-c", KERNELS, str(saved)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names, scores = done.stdout.splitlines()[-2:]
    assert eval(names) == sorted(ops_glintru.FAST_FORMS) != []
    here = AutoModel.from_pretrained(saved)(torch.tensor([[1, 2, 3]])).logits[0, 1:]
    torch.testing.assert_close(torch.tensor(json.loads(scores)), here, rtol=0, atol=5e-6)


def test_kernels_for_other_arguments_stay_away():
    table: dict = {}
    register(table, ops_glintru.SIGNATURES + 1)
    assert table == {}
    register(table, ops_glintru.SIGNATURES)
    assert table.keys() == ops_glintru.FAST_FORMS.keys()
