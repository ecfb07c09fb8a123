"""One click: the states of users advanced by one item each, and the vectors that their next items are found with."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch

from ..errors import GlintRUError
from ..kernels.step import CompiledStep
from ..models.head_glintru import NUM_GAPS, TimeGaps
from ..models.state_glintru import GlintRUState, StateLayout

__all__ = ["AtTime", "PlainStep", "Step", "make_step", "rows_of_state", "state_of_rows"]


class Step(Protocol):
    """One item more for each of n users, whose states are rows of one float32 array.

    A row is the numbers of one `GlintRUState.to_bytes` string: the tensors of `layout.shapes()` one after the other,
    the representation last. How many items it holds is kept beside it.

    Attributes:
        layout: Names and sizes of the tensors.
        fingerprint: Of the weights, taken once at construction: weights must not change afterwards.
        row_size: Numbers in one row.
    """

    layout: StateLayout
    fingerprint: str
    row_size: int

    def empty(self, users: int = 1) -> np.ndarray:
        """(users, row_size) float32 zeros: the states of users without items."""
        ...

    def advance(self, rows: np.ndarray, counts: np.ndarray, item_ids: np.ndarray) -> np.ndarray:
        """The states after one more item each.

        Args:
            rows: (n, row_size) float32; not changed.
            counts: (n,) int64, the items that each row holds; 0 for a new user.
            item_ids: (n,) int64 item indices from 1 to vocab_size - 1.

        Returns:
            (n, row_size) float32.
        """
        ...

    def queries(self, rows: np.ndarray) -> np.ndarray:
        """(n, d) float32 vectors whose inner products with `model.item_vectors()` are the scores of the next item."""
        ...


def make_step(model: Any) -> Step:
    """A step by one item for the states of users.

    The compiled one where there is a C compiler and the weights are float32 on the CPU; otherwise the model itself.
    Either holds for the weights as they are now.

    Args:
        model: A `GlintRUForSequentialRecommendation`.

    Raises:
        GlintRUError: The model keeps no state: another architecture.
    """
    if hasattr(getattr(model, "model", None), "empty_state") and CompiledStep.serves(model):
        return CompiledStep(model)
    return PlainStep(model)


class PlainStep:
    """`Step` through `model(input_ids, state=...)`.

    Args:
        model: A GLINT-RU recommender; it is set to eval mode.

    Raises:
        GlintRUError: The model keeps no state: another architecture.
    """

    def __init__(self, model: Any) -> None:
        if not hasattr(getattr(model, "model", None), "empty_state"):
            raise GlintRUError(f"{type(model).__name__} keeps no state of a user: real time is for GLINT-RU models")
        self.model = model.eval()
        nothing = model.model.empty_state(0)
        self.layout: StateLayout = nothing.layout
        self.fingerprint: str = nothing.fingerprint
        self.row_size = sum(torch.Size(shape).numel() for shape in self.layout.shapes().values())

    def empty(self, users: int = 1) -> np.ndarray:
        return np.zeros((users, self.row_size), np.float32)

    @torch.inference_mode()
    def advance(self, rows: np.ndarray, counts: np.ndarray, item_ids: np.ndarray) -> np.ndarray:
        if not len(rows):
            return self.empty(0)
        state = state_of_rows(self.layout, rows, counts, self.fingerprint, self.model.device)
        ids = torch.as_tensor(item_ids, dtype=torch.int64, device=self.model.device)[:, None]
        return rows_of_state(self.model.model(ids, state=state).state)

    @torch.inference_mode()
    def queries(self, rows: np.ndarray) -> np.ndarray:
        hidden = torch.tensor(rows[:, -self.layout.hidden_size :], device=self.model.device)
        return self.model.query_vectors(hidden).float().cpu().numpy()


def rows_of_state(state: GlintRUState) -> np.ndarray:
    """(users, row_size) float32: the numbers of a state, in the order of its bytes."""
    parts = [state.tensors[name].detach().flatten(1) for name in state.layout.shapes()]
    return torch.cat(parts, dim=1).to("cpu", torch.float32).numpy()


def state_of_rows(
    layout: StateLayout, rows: np.ndarray, counts: np.ndarray, fingerprint: str, device: Any = None
) -> GlintRUState:
    """The state that `rows_of_state` gave these rows of; float32.

    Args:
        layout, fingerprint, device: Of the model.
        rows: (users, row_size).
        counts: (users,) int64, items that each row holds.
    """
    shapes = layout.shapes()
    numbers = torch.tensor(rows, dtype=torch.float32, device=device)
    widths = [torch.Size(shape).numel() for shape in shapes.values()]
    pieces = numbers.split(widths, dim=1)
    tensors = {name: x.reshape(len(rows), *shape) for (name, shape), x in zip(shapes.items(), pieces, strict=True)}
    return GlintRUState(layout, torch.tensor(counts, dtype=torch.int64, device=device), tensors, fingerprint)


class AtTime:
    """`TimeGaps` without PyTorch, equal to it up to rounding.

    Args:
        layer: Its weights are copied.
    """

    def __init__(self, layer: TimeGaps) -> None:
        def numbers(weight) -> np.ndarray:
            return weight.detach().to("cpu").float().numpy().copy()

        self.inner, self.bias, self.outer = map(
            numbers, (layer.in_proj.weight.T, layer.in_proj.bias, layer.out_proj.weight.T)
        )
        table = numbers(layer.gap_proj.weight.T)
        self.table = np.concatenate([np.zeros_like(table[:1]), table])  # class 0, unknown, changes nothing

    def __call__(self, hidden: np.ndarray, gaps: np.ndarray) -> np.ndarray:
        """
        Args:
            hidden: (n, d) float32 representations.
            gaps: (n,) float32 times, negative where not known.

        Returns:
            (n, d) float32.
        """
        classes = np.clip(np.frexp(gaps)[1] + 2, 2, NUM_GAPS)
        classes = np.where(gaps > 0, classes, gaps == 0)
        gate, shift = np.split(self.table[classes], 2, axis=1)
        x = hidden @ self.inner + self.bias
        with np.errstate(over="ignore"):  # of a very negative number, whose share is zero
            x *= gate / (1 + np.exp(-x))
        return hidden + x @ self.outer + shift
