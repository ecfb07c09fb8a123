"""Saved baselines work where this package is not installed, as GLINT-RU does."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from modeling_glintru import GlintRUProcessor

from ..model.test_remote_code import BLOCK, clean_environment
from .helpers import make

ITEMS = [f"item-{number}" for number in range(1, 31)]
HISTORY = ["item-3", "item-9", "item-4"]

# For each folder the scores, and what the pipeline recommends, in a process that cannot import the package.
REMOTE = (
    BLOCK
    + """
import json
import torch
from transformers import AutoModel, AutoProcessor, pipeline

given, answers = json.loads(sys.argv[1]), []
for folder in sys.argv[2:]:
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    with torch.no_grad():
        scores = model(**processor([given])).logits[0, 1:].tolist()
    recommend = pipeline("sequential-recommendation", model=folder, trust_remote_code=True)
    items = [item["item_id"] for item in recommend({"history": given}, top_k=5)["items"]]
    answers.append({"scores": scores, "items": items})
print(json.dumps(answers))
"""
)
NAMES = ("sasrec", "mamba4rec", "bert4rec")


@pytest.mark.slow
def test_they_work_without_the_package(tmp_path):
    processor = GlintRUProcessor(ITEMS)
    models = {name: make(name).float() for name in NAMES}
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
        processor.save_pretrained(tmp_path / name)
    command = [sys.executable, "-c", REMOTE, json.dumps(HISTORY), *(str(tmp_path / name) for name in NAMES)]
    environment = clean_environment(tmp_path / "home")
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for model, there in zip(models.values(), json.loads(done.stdout.splitlines()[-1]), strict=True):
        with torch.no_grad():
            scores = model(**processor([HISTORY])).logits[0, 1:]
        torch.testing.assert_close(torch.tensor(there["scores"]), scores, rtol=0, atol=5e-6)
        scores[[ITEMS.index(item) for item in HISTORY]] = -torch.inf
        assert there["items"] == [ITEMS[place] for place in scores.topk(5).indices.tolist()]
