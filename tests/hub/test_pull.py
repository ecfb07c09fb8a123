"""What was pushed comes back: with the package, without it, offline; and what to do where it does not."""

from __future__ import annotations

import json
import re
import socket

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoProcessor, pipeline

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation, GlintRUProcessor
from modeling_glintru.errors import HubError, ModelFolderError
from modeling_glintru.hub import push_folder
from modeling_glintru.models.loading import load_model_folder
from modeling_glintru.recipe import load_model_recipe, load_recipe
from modeling_glintru.serving import Recommender

from ..hub_server import ANN_READ, BOB
from .conftest import copy_of


def code_of(card: str) -> str:
    """The Python blocks of a card, top to bottom."""
    blocks = re.findall(r"^```python\n(.*?)^```$", card, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    return "\n".join(blocks)


@pytest.mark.slow
def test_a_stranger_pulls_a_trained_model_recommends_and_goes_on(hub, demo, python):
    """The whole way: trained, pushed, pulled by a process that has no package, used by raw id."""
    push_folder(demo[0], "ann/demo")
    code = """
import json, sys
import torch
from transformers import AutoConfig, AutoModel, AutoProcessor

def answer(name):
    config = AutoConfig.from_pretrained(name, trust_remote_code=True)
    model = AutoModel.from_pretrained(name, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
    if sys.meta_path[0].__class__.__name__ == "Block":
        assert all(type(x).__module__.startswith("transformers_modules.") for x in (config, model, processor))
    inputs = processor([["saga-01-volume-1", "saga-02-volume-1"]])
    with torch.inference_mode():
        first = model(**inputs, use_cache=True)
        state = model.state_class.from_bytes(first.state.to_bytes())
        second = model(processor([["saga-01-volume-2"]])["input_ids"], state=state)
        again = model(processor([["saga-01-volume-3"]])["input_ids"], state=second.state)
    return [processor.decode_top_k(output.logits, 5)[0] for output in (first, second, again)]
"""
    there = json.loads(python(code + 'print(json.dumps(answer("ann/demo")))').splitlines()[-1])
    namespace: dict = {}
    exec(code, namespace)
    here = namespace["answer"](demo[0])
    assert [[item["item_id"] for item in row] for row in there] == [[item["item_id"] for item in row] for row in here]
    scores = torch.tensor([[[item["score"] for item in row] for row in rows] for rows in (there, here)])
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-4, atol=1e-4)
    # A state that went on step by step is the whole history read at once.
    whole = Recommender.from_pretrained("ann/demo").recommend(
        [["saga-01-volume-1", "saga-02-volume-1", "saga-01-volume-2", "saga-01-volume-3"]], 5, exclude_seen=False
    )
    assert [item["item_id"] for item in whole[0].items] == [item["item_id"] for item in there[2]]


@pytest.mark.slow
def test_the_card_s_code_runs_and_runs_again_offline(hub, demo, python):
    push_folder(demo[0], "ann/demo")
    code = code_of(hub.repo("ann/demo").files()["README.md"].decode())
    online = python(code)
    assert online.count("'item_id': 'saga-") == 15 and "'title': 'Saga 1" in online
    with_pipeline, with_model, _ = online.splitlines()[-3:]
    assert re.findall("'item_id': '(.*?)'", with_pipeline) == re.findall("'item_id': '(.*?)'", with_model)
    asked = len(hub.requests)
    assert python(code, HF_HUB_OFFLINE="1") == online
    assert len(hub.requests) == asked


@pytest.mark.slow
def test_a_snapshot_is_enough_without_any_network(hub, folder, python):
    push_folder(folder, "ann/small")
    code = "from huggingface_hub import snapshot_download; print(snapshot_download('ann/small'))"
    path = python(code).strip()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    code = "import sys\nfrom modeling_glintru.models.loading import load_model_folder\n"
    load = "print(load_model_folder({!r})[1].item_ids, file=sys.stderr)\n"
    code += "".join(load.format(name) for name in ("ann/small", path, "ann/other"))
    error = python(code, package=True, fails=True, HF_ENDPOINT=nobody)
    assert error.count("jam") == 2
    assert "HubError: the Hub cannot be reached for ann/other: check the network, HF_ENDPOINT and" in error
    assert "fetch it once with a connection: hf download ann/other (" in error


