"""A saved baseline works where this package is not installed, as GLINT-RU does."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from modeling_glintru import GlintRUProcessor

from ..model.test_remote_code import LOAD, clean_environment
from .helpers import make

ITEMS = [f"item-{number}" for number in range(1, 31)]
HISTORY = ["item-3", "item-9", "item-4"]

# Scores, and what the pipeline recommends, in a process that cannot import the package.
REMOTE = (
    LOAD
    + """
from transformers import pipeline

with torch.no_grad():
    scores = model(**processor([given])).logits[0, 1:].tolist()
recommend = pipeline("sequential-recommendation", model=folder, trust_remote_code=True)
items = [item["item_id"] for item in recommend({"history": given}, top_k=5)["items"]]
print(json.dumps({"scores": scores, "items": items}))
"""
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sasrec", "mamba4rec", "bert4rec"])
def test_it_works_without_the_package(name, tmp_path):
    model, processor, folder = make(name).float(), GlintRUProcessor(ITEMS), tmp_path / "model"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    command = [sys.executable, "-c", REMOTE, str(folder), json.dumps(HISTORY)]
    environment = clean_environment(tmp_path / "home")
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout.splitlines()[-1])
    with torch.no_grad():
        scores = model(**processor([HISTORY])).logits[0, 1:]
    torch.testing.assert_close(torch.tensor(there["scores"]), scores, rtol=0, atol=5e-6)
    scores[[ITEMS.index(item) for item in HISTORY]] = -torch.inf
    assert there["items"] == [ITEMS[place] for place in scores.topk(5).indices.tolist()]
