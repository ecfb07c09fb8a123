"""`manifest.json` of a model folder: no file of a model is read as another, and what rewrites a file rewrites it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoProcessor

from modeling_glintru import GlintRUConfig, GlintRUError, GlintRUForSequentialRecommendation, GlintRUProcessor
from modeling_glintru.errors import ModelFolderError
from modeling_glintru.hub import plan_push
from modeling_glintru.models.loading import load_model_folder
from modeling_glintru.serving import Recommender

TRIES = int(os.environ.get("GLINTRU_ATTACK_TRIES", "300"))


@pytest.fixture
def folder(tmp_path) -> Path:
    torch.manual_seed(0)
    config = GlintRUConfig(vocab_size=5, hidden_size=8, num_attention_heads=2)
    GlintRUForSequentialRecommendation(config).save_pretrained(tmp_path / "model")
    GlintRUProcessor(["tea", "milk", "bread", "jam"], max_length=6).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def described(folder: Path) -> dict[str, dict]:
    return json.loads((folder / "manifest.json").read_text())["files"]


def test_a_manifest_describes_each_file_of_the_model(folder):
    assert {"config.json", "model.safetensors", "item_vocabulary.safetensors", "modeling_glintru.py"} <= set(
        described(folder)
    )
    assert set(described(folder)) == {entry.name for entry in folder.iterdir()} - {"manifest.json"}
    for name, entry in described(folder).items():
        content = (folder / name).read_bytes()
        assert entry == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_one_flipped_bit_in_any_file_is_refused(folder, tmp_path):
    """In the manifest itself too, but where JSON means the same, or a name is one that the folder does not have."""
    weights = load_model_folder(folder)[0].state_dict()
    random.seed(0)
    names = sorted(entry.name for entry in folder.iterdir())
    refused = 0
    for number in range(max(TRIES // 10, 2 * len(names))):
        damaged = tmp_path / "damaged"
        shutil.copytree(folder, damaged)
        name = names[number % len(names)]
        content = bytearray((damaged / name).read_bytes())
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
        (damaged / name).write_bytes(content)
        try:
            model, processor = load_model_folder(damaged)
        except ModelFolderError as error:
            assert name in str(error)
            refused += 1
        else:
            assert name == "manifest.json"
            assert processor.item_ids == ("tea", "milk", "bread", "jam")
            assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())
        shutil.rmtree(damaged)
    assert refused >= 2 * (len(names) - 1)


def test_files_of_two_models_are_no_model(folder, tmp_path):
    other = GlintRUConfig(vocab_size=5, hidden_size=8, num_attention_heads=2)
    GlintRUForSequentialRecommendation(other).save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", folder)
    with pytest.raises(ModelFolderError, match=r"model\.safetensors is not the file .* delete manifest\.json"):
        load_model_folder(folder)
    (folder / "manifest.json").unlink()
    load_model_folder(folder)  # as the message says, and as a folder of an earlier version


def test_saving_again_describes_again(folder):
    model, processor = load_model_folder(folder)
    with torch.no_grad():
        model.model.embed_items.weight.mul_(2)
    model.save_pretrained(folder)
    load_model_folder(folder)
    processor.max_length = 3
    processor.save_pretrained(folder)
    assert load_model_folder(folder)[1].max_length == 3


def test_a_recommender_describes_what_it_copies(folder, tmp_path):
    (folder / "recipe.yaml").write_text("name: mine\n")
    (folder / "metrics.json").write_text("{}")
    Recommender.from_pretrained(folder).save_pretrained(tmp_path / "copy")
    assert {"recipe.yaml", "metrics.json"} <= set(described(tmp_path / "copy"))
    load_model_folder(tmp_path / "copy")


def test_a_push_describes_what_leaves(folder):
    text = json.dumps({"recipe": {"data": {"source": "here/clicks.csv"}}})
    (folder / "metrics.json").write_text(text)
    files = {file.path: file.content for file in plan_push(folder, "me/model").files}
    assert isinstance(files["metrics.json"], bytes) and b"here" not in files["metrics.json"]
    entries = json.loads(files["manifest.json"])["files"]
    assert set(entries) == set(files) - {"manifest.json"}
    for name, entry in entries.items():
        content = files[name] if isinstance(files[name], bytes) else files[name].read_bytes()
        assert entry == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_a_damaged_folder_is_not_pushed(folder):
    (folder / "head_glintru.py").write_text("print('something else')\n")
    with pytest.raises(ModelFolderError, match=r"head_glintru\.py is not the file"):
        plan_push(folder, "me/model")


def test_code_that_was_changed_does_not_run(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "of_a_stranger", "auto_map": {"AutoModel": "modeling_glintru.Mine"}}
    (folder / "config.json").write_text(json.dumps(config))
    load_processor = GlintRUProcessor.from_pretrained(folder)
    load_processor.save_pretrained(folder)  # describes the config as it is now
    (folder / "modeling_glintru.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ModelFolderError, match=r"modeling_glintru\.py is not the file"):
        load_model_folder(folder, trust_remote_code=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", ["[]", "{}", '{"files": 3}', "{", "\x00"])
def test_a_manifest_that_is_none_is_refused(folder, content):
    (folder / "manifest.json").write_text(content)
    with pytest.raises(ModelFolderError, match=r"manifest\.json is damaged"):
        load_model_folder(folder)


@pytest.mark.parametrize("version", [2, "2", None, -1])
@pytest.mark.parametrize(
    "file, loads",
    [
        ("config.json", [AutoConfig, AutoModel, GlintRUForSequentialRecommendation]),
        ("preprocessor_config.json", [AutoProcessor, GlintRUProcessor]),
    ],
)
def test_a_folder_of_a_newer_version_is_refused_by_name(folder, file, loads, version):
    settings = json.loads((folder / file).read_text())
    assert settings["format_version"] == 1
    (folder / file).write_text(json.dumps({**settings, "format_version": version}))
    (folder / "manifest.json").unlink()
    for load in (*(kind.from_pretrained for kind in loads), load_model_folder):
        with pytest.raises(GlintRUError, match=rf"{file}.* has the format {version}, of a newer version of glintru"):
            load(folder)
