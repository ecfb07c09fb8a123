"""The selective scan, by its kernel and in PyTorch's chunks, against a plain loop."""

from __future__ import annotations

import pytest
import torch

from modeling_glintru.kernels import build as kernels
from modeling_glintru.kernels import scan
from modeling_glintru.kernels.scan import chunked_scan
from modeling_glintru.models.ops_glintru import selective_scan

needs_kernel = pytest.mark.skipif(kernels.library() is None, reason="no C compiler on this machine")


def plain_scan(step, u, a, b, c, state):
    outputs = []
    for t in range(step.shape[1]):
        drive = torch.einsum("bc,bn->bcn", step[:, t] * u[:, t], b[:, t])
        state = torch.exp(step[:, t, :, None] * a) * state + drive
        outputs.append(torch.einsum("bcn,bn->bc", state, c[:, t]))
    return torch.stack(outputs, dim=1), state


def scan_inputs(batch: int, length: int, channels: int, size: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """`step`, `u`, the rates of decay, `b` and `c`; they are leaves."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, length, channels)] * 2 + [(channels, size)] + [(batch, length, size)] * 2
    return [torch.rand(shape, dtype=torch.float64, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def results(scan, inputs, *rest) -> list[torch.Tensor]:
    """Outputs, last state and gradients."""
    step, u, rates, b, c = inputs
    out, last = scan(step, u, -rates, b, c, *rest)
    weight = torch.rand(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return [out, last, *torch.autograd.grad((out * weight).sum(), inputs)]


@pytest.mark.parametrize("chunk", [0, 1, 4, 11, 100])
def test_the_scan_in_chunks_is_a_plain_loop(chunk):
    inputs, start = scan_inputs(2, 11, 3, 4, torch.float64), torch.rand(2, 3, 4, dtype=torch.float64)
    for ours, zero in ((None, torch.zeros_like(start)), (start, start)):
        expected = results(plain_scan, inputs, zero)
        for tensor, right in zip(results(chunked_scan, inputs, ours, chunk), expected, strict=True):
            torch.testing.assert_close(tensor, right, rtol=0, atol=1e-12)
        with torch.no_grad():
            step, u, rates, b, c = inputs
            for tensor, right in zip(chunked_scan(step, u, -rates, b, c, ours, chunk), expected, strict=False):
                torch.testing.assert_close(tensor, right, rtol=0, atol=1e-12)


def test_the_operation_without_kernels_is_a_plain_loop():
    inputs, start = scan_inputs(2, 11, 3, 4, torch.float64), torch.rand(2, 3, 4, dtype=torch.float64)
    for ours, zero in ((None, torch.zeros_like(start)), (start, start)):
        expected = results(plain_scan, inputs, zero)
        for tensor, right in zip(results(selective_scan.plain, inputs, ours), expected, strict=True):
            torch.testing.assert_close(tensor, right, rtol=0, atol=1e-12)


@needs_kernel
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("batch", "length", "channels", "size"), [(1, 1, 16, 1), (3, 37, 48, 5), (2, 16, 16, 32), (5, 33, 32, 8)]
)
def test_the_kernel_is_a_plain_loop(batch, length, channels, size, threads, monkeypatch):
    called = []
    call = scan.call
    monkeypatch.setattr(scan, "call", lambda *parts: called.append(parts) or call(*parts))
    inputs, start = scan_inputs(batch, length, channels, size, torch.float32), torch.rand(batch, channels, size)
    double = scan_inputs(batch, length, channels, size, torch.float64)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for ours, zero in ((None, torch.zeros_like(start)), (start, start)):
            expected = results(plain_scan, double, zero.double())
            for tensor, right in zip(results(selective_scan, inputs, ours), expected, strict=True):
                torch.testing.assert_close(tensor.double(), right, rtol=2e-6, atol=1e-6 * right.abs().max().item())
    finally:
        torch.set_num_threads(before)
    assert len(called) == 4


@needs_kernel
def test_the_kernel_goes_on_from_a_state_bit_for_bit():
    inputs = [x.detach() for x in scan_inputs(3, 40, 32, 6, torch.float32)]
    whole, end = selective_scan(*inputs)
    first, state = selective_scan(*(x[:, :23] if x.dim() == 3 else x for x in inputs))
    second, last = selective_scan(*(x[:, 23:] if x.dim() == 3 else x for x in inputs), state)
    assert torch.equal(torch.cat((first, second), dim=1), whole) and torch.equal(last, end)


def test_where_the_step_is_zero_the_state_stays():
    step, *rest = [x.detach() for x in scan_inputs(2, 9, 16, 4, torch.float32)]
    step[:, 5:] = 0
    short = selective_scan(*(x[:, :5] if x.dim() == 3 else x for x in (step, *rest)))[1]
    assert torch.equal(selective_scan(step, *rest)[1], short)
