"""One click in one call of a C function: the states of users advanced by one item each, without PyTorch's dispatches.

At d = 64 the plain path pays about two hundred dispatches for work that takes a few microseconds. Here all layers are
one call, with weights multiplied and laid out beforehand.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..models.configuration_glintru import GlintRUError
from ..models.modeling_glintru import GlintRUBlock, GlintRUSelectiveGRU, SelectiveStateSpace
from . import build

__all__ = ["CompiledStep", "panels", "pointer"]

PANEL = 64  # columns of a matrix that the kernels read together
WIDTH = 16  # floats of the widest vectors; sizes are filled up to it


class Click(ctypes.Structure):
    """The sizes and parts of a model, as `click` in `c/click.c` takes them."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("layers", "d", "heads", "vocabulary", "attention", "gru", "convolutions")),
        *((name, ctypes.c_int) for name in ("gate", "block_gate", "mlp", "average", "space", "rank")),
        *((name, ctypes.c_float) for name in ("eps", "share", "decay", "space_share")),
    )


def aligned(size: int) -> np.ndarray:
    """Float32 zeros that begin at a cache line."""
    raw = np.zeros(size + WIDTH, np.float32)
    start = -raw.ctypes.data % 64 // 4
    return raw[start : start + size]


def pointer(x: np.ndarray | None) -> Any:
    """A contiguous array for a C function; it has to live until the call is over."""
    if x is None:
        return None
    try:
        return ctypes.byref(ctypes.c_char.from_buffer(x))  # type: ignore[arg-type]  # several times faster
    except (TypeError, ValueError):  # read-only, or empty
        return ctypes.c_void_p(x.ctypes.data)


