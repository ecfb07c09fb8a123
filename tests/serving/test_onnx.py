"""The ONNX export, run in onnxruntime against torch; the code of docs/onnx.md in a process without torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling_glintru import GlintRUError, GlintRUProcessor
from modeling_glintru.errors import DataError
from modeling_glintru.models.auto import MODELS
from modeling_glintru.serving import onnx as onnx_module
from modeling_glintru.serving.onnx import export_onnx

from ..model.helpers import random_history, small_model
from ..model.test_identity import STATE_SPACE

ITEMS = [f"item-{number}" for number in range(1, 31)]
ROOT = Path(__file__).parents[2]
FILES = ["history.onnx", "items.json", "onnx.json", "step.onnx"]

needs_packages = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript")),
    reason="the packages of the extra [export] are not installed",
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model with every branch, and its export with all scores; `test_the_page_...` exports one with two blocks."""
    folder = tmp_path_factory.mktemp("onnx") / "exported"
    parts = {**STATE_SPACE, "average_share": 0.4}
    model = small_model(normalize_scores=True, temperature=0.5, **parts)
    counts = {"item-3": 4, "item-8": 7}
    processor = GlintRUProcessor(ITEMS, {"item-1": "One"}, max_length=20, recommend_seen=True, item_counts=counts)
    differences = export_onnx(model, processor, folder)
    assert all(0 <= difference <= 1e-4 for difference in differences.values())
    return model, folder


def run(folder, name, feed):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / name))
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feed), strict=True))


def next_state(outputs):
    return {name.removeprefix("next."): value for name, value in outputs.items() if name.startswith("next.")}


@needs_packages
@pytest.mark.slow
def test_clicks_onto_a_state_give_what_torch_gives(exported):
    model, folder = exported
    ids = random_history(3, 70) * (torch.arange(70) < torch.tensor([[70], [2], [0]]))
    outputs = run(folder, "history.onnx", {"input_ids": ids.numpy()})
    with torch.no_grad():
        expected = model(ids, use_cache=True)
    assert np.isneginf(outputs["scores"][:, 0]).all()
    state = expected.state
    for item in ([3, 4, 5], [0, 7, 0], [9, 9, 9], [1, 0, 30]):
        torch.testing.assert_close(
            torch.from_numpy(outputs["scores"][:, 1:]), expected.logits[:, 1:], rtol=0, atol=1e-4
        )
        assert outputs["next.count"].tolist() == state.count.tolist()
        for name, tensor in state.tensors.items():
            torch.testing.assert_close(torch.from_numpy(outputs[f"next.{name}"]), tensor, rtol=0, atol=1e-4)
        outputs = run(folder, "step.onnx", {"item_ids": np.array(item), **next_state(outputs)})
        with torch.no_grad():
            expected = model(torch.tensor(item)[:, None], state=state)
        state = expected.state


@needs_packages
@pytest.mark.slow
def test_what_is_written(exported):
    import onnx

    model, folder = exported
    assert sorted(file.name for file in folder.iterdir()) == FILES
    items = json.loads((folder / "items.json").read_text())
    popular = [8, 3, *(place for place in range(1, 31) if place not in (3, 8))]
    assert items == {"item_ids": ITEMS, "titles": ["One"] + [None] * 29, "popular": popular}
    about = json.loads((folder / "onnx.json").read_text())
    assert about["fingerprint"] == model.model.fingerprint() and about["max_length"] == 20
    assert about["recommend_seen"] is True
    assert about["state"]["layers.0.attention"] == [4, 4, 4]
    for name in ("history.onnx", "step.onnx"):
        content = (folder / name).read_bytes()
        assert b".py" not in content and b"site-packages" not in content
        graph = onnx.load(folder / name).graph
        kinds = [node.op_type for node in graph.node]
        assert kinds.count("GRU") == 1 and kinds.count("Scan") == 1
    shape = onnx.load(folder / "history.onnx").graph.input[0].type.tensor_type.shape
    assert [dim.dim_param for dim in shape.dim] == ["batch", "length"]


