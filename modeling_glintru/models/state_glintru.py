"""What GLINT-RU keeps of a history so that it can go on without it: a batch of user states of a fixed size.

Which tensors these are, each part of the block says (`keeps`, in `modeling_glintru.py`). With them the next item is
absorbed exactly, at a cost that does not depend on the history.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .configuration_glintru import GlintRUError

__all__ = ["GlintRUState", "StateLayout", "fingerprint_of", "keeps"]

MAGIC = b"GLRU"
VERSION = 1
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)  # their index is what the bytes hold
# Magic, version, dtype, layers, hidden size, heads, parts, fingerprint, items absorbed; then the checksum of it all.
HEADER = struct.Struct("<4sBBHIHB8sQ")
COUNT, CHECKSUM = struct.Struct("<Q"), struct.Struct("<I")


@dataclass(frozen=True)
class KeptPart:
    """What one part of a block keeps of a history, see `keeps`."""

    bit: int
    on: Callable[[Any], bool]
    shapes: Callable[[int, int], dict[str, tuple[int, ...]]]
    settings: Callable[[Any], Any] | None


KEPT: dict[str, KeptPart] = {}  # in the order of the tensors in a state's bytes


def keeps(
    name: str,
    *,
    bit: int,
    on: Callable[[Any], bool],
    shapes: Callable[[int, int], dict[str, tuple[int, ...]]],
    settings: Callable[[Any], Any] | None = None,
) -> Callable[[type], type]:
    """Says what a part of the block keeps of a history, so that it can go on without it.

    Args:
        name: Of the part, in files of states.
        bit: Its place among the parts in the header of a state's bytes; never used again for another part.
        on: Whether a model with a config has the part.
        shapes: From hidden size and number of heads to the shapes of the tensors, by name, for one user.
        settings: What the numbers depend on beside the weights, as plain numbers.
    """

    def mark(part: type) -> type:
        KEPT[name] = KeptPart(bit, on, shapes, settings)
        return part

    return mark


@dataclass(frozen=True)
class StateLayout:
    """The names and sizes of a state's tensors.

    Args:
        num_layers: Blocks.
        hidden_size: d.
        num_heads: Heads of the linear attention.
        parts: Names of the parts that are on, see `keeps`.
    """

    num_layers: int
    hidden_size: int
    num_heads: int
    parts: tuple[str, ...]

    @classmethod
    def of(cls, config: Any) -> StateLayout:
        """The layout that a model with this config reads and writes."""
        parts = tuple(name for name, kept in KEPT.items() if kept.on(config))
        return cls(config.num_hidden_layers, config.hidden_size, config.num_attention_heads, parts)

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape for each name of one block, for one user."""
        shapes: dict[str, tuple[int, ...]] = {}
        for name in self.parts:
            shapes |= KEPT[name].shapes(self.hidden_size, self.num_heads)
        return shapes

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape for each tensor's name, for one user, in the order of the bytes."""
        layers = {
            f"layers.{layer}.{name}": shape
            for layer in range(self.num_layers)
            for name, shape in self.layer_shapes().items()
        }
        return {**layers, "representation": (self.hidden_size,)}

    def facts(self) -> dict[str, Any]:
        """As plain values by name, with a yes or no for each part that there is."""
        sizes = {"num_layers": self.num_layers, "hidden_size": self.hidden_size, "num_heads": self.num_heads}
        return {**sizes, **{name: name in self.parts for name in sorted(KEPT, key=lambda name: KEPT[name].bit)}}

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> StateLayout:
        """The layout that gave these `facts`; parts that they do not name are off."""
        layers, size, heads = (int(facts[name]) for name in ("num_layers", "hidden_size", "num_heads"))
        return cls(layers, size, heads, tuple(name for name in KEPT if facts.get(name)))