def test_auto_classes_and_revisions(hub, folder):
    first = push_folder(folder, "ann/small").commit
    GlintRUProcessor(["a", "b", "c", "d"]).save_pretrained(folder)
    second = push_folder(folder, "ann/small", revision="next").commit
    assert first != second
    for revision, item in ((None, "tea"), (first, "tea"), ("next", "a"), (second, "a")):
        processor = AutoProcessor.from_pretrained("ann/small", revision=revision)
        assert type(processor) is GlintRUProcessor and processor.item_ids[0] == item
        assert load_model_folder("ann/small", revision=revision)[1].item_ids[0] == item
    assert type(AutoConfig.from_pretrained("ann/small")) is GlintRUConfig
    assert type(AutoModel.from_pretrained("ann/small", revision="next")) is GlintRUForSequentialRecommendation
    assert load_model_recipe("ann/small") == load_recipe("demo")
    with pytest.raises(ModelFolderError, match="is a folder on this machine, which has no revision"):
        load_model_folder(folder, revision="next")


def test_the_pipeline_of_a_repository(hub, folder):
    push_folder(folder, "ann/small")
    recommend = pipeline("sequential-recommendation", model="ann/small")
    assert {item["item_id"] for item in recommend({"history": ["tea"]})["items"]} == {"milk", "bread", "jam"}
    config = json.loads(hub.repo("ann/small").files()["config.json"])
    assert "pipeline_glintru.py" in hub.repo("ann/small").files() and "custom_pipelines" in config


def test_the_cache_is_used(hub, folder):
    push_folder(folder, "ann/small")
    load_model_folder("ann/small")
    hub.requests.clear()
    load_model_folder("ann/small")
    assert not [request for request in hub.requests if request[0] == "GET" and "/resolve/" in request[1]]


@pytest.mark.parametrize(
    ("token", "name", "revision", "message"),
    [
        (None, "ann/nowhere", None, "ann/nowhere is not on the Hub, or it is private: check the name, and log in"),
        (BOB, "ann/nowhere", None, "ann/nowhere is not on the Hub, or it is private"),
        (None, "ann/private", None, "ann/private is not on the Hub, or it is private"),
        (BOB, "ann/private", None, "ann/private is not on the Hub, or it is private"),
        (None, "ann/gated", None, "ann/gated is gated: ask for access on its page, then log in with `hf auth login`"),
        (BOB, "ann/gated", None, "ann/gated is gated: ask for access on its page"),
        (ANN_READ, "ann/open", "v9", "ann/open has no revision 'v9': give a branch or a commit that it has"),
        ("hf_wrong", "ann/open", None, "the Hub does not know who asks for ann/open: log in"),
    ],
)
def test_what_to_do_where_a_repository_is_not_to_be_had(hub, folder, monkeypatch, token, name, revision, message):
    for which, options in (("open", {}), ("private", {"private": True}), ("gated", {"gated": True})):
        hub.add(f"ann/{which}", {"config.json": b"{}"}, **options)
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(HubError) as caught:
        load_model_folder(name, revision=revision)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
    assert str(caught.value).rstrip(")").endswith(str(caught.value.__cause__).splitlines()[0].rstrip("."))


def test_private_and_gated_ones_for_who_may(hub, folder, tmp_path):
    push_folder(folder, "ann/small", private=True)
    hub.repo("ann/small").gated = True
    load_model_folder("ann/small")


def test_the_commands_take_a_repository(glintru, hub, demo, tmp_path):
    push_folder(copy_of(demo[0], tmp_path / "copy"), "ann/demo")
    result = glintru("recommend", "ann/demo", "--history", "saga-01-volume-1", "--top_k", "2")
    assert result.exit_code == 0 and "saga-" in result.stdout, result.output
    result = glintru("recommend", "ann/other", "--history", "x")
    assert result.exit_code == 2 and result.stderr.startswith("glintru: ann/other is not on the Hub")
