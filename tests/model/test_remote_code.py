"""A saved folder works where this package is not installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from transformers import AutoModel, AutoProcessor

from modeling_glintru import GlintRUForSequentialRecommendation, GlintRUProcessor

from .helpers import small_model

HISTORIES = [["b", "c", "a"], ["d"]]

# Runs in a process that cannot import the package; prints what it computed as JSON.
REMOTE = """
import importlib.abc, json, sys

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
from transformers import AutoConfig, AutoModel, AutoProcessor

folder, again, histories = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])

def answer(folder):
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    assert type(AutoConfig.from_pretrained(folder, trust_remote_code=True)).__name__ == "GlintRUConfig"
    inputs = processor(histories)
    output = model(**inputs, labels=inputs["input_ids"].masked_fill(inputs["input_ids"] == 0, -100))
    output.loss.backward()
    norm = sum(p.grad.norm().item() for p in model.parameters())
    return model, processor, {
        "scores": output.logits[:, 1:].tolist(), "loss": output.loss.item(), "gradient": norm,
        "best": processor.decode_top_k(output.logits, 2),
    }

model, processor, first = answer(folder)
model.save_pretrained(again)
processor.save_pretrained(again)
print(json.dumps([first, answer(again)[2]]))
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("remote") / "model"
    model = small_model(vocab_size=5, num_hidden_layers=2)
    model.save_pretrained(folder)
    processor = GlintRUProcessor(["a", "b", "c", "d"], {"a": "Apple"})
    processor.save_pretrained(folder)
    return folder, model, processor


def test_the_folder_says_where_its_code_is(saved):
    folder = saved[0]
    config = json.loads((folder / "config.json").read_text())["auto_map"]
    assert config == {
        "AutoConfig": "configuration_glintru.GlintRUConfig",
        "AutoModel": "modeling_glintru.GlintRUForSequentialRecommendation",
    }
    processor = json.loads((folder / "preprocessor_config.json").read_text())["auto_map"]
    assert processor["AutoProcessor"] == "processing_glintru.GlintRUProcessor"
    names = {file.name for file in folder.glob("*.py")}
    wanted = "configuration head kernels layers losses modeling processing vocabulary".split()  # noqa: SIM905
    assert names == {f"{name}_glintru.py" for name in wanted}


@pytest.mark.slow
def test_it_works_without_the_package(saved, tmp_path):
    folder, model, processor = saved
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "home"),
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
    }
    arguments = [str(folder), str(tmp_path / "again"), json.dumps(HISTORIES)]
    done = subprocess.run(
        [sys.executable, "-c", REMOTE, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, again = json.loads(done.stdout.splitlines()[-1])
    assert first == again

    inputs = processor(HISTORIES)
    output = model(**inputs, labels=inputs["input_ids"].masked_fill(inputs["input_ids"] == 0, -100))
    torch.testing.assert_close(torch.tensor(first["scores"]), output.logits[:, 1:], rtol=0, atol=1e-6)
    assert first["loss"] == pytest.approx(output.loss.item(), abs=1e-6)
    assert first["gradient"] > 0
    assert [[i["item_id"] for i in row] for row in first["best"]] == [
        [i["item_id"] for i in row] for row in processor.decode_top_k(output.logits, 2)
    ]


@pytest.mark.parametrize("trust", [False, True])
def test_with_the_package_its_own_classes_are_used(saved, trust, tmp_path):
    folder = saved[0]
    model = AutoModel.from_pretrained(folder, trust_remote_code=trust)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=trust)
    assert type(model) is GlintRUForSequentialRecommendation
    assert type(processor) is GlintRUProcessor
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in folder.iterdir()}
