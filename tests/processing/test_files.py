"""The processor on the disk: alone, through the auto classes, in a Trainer, as remote code, and damaged."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoFeatureExtractor, AutoProcessor, Trainer, TrainingArguments

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation
from modeling_glintru.models.configuration_glintru import GlintRUError
from modeling_glintru.models.processing_glintru import VOCABULARY_FILE, GlintRUProcessor, VocabularyFileError

STRINGS = ["007", "7", "", "Zoë", "日本", "a\0", "🎬", "\ud800"]
INTEGERS = [0, -5, 2**63 - 1, -(2**63), 7]
TITLES = ["Bond", "", None, "Zoë's", "日本", "nul\0", None, "last"]
SETTINGS_FILE = "preprocessor_config.json"


def same(one: GlintRUProcessor, other: GlintRUProcessor) -> bool:
    return (
        one.item_ids == other.item_ids
        and [type(raw) for raw in one.item_ids] == [type(raw) for raw in other.item_ids]
        and one.item_titles == other.item_titles
        and one.to_dict() == other.to_dict()
        and np.array_equal(one.item_counts, other.item_counts)
    )


@pytest.mark.parametrize(
    "processor",
    [
        GlintRUProcessor(STRINGS),
        GlintRUProcessor(STRINGS, TITLES, max_length=7, unknown_items="error", padding_side="left"),
        GlintRUProcessor(INTEGERS),
        GlintRUProcessor(INTEGERS, TITLES[:5]),
        GlintRUProcessor([""]),
        GlintRUProcessor(INTEGERS, recommend_seen=True, item_counts=[3, 0, 2**40, 1, 1]),
    ],
    ids=["strings", "strings with titles", "integers", "integers with titles", "one empty text", "counts"],
)
def test_save_and_load(processor, tmp_path):
    files = processor.save_pretrained(tmp_path / "new" / "folder")
    assert sorted(Path(file).name for file in files) == [VOCABULARY_FILE, SETTINGS_FILE]
    loaded = GlintRUProcessor.from_pretrained(tmp_path / "new" / "folder")
    assert same(loaded, processor)
    assert same(GlintRUProcessor.from_pretrained(tmp_path / "new" / "folder" / SETTINGS_FILE), processor)
    assert same(pickle.loads(pickle.dumps(processor)), processor)


def test_the_settings_file_holds_no_vocabulary_and_nothing_else_is_left(tmp_path):
    GlintRUProcessor([f"item{i}" for i in range(1000)]).save_pretrained(tmp_path)
    assert "item7" not in (tmp_path / SETTINGS_FILE).read_text()
    names = {path.name for path in tmp_path.iterdir() if path.suffix != ".py"}
    assert names == {VOCABULARY_FILE, SETTINGS_FILE, "manifest.json"}


def test_settings_can_be_changed_while_loading(tmp_path):
    GlintRUProcessor(["a"]).save_pretrained(tmp_path)
    loaded, unused = GlintRUProcessor.from_pretrained(
        tmp_path, max_length=3, unknown_items="error", colour="red", return_unused_kwargs=True
    )
    assert (loaded.max_length, loaded.unknown_items) == (3, "error")
    assert unused["colour"] == "red"


@pytest.mark.parametrize("auto_class", [AutoProcessor, AutoFeatureExtractor])
def test_auto_classes_give_the_class_of_the_package(auto_class, tmp_path):
    processor = GlintRUProcessor(["a", "b"], ["A", None], max_length=5)
    processor.save_pretrained(tmp_path)
    for trust in (False, True):
        loaded = auto_class.from_pretrained(tmp_path, trust_remote_code=trust)
        assert type(loaded) is GlintRUProcessor
        assert same(loaded, processor)
    assert auto_class.from_pretrained(tmp_path, max_length=2).max_length == 2
    GlintRUConfig(vocab_size=3).save_pretrained(tmp_path)
    assert type(auto_class.from_pretrained(tmp_path)) is GlintRUProcessor


def test_a_hub_repository_in_the_cache(tmp_path):
    """The layout that a download leaves: settings and vocabulary come from the same revision."""
    repo = tmp_path / "models--owner--name"
    for revision, ids in (("a" * 40, ["old"]), ("b" * 40, ["new", "newer"])):
        GlintRUProcessor(ids).save_pretrained(repo / "snapshots" / revision)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("b" * 40)
    hub = {"cache_dir": tmp_path, "local_files_only": True}
    assert GlintRUProcessor.from_pretrained("owner/name", **hub).item_ids == ("new", "newer")
    assert GlintRUProcessor.from_pretrained("owner/name", revision="a" * 40, **hub).item_ids == ("old",)
    with pytest.raises(VocabularyFileError, match="owner/other"):
        GlintRUProcessor.from_pretrained("owner/other", **hub)


REMOTE = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "modeling_glintru":
            raise ImportError("the package is not here")

sys.meta_path.insert(0, Block())
from transformers import AutoFeatureExtractor, AutoProcessor

folder, again = sys.argv[1:]
for auto_class in (AutoProcessor, AutoFeatureExtractor):
    processor = auto_class.from_pretrained(folder, trust_remote_code=True)
    assert processor([["b", "a"]])["input_ids"].tolist() == [[2, 1]]
    assert processor.title("a") == "A"
processor.save_pretrained(again)
assert AutoProcessor.from_pretrained(again, trust_remote_code=True).item_ids == ("a", "b")
assert type(processor).__module__.startswith("transformers_modules.")
"""