def panels(weight: np.ndarray, bias: np.ndarray | None = None, fill: float = 0.0) -> np.ndarray:
    """A linear map as the kernels read it: for each 64 outputs their biases, then the weights input by input.

    Args:
        weight: (out, in) float32.
        bias: (out,), zeros by default.
        fill: The bias of the outputs that fill the last panel up.

    Returns:
        (panels, in + 1, 64) float32, contiguous.
    """
    out, inputs = weight.shape
    count = -(-out // PANEL)
    packed = aligned(count * (inputs + 1) * PANEL).reshape(count, inputs + 1, PANEL)
    packed[-1, 0] = fill
    for number in range(count):  # one at a time: no second copy of a large catalogue
        rows = weight[number * PANEL : (number + 1) * PANEL]
        packed[number, 1:, : len(rows)] = rows.T
        packed[number, 0, : len(rows)] = 0.0 if bias is None else bias[number * PANEL : (number + 1) * PANEL]
    return packed


def filled(x: Tensor, size: int) -> Tensor:
    """`x` with zeros behind its first dimension, up to `size`."""
    return torch.cat((x, x.new_zeros(size - len(x), *x.shape[1:])))


class CompiledStep:
    """`Step` (see `serving/step.py`) by the C kernel: float32 on the CPU.

    It is a copy of the weights: later changes of the model do not reach it.

    Args:
        model: A GLINT-RU recommender for which `serves` says yes.
    """

    def __init__(self, model: Any) -> None:
        encoder, config = model.model, model.config
        self.layout = encoder.empty_state(0).layout
        self.fingerprint: str = encoder.fingerprint()
        self.row_size = sum(torch.Size(shape).numel() for shape in self.layout.shapes().values())
        self._size, self._vocab_size = config.hidden_size, config.vocab_size
        self._normalize, self._temperature = config.normalize_scores, np.float32(config.temperature)
        self._shape = Click(
            config.num_hidden_layers,
            config.hidden_size,
            config.num_attention_heads,
            config.vocab_size,
            "attention" in self.layout.parts,
            "gru" in self.layout.parts,
            "convolutions" in self.layout.parts,
            config.use_selective_gate,
            config.use_block_gate,
            config.use_gated_mlp,
            "average" in self.layout.parts,
            "state_space" in self.layout.parts,
            space.mixer.rank if (space := encoder.layers[0].state_space) is not None else 0,
            config.layer_norm_eps,
            config.average_share / (1 - config.state_space_share),  # of what the experts and the average make
            config.average_decay,
            config.state_space_share,
        )
        with torch.no_grad():
            pieces = [piece for layer in encoder.layers for piece in self._pieces(layer)]
            self._weights = aligned(sum(piece.size for piece in pieces))
            np.concatenate([piece.ravel() for piece in pieces], out=self._weights)
            self._embeddings = encoder.block_input(encoder.embed_items.weight).numpy().copy()
        self._click = build.library().click  # type: ignore[union-attr]
        self._fixed = (ctypes.byref(self._shape), pointer(self._weights), pointer(self._embeddings))
        self._row = ctypes.c_long(self.row_size)

    @staticmethod
    def serves(model: Any) -> bool:
        """Whether there are kernels on this machine, and they take the model: float32 on the CPU, without adapters."""
        plain = all(
            x.dtype == torch.float32 and x.device.type == "cpu" and ".lora_" not in name
            for name, x in model.named_parameters()
        )
        return plain and build.library() is not None

    def _pieces(self, block: GlintRUBlock) -> Iterator[np.ndarray]:
        """The numbers of a block in the order in which the kernel reads them."""
        size = -(-self._size // WIDTH) * WIDTH
        maps: list[tuple[Tensor, Tensor]] = []  # everything that reads the block's input is one product
        recurrence, attention, gate = block.recurrence, block.attention, block.gate_proj
        if recurrence is not None:
            maps += self._inputs(recurrence)
        if attention is not None:
            maps += [(x.weight, x.bias) for x in (attention.q_proj, attention.k_proj, attention.v_proj)]
        if gate is not None:
            maps.append((gate.weight, gate.bias))
        yield self._joined(maps, size)
        if recurrence is not None:
            for weight in recurrence.gru.all_weights[0]:
                yield self._joined([(part, part.new_zeros(len(part))) for part in weight.chunk(3)], size)
            yield self._linear(recurrence.out_proj)
            if recurrence.gate is not None:
                yield self._linear(recurrence.gate[0])
                yield self._linear(recurrence.gate[2])
            conv = recurrence.conv_out
            if conv is not None:
                assert conv.bias is not None
                yield panels(conv.weight[:, :, :2].transpose(1, 2).flatten(1).numpy(), conv.bias.numpy())
        if attention is not None:
            yield self._linear(attention.o_proj)
            yield from self._norm(attention.norm, size)
        both = recurrence is not None and attention is not None
        shares = torch.full((2,), 0.5 if both else 1.0)
        if block.mixing_logits is not None:
            shares = block.mixing_logits.softmax(0)
        yield filled(shares, WIDTH).numpy()
        yield self._linear(block.mix_proj)
        yield from self._norm(block.norm, size)
        if block.average is not None:
            yield filled(block.average.average_weight, size).numpy()
            yield filled(block.average.item_weight, size).numpy()
            yield from self._norm(block.average.norm, size)
        if block.state_space is not None:
            yield from self._state_space(block.state_space.mixer)
            yield from self._norm(block.state_space.norm, size)
        if block.mlp is not None:
            halves = [(x.weight, x.bias) for x in (block.mlp.value_proj, block.mlp.gate_proj)]
            yield self._joined(halves, size)
            yield self._linear(block.mlp.out_proj)

    @staticmethod
    def _inputs(recurrence: GlintRUSelectiveGRU) -> list[tuple[Tensor, Tensor]]:
        """What the recurrence makes of the block's input: taps to the next item, the own and the one before."""
        project, conv = recurrence.in_proj, recurrence.conv_in
        if conv is None:
            return [(project.weight, project.bias)]
        assert conv.bias is not None
        maps = []
        for tap in range(3):
            kernel = conv.weight[:, :, tap]
            bias = kernel @ project.bias
            maps.append((kernel @ project.weight, bias + conv.bias if tap == 1 else bias))
        return maps

    @classmethod
    def _state_space(cls, mixer: SelectiveStateSpace) -> Iterator[np.ndarray]:
        """The numbers of a selective state space."""
        channels = len(mixer.skip)
        size = -(-channels // WIDTH) * WIDTH
        assert mixer.conv.bias is not None
        yield cls._joined([(part, part.new_zeros(channels)) for part in mixer.in_proj.weight.chunk(2)], size)
        yield mixer.conv.weight.numpy()
        yield filled(mixer.conv.bias, size).numpy()
        yield panels(mixer.x_proj.weight.numpy())
        yield cls._joined([(mixer.step_proj.weight, mixer.step_proj.bias)], size)
        yield (-mixer.a_log.exp()).numpy()
        yield filled(mixer.skip, size).numpy()
        yield panels(mixer.out_proj.weight.numpy())

    @staticmethod
    def _joined(maps: Sequence[tuple[Tensor, Tensor]], size: int) -> np.ndarray:
        """Linear maps side by side, each filled up to `size` outputs."""
        weights, biases = zip(*((filled(weight, size), filled(bias, size)) for weight, bias in maps), strict=True)
        return panels(torch.cat(weights).numpy(), torch.cat(biases).numpy())

    @staticmethod
    def _linear(layer: Any) -> np.ndarray:
        return panels(layer.weight.numpy(), layer.bias.numpy())

    @staticmethod
    def _norm(norm: nn.LayerNorm, size: int) -> Iterator[np.ndarray]:
        yield filled(norm.weight, size).numpy()
        yield filled(norm.bias, size).numpy()

    def empty(self, users: int = 1) -> np.ndarray:
        """(users, row_size) float32 zeros."""
        return np.zeros((users, self.row_size), np.float32)

    def advance(self, rows: np.ndarray, counts: np.ndarray, item_ids: np.ndarray) -> np.ndarray:
        """The states after one more item each, see `Step.advance`.

        Raises:
            GlintRUError: Shapes that do not fit, or an item that is not in 1 ... vocab_size - 1.
        """
        rows = np.ascontiguousarray(rows, np.float32)
        counts = np.ascontiguousarray(counts, np.int64)
        item_ids = np.ascontiguousarray(item_ids, np.int64)
        users = len(rows)
        if rows.shape != (users, self.row_size) or counts.shape != (users,) or item_ids.shape != (users,):
            raise GlintRUError(
                f"advance needs rows (n, {self.row_size}), counts (n,) and item_ids (n,), got "
                f"{rows.shape}, {counts.shape} and {item_ids.shape}"
            )
        after = np.empty_like(rows)
        arrays = map(pointer, (rows, counts, item_ids, after))
        code = self._click(*self._fixed, *arrays, self._row, users)
        if code > 0:
            raise GlintRUError(
                f"item_ids[{code - 1}] is {item_ids[code - 1]}, but items must be between 1 and {self._vocab_size - 1}"
            )
        if code:
            raise MemoryError("no memory for the buffers of a kernel")
        return after

    def queries(self, rows: np.ndarray) -> np.ndarray:
        """(n, d) float32, see `Step.queries`."""
        hidden = rows[:, -self._size :]
        if self._normalize:
            hidden = hidden / np.maximum(np.sqrt(np.einsum("ij,ij->i", hidden, hidden)), 1e-12)[:, None]
        return hidden / self._temperature
