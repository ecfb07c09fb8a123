"""States of many users as one safetensors file: `GlintRUState.save` and `GlintRUState.load`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .configuration_glintru import GlintRUError
from .state_glintru import VERSION

__all__ = ["load_state", "save_state"]


def save_state(state: Any, path: str | Path) -> None:
    """Writes the states of all users to one file.

    Args:
        state: A `GlintRUState`, of this package or of a model that came as remote code.
        path: The file.

    Raises:
        GlintRUError: The file cannot be written, or the state is one of training mode.
    """
    state.check_storable()
    tensors = {name: x.detach().cpu().contiguous() for name, x in {"count": state.count, **state.tensors}.items()}
    facts = {"version": str(VERSION), "fingerprint": state.fingerprint, "layout": json.dumps(state.layout.facts())}
    try:
        save_file(tensors, str(path), {"format": "glintru-state", **facts})
    except (OSError, SafetensorError) as error:
        raise GlintRUError(f"the state cannot be written to {path}: {error}") from error


def load_state(kind: Any, path: str | Path, device: Any = "cpu") -> Any:
    """Reads what `save_state` wrote.

    Args:
        kind: The class of the state, `GlintRUState`.
        path: The file.
        device: Where the tensors are put.

    Raises:
        GlintRUError: The file is missing, damaged, of another version, or not a state.
    """
    try:
        with safe_open(str(path), "pt", device=str(device)) as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise GlintRUError(f"no state can be read from {path}: {error}") from error
    if facts.get("format") != "glintru-state":
        raise GlintRUError(f"{path} is not a file of GLINT-RU states")
    if facts.get("version") != str(VERSION):
        raise GlintRUError(f"{path} has version {facts.get('version')}, this package reads version {VERSION}")
    try:
        layout, count = layout_of(kind, json.loads(facts["layout"])), tensors.pop("count")
        found = {name: tuple(x.shape) for name, x in tensors.items()}
        good = found == {name: (len(count), *shape) for name, shape in layout.shapes().items()}
        state = kind(layout, count, tensors, facts["fingerprint"])
    except (KeyError, TypeError, ValueError) as error:
        raise GlintRUError(f"{path} is damaged: {error!r}") from error
    if not good:
        raise GlintRUError(f"{path} is damaged: its tensors do not have the shapes that it declares")
    return state


def layout_of(kind: Any, facts: dict[str, Any]) -> Any:
    """The `StateLayout` that gave these `facts`; parts that they do not name are off."""
    own = sys.modules[kind.__module__]  # of a model that came as remote code, its own file
    layers, size, heads = (int(facts[name]) for name in ("num_layers", "hidden_size", "num_heads"))
    return own.StateLayout(layers, size, heads, tuple(name for name in own.STATE_PARTS if facts.get(name)))
