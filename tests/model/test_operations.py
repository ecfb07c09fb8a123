"""Every registered form of an operation equals the plain function under the same name, forward and backward."""

from __future__ import annotations

import functools
import platform
import tempfile
from ctypes import CDLL
from pathlib import Path

import pytest
import torch
from torch import nn

from modeling_glintru.kernels import build
from modeling_glintru.models import losses
from modeling_glintru.models import ops_glintru as ops

B, L, D, HEADS = 5, 21, 32, 2  # sizes that every kernel takes


def leaf(*shape: int, scale: float = 1.0) -> torch.Tensor:
    return (scale * torch.randn(shape)).requires_grad_()


def examples() -> dict[str, tuple]:
    """Arguments by the name of the operation; what has a gradient is a leaf, or a module."""
    torch.manual_seed(0)
    gru, norm = nn.GRU(D, D, bias=False, batch_first=True), nn.LayerNorm(D)
    mask = (torch.rand(B, L, 1) > 0.3).float()
    targets, seen = torch.randint(1, 40, (300,)), torch.randint(1, 40, (300, 7))
    return {
        "add_norm": (leaf(B, L, D), leaf(B, L, D), norm, 0.0),
        "cross_entropy": (leaf(300, D), leaf(40, D), targets, 0.5, 0.0, seen),
        "decayed_sums": (leaf(B, 70, D), 0.9, leaf(B, D)),  # more than two chunks
        "dropout": (leaf(B, L, D), 0.0),
        "gated_pairs": (leaf(2, B, L, D), leaf(2, B, L, D), mask, 0.0),
        "gelu_gate": (leaf(B, L, D), leaf(B, L, D), leaf(B, L, D), leaf(2)),
        "gru_prefix_states": (gru, leaf(2, B, L, D)),
        "gru_states": (gru, leaf(B, L, D)),
        "linear_attention": (leaf(B, L, 3 * D), mask, HEADS),
        "prefix_convolution": (leaf(B, L, 3 * D), leaf(D), mask),
        "r_drop": (leaf(2, 300, D), leaf(40, D), targets, 0.5, 1.5, seen),
        "selective_scan": (
            leaf(B, L, D).detach().abs().requires_grad_(),
            leaf(B, L, D),
            (-torch.rand(D, 4)).requires_grad_(),
            leaf(B, L, 4),
            leaf(B, L, 4),
        ),
    }


def numbers(function, arguments) -> list[torch.Tensor]:
    """The result and the gradients of a random weighing of it."""
    leaves = [x for x in arguments if isinstance(x, torch.Tensor) and x.requires_grad]
    leaves += [p for x in arguments if isinstance(x, nn.Module) for p in x.parameters()]
    result = function(*arguments)
    first = result[0] if isinstance(result, tuple) else result
    weighed = (first * torch.rand(first.shape, generator=torch.Generator().manual_seed(1))).sum()
    return [first, *torch.autograd.grad(weighed, leaves)]


@functools.cache
def wheel_kernels(level: str) -> CDLL:
    """The kernels as the wheel brings them for one of `build.LEVELS`; the test is skipped where they cannot run."""
    compiler = build.find_compiler()
    if compiler is None or platform.machine() != "x86_64":
        pytest.skip("no C compiler, or not an x86-64 processor")
    levels = list(build.LEVELS)
    best = build.best_level(build._processor_flags().split())
    if best is None or levels.index(best) > levels.index(level):
        pytest.skip(f"this processor is below {level}")
    with tempfile.TemporaryDirectory() as folder:
        build.compile_kernels(compiler, Path(folder) / "kernels.so", level)
        return CDLL(str(Path(folder) / "kernels.so"))


@pytest.mark.parametrize("level", [None, *build.LEVELS])
@pytest.mark.parametrize("name", sorted(ops.FAST_FORMS))
def test_every_form_equals_the_plain_operation(name, level, monkeypatch):
    """With the kernels of this machine, and with those of the wheel."""
    if level is not None:
        kernels = wheel_kernels(level)
        monkeypatch.setattr(build, "library", lambda: kernels)
    arguments = examples()[name]
    operation = getattr(ops if hasattr(ops, name) else losses, name)
    expected = numbers(operation.plain, arguments)
    served = 0
    for serves, form in ops.FAST_FORMS[name]:
        if not serves(*arguments):
            continue
        served += 1
        for ours, theirs in zip(numbers(form, arguments), expected, strict=True):
            scale = max(1.0, theirs.abs().max().item())
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * scale)
    assert served or build.library() is None
