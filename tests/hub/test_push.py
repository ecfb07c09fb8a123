"""`push_folder` and `glintru push`: what goes, what stays, in one commit."""

from __future__ import annotations

import io
import json
import platform
import re
import subprocess
import sys
import threading
import zipfile

import huggingface_hub
import polars as pl
import pytest
import torch
from safetensors import safe_open

from modeling_glintru import GlintRUForSequentialRecommendation
from modeling_glintru.data import synthetic_interactions
from modeling_glintru.errors import GlintRUError, HubError, ModelFolderError
from modeling_glintru.hub import plan_push, push_folder
from modeling_glintru.hub.card_text import is_signed
from modeling_glintru.models.loading import load_model_folder
from modeling_glintru.recipe import load_recipe

from ..hub_server import ANN, ANN_READ, BOB

MODEL = {
    *("config.json", "model.safetensors", "preprocessor_config.json", "item_vocabulary.safetensors"),
    *("metrics.json", "recipe.yaml", "README.md", "modeling_glintru.py", "processing_glintru.py", "manifest.json"),
}


def test_a_push_is_one_commit_of_the_model_and_nothing_else(hub, folder):
    result = push_folder(folder, "ann/small")
    assert (result.url, result.repo_id) == (f"{hub.url}/ann/small", "ann/small")
    repo = hub.repo("ann/small")
    assert len(repo.branches["main"]) == 2 and not repo.private  # the empty repository, and the push
    files = set(repo.files()) - {".gitattributes"}
    assert files == set(result.changed) and files >= MODEL
    assert files - MODEL == {name for name in files if name.endswith("_glintru.py")} - MODEL
    assert json.loads(repo.files()["config.json"])["auto_map"]["AutoModel"].startswith("modeling_glintru.")


def test_a_second_push_changes_only_what_changed(hub, folder):
    push_folder(folder, "ann/small")
    again = push_folder(folder, "ann/small")
    assert again.changed == () and len(hub.repo("ann/small").branches["main"]) == 2
    (folder / "metrics.json").write_text('{"seed": 43}\n')
    hub.requests.clear()
    assert push_folder(folder, "ann/small").changed == ("manifest.json", "metrics.json")
    assert hub.repo("ann/small").at("main").touched == ("manifest.json", "metrics.json")
    assert not [path for method, path in hub.requests if method == "PUT"]


def test_weights_in_parts_replace_weights_in_one(hub, folder):
    push_folder(folder, "ann/small")
    model, _ = load_model_folder(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="1KB")
    push_folder(folder, "ann/small")
    files = hub.repo("ann/small").files()
    assert "model.safetensors" not in files and "model.safetensors.index.json" in files
    assert ".gitattributes" in files  # not ours to delete
    loaded, _ = load_model_folder("ann/small")
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_private_and_branches(hub, folder):
    push_folder(folder, "ann/small", private=True, revision="next")
    repo = hub.repo("ann/small")
    assert repo.private and set(repo.files("main")) == {".gitattributes"} and "config.json" in repo.files("next")
    load_model_folder("ann/small", revision="next")


def test_a_push_that_was_killed_leaves_the_repository_as_it_was(hub, folder):
    push_folder(folder, "ann/small")
    before = hub.repo("ann/small").at("main")
    model, _ = load_model_folder(folder)
    torch.nn.init.ones_(model.model.embed_items.weight)
    model.save_pretrained(folder)
    reached, go_on = threading.Event(), threading.Event()

    def stop_at_the_weights(method: str, path: str) -> None:
        if method == "PUT":
            reached.set()
            go_on.wait(60)

    hub.on_request = stop_at_the_weights
    code = f"from modeling_glintru.hub import push_folder; push_folder({str(folder)!r}, 'ann/small')"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert reached.wait(120)
    process.kill()
    process.wait()
    go_on.set()
    assert hub.repo("ann/small").at("main") is before
    hub.on_request = lambda method, path: None
    assert push_folder(folder, "ann/small").changed == ("manifest.json", "model.safetensors")


def test_a_commit_that_does_not_arrive(hub, folder):
    hub.on_request = lambda method, path: "drop" if "/commit/" in path else None
    with pytest.raises(HubError, match="the Hub cannot be reached for ann/small: check the network"):
        push_folder(folder, "ann/small")
    assert set(hub.repo("ann/small").files()) == {".gitattributes"}
    hub.on_request = lambda method, path: None
    assert "model.safetensors" in push_folder(folder, "ann/small").changed


