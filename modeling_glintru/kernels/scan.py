"""The selective scan of Mamba (Gu and Dao, 2023, algorithm 2): compiled for CPUs, elsewhere PyTorch in chunks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .calls import WIDTH, call, can_fuse

__all__ = ["FORMS", "chunked_scan", "compiled_scan"]

KERNEL_CHUNK = 16  # positions between two kept states, as in the C text
# Numbers of state in memory at once: 1 MB in float32 stays in the second cache of most CPUs; a GPU wants few launches.
CPU_ELEMENTS, GPU_ELEMENTS = 1 << 18, 1 << 22


def _serves(step: Tensor, u: Tensor, a: Tensor, *rest: Tensor | None) -> bool:
    return step.dtype == torch.float32 and can_fuse(step, width=a.shape[0])


def compiled_scan(
    step: Tensor, u: Tensor, a: Tensor, b: Tensor, c: Tensor, start: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The operation `selective_scan` by the C kernel."""
    step, drive, b, c = (x.contiguous() for x in (step, step * u, b, c))
    return (KernelScan.apply if torch.is_grad_enabled() else kernel_scan)(step, drive, a, b, c, start)[:2]


def chunked_scan(
    step: Tensor, u: Tensor, a: Tensor, b: Tensor, c: Tensor, start: Tensor | None = None, chunk: int = 0
) -> tuple[Tensor, Tensor]:
    """The operation `selective_scan` in chunks of PyTorch's operations.

    The states of all positions would be length * channels * state_size numbers a row. Only those between chunks are
    kept; the backward pass computes the others again. `chunk` 0 chooses the positions by the size of their states.
    """
    # Time first: a step is one block of memory.
    step, drive, b, c = (x.transpose(0, 1).contiguous() for x in (step, step * u, b, c))
    elements = CPU_ELEMENTS if step.device.type == "cpu" else GPU_ELEMENTS
    chunk = chunk or max(1, elements // max(1, step.shape[1] * a.numel()))
    if start is None:
        start = step.new_zeros(*step.shape[1:], a.shape[1])
    outputs, last = (ChunkScan.apply if torch.is_grad_enabled() else chunk_scan)(step, drive, a, b, c, start, chunk)
    return outputs.transpose(0, 1), last


# ---------------------------------------------------------------------- the kernel


def blocked(x: Tensor) -> Tensor:
    """(..., channels, state_size) as the kernel has it, channels in blocks: (..., channels / 16, state_size, 16)."""
    return x.unflatten(-2, (-1, WIDTH)).transpose(-1, -2).contiguous()


def unblocked(x: Tensor) -> Tensor:
    """The inverse of `blocked`."""
    return x.transpose(-1, -2).flatten(-3, -2)


def kernel_scan(
    step: Tensor, drive: Tensor, a: Tensor, b: Tensor, c: Tensor, start: Tensor | None, keep: bool = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Outputs, the last state, and with `keep` the states that a backward pass starts from."""
    batch, length, channels = step.shape
    rates = blocked(a.detach())
    last = step.new_empty(batch, *rates.shape)
    kept = step.new_empty(batch, -(-length // KERNEL_CHUNK), *rates.shape) if keep else None
    outputs = torch.empty_like(step)
    begin = None if start is None else blocked(start.to(step.dtype))
    tensors = (step, drive, rates, b, c, begin, outputs, last, kept)
    call("scan", step.dtype, batch, tensors, (length, channels, a.shape[1]))
    return outputs, unblocked(last), kept


class KernelScan(torch.autograd.Function):
    """`kernel_scan` with its gradient."""

    @staticmethod
    def forward(ctx, step: Tensor, drive: Tensor, a: Tensor, b: Tensor, c: Tensor, start: Tensor | None):
        outputs, last, kept = kernel_scan(step, drive, a, b, c, start, keep=True)
        ctx.save_for_backward(step, drive, a, b, c, kept)
        ctx.mark_non_differentiable(last)
        return outputs, last

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        step, drive, a, b, c, kept = ctx.saved_tensors
        batch, length, channels = step.shape
        to_step, to_drive, to_b, to_c = (torch.empty_like(x) for x in (step, drive, b, c))
        rates = blocked(a)
        to_a = step.new_empty(batch, *rates.shape)
        tensors = (grad.contiguous(), step, drive, rates, b, c, kept, to_step, to_drive, to_a, to_b, to_c)
        call("scan_back", step.dtype, batch, tensors, (length, channels, a.shape[1]))
        return to_step, to_drive, unblocked(to_a.sum(0)), to_b, to_c, None


# ---------------------------------------------------------------------- PyTorch, time first


def scan_chunks(
    step: Tensor, drive: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor, chunk: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """For each chunk the state before it, its outputs, (chunk, batch, channels), and the state after it."""
    for step_part, drive_part, b_part, c_part in zip(*(x.split(chunk) for x in (step, drive, b, c)), strict=True):
        _, states = chunk_states(state, step_part, drive_part, a, b_part)
        before, state = state, states[-1].clone()  # not a view, which would keep the states of the whole chunk
        yield before, (states @ c_part[..., None]).squeeze(-1), state


def chunk_scan(
    step: Tensor, drive: Tensor, a: Tensor, b: Tensor, c: Tensor, start: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """Outputs and last state, with no other state kept."""
    outputs, last = [], start
    for _, part, after in scan_chunks(step, drive, a, b, c, start, chunk):
        outputs.append(part)
        last = after
    return torch.cat(outputs), last


def chunk_states(start: Tensor, step: Tensor, drive: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Decays and states of the positions of a chunk, (chunk, batch, channels, state_size) each."""
    decays = (step[..., None] * a).exp_()
    states = drive[..., None] * b[:, :, None]
    before = start
    for state, decay in zip(states.unbind(), decays.unbind(), strict=True):
        before = state.addcmul_(decay, before)
    return decays, states


class ChunkScan(torch.autograd.Function):
    """`scan_chunks` with its gradient, chunk by chunk from the end. Autograd's own takes about twice as long."""

    @staticmethod
    def forward(ctx, step: Tensor, drive: Tensor, a: Tensor, b: Tensor, c: Tensor, start: Tensor, chunk: int):
        starts, outputs, ends = zip(*scan_chunks(step, drive, a, b, c, start, chunk), strict=True)
        ctx.save_for_backward(step, drive, a, b, c, *starts)
        ctx.chunk = chunk
        ctx.mark_non_differentiable(ends[-1])
        return torch.cat(outputs), ends[-1]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
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
        return to_step, to_drive, grad_a, to_b, to_c, None, None


FORMS = {"selective_scan": (_serves, compiled_scan)}
CHUNKED = {"selective_scan": (lambda *arguments: not torch.compiler.is_compiling(), chunked_scan)}
