"""The authors' checkpoints as model folders."""

from __future__ import annotations

import json
import os
import sys
import types

import pytest
import torch
from safetensors.torch import load_file

from modeling_glintru.errors import DataError, GlintRUError, ModelFolderError
from modeling_glintru.hub.convert import convert, read_checkpoint, read_tokens
from modeling_glintru.hub.official import _OFFICIAL_NAMES, official_representation, official_to_ours
from modeling_glintru.models.loading import load_model_folder
from modeling_glintru.serving import Recommender

from ..cli.conftest import glintru  # noqa: F401 (a fixture)
from ..cli.test_bad_input import refused
from ..model.helpers import random_history, small_model

TOKENS = [f"tok-{n}" for n in range(1, 31)]


def official_state(model) -> dict[str, torch.Tensor]:
    """The model's weights under the authors' names."""
    theirs = {ours: name for name, ours in _OFFICIAL_NAMES.items()}
    state = {}
    for name, tensor in model.state_dict().items():
        ours = max((prefix for prefix in theirs if name.startswith(prefix)), key=len)
        state[theirs[ours] + name[len(ours) :]] = tensor
        assert official_to_ours(theirs[ours] + name[len(ours) :]) == name
    return state


@pytest.fixture
def files(tmp_path):
    """A model, its checkpoint and its tokens."""
    model = small_model()
    torch.save({"state_dict": official_state(model), "n_heads": 4, "MAX_ITEM_LIST_LENGTH": 9}, tmp_path / "theirs.pth")
    (tmp_path / "items.json").write_text(json.dumps(["[PAD]", *TOKENS]))
    return model, tmp_path / "theirs.pth", tmp_path / "items.json"


