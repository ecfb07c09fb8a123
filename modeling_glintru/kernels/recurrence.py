"""The recurrence. PyTorch has no fused GRU for CPUs: its loop pays several dispatches for each of hundreds of dependent
steps, twice that backward. Here a step is one small product and one pointwise loop.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import build
from .calls import can_fuse, over_rows, packed

__all__ = ["FORMS", "GRUScan", "can_scan", "gru_scan"]


def can_scan(x: Tensor, weight: Tensor) -> bool:
    """Whether the compiled recurrence serves: float32 weights, and inputs as every kernel wants them."""
    return weight.dtype == torch.float32 and can_fuse(x, width=weight.shape[1])


def _serves(gru: nn.GRU, x: Tensor, start: Tensor | None = None) -> bool:
    return start is None and can_scan(x, gru.all_weights[0][1])


def _states(gru: nn.GRU, x: Tensor, start: Any = None) -> Tensor:
    weight_x, weight_h = gru.all_weights[0]
    return gru_scan(F.linear(x, weight_x).float()[None], weight_h)[0]


def _prefix_states(gru: nn.GRU, inputs: Tensor, start: Any = None) -> Tensor:
    weight_x, weight_h = gru.all_weights[0]
    return gru_scan(F.linear(inputs, weight_x).float(), weight_h)


def gru_scan(gates: Tensor, weight: Tensor) -> Tensor:
    """As `GRUScan`; without gradients nothing is written for a backward pass."""
    if torch.is_grad_enabled() and (gates.requires_grad or weight.requires_grad):
        return GRUScan.apply(gates, weight)
    return _gru_states(gates.contiguous(), weight, None)


def _gru_states(gates: Tensor, weight: Tensor, saved: Tensor | None) -> Tensor:
    """What `GRUScan` gives; `saved`, if there, gets what its backward needs."""
    kernels = build.library()
    assert kernels is not None
    sides, batch, length, width = gates.shape
    matrix = packed(weight.detach().T)
    states = gates.new_empty(sides, batch, length, width // 3)
    edges, edge_states = (gates[1], states[1]) if sides == 2 else (None, None)
    tensors = (gates[0], edges, matrix, states[0], edge_states, saved)
    over_rows(kernels.gru_forward, batch, tensors, (length, width // 3, matrix.shape[1]))
    return states


class GRUScan(torch.autograd.Function):
    """All states of a GRU without biases from its input gates, starting at zero; float32 on the CPU.

    With edges, other input gates, also the state that each of them gives from the same state before it: the last step
    of a prefix, whose product with the recurrent weight is the one that the sequence itself needs.
    """

    @staticmethod
    def forward(ctx, gates: Tensor, weight: Tensor) -> Tensor:
        """gates (1 or 2, batch, length, 3 d) = input times weight_ih, interior and edge; weight (3 d, d) = weight_hh.

        Returns:
            States and edge states, (1 or 2, batch, length, d).
        """
        gates = gates.contiguous()
        sides, batch, length, width = gates.shape
        saved = gates.new_empty(batch, length, (1 + 3 * sides) * (width // 3))
        states = _gru_states(gates, weight, saved)
        ctx.save_for_backward(weight, states, saved)
        return states

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        kernels = build.library()
        assert kernels is not None
        weight, states, saved = ctx.saved_tensors
        sides, batch, length, size = states.shape
        matrix, grad = packed(weight.detach()), grad.contiguous()
        dgates = states.new_empty(sides, batch, length, 3 * size)
        recurrent = states.new_empty(batch * length, 3 * size)  # zero at the start of each row
        edge_grad, dedges = (grad[1], dgates[1]) if sides == 2 else (None, None)
        tensors = (grad[0], edge_grad, matrix, states[0], saved, dgates[0], dedges, recurrent)
        over_rows(kernels.gru_backward, batch, tensors, (length, size, matrix.shape[1]))
        return dgates, recurrent[1:].T @ states[0].view(-1, size)[:-1]


FORMS = {"gru_states": (_serves, _states), "gru_prefix_states": (_serves, _prefix_states)}