def test_dry_run(glintru, hub, folder):
    result = glintru("push", folder, "ann/small", "--dry_run")
    assert result.exit_code == 0 and not hub.requests
    size = (folder / "model.safetensors").stat().st_size
    assert f"model.safetensors            {size:>12,} bytes" in result.stdout
    for name in ("optimizer.pt", "training_args.bin", "interactions.csv", "checkpoints", ".env", "notes.py"):
        assert name in result.stdout.partition("stays here: ")[2]


def test_the_command(glintru, hub, folder):
    result = glintru("push", folder, "ann/small", "--private", "--revision", "v1")
    assert result.exit_code == 0, result.output
    assert "model.safetensors" in result.stdout and f"{hub.url}/ann/small at " in result.stdout
    assert hub.repo("ann/small").private and "config.json" in hub.repo("ann/small").files("v1")
    again = glintru("push", folder, "ann/small", "--revision", "v1")
    assert "Changed: nothing, all of it was there already" in again.stdout


@pytest.mark.parametrize(
    ("token", "repo", "message"),
    [
        (None, "ann/small", "the Hub does not know who asks for ann/small: log in with `hf auth login`"),
        (ANN_READ, "ann/small", "this login may not write ann/small: take a token with the right to write"),
        (BOB, "ann/small", "this login may not write ann/small"),
        ("hf_ann_write", "a/b/c", "'a/b/c' is no name of a repository, which is owner/name"),
        ("hf_ann_write", "ann/sm all", "'ann/sm all' is no name of a repository"),
    ],
)
def test_who_may_not_push(glintru, hub, folder, monkeypatch, token, repo, message):
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    result = glintru("push", folder, repo)
    assert result.exit_code == 2 and not hub.repos
    assert result.stderr.startswith(f"glintru: {message}") and result.stderr.count("\n") == 1


def test_what_is_no_whole_model_is_not_pushed(hub, folder, tmp_path):
    with pytest.raises(ModelFolderError, match="there is no model folder"):
        push_folder(tmp_path / "nowhere", "ann/small")
    (folder / "item_vocabulary.safetensors").unlink()
    with pytest.raises(GlintRUError, match="item_vocabulary"):
        push_folder(folder, "ann/small")
    assert not hub.requests


# ---------------------------------------------------------------------- what must not leave


def test_paths_are_taken_out(hub, folder, tmp_path):
    recipe = load_recipe("demo", [f"source={tmp_path}/clicks.csv", "item_titles=C:\\\\Users\\\\ann\\\\items.csv"])
    recipe.save(folder / "recipe.yaml")
    (folder / "metrics.json").write_text(json.dumps({"recipe": recipe.to_dict(), "seed": 1}))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"_name_or_path": str(tmp_path / "old")}))
    (folder / "manifest.json").unlink()
    push_folder(folder, "ann/small")
    files = hub.repo("ann/small").files()
    (tmp_path / "pulled.yaml").write_bytes(files["recipe.yaml"])
    pulled = load_recipe(tmp_path / "pulled.yaml")
    assert (pulled.data.source, pulled.data.item_titles) == ("clicks.csv", "items.csv")
    assert json.loads(files["metrics.json"])["recipe"]["data"]["source"] == "clicks.csv"
    assert not [path for path, data in files.items() if str(tmp_path).encode() in data]
    assert str(tmp_path) in (folder / "recipe.yaml").read_text()  # what is here stays as it is


