"""A forked process computes, as a worker of `gunicorn --preload` does whose parent has computed before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
import os, signal, sys
import torch
from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation, GlintRUProcessor, Recommender
from modeling_glintru.errors import StoreError
from modeling_glintru.serving import StreamingRecommender

torch.set_num_threads(2)
torch.manual_seed(0)
items = [f"item-{number}" for number in range(3000)]
model = GlintRUForSequentialRecommendation(GlintRUConfig(vocab_size=3001, hidden_size=64)).eval()
recommender = Recommender(model, GlintRUProcessor(items, max_length=50))
streaming = StreamingRecommender(model, recommender.processor, sys.argv[1])
histories = [items[n : n + 50] for n in range(0, 1200, 2)]
def answers():
    return [[item["item_id"] for item in each.items] for each in recommender.recommend(histories, top_k=5)]

def learns():
    model.train()
    model(torch.randint(1, 3001, (64, 50)), labels=torch.randint(1, 3001, (64, 50))).loss.backward()
    model.eval()

before = answers()
learns()
streaming.observe("a", items[0])
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        signal.alarm(100)
        try:
            assert answers() == before
            learns()
            try:
                streaming.observe("a", items[1])
                raise AssertionError("a store of the parent was used")
            except StoreError as error:
                assert "fork" in str(error)
            with StreamingRecommender(model, recommender.processor, sys.argv[1]) as own:
                own.observe("a", items[1])
        except BaseException as error:
            print(f"child: {error!r}", flush=True)
            os._exit(1)
        os._exit(0)
    children.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
assert torch.get_num_threads() == 2 and answers() == before
streaming.close()
print(codes)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
@pytest.mark.parametrize("kernels", ["1", "0"])
def test_a_fork_after_use_with_two_threads(tmp_path, kernels):
    environment = {"PYTHONPATH": str(ROOT), "GLINTRU_KERNELS": kernels, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", CODE, tmp_path / "users.db"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.strip() == "[0, 0, 0]", done.stdout + done.stderr