def test_remote_code_without_the_package(tmp_path):
    folder, again = tmp_path / "model", tmp_path / "again"
    GlintRUProcessor(["a", "b"], ["A", None]).save_pretrained(folder)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run(
        [sys.executable, "-c", REMOTE, str(folder), str(again)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in again.glob("*.py")} >= {"processing_glintru.py", "configuration_glintru.py"}


def test_a_trainer_keeps_the_processor_in_its_checkpoints(tmp_path):
    processor = GlintRUProcessor(list("abcdefgh"))
    model = GlintRUForSequentialRecommendation(
        GlintRUConfig(vocab_size=processor.vocab_size, hidden_size=8, num_attention_heads=2)
    )
    row = torch.tensor([1, 2, 3])
    rows = [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": row + 1}] * 4
    arguments = TrainingArguments(output_dir=str(tmp_path), max_steps=1, save_steps=1, disable_tqdm=True, use_cpu=True)
    trainer = Trainer(model, arguments, train_dataset=rows, processing_class=processor)
    trainer.train()
    assert GlintRUProcessor.from_pretrained(tmp_path / "checkpoint-1").item_ids == processor.item_ids
    trainer.save_model(tmp_path / "final")
    assert type(AutoProcessor.from_pretrained(tmp_path / "final")) is GlintRUProcessor


@pytest.mark.parametrize("kind", ["string", "integer"])
def test_a_million_items(kind, tmp_path, record_property):
    number = 1_000_000
    ids = [f"B{i:09d}" for i in range(number)] if kind == "string" else range(number)
    GlintRUProcessor(ids).save_pretrained(tmp_path)
    start = time.perf_counter()
    loaded = GlintRUProcessor.from_pretrained(tmp_path)
    record_property("load_seconds", time.perf_counter() - start)  # reported, not asserted
    assert len(loaded) == number
    assert loaded.item_ids[-1] == ids[number - 1]
    assert loaded.index_of(ids[123_456]) == 123_457
    # Ten bytes a string and eight an offset; eight an integer; the rest is a header.
    assert (tmp_path / VOCABULARY_FILE).stat().st_size < (18 if kind == "string" else 8) * number + 1000


# ------------------------------------------------------------------ damage


@pytest.fixture
def folder(tmp_path) -> Path:
    GlintRUProcessor(["a", "b", "c"], ["A", None, "C"]).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def refused(folder: Path, match: str) -> None:
    with pytest.raises(VocabularyFileError, match=match) as caught:
        GlintRUProcessor.from_pretrained(folder)
    assert isinstance(caught.value, GlintRUError)
    assert "\n" not in str(caught.value)


def test_a_missing_file(folder):
    shutil.copytree(folder, folder.with_name("other"))
    (folder / VOCABULARY_FILE).unlink()
    refused(folder, "item vocabulary .* missing")
    (folder.with_name("other") / SETTINGS_FILE).unlink()
    refused(folder.with_name("other"), SETTINGS_FILE)
    refused(folder.with_name("nowhere"), SETTINGS_FILE)


def test_a_settings_file_that_is_no_json(folder):
    (folder / SETTINGS_FILE).write_text('{"max_length": ')
    refused(folder, SETTINGS_FILE)


def test_a_truncated_or_foreign_vocabulary_file(folder):
    whole = (folder / VOCABULARY_FILE).read_bytes()
    for damaged in (b"", whole[:5], whole[:-1], b"PAR1" + whole, b"\xff" * len(whole)):
        (folder / VOCABULARY_FILE).write_bytes(damaged)
        refused(folder, "damaged")


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("string_ids.bytes", None),
        ("string_ids.offsets", None),
        ("titles.present", None),
        ("string_ids.offsets", np.array([0, 2, 1, 3], np.int64)),
        ("string_ids.offsets", np.array([0, 1, 2, 99], np.int64)),
        ("string_ids.offsets", np.array([], np.int64)),
        ("string_ids.offsets", np.array([0.0, 1.0, 2.0, 3.0])),
        ("string_ids.bytes", np.array([0xFF, 0xFE, 0xFD], np.uint8)),
        ("titles.present", np.array([1], np.uint8)),
    ],
)
def test_a_vocabulary_file_with_wrong_contents(folder, name, tensor):
    tensors = load_file(folder / VOCABULARY_FILE)
    del tensors[name]
    if tensor is not None:
        tensors[name] = tensor
    save_file(tensors, folder / VOCABULARY_FILE)
    refused(folder, "damaged")


def test_settings_and_vocabulary_of_different_saves(folder):
    settings = json.loads((folder / SETTINGS_FILE).read_text())
    (folder / SETTINGS_FILE).write_text(json.dumps({**settings, "num_items": 4}))
    refused(folder, "4 items, .* holds 3")


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GlintRUError, match="is a file"):
        GlintRUProcessor(["a"]).save_pretrained(tmp_path / "file")
