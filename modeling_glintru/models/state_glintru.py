"""The state of a user: a few numbers that stand for a whole history, however long it is.

With the state of a history the next item is added exactly, and at a cost that does not depend on the history. Which
tensors a state has, each part of the block declares with `has_state`, in `modeling_glintru.py`.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .configuration_glintru import GlintRUError, from_package

__all__ = ["GlintRUState", "StateLayout", "fingerprint_of", "has_state"]

MAGIC, VERSION = b"GLRU", 1
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)  # their index is what the bytes hold
# Magic, version, dtype, layers, hidden size, heads, parts, fingerprint, number of items; then the checksum of it all.
HEADER = struct.Struct("<4sBBHIHB8sQ")
COUNT, CHECKSUM = struct.Struct("<Q"), struct.Struct("<I")


@dataclass(frozen=True)
class StatePart:
    """What one part of a block adds to a state.

    Args:
        bit: Its place among the parts in the header of a state's bytes; never used again for another part.
        on: From a config to whether its model has the part.
        shapes: From hidden size and number of heads to the shape of each tensor by name, for one user.
        settings: From a config to the plain numbers that the state depends on beside the weights.
    """

    bit: int
    on: Callable[[Any], bool]
    shapes: Callable[[int, int], dict[str, tuple[int, ...]]]
    settings: Callable[[Any], Any] | None = None


STATE_PARTS: dict[str, StatePart] = {}  # in the order of the tensors in a state's bytes


def has_state(name: str, **declared: Any) -> Callable[[type], type]:
    """Declares, on the class of a part, the state that the part has: its name, and the fields of a `StatePart`."""
    STATE_PARTS[name] = StatePart(**declared)
    return lambda part: part


@dataclass(frozen=True)
class StateLayout:
    """Names and shapes of the tensors of a state.

    Args:
        num_layers: Blocks.
        hidden_size: d.
        num_heads: Heads of the linear attention.
        parts: Names of the parts that are on, see `has_state`.
    """

    num_layers: int
    hidden_size: int
    num_heads: int
    parts: tuple[str, ...]

    @classmethod
    def of(cls, config: Any) -> StateLayout:
        """The layout of the states of a model with this config."""
        parts = tuple(name for name, part in STATE_PARTS.items() if part.on(config))
        return cls(config.num_hidden_layers, config.hidden_size, config.num_attention_heads, parts)

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor of one block by name, for one user."""
        shapes: dict[str, tuple[int, ...]] = {}
        for name in self.parts:
            shapes |= STATE_PARTS[name].shapes(self.hidden_size, self.num_heads)
        return shapes

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor by name, for one user, in the order of the bytes."""
        block = self.layer_shapes().items()
        layers = {f"layers.{layer}.{name}": shape for layer in range(self.num_layers) for name, shape in block}
        return {**layers, "representation": (self.hidden_size,)}

    def facts(self) -> dict[str, Any]:
        """The layout as plain values by name: the sizes, and for each part of `STATE_PARTS` whether it is on."""
        sizes = {"num_layers": self.num_layers, "hidden_size": self.hidden_size, "num_heads": self.num_heads}
        names = sorted(STATE_PARTS, key=lambda name: STATE_PARTS[name].bit)
        return {**sizes, **{name: name in self.parts for name in names}}


def fingerprint_of(model: Any, layout: StateLayout) -> str:
    """16 hexadecimal digits that name the weights of an encoder, read as float32, and its layout.

    Rows of items that were added without training (`config.states_vocab_size`) do not count: no earlier state has them.
    """
    facts = layout.facts()
    first = ("num_layers", "hidden_size", "num_heads", "attention", "gru", "convolutions")  # other parts add settings
    text = f"StateLayout({', '.join(f'{name}={facts[name]}' for name in first)})"
    digest = hashlib.blake2b(text.encode(), digest_size=8)
    for name in layout.parts:
        if settings := STATE_PARTS[name].settings:
            digest.update(repr(settings(model.config)).encode())
    for name, parameter in sorted(model.named_parameters()):
        if name == "embed_items.weight":
            parameter = parameter[: model.config.states_vocab_size]
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(parameter.detach().to("cpu", torch.float32).contiguous().numpy().data)
    return digest.hexdigest()


# ---------------------------------------------------------------------- the bytes of a state


def state_kind(layout: StateLayout, dtype: torch.dtype, fingerprint: str) -> bytes:
    """The header of a state's bytes without the count: equal for states that can be in one batch."""
    parts = sum(1 << STATE_PARTS[name].bit for name in layout.parts)
    sizes = (layout.num_layers, layout.hidden_size, layout.num_heads, parts, bytes.fromhex(fingerprint))
    return HEADER.pack(MAGIC, VERSION, DTYPES.index(dtype), *sizes, 0)[: -COUNT.size]


def pack_states(kind: bytes, counts: Iterable[int], rows: Any) -> list[bytes]:
    """The strings of `GlintRUState.to_bytes`.

    Args:
        kind: From `state_kind`.
        counts: Items of each user's history.
        rows: Contiguous NumPy array, for each user the numbers of the state in the dtype of `kind`, or their bytes.
    """
    blobs = []
    for count, row in zip(counts, rows, strict=True):
        header, body = kind + COUNT.pack(count), row.tobytes()
        blobs.append(header + CHECKSUM.pack(zlib.crc32(body, zlib.crc32(header))) + body)
    return blobs