@needs_packages
@pytest.mark.slow
def test_an_earlier_export_is_replaced_only_when_asked_and_only_by_one_that_is_right(exported, monkeypatch):
    model, folder = exported
    processor = GlintRUProcessor(ITEMS)
    with pytest.raises(DataError, match=r"already holds history\.onnx"):
        export_onnx(model, processor, folder)
    before = (folder / "step.onnx").read_bytes()
    monkeypatch.setattr(onnx_module, "_export", lambda graph, file: file.write_bytes((folder / file.name).read_bytes()))
    with pytest.raises(GlintRUError, match=r"history.onnx differs from torch by .*: it is not kept"):
        export_onnx(
            small_model(seed=1, average_share=0.4, **STATE_SPACE),
            processor,
            folder,
            overwrite=True,
        )
    assert (folder / "step.onnx").read_bytes() == before
    assert sorted(file.name for file in folder.iterdir()) == FILES
    assert export_onnx(model, processor, folder, overwrite=True)["step.onnx"] <= 1e-4


WITHOUT_TORCH = """
import importlib.abc, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "modeling_glintru", "onnx", "onnxscript"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Block())
"""


MORE = """
ids = items["item_ids"]
for given, filters in [
    (history, {}),
    (["unheard", *ids[7:9]], {"exclude": ids[20:60]}),
    (history, {"allowed": [*ids[:2], *ids[30:36], "unheard"], "exclude": ids[33:34]}),
    ([], {}),
    (["unheard"], {"allowed": ids[100:104], "exclude": ids[101:102]}),
]:
    found, _, cold_start = recommend(given, **filters)
    print((found, bool(cold_start)))
"""


@needs_packages
@pytest.mark.slow
def test_the_page_serves_a_trained_folder_without_torch(tmp_path):
    from typer.testing import CliRunner

    from modeling_glintru.cli import app
    from modeling_glintru.models.loading import load_model_folder
    from modeling_glintru.serving import Recommender

    model = tmp_path / "model"
    words = ["train", "--recipe", "demo", "--output_dir", str(model), "--quiet"]
    words += ["--set", "num_train_epochs=1", "--set", "num_hidden_layers=2"]
    assert CliRunner().invoke(app, words).exit_code == 0
    processor = GlintRUProcessor.from_pretrained(model)
    processor.item_counts = np.random.default_rng(0).integers(0, 9, len(processor))
    processor.save_pretrained(model)
    words = ["export", str(model), "--to", "onnx", "--output", str(tmp_path / "exported"), "--top_k", "10"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "step.onnx: differs from torch by" in " ".join(result.stdout.split())
    (code,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/onnx.md").read_text(), re.DOTALL | re.MULTILINE)
    recommender = Recommender(*load_model_folder(model))
    items, about = list(processor.item_ids), tmp_path / "exported" / "onnx.json"

    def expected(history, **filters):
        (found,) = recommender.recommend([history], **filters)
        return [item["item_id"] for item in found.items], found.cold_start

    history = items[:3]
    asked = [
        (history, {}),
        (["unheard", *items[7:9]], {"exclude": items[20:60]}),
        (history, {"allowed": [*items[:2], *items[30:36], "unheard"], "exclude": items[33:34]}),
        ([], {}),
        (["unheard"], {"allowed": items[100:104], "exclude": items[101:102]}),
    ]
    for seen_again in (False, True):
        about.write_text(json.dumps({**json.loads(about.read_text()), "recommend_seen": seen_again}))
        recommender.processor.recommend_seen = seen_again
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_TORCH + code + MORE], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        clicked = [*history, expected(history)[0][0]]
        assert lines[0] == str(expected(clicked)[0]) and lines[1] == "True"
        assert lines[2] == ("5" if seen_again else "2")
        for (given, filters), line in zip(asked, lines[3:], strict=True):
            assert line == str(expected(given, **filters))


def test_without_the_packages_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(GlintRUError, match=r"needs the package onnx: .*glintru\[export\]"):
        export_onnx(small_model(), GlintRUProcessor(ITEMS), tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


@needs_packages
def test_what_cannot_be_exported(tmp_path):
    processor = GlintRUProcessor(ITEMS)
    file = tmp_path / "file"
    file.write_text("")
    sasrec = MODELS["sasrec"](MODELS["sasrec"].config_class(vocab_size=31, hidden_size=16))
    for model, options, message in [
        (sasrec, {}, "only GLINT-RU has the states"),
        (small_model(), {"top_k": 0}, "top_k must be between 1"),
        (small_model(), {"top_k": 31}, "top_k must be between 1"),
        (small_model(), {"output": file}, "must be a folder"),
    ]:
        with pytest.raises(GlintRUError, match=message):
            export_onnx(model, processor, **{"output": tmp_path / "exported", **options})
    assert list(tmp_path.iterdir()) == [file]