def test_nothing_private_leaves_with_a_trained_model(glintru, hub, tmp_path):
    """Greps all that a real run pushes: no user, no history, no path, no token, no pickle, no name of the machine."""
    table = tmp_path / "clicks.csv"
    users = pl.concat_str(pl.lit("zz-person-"), pl.col("user_id"))
    synthetic_interactions().frame.with_columns(user_id=users).write_csv(table)
    words = ("--recipe", "demo", "--set", "num_train_epochs=1", "--quiet", "--save_minutes", "0.001")
    result = glintru("train", "--data", table, "--output_dir", tmp_path / "model", *words)
    assert result.exit_code == 0, result.output
    result = glintru("push", tmp_path / "model", "ann/clicks")
    assert result.exit_code == 0, result.output
    files = hub.repo("ann/clicks").files()
    assert (
        set(files) - {".gitattributes", "learning_curves.png", "handler.py"} - MODEL
        == {name for name in files if name.endswith("_glintru.py")} - MODEL
    )
    secrets = [b"zz-person", str(tmp_path).encode(), ANN.encode(), b"timestamp,", b"1,2,3,4"]
    for name, data in files.items():
        for secret in secrets:
            assert secret not in data, (name, secret)
        assert data[:1] != b"\x80" and not zipfile.is_zipfile(io.BytesIO(data)), f"{name} is a pickle"
        if name.endswith(".safetensors"):
            with safe_open(tmp_path / "model" / name, "np") as opened:
                assert set(opened.metadata()) <= {"format", "version"}
    told = b"".join(files[name] for name in ("README.md", "metrics.json", "recipe.yaml", "config.json"))
    assert not re.search(rf"\b{re.escape(platform.node())}\b".encode(), told)
    assert b"source: clicks.csv" in files["recipe.yaml"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trained in {folder}", "holds a path of this machine"),
        ("see /home/ann/clicks", r"holds a path of this machine in line \d+ \(/home/ann/clicks\)"),
        ("hf_abcdefghijklmnopqrstuvwxyz", "holds an access token"),
        ("hf_ann_write", "holds an access token"),
    ],
)
def test_the_last_gate(hub, folder, text, message):
    with open(folder / "README.md", "a") as file:
        file.write(text.format(folder=folder))
    with pytest.raises(HubError, match=message):
        push_folder(folder, "ann/small")
    assert not hub.requests


def test_a_data_set_of_the_hub_keeps_its_name(folder):
    load_recipe("demo", ["source=ann/clicks"]).save(folder / "recipe.yaml")
    (recipe,) = [file for file in plan_push(folder, "ann/small").files if file.path == "recipe.yaml"]
    assert recipe.content == folder / "recipe.yaml"


# ---------------------------------------------------------------------- the card


def test_the_card_gets_the_name_of_the_repository(hub, folder):
    push_folder(folder, "ann/small")
    text = hub.repo("ann/small").files()["README.md"].decode()
    assert "name = 'ann/small'" in text and is_signed(text)
    assert "YOUR_NAME/small" in (folder / "README.md").read_text()


def test_a_card_edited_on_the_hub_stays(glintru, hub, folder):
    push_folder(folder, "ann/small")
    repo = hub.repo("ann/small")
    edited = repo.files()["README.md"] + b"\nWritten by hand on the Hub.\n"
    repo.commit("main", {"README.md": type(repo.at("main").files["README.md"])(edited)}, [], "edit")
    result = glintru("push", folder, "ann/small")
    assert "README.md was edited on the Hub and stays as it is there; --overwrite_card" in result.stdout
    assert repo.files()["README.md"] == edited
    assert push_folder(folder, "ann/small", overwrite_card=True).changed == ("README.md",)


def test_a_card_edited_here_is_pushed_as_it_is(hub, folder):
    push_folder(folder, "ann/small")
    with open(folder / "README.md", "a") as file:
        file.write("\nMine.\n")
    for _ in range(2):  # what a push wrote is not taken for an edit on the Hub
        result = push_folder(folder, "ann/small")
        assert not result.kept_card and b"\nMine.\n" in hub.repo("ann/small").files()["README.md"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("---\ntags: [a\n---\n", "the YAML header of README.md is broken: line 3: "),
        ("---\ntags: a\n", "has no second line ---"),
        ("---\n- a\n---\n", "must be a mapping, but got list"),
        ("---\nmodel-index: 3\n---\n", "the header of README.md cannot be read"),
        pytest.param(
            *("---\ntags: {a: 1}\n---\n", "the Hub does not take the header of README.md"),
            marks=pytest.mark.skipif(
                huggingface_hub.__version__.startswith("1."), reason="this client asks huggingface.co about cards"
            ),
        ),
    ],
)
def test_a_broken_card_is_refused_before_anything_is_made(glintru, hub, folder, header, message):
    (folder / "README.md").write_text(header + "# text\n")
    result = glintru("push", folder, "ann/small")
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1
    assert not hub.repos


# ---------------------------------------------------------------------- transformers' own way


def test_the_model_s_own_push_to_hub(hub, folder):
    model, processor = load_model_folder(folder)
    model.push_to_hub("ann/own")
    with pytest.raises(GlintRUError, match=r"ann/own has no item vocabulary"):
        load_model_folder("ann/own")
    processor.push_to_hub("ann/own")
    files = hub.repo("ann/own").files()
    assert {"config.json", "model.safetensors", "item_vocabulary.safetensors", "modeling_glintru.py"} <= set(files)
    loaded, _ = load_model_folder("ann/own")
    assert isinstance(loaded, GlintRUForSequentialRecommendation)
