"""The scan of Mamba (Gu and Dao, 2023, algorithm 2) in plain PyTorch, with a backward pass of its own."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["selective_scan"]

# Numbers of state in memory at once: 1 MB in float32 stays in the second cache of most CPUs; a GPU wants few launches.
CPU_ELEMENTS, GPU_ELEMENTS = 1 << 18, 1 << 22


def selective_scan(step: Tensor, u: Tensor, a: Tensor, b: Tensor, c: Tensor, chunk: int = 0) -> Tensor:
    """`h[t] = exp(step[t] a) * h[t - 1] + step[t] u[t] b[t]ᵀ` from zero; gives `h[t] c[t]`.

    The states of all positions would be length * channels * state_size numbers a row. Only those of one chunk are
    kept; the backward pass computes them again.

    Args:
        step, u: (batch, length, channels).
        a: (channels, state_size), negative.
        b, c: (batch, length, state_size).
        chunk: Positions at a time; 0 chooses by the size of their states.

    Returns:
        (batch, length, channels).
    """
    # Time first: a step is one block of memory.
    step, drive, b, c = (x.transpose(0, 1).contiguous() for x in (step, step * u, b, c))
    elements = CPU_ELEMENTS if step.device.type == "cpu" else GPU_ELEMENTS
    chunk = chunk or max(1, elements // max(1, step.shape[1] * a.numel()))
    if torch.is_grad_enabled():
        outputs = SelectiveScan.apply(step, drive, a, b, c, chunk)
    else:
        outputs = torch.cat([part for _, part in scan(step, drive, a, b, c, chunk)])
    return outputs.transpose(0, 1)


def scan(step: Tensor, drive: Tensor, a: Tensor, b: Tensor, c: Tensor, chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
    """For each chunk the state before it, and its outputs, (chunk, batch, channels). All inputs are time first."""
    state = step.new_zeros(*step.shape[1:], a.shape[1])
    for step_part, drive_part, b_part, c_part in zip(*(x.split(chunk) for x in (step, drive, b, c)), strict=True):
        _, states = chunk_states(state, step_part, drive_part, a, b_part)
        yield state, (states @ c_part[..., None]).squeeze(-1)
        state = states[-1].clone()  # not a view, which would keep the states of the whole chunk


def chunk_states(start: Tensor, step: Tensor, drive: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Decays and states of the positions of a chunk, (chunk, batch, channels, state_size) each."""
    decays = (step[..., None] * a).exp_()
    states = drive[..., None] * b[:, :, None]
    before = start
    for state, decay in zip(states.unbind(), decays.unbind(), strict=True):
        before = state.addcmul_(decay, before)
    return decays, states


class SelectiveScan(torch.autograd.Function):
    """`scan` with its gradient, chunk by chunk from the end. Autograd's own takes about twice as long."""

    @staticmethod
    def forward(ctx, step: Tensor, drive: Tensor, a: Tensor, b: Tensor, c: Tensor, chunk: int) -> Tensor:
        starts, outputs = zip(*scan(step, drive, a, b, c, chunk), strict=True)
        ctx.save_for_backward(step, drive, a, b, c, *starts)
        ctx.chunk = chunk
        return torch.cat(outputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        step, drive, a, b, c, *starts = ctx.saved_tensors
        parts = list(zip(starts, *(x.split(ctx.chunk) for x in (step, drive, b, c, grad.contiguous())), strict=True))
        later = torch.zeros_like(starts[0])  # of the chunks after this one, to its last state
        grad_a, gradients = torch.zeros_like(a), []
        for start, step_part, drive_part, b_part, c_part, grad_part in reversed(parts):
            decays, states = chunk_states(start, step_part, drive_part, a, b_part)
            to_states = grad_part[..., None] * c_part[:, :, None]
            to_states[-1] += later
            for t in range(len(step_part) - 1, 0, -1):
                to_states[t - 1].addcmul_(decays[t], to_states[t])
            later = decays[0] * to_states[0]
            to_c = (grad_part[:, :, None] @ states).squeeze(2)
            to_b = (drive_part[:, :, None] @ to_states).squeeze(2)
            to_drive = (to_states @ b_part[..., None]).squeeze(-1)
            to_exponents = decays.mul_(to_states)  # of the decays: decay * state before * gradient of the state
            to_exponents[1:].mul_(states[:-1])
            to_exponents[0].mul_(start)
            # The room of the states and of their gradients is free now.
            to_step = torch.mul(to_exponents, a, out=states).sum(-1)
            grad_a += torch.mul(to_exponents, step_part[..., None], out=to_states).sum((0, 1))
            gradients.append((to_step, to_drive, to_b, to_c))
        to_step, to_drive, to_b, to_c = (torch.cat(part) for part in zip(*reversed(gradients), strict=True))
        return to_step, to_drive, grad_a, to_b, to_c, None