def fingerprint_of(model: Any, layout: StateLayout) -> str:
    """16 hexadecimal digits that name the weights of an encoder, read as float32, and its layout."""
    facts = layout.facts()
    first = ("num_layers", "hidden_size", "num_heads", "attention", "gru", "convolutions")  # other parts add settings
    text = f"StateLayout({', '.join(f'{name}={facts[name]}' for name in first)})"
    digest = hashlib.blake2b(text.encode(), digest_size=8)
    for name in layout.parts:
        if settings := KEPT[name].settings:
            digest.update(repr(settings(model.config)).encode())
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(parameter.detach().to("cpu", torch.float32).contiguous().numpy().data)
    return digest.hexdigest()


def state_kind(layout: StateLayout, dtype: torch.dtype, fingerprint: str) -> bytes:
    """The header of `GlintRUState.to_bytes` without the count: equal for states that can be in one batch."""
    parts = sum(1 << KEPT[name].bit for name in layout.parts)
    sizes = (layout.num_layers, layout.hidden_size, layout.num_heads, parts, bytes.fromhex(fingerprint))
    return HEADER.pack(MAGIC, VERSION, DTYPES.index(dtype), *sizes, 0)[: -COUNT.size]


def pack_states(kind: bytes, counts: Iterable[int], rows: Any) -> list[bytes]:
    """The strings of `GlintRUState.to_bytes` for contiguous NumPy rows of the dtype (or the bytes) of `kind`."""
    blobs = []
    for count, row in zip(counts, rows, strict=True):
        header, body = kind + COUNT.pack(count), row.tobytes()
        blobs.append(header + CHECKSUM.pack(zlib.crc32(body, zlib.crc32(header))) + body)
    return blobs


def unpack_states(blobs: Sequence[bytes]) -> tuple[bytes, list[int], bytearray]:
    """The `state_kind` that all strings share, their counts, and their numbers end to end; errors as `from_bytes`."""
    start = HEADER.size + CHECKSUM.size
    counts: list[int] = []
    kind = b""
    for number, blob in enumerate(blobs):
        if blob[: len(MAGIC)] != MAGIC or len(blob) < start:
            raise GlintRUError(f"bytes {number} are not a state of GLINT-RU, or were cut short")
        if blob[len(MAGIC)] != VERSION:
            raise GlintRUError(f"state {number} has version {blob[len(MAGIC)]}, this package reads {VERSION}")
        (checksum,) = CHECKSUM.unpack_from(blob, HEADER.size)
        if zlib.crc32(memoryview(blob)[start:], zlib.crc32(blob[: HEADER.size])) != checksum:
            raise GlintRUError(f"state {number} was cut short or altered: its checksum is wrong")
        header = blob[: HEADER.size - COUNT.size]
        kind = kind or header
        if header != kind:
            raise GlintRUError(f"state {number} is of other weights, sizes or dtype than the first one")
        counts.extend(COUNT.unpack_from(blob, len(header)))
    return kind, counts, bytearray().join(memoryview(blob)[start:] for blob in blobs)