def test_the_folder_has_weights_vocabulary_and_length(files, tmp_path):
    model, checkpoint, tokens = files
    convert(checkpoint, tokens, tmp_path / "out")
    found, processor = load_model_folder(tmp_path / "out")
    assert all(torch.equal(found.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    assert list(processor.item_ids) == TOKENS and processor.max_length == 9
    recommended = Recommender.from_pretrained(tmp_path / "out").recommend([["tok-3", "tok-1"]], top_k=2)[0]
    assert recommended.items[0]["item_id"].startswith("tok-")


def test_without_padding_the_authors_computation_gives_the_same(files, tmp_path):
    _, checkpoint, tokens = files
    model = convert(checkpoint, tokens, tmp_path / "out")
    whole = random_history(4, 9)
    ours, theirs = model(whole).last_hidden_state[:, -1], official_representation(model.model, whole)[:, -1]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    padded = torch.nn.functional.pad(whole[:, :5], (0, 4))
    leak = official_representation(model.model, padded)[:, 4]
    assert not torch.allclose(model(padded).last_hidden_state[:, 4], leak, atol=1e-3)


def test_golden_scores(official_golden, tmp_path):
    golden = load_file(official_golden)
    state = {name.removeprefix("state."): t for name, t in golden.items() if name.startswith("state.")}
    torch.save(state, tmp_path / "theirs.pth")
    (tmp_path / "items.txt").write_text("\n".join(f"i{n}" for n in range(1, len(state["item_embedding.weight"]))))
    files = (tmp_path / "theirs.pth", tmp_path / "items.txt", tmp_path / "out")
    convert(*files, num_attention_heads=4, max_length=12)
    model, _ = load_model_folder(tmp_path / "out")
    scores = model(golden["full.item_seq"]).logits
    torch.testing.assert_close(scores[:, 1:], golden["full.logits"][:, 1:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ["bare", "of several processes", "plain config"])
def test_forms_of_checkpoints(files, tmp_path, form):
    model, _, tokens = files
    state = official_state(model)
    content = {
        "bare": state,
        "of several processes": {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
        "plain config": {"state_dict": state, "config": {"n_heads": 4, "loss_type": "BPR"}, "epoch": 3},
    }[form]
    torch.save(content, tmp_path / "form.pth")
    heads = None if form == "plain config" else 4
    found = convert(tmp_path / "form.pth", tokens, tmp_path / "out", num_attention_heads=heads)
    ids = random_history(2, 5)
    assert torch.equal(found(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.json", ["[PAD]", "b", "a"]),
        ("short.json", ["b", "a"]),
        ("field2token_id.json", {"[PAD]": 0, "a": 2, "b": 1}),
        ("fields.json", {"user_id": ["[PAD]", "u"], "item_id": ["[PAD]", "b", "a"]}),
        ("one_field.json", {"product": {"[PAD]": 0, "a": 2, "b": 1}}),
        ("lines.txt", "[PAD]\nb\na\n"),
        ("lines.csv", "b\na"),
    ],
)
def test_forms_of_tokens(tmp_path, name, content):
    (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    assert read_tokens(tmp_path / name) == ["b", "a"]


class Evil:
    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_no_code_of_the_file_runs(tmp_path):
    thing = Evil()
    thing.path = str(tmp_path / "made by the file")
    torch.save({"state_dict": {}, "config": thing}, tmp_path / "evil.pth")
    with pytest.raises(ModelFolderError, match=r"holds \w+\.mkdir beside the weights"):
        read_checkpoint(tmp_path / "evil.pth")
    assert not (tmp_path / "made by the file").exists()


@pytest.mark.parametrize(
    ("protocol", "reason"), [(2, "holds recbole.config.configurator.Config"), (4, "a pickle of protocol 4")]
)
def test_a_checkpoint_as_recbole_writes_it(files, tmp_path, monkeypatch, glintru, protocol, reason):  # noqa: F811
    """RecBole 1.2.1 writes protocol 4; `config` is an object of its own class."""
    for name in ("recbole", "recbole.config", "recbole.config.configurator"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    module = sys.modules["recbole.config.configurator"]
    module.Config = type("Config", (), {"__module__": module.__name__})
    content = {"config": module.Config(), "state_dict": official_state(files[0])}
    torch.save(content, tmp_path / "theirs.pth", pickle_protocol=protocol)
    refused(
        glintru("convert", tmp_path / "theirs.pth", "--ids", files[2], "--output_dir", tmp_path / "out"),
        *(reason, "could run code", "docs/converting.md"),
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut"])
def test_a_damaged_file(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ModelFolderError, match="damaged or not a PyTorch file"):
        read_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [([1, 2], "no state dict, but a list"), ({"state_dict": {"a": 1}}, "no state dict: names with tensors")],
)
def test_a_file_of_something_else(tmp_path, content, message):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ModelFolderError, match=message):
        read_checkpoint(tmp_path / "x.pth")


def test_what_is_refused(files, tmp_path):
    model, checkpoint, tokens = files
    out = tmp_path / "out"
    with pytest.raises(ModelFolderError, match="there is no checkpoint"):
        convert(tmp_path / "none.pth", tokens, out)
    torch.save(official_state(model), tmp_path / "bare.pth")
    with pytest.raises(ModelFolderError, match=r"n_heads.*--num_attention_heads"):
        convert(tmp_path / "bare.pth", tokens, out)
    torch.save({"item_embedding.weight": torch.zeros(4, 4)}, tmp_path / "other.pth")
    with pytest.raises(GlintRUError, match=r"lacks .* and \d+ more"):
        convert(tmp_path / "other.pth", tokens, out, num_attention_heads=2)
    (tmp_path / "few.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match="2 item tokens, but the checkpoint has 30 items"):
        convert(checkpoint, tmp_path / "few.txt", out)
    (tmp_path / "gaps.json").write_text('{"a": 1, "b": 3}')
    with pytest.raises(DataError, match="without gaps"):
        convert(checkpoint, tmp_path / "gaps.json", out)
    (tmp_path / "broken.json").write_text("[1, ")
    with pytest.raises(DataError, match="cannot be read"):
        convert(checkpoint, tmp_path / "broken.json", out)
    assert not out.exists()
    with pytest.raises(ModelFolderError, match="not an empty folder"):
        convert(checkpoint, tokens, tmp_path)


def test_the_command(files, tmp_path, glintru):  # noqa: F811
    _, checkpoint, tokens = files
    result = glintru("convert", checkpoint, "--ids", tokens, "--output_dir", tmp_path / "out", "--max_length", 20)
    assert result.exit_code == 0, result.output
    assert "width 16 with 4 heads, 30 items, histories of up to 20" in result.stdout
    exec(result.stdout[result.stdout.index("from modeling_glintru") :], {})
