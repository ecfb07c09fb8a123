"""`handler.py`, the code that Inference Endpoints run in a pushed repository."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_glintru import GlintRUProcessor
from modeling_glintru.hub import handler, push_folder
from modeling_glintru.hub.handler import EndpointHandler

from ..model.helpers import small_model
from ..model.test_remote_code import BLOCK, clean_environment

ITEMS = [f"item-{number}" for number in range(1, 21)]
HISTORY = ITEMS[2:7]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("handler") / "model"
    small_model(vocab_size=21, num_hidden_layers=2).save_pretrained(folder)
    GlintRUProcessor(ITEMS, max_length=30).save_pretrained(folder)
    return folder


@pytest.fixture
def endpoint(folder):
    return EndpointHandler(str(folder))


def ids(answer):
    return [item["item_id"] for item in answer["items"]]


def through_json(endpoint, inputs, **parameters):
    request = json.dumps({"inputs": inputs, "parameters": parameters})
    return json.loads(json.dumps(endpoint(json.loads(request))))


def test_one_and_many(endpoint):
    one = through_json(endpoint, HISTORY, top_k=3)
    assert len(one["items"]) == 3 and not set(ids(one)) & set(HISTORY)
    assert through_json(endpoint, {"history": HISTORY}, top_k=3) == one
    assert [ids(a) for a in through_json(endpoint, [HISTORY, {"history": HISTORY}], top_k=3)] == [ids(one)] * 2
    assert through_json(endpoint, ["nowhere"])["num_unknown_items"] == 1


def test_the_client_keeps_the_state(endpoint):
    whole = through_json(endpoint, HISTORY, exclude_seen=False)
    state = through_json(endpoint, HISTORY[:3], return_state=True)["state"]
    rest = through_json(endpoint, {"history": HISTORY[3:], "state": state}, exclude_seen=False)
    assert ids(rest) == ids(whole) and "state" not in rest


def test_the_state_is_kept_by_user(endpoint):
    whole = through_json(endpoint, HISTORY)
    through_json(endpoint, {"user": 1, "history": HISTORY[:2]})
    through_json(endpoint, {"user": "1", "history": ITEMS[9:12]})  # another user
    events = [{"item": item, "id": number} for number, item in enumerate(HISTORY)]
    through_json(endpoint, {"user": 1, "events": events[2:4]})
    again = through_json(endpoint, {"user": 1, "events": events[2:]})  # two of them a second time
    assert ids(again) == ids(whole)
    assert ids(through_json(endpoint, {"user": 1})) == ids(whole)  # asking changes nothing


def test_the_time_of_the_request(tmp_path):
    small_model(vocab_size=21, use_time_gaps=True).save_pretrained(tmp_path)
    GlintRUProcessor(ITEMS).save_pretrained(tmp_path)
    endpoint = EndpointHandler(str(tmp_path))
    soon, late, unknown = (
        through_json(endpoint, {"history": HISTORY, "time_gap": gap}, exclude_seen=False)["items"]
        for gap in (0, 1e8, None)
    )
    assert soon != late and unknown == through_json(endpoint, HISTORY, exclude_seen=False)["items"]
    through_json(endpoint, {"user": 1, "history": HISTORY, "time_gap": 5})
    kept = through_json(endpoint, {"user": 1, "time_gap": 0}, exclude_seen=False)["items"]
    assert [item["item_id"] for item in kept] == [item["item_id"] for item in soon]
    with pytest.raises(ValueError, match="at least 0, or None where not known, got 'soon'"):
        through_json(endpoint, {"history": HISTORY, "time_gap": "soon"})


def test_the_user_not_heard_of_for_longest_goes_first(endpoint, monkeypatch):
    monkeypatch.setattr(handler, "MAX_USERS", 2)
    for user in ("a", "b", "a", "c"):
        through_json(endpoint, {"user": user, "history": HISTORY[:1]})
    assert list(endpoint.users) == ["a", "c"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, 'a request is an object {"inputs"'),
        ([1], 'a request is an object {"inputs"'),
        ({"inputs": 3}, "inputs must be a list"),
        ({"inputs": "item-1"}, "inputs must be a list"),
        ({"inputs": HISTORY, "parameters": {"k": 3}}, "no parameter 'k'"),
        ({"inputs": HISTORY, "parameters": {"top_k": 99}}, "top_k must be between 1 and the number of items"),
        ({"inputs": {"history": HISTORY, "events": []}}, "either history or events"),
        ({"inputs": {"events": []}}, "give user"),
        ({"inputs": {"user": ["a"], "history": []}}, "user must be a text or an integer"),
        ({"inputs": {"user": "a", "events": [{"id": 1}]}}, "events must be a list of"),
        ({"inputs": {"user": "a", "state": "AAAA", "history": []}}, "either user, whose state is kept here, or state"),
        ({"inputs": {"history": [], "state": "not base64"}}, "base64"),
        ({"inputs": {"history": [], "state": "AAAA"}}, "not a state"),
        ({"inputs": {"histori": []}}, "the unknown 'histori'"),
        ({"inputs": [{"user": "a"}, {"user": "a"}]}, "a user may be in a batch once"),
        ({"inputs": ["nowhere"], "parameters": {"unknown_items": "error"}}, "nowhere"),
    ],
)
def test_bad_requests_are_value_errors_and_change_nothing(endpoint, data, said):
    through_json(endpoint, {"user": "a", "history": HISTORY[:2]})
    before = dict(endpoint.users)
    with pytest.raises(ValueError, match=said) as caught:
        endpoint(data)
    assert "\n" not in str(caught.value)
    assert endpoint.users == before


def test_a_request_that_fails_counts_nothing(endpoint):
    through_json(endpoint, {"user": "a", "history": HISTORY[:2]})
    with pytest.raises(ValueError, match="nowhere"):
        endpoint({"inputs": {"user": "a", "history": ["nowhere"]}, "parameters": {"unknown_items": "error"}})
    assert endpoint.users["a"].seen == tuple(HISTORY[:2])


REMOTE = (
    BLOCK
    + """
import json
sys.path.insert(0, sys.argv[1])
from handler import EndpointHandler

endpoint = EndpointHandler(sys.argv[1])
print(json.dumps([endpoint(json.loads(request)) for request in sys.argv[2:]]))
"""
)


@pytest.mark.slow
def test_it_runs_where_this_package_is_not_installed(folder, endpoint, tmp_path):
    copy = tmp_path / "repository"
    shutil.copytree(folder, copy)
    shutil.copyfile(handler.__file__, copy / "handler.py")
    requests = [{"inputs": {"user": "u", "history": HISTORY[:3]}}, {"inputs": {"user": "u", "history": HISTORY[3:]}}]
    command = [sys.executable, "-c", REMOTE, str(copy), *map(json.dumps, requests)]
    done = subprocess.run(command, env=clean_environment(tmp_path / "home"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    assert ids(answers[1]) == ids(endpoint({"inputs": HISTORY}))


def test_a_trained_model_brings_it_along(hub, demo):
    model, _ = demo
    assert (model / "handler.py").read_bytes() == Path(handler.__file__).read_bytes()
    push_folder(model, "ann/demo")
    assert "handler.py" in hub.repo("ann/demo").files()
    card = (model / "README.md").read_text()
    request = json.loads(re.search(r"```json\n(.*?)\n```", card).group(1))
    assert len(EndpointHandler(str(model))(request)["items"]) == 5