@dataclass(frozen=True)
class GlintRUState:
    """A batch of user states; never changed in place.

    Args:
        layout: Names and sizes.
        count: (users,) int64, the items that each user's state has absorbed.
        tensors: `layers.0.hidden`, …: (users, …) of one floating dtype, as `layout.shapes()`; `representation` is the
            last item's `last_hidden_state`, zeros before the first item.
        fingerprint: Of the weights that computed it; empty for a state of training mode, whose weights move.

    Example:
        >>> state = model(input_ids, use_cache=True).state
        >>> output = model(next_items, state=state)  # output.state goes on from there
    """

    layout: StateLayout
    count: Tensor
    tensors: dict[str, Tensor]
    fingerprint: str = ""

    @classmethod
    def empty(
        cls, layout: StateLayout, users: int, dtype: torch.dtype, device: Any = None, fingerprint: str = ""
    ) -> GlintRUState:
        """The states of users without items: zeros."""
        tensors = {n: torch.zeros(users, *shape, dtype=dtype, device=device) for n, shape in layout.shapes().items()}
        return cls(layout, torch.zeros(users, dtype=torch.int64, device=device), tensors, fingerprint)

    def __len__(self) -> int:
        """How many users it holds."""
        return self.count.shape[0]

    @property
    def representation(self) -> Tensor:
        """(users, hidden_size): what the scores of the next item are computed from."""
        return self.tensors["representation"]

    @property
    def dtype(self) -> torch.dtype:
        return self.representation.dtype

    @property
    def device(self) -> torch.device:
        return self.representation.device

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, the counts among them."""
        return sum(x.nbytes for x in (self.count, *self.tensors.values()))

    def layer(self, index: int) -> dict[str, Tensor]:
        """The tensors of one block, by their short names."""
        return {name: self.tensors[f"layers.{index}.{name}"] for name in self.layout.layer_shapes()}

    def _map(self, change: Any, count: Tensor | None = None) -> GlintRUState:
        tensors = {name: change(x) for name, x in self.tensors.items()}
        return GlintRUState(self.layout, change(self.count) if count is None else count, tensors, self.fingerprint)

    def select(self, indices: Sequence[int] | Tensor) -> GlintRUState:
        """The states of some users, in the order of `indices`, which may repeat.

        Raises:
            GlintRUError: An index is outside [-len, len), or `indices` is not a list of integers.
        """
        try:
            index = torch.as_tensor(indices, device=self.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise GlintRUError(f"indices must be integers, got {indices!r}") from error
        if index.numel() == 0:
            index = index.long()
        if index.dim() != 1 or index.dtype not in (torch.int64, torch.int32):
            raise GlintRUError(
                f"indices must be one-dimensional integers, got shape {tuple(index.shape)}, {index.dtype}"
            )
        users = len(self)
        outside = index[(index < -users) | (index >= users)]
        if outside.numel():
            raise GlintRUError(f"index {int(outside[0])} is out of range for a state of {users} users")
        index = torch.where(index < 0, index + users, index)
        return self._map(lambda x: x.index_select(0, index))

    @staticmethod
    def merge(states: Iterable[GlintRUState]) -> GlintRUState:
        """The users of several states as one batch, in order.

        Raises:
            GlintRUError: No state, or states of different weights, sizes, dtypes or devices.
        """
        states = list(states)
        if not states:
            raise GlintRUError("merge needs at least one state")
        first = states[0]
        for state in states[1:]:
            for what in ("layout", "fingerprint", "dtype", "device"):
                ours, theirs = getattr(first, what), getattr(state, what)
                if ours != theirs:
                    raise GlintRUError(f"states of different {what} cannot be merged: {ours} and {theirs}")
        tensors = {name: torch.cat([state.tensors[name] for state in states]) for name in first.tensors}
        return GlintRUState(first.layout, torch.cat([state.count for state in states]), tensors, first.fingerprint)

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> GlintRUState:
        """The same states elsewhere or in another floating dtype; `to(torch.float16)` works too.

        Raises:
            GlintRUError: The dtype is none of float32, float64, float16 and bfloat16, or a number does not fit it.
        """
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        if dtype is not None and dtype not in DTYPES:
            raise GlintRUError(f"a state's dtype must be float32, float64, float16 or bfloat16, got {dtype}")
        moved = self._map(lambda x: x.to(device=device, dtype=dtype), self.count.to(device=device))
        if dtype == torch.float16 and self.dtype != dtype:
            for name, x in moved.tensors.items():
                if not bool(x.isfinite().all()):
                    raise GlintRUError(f"{name} of a state does not fit float16 (65504 at most), use bfloat16")
        return moved

    def clone(self) -> GlintRUState:
        """A copy; outside `torch.inference_mode` one that a training step can read."""
        return self._map(Tensor.clone)

    def check(self, layout: StateLayout, fingerprint: str, users: int, device: torch.device) -> None:
        """Whether a model can go on from here.

        Args:
            layout, fingerprint: The model's; a fingerprint is compared only where both have one.
            users: Rows of the batch.
            device: The model's.

        Raises:
            GlintRUError: It cannot; the sentence says why.
        """
        if self.layout != layout:
            ours, theirs = self.layout.facts(), layout.facts()
            wrong = ", ".join(f"{name} {ours[name]}, not {theirs[name]}" for name in ours if ours[name] != theirs[name])
            raise GlintRUError(f"the state is of a model of another shape: it has {wrong}")
        if self.fingerprint and fingerprint and self.fingerprint != fingerprint:
            raise GlintRUError(
                f"the state was computed by other weights ({self.fingerprint}) than this model's ({fingerprint}): "
                "rebuild it from the history"
            )
        if len(self) != users:
            raise GlintRUError(f"the state holds {len(self)} users but the batch has {users} rows")
        if self.device != device:
            raise GlintRUError(
                f"the state is on {self.device} but the model on {device}: use state.to({str(device)!r})"
            )

    def _require_fingerprint(self) -> None:
        if not self.fingerprint:
            raise GlintRUError(
                "a state of training mode cannot be stored, since its weights move: compute it after model.eval()"
            )

    # ------------------------------------------------------------------ a file of many users

    def save(self, path: str | Path) -> None:
        """Writes all users to one safetensors file.

        Raises:
            GlintRUError: The file cannot be written, or the state is one of training mode.
        """
        self._require_fingerprint()
        tensors = {name: x.detach().cpu().contiguous() for name, x in {"count": self.count, **self.tensors}.items()}
        facts = {"version": str(VERSION), "fingerprint": self.fingerprint, "layout": json.dumps(self.layout.facts())}
        try:
            save_file(tensors, str(path), {"format": "glintru-state", **facts})
        except (OSError, SafetensorError) as error:
            raise GlintRUError(f"the state cannot be written to {path}: {error}") from error

    @classmethod
    def load(cls, path: str | Path, device: Any = "cpu") -> GlintRUState:
        """Reads what `save` wrote.

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
            layout, count = StateLayout.from_facts(json.loads(facts["layout"])), tensors.pop("count")
            found = {name: tuple(x.shape) for name, x in tensors.items()}
            good = found == {name: (len(count), *shape) for name, shape in layout.shapes().items()}
            state = cls(layout, count, tensors, facts["fingerprint"])
        except (KeyError, TypeError, ValueError) as error:
            raise GlintRUError(f"{path} is damaged: {error!r}") from error
        if not good:
            raise GlintRUError(f"{path} is damaged: its tensors do not have the shapes that it declares")
        return state

    # ------------------------------------------------------------------ bytes of one user

    def to_bytes(self) -> list[bytes]:
        """One string for each user: a header with version, sizes, fingerprint, count and checksum, then the numbers.

        Raises:
            GlintRUError: The state is one of training mode.
        """
        self._require_fingerprint()
        rows = torch.cat([self.tensors[name].detach().flatten(1) for name in self.layout.shapes()], dim=1)
        numbers = rows.cpu().contiguous().view(torch.uint8).numpy()
        return pack_states(state_kind(self.layout, self.dtype, self.fingerprint), self.count.tolist(), numbers)

    @classmethod
    def from_bytes(cls, blobs: bytes | Iterable[bytes]) -> GlintRUState:
        """The batch of the users whose `to_bytes` strings are given (on the CPU), or of one user.

        Raises:
            GlintRUError: No string, one that is truncated, altered or of another version, or strings of different
                weights, sizes or dtypes.
        """
        blobs = [bytes(blobs)] if isinstance(blobs, (bytes, bytearray, memoryview)) else list(blobs)
        if not blobs:
            raise GlintRUError("from_bytes needs at least one state")
        _, counts, numbers = unpack_states(blobs)
        _, _, dtype, layers, size, heads, parts, fingerprint, _ = HEADER.unpack_from(blobs[0])
        layout = StateLayout(layers, size, heads, tuple(name for name, kept in KEPT.items() if parts >> kept.bit & 1))
        shapes = layout.shapes()
        body = torch.frombuffer(numbers, dtype=DTYPES[dtype])
        widths = [torch.Size(shape).numel() for shape in shapes.values()]
        pieces = body.view(len(blobs), sum(widths)).split(widths, dim=1)
        tensors = {name: x.reshape(len(blobs), *shape) for (name, shape), x in zip(shapes.items(), pieces, strict=True)}
        return cls(layout, torch.tensor(counts, dtype=torch.int64), tensors, fingerprint.hex())
