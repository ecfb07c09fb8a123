"""Checkpoints on disk: safetensors and JSON alone, whole or not there, and damage is noticed.

A checkpoint is written to `checkpoint-N.partial`, flushed to the disk and renamed to `checkpoint-N`. `files.json` in it
holds size and CRC-32 of every file. Nothing is pickled, so that reading a folder from elsewhere runs no code.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

__all__ = [
    "has_checkpoints",
    "newest_checkpoint",
    "random_state",
    "read_optimizer",
    "read_weights",
    "remove_other_checkpoints",
    "remove_superseded",
    "replace_json",
    "seal",
    "set_random_state",
    "write_optimizer",
    "write_weights",
]

FILES = "files.json"
TRAINER_STATE = "trainer_state.json"  # the name that the Trainer reads it under
KEPT = 2  # the newest, and the one before for when the newest is damaged
BLOCK = 1 << 20


def replace_json(path: Path, content: Any) -> None:
    """Writes JSON so that the file is there whole or as it was before."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content), encoding="utf-8")
    _flush(partial)
    os.replace(partial, path)


# ---------------------------------------------------------------------- what is in a checkpoint


def write_weights(path: Path, model: nn.Module) -> None:
    """Writes all weights and buffers, each from memory of its own: on GPUs those of a GRU are parts of one tensor."""
    tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, path, metadata={"format": "pt"})


def read_weights(path: Path, model: nn.Module) -> None:
    """Puts what `write_weights` wrote into the model."""
    model.load_state_dict(load_file(path))


def write_optimizer(path: Path, state: dict[str, Any]) -> None:
    """Writes `Optimizer.state_dict()`: tensors as they are, everything else as JSON in the header."""
    tensors: dict[str, torch.Tensor] = {}
    values: dict[str, Any] = {}
    for index, entry in state["state"].items():
        for name, value in entry.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}.{name}"] = value.detach().cpu().contiguous()
            else:
                values[f"{index}.{name}"] = value
    save_file(tensors, path, metadata={"json": json.dumps({"groups": state["param_groups"], "values": values})})


def read_optimizer(path: Path) -> dict[str, Any]:
    """What `write_optimizer` wrote, ready for `Optimizer.load_state_dict`."""
    with safe_open(path, framework="pt") as file:
        rest = json.loads(file.metadata()["json"])
        values = {**rest["values"], **{key: file.get_tensor(key) for key in file.keys()}}  # noqa: SIM118
    state: dict[int, dict[str, Any]] = {}
    for key, value in values.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    return {"state": state, "param_groups": rest["groups"]}


def random_state() -> dict[str, Any]:
    """The global random number generators of this process, as JSON can hold them."""
    numpy_state: dict[str, Any] = dict(np.random.get_state(legacy=False))
    numpy_state["state"] = {**numpy_state["state"], "key": numpy_state["state"]["key"].tolist()}
    state = {"python": random.getstate(), "numpy": numpy_state, "torch": _hex(torch.get_rng_state())}
    if torch.cuda.is_available():
        state["cuda"] = [_hex(device) for device in torch.cuda.get_rng_state_all()]
    if torch.backends.mps.is_available():
        state["mps"] = _hex(torch.mps.get_rng_state())
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Puts the generators back to what `random_state` gave."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    numpy_state = state["numpy"]
    key = np.asarray(numpy_state["state"]["key"], dtype=np.uint32)
    np.random.set_state({**numpy_state, "state": {**numpy_state["state"], "key": key}})
    torch.set_rng_state(_bytes(state["torch"]))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([_bytes(device) for device in state["cuda"]])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(_bytes(state["mps"]))


def _hex(state: torch.Tensor) -> str:
    return state.cpu().numpy().tobytes().hex()


def _bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)


# ---------------------------------------------------------------------- whole or not there


def seal(partial: Path, final: Path) -> None:
    """Notes size and checksum of every file, flushes all to the disk, and gives the folder its name."""
    names = sorted(file.name for file in partial.iterdir())
    replace_json(partial / FILES, {name: _fingerprint(partial / name) for name in names})
    for name in names:
        _flush(partial / name)
    _flush(partial)
    if final.exists():  # of an earlier try, and damaged: otherwise the run would have gone on behind it
        shutil.rmtree(final)
    os.replace(partial, final)
    _flush(final.parent)


def has_checkpoints(folder: Path) -> bool:
    """Whether there is any checkpoint, damaged or not."""
    return bool(_checkpoints(folder))


def newest_checkpoint(folder: Path, warn: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that is whole, the weights of its best epoch included.

    Args:
        folder: Holds `checkpoint-N` folders.
        warn: Gets a line for each damaged checkpoint that is passed over.
    """
    for checkpoint in reversed(_checkpoints(folder)):
        damage = _damage(checkpoint)
        if damage is None:
            return checkpoint
        warn(f"warning: {checkpoint} is damaged ({damage}) and was skipped")
    return None


def remove_other_checkpoints(folder: Path, checkpoint: Path | None) -> None:
    """Removes what a run that goes on from `checkpoint` cannot use: later checkpoints, and half-written ones."""
    usable = [] if checkpoint is None else [c for c in _checkpoints(folder) if _step(c) <= _step(checkpoint)]
    for entry in folder.glob("checkpoint-*"):
        if entry.is_dir() and entry not in usable:
            shutil.rmtree(entry)


def remove_superseded(folder: Path) -> None:
    """Removes all but the newest checkpoints and those that hold the best weights of one of them."""
    checkpoints = _checkpoints(folder)
    newest = checkpoints[-KEPT:]
    kept = {checkpoint.name for checkpoint in newest} | {f"checkpoint-{_best_step(c)}" for c in newest}
    for checkpoint in checkpoints:
        if checkpoint.name not in kept:
            shutil.rmtree(checkpoint)


def _checkpoints(folder: Path) -> list[Path]:
    """By step, oldest first."""
    return sorted((entry for entry in folder.glob("checkpoint-*") if _step(entry) >= 0), key=_step)


def _step(checkpoint: Path) -> int:
    match = re.fullmatch(r"checkpoint-(\d+)", checkpoint.name)
    return int(match.group(1)) if match else -1


def _best_step(checkpoint: Path) -> int | None:
    try:
        return json.loads((checkpoint / TRAINER_STATE).read_text(encoding="utf-8"))["best_global_step"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, or with the one that holds its best weights; None if nothing is."""
    damage = _own_damage(checkpoint)
    best = _best_step(checkpoint)
    if damage is None and best is not None and best != _step(checkpoint):
        damage = _own_damage(checkpoint.with_name(f"checkpoint-{best}"))
        return damage and f"its best epoch's checkpoint-{best}: {damage}"
    return damage


def _own_damage(checkpoint: Path) -> str | None:
    try:
        expected = json.loads((checkpoint / FILES).read_text(encoding="utf-8"))
        if not isinstance(expected, dict) or TRAINER_STATE not in expected:
            return f"{FILES} is not complete"
        for name, fingerprint in expected.items():
            if _fingerprint(checkpoint / Path(name).name) != fingerprint:
                return f"{name} is not what was written"
    except OSError as error:
        return f"{Path(error.filename or FILES).name}: {error.strerror}"
    except ValueError:
        return f"{FILES} is not JSON"
    return None


def _fingerprint(path: Path) -> list[int]:
    """Size in bytes and CRC-32 of the content."""
    size = checksum = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            size += len(block)
            checksum = zlib.crc32(block, checksum)
    return [size, checksum]


def _flush(path: Path) -> None:
    """To the disk itself: a rename must not outlive a power cut that its content does not."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
