"""The loopback Hub answers the real client as the real Hub does."""

from __future__ import annotations

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..hub_server import ANN, ANN_READ, BOB


def add(path, data):
    return CommitOperationAdd(path, data)


def test_push_and_pull(hub, tmp_path):
    api = HfApi(token=ANN)
    api.create_repo("ann/a")
    assert api.whoami()["name"] == "ann"
    files = {"weights.safetensors": bytes(range(256)) * 40, "sub/text.json": b"{}"}
    first = api.create_commit("ann/a", [add(*item) for item in files.items()], commit_message="one")
    folder = snapshot_download("ann/a")
    for name, data in files.items():
        with open(f"{folder}/{name}", "rb") as file:
            assert file.read() == data
    assert sorted(api.list_repo_files("ann/a")) == [".gitattributes", "sub/text.json", "weights.safetensors"]
    assert api.model_info("ann/a").sha == first.oid

    # What has not changed is neither uploaded nor committed.
    hub.requests.clear()
    second = api.create_commit(
        "ann/a", [add("sub/text.json", b"{1}"), add(*next(iter(files.items())))], commit_message="2"
    )
    assert hub.repo("ann/a").at("main").touched == ("sub/text.json",)
    assert not [path for method, path in hub.requests if method == "PUT"]
    api.create_branch("ann/a", branch="old", revision=first.oid)
    for revision, data in (("old", b"{}"), (first.oid, b"{}"), ("main", b"{1}"), (second.oid, b"{1}")):
        with open(hf_hub_download("ann/a", "sub/text.json", revision=revision), "rb") as file:
            assert file.read() == data


def test_a_commit_is_whole_or_nothing(hub):
    api = HfApi(token=ANN)
    head = hub.add("ann/a", {"x": b"1"}).at("main")
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit("ann/a", [add("x", b"2")], commit_message="late", parent_commit="0" * 40)
    with pytest.raises(ValueError, match="metadata"):
        api.create_commit("ann/a", [add("README.md", b"---\ntags: 3\n---\n")], commit_message="bad card")
    assert hub.repo("ann/a").at("main") is head


def test_a_download_that_was_cut_goes_on(hub):
    data = bytes(range(256)) * 400
    hub.add("ann/a", {"weights.safetensors": data})
    answers = ["body"]
    hub.on_request = lambda method, path: answers.pop() if method == "GET" and "resolve" in path and answers else None
    with open(hf_hub_download("ann/a", "weights.safetensors"), "rb") as file:
        assert file.read() == data
    assert not answers


def test_who_may_do_what(hub):
    hub.add("ann/open", {"x": b"1"})
    hub.add("ann/private", {"x": b"1"}, private=True)
    hub.add("ann/gated", {"x": b"1"}, gated=True, readers={"bob"})
    for token in (None, BOB):
        with pytest.raises(RepositoryNotFoundError):
            hf_hub_download("ann/private", "x", token=token or False)
        with pytest.raises(RepositoryNotFoundError):
            HfApi(token=token or False).model_info("ann/nowhere")
    with pytest.raises(GatedRepoError):
        hf_hub_download("ann/gated", "x", token=False)
    assert HfApi(token=False).model_info("ann/gated").gated == "manual"
    hf_hub_download("ann/gated", "x", token=BOB)
    hf_hub_download("ann/private", "x", token=ANN_READ)
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download("ann/open", "x", revision="v9", token=False)
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download("ann/open", "y", token=False)
    for token in (ANN_READ, BOB):
        with pytest.raises(HfHubHTTPError, match="403"):
            HfApi(token=token).create_commit("ann/open", [add("x", b"2")], commit_message="no")
    with pytest.raises(HfHubHTTPError, match="403"):
        HfApi(token=BOB).create_repo("ann/new")
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi(token="hf_wrong").whoami()
    with pytest.raises(HfHubHTTPError, match="409"):
        HfApi(token=ANN).create_repo("ann/open")
