"""What leaves a model folder: no link to elsewhere, no picture that is none, no secret."""

from __future__ import annotations

import os
import shutil
import struct
import zlib

import pytest
import torch
from safetensors.torch import save_file

from modeling_glintru.errors import HubError
from modeling_glintru.hub import plan_push, push_folder

NAMES = ("keys_glintru.py", "learning_curves.png", "README.md", "model.safetensors", "metrics.json")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("beside", [True, False], ids=["beside", "elsewhere"])
def test_no_link_leaves(hub, folder, tmp_path, name, beside):
    secret = (folder if beside else tmp_path) / "id_ed25519"
    secret.write_text("a private key")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)
    with pytest.raises(HubError, match=rf"{name} is a link to .*id_ed25519"):
        push_folder(folder, "ann/small")
    assert not hub.requests


def test_no_folder_is_pretended_to_be_the_cache_of_the_hub(hub, folder, tmp_path):
    """A folder of somebody else's making with the cache's names: the link still leaves its repository."""
    snapshot = tmp_path / "models--ann--small" / "snapshots" / "abc"
    (snapshot.parents[1] / "blobs").mkdir(parents=True)
    shutil.copytree(folder, snapshot)
    secret = tmp_path / "id_ed25519"
    secret.write_text("a private key")
    (snapshot / "keys_glintru.py").symlink_to("../../../id_ed25519")
    with pytest.raises(HubError, match="is a link to"):
        push_folder(snapshot, "ann/small")
    (snapshot / "keys_glintru.py").unlink()
    (snapshot.parents[1] / "blobs" / "1").symlink_to(secret)  # a link behind the link
    (snapshot / "keys_glintru.py").symlink_to("../../blobs/1")
    with pytest.raises(HubError, match="is a link to"):
        push_folder(snapshot, "ann/small")
    assert not hub.requests


def test_a_folder_of_the_cache_of_the_hub_can_be_pushed(hub, folder, tmp_path):
    snapshot, blobs = (tmp_path / "models--ann--small" / name for name in ("snapshots/abc", "blobs"))
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(file for file in folder.iterdir() if file.is_file())):
        shutil.copy(file, blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    assert [file.path for file in plan_push(snapshot, "ann/small").files] == [
        file.path for file in plan_push(folder, "ann/small").files
    ]


def test_no_pipe_is_read(hub, folder):
    (folder / "metrics.json").unlink()
    os.mkfifo(folder / "metrics.json")
    with pytest.raises(HubError, match="is not a regular file"):
        push_folder(folder, "ann/small")


def png() -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


def test_a_picture_leaves(folder):
    (folder / "learning_curves.png").write_bytes(png())
    assert "learning_curves.png" in [file.path for file in plan_push(folder, "ann/small").files]


@pytest.mark.parametrize("content", [b"-----BEGIN", b"", png()[:-1], png() + b"hf_", png()[:40] + b"x" + png()[41:]])
def test_what_is_no_picture_does_not_leave(hub, folder, content):
    (folder / "learning_curves.png").write_bytes(content)
    with pytest.raises(HubError, match="is not a PNG picture"):
        push_folder(folder, "ann/small")
    assert not hub.requests


def test_what_is_no_safetensors_file_does_not_leave(hub, folder):
    (folder / "model.safetensors").write_bytes(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    with pytest.raises(HubError, match="is not a whole safetensors file"):
        push_folder(folder, "ann/small")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nmy_hf_abcdefghijklmnopqrstuvwxyz", r"an access token of the Hugging Face Hub in line 2 \(hf_abcde…\)"),
        ("tokenhf_abcdefghijklmnopqrstuvwxyz", "an access token of the Hugging Face Hub"),
        ("AKIAIOSFODNN7EXAMPLE", r"an access key of AWS in line 1 \(AKIAIOSF…\)"),
        ("x_ghp_" + "a1" * 18, r"an access token of GitHub"),
        ("github_pat_" + "a1" * 20, r"an access token of GitHub"),
        ("sk-proj-" + "a1" * 20, "an API key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "a private key"),
        ("see /mnt/shop/clicks.csv", r"a path of this machine in line 1 \(/mnt/shop/clicks.csv\)"),
        ("'/root/clicks.csv'", r"a path of this machine in line 1 \(/root/clicks.csv\)"),
        ("/media/ann/stick", "a path of this machine"),
        ("/tmp/clicks.csv", "a path of this machine"),
        (r"C:\Users\ann\clicks.csv", "a path of this machine"),
    ],
)
@pytest.mark.parametrize("name", ["README.md", "notes_glintru.py", "model.safetensors"])
def test_no_secret_leaves(hub, folder, text, message, name):
    if name == "model.safetensors":
        save_file({"weight": torch.zeros(2)}, folder / name, {"note": text})
        message = message.split(" in line")[0]
    else:
        (folder / name).write_text(f"# notes: {text}\n".replace(": a\n", ":\n"))
    with pytest.raises(HubError, match=message) as caught:
        push_folder(folder, "ann/small")
    assert name in str(caught.value) and "a1a1a1" not in str(caught.value)  # the message does not give it away
    assert not hub.requests


@pytest.mark.parametrize(
    "text",
    ["https://huggingface.co/root/data", "sk-learn is a library", "task-" + "a" * 40, "a/tmp/b", "hf_hub_download"],
)
def test_ordinary_text_leaves(folder, text):
    (folder / "README.md").write_text(f"{text}\n")
    assert "README.md" in [file.path for file in plan_push(folder, "ann/small").files]


@pytest.mark.parametrize("name", ["config.json", "recipe.yaml", "README.md"])
def test_what_is_no_text_is_named(hub, folder, name):
    (folder / name).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(HubError, match=f"{name} is damaged"):
        push_folder(folder, "ann/small")