def unpack_states(blobs: Sequence[bytes]) -> tuple[bytes, list[int], bytearray]:
    """The `state_kind` that all strings share, their counts, and their numbers end to end.

    Raises:
        GlintRUError: As `GlintRUState.from_bytes`.
    """
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
        if header != kind or len(blob) != len(blobs[0]):
            raise GlintRUError(f"state {number} is of other weights, sizes or dtype than the first one")
        counts.extend(COUNT.unpack_from(blob, len(header)))
        if counts[-1] >= 1 << 63:
            raise GlintRUError(f"state {number} declares a history that nobody has: {counts[-1]} items")
    return kind, counts, bytearray().join(memoryview(blob)[start:] for blob in blobs)


# ---------------------------------------------------------------------- a batch of states


@dataclass(frozen=True)
class GlintRUState:
    """The states of a batch of users; never changed in place.

    Args:
        layout: Names and shapes.
        count: (users,) int64, the number of items in each user's history.
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

    def __len__(self) -> int:
        """The number of users."""
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
        """Bytes of all tensors and of the counts."""
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
        index, users = torch.as_tensor(indices, device=self.device), len(self)
        if index.numel() == 0:
            index = index.long()
        if index.dim() != 1 or index.dtype not in (torch.int64, torch.int32):
            raise GlintRUError(f"indices must be one-dimensional integers, got {tuple(index.shape)}, {index.dtype}")
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
        """The same states on another device or in another floating dtype; `to(torch.float16)` works too.

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
        """Checks that a model can go on from here.

        Args:
            layout, fingerprint: The model's; the fingerprints are compared where both are known.
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
            raise GlintRUError(f"the state is on {self.device} but the model on {device}: use .to({str(device)!r})")

    def check_storable(self) -> None:
        """Refuses to store a state of training mode."""
        if not self.fingerprint:
            raise GlintRUError(
                "a state of training mode cannot be stored, since its weights move: compute it after model.eval()"
            )

    def save(self, path: str | Path) -> None:
        """Writes all users to one safetensors file; needs the package, see `models/state_files.py`."""
        from_package("state_files").save_state(self, path)

    @classmethod
    def load(cls, path: str | Path, device: Any = "cpu") -> GlintRUState:
        """Reads what `save` wrote; needs the package, see `models/state_files.py`."""
        return from_package("state_files").load_state(cls, path, device)

    def to_bytes(self) -> list[bytes]:
        """One string for each user: a header with version, sizes, fingerprint, count and checksum, then the numbers.

        Raises:
            GlintRUError: The state is one of training mode.
        """
        self.check_storable()
        rows = torch.cat([self.tensors[name].detach().flatten(1) for name in self.layout.shapes()], dim=1)
        numbers = rows.cpu().contiguous().view(torch.uint8).numpy()
        return pack_states(state_kind(self.layout, self.dtype, self.fingerprint), self.count.tolist(), numbers)

    @classmethod
    def from_bytes(cls, blobs: bytes | Iterable[bytes]) -> GlintRUState:
        """The states of the users whose `to_bytes` strings are given, or of one user; on the CPU.

        Raises:
            GlintRUError: No string, one that is truncated, altered or of another version, one whose numbers are not
                finite or not as many as it declares, or strings of different weights, sizes or dtypes.
        """
        blobs = [bytes(blobs)] if isinstance(blobs, (bytes, bytearray, memoryview)) else list(blobs)
        if not blobs:
            raise GlintRUError("from_bytes needs at least one state")
        _, counts, numbers = unpack_states(blobs)
        _, _, dtype, layers, size, heads, bits, fingerprint, _ = HEADER.unpack_from(blobs[0])
        layout = StateLayout(layers, size, heads, tuple(n for n, part in STATE_PARTS.items() if bits >> part.bit & 1))
        if dtype >= len(DTYPES) or not layers or not size or not heads:
            raise GlintRUError("the state declares sizes or a dtype that no model has")
        declared = sum(torch.Size(shape).numel() for shape in layout.shapes().values()) * DTYPES[dtype].itemsize
        if len(numbers) != declared * len(blobs):
            raise GlintRUError("the state holds another number of numbers than it declares")
        rows = torch.frombuffer(numbers, dtype=DTYPES[dtype]).view(len(blobs), -1)
        if not rows.isfinite().all():
            raise GlintRUError("the state holds numbers that are not finite")
        return cls.from_rows(layout, rows, torch.tensor(counts, dtype=torch.int64), fingerprint.hex())

    @classmethod
    def from_rows(cls, layout: StateLayout, rows: Tensor, count: Tensor, fingerprint: str) -> GlintRUState:
        """The states whose numbers are the (users, numbers) rows, in the order of the bytes; `count` is (users,)."""
        shapes = layout.shapes()
        pieces = rows.split([torch.Size(shape).numel() for shape in shapes.values()], dim=1)
        tensors = {name: x.reshape(len(rows), *shape) for (name, shape), x in zip(shapes.items(), pieces, strict=True)}
        return cls(layout, count, tensors, fingerprint)
