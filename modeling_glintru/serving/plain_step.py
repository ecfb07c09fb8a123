"""`PlainStep`: one click through the model itself, on any device and in any dtype; the others are held equal to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..errors import GlintRUError
from ..models.state_glintru import GlintRUState, StateLayout

__all__ = ["PlainStep", "rows_of_state", "state_of_rows"]


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
    numbers = torch.tensor(rows, dtype=torch.float32, device=device)
    return GlintRUState.from_rows(layout, numbers, torch.tensor(counts, dtype=torch.int64, device=device), fingerprint)


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
