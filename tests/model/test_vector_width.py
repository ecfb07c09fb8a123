"""Kernels built for other processors use vectors as wide as theirs and give the same numbers."""

from __future__ import annotations

import ctypes
import platform
import subprocess

import numpy as np
import pytest
import torch

from modeling_glintru.kernels import build as kernels
from modeling_glintru.kernels.step import CompiledStep
from modeling_glintru.models.ops_glintru import selective_scan

from .helpers import gradients, random_history, small_model
from .test_operations import wheel_kernels
from .test_scan import results, scan_inputs

pytestmark = pytest.mark.skipif(
    kernels.library() is None or kernels.find_compiler() is None or platform.machine() != "x86_64",
    reason="no C compiler, or not an x86-64 processor",
)


@pytest.mark.parametrize(("processor", "width"), [("x86-64", 4), ("x86-64-v3", 8), ("x86-64-v4", 16)])
def test_a_vector_is_as_wide_as_a_register(processor, width):
    command = [kernels.find_compiler(), f"-march={processor}", "-dM", "-E", str(kernels.SOURCES / "kernels.c")]
    macros = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"#define WIDTH {width}\n" in macros


def numbers(size: int, heads: int, bf16: bool) -> list[torch.Tensor]:
    """Loss and gradients of a training step with dropout, and the state after one click: every kernel has a part."""
    model = small_model(hidden_size=size, num_attention_heads=heads, num_hidden_layers=2).train()
    ids = random_history(11, 20)
    ids[0, :7] = 0
    labels = ids.roll(-1, 1).where((ids != 0) & (ids.roll(-1, 1) != 0), -100)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = model(ids, labels=labels).loss
    step = CompiledStep(model.eval())
    after = step.advance(step.empty(5), np.zeros(5, dtype=np.int64), ids[1:6, 0].numpy())
    scan = results(selective_scan, scan_inputs(3, 20, size, 5, torch.float32))
    return [loss, *gradients(loss, model).values(), torch.from_numpy(after), *scan]


@pytest.mark.parametrize("level", [None, *kernels.LEVELS])
def test_another_build_gives_the_same_numbers(level, monkeypatch, tmp_path):
    """The builds of the wheel, and one for the oldest processors."""
    cases = [(size, heads, bf16) for size, heads in ((64, 1), (48, 3)) for bf16 in (False, True)]
    expected = [numbers(*case) for case in cases]
    if level is None:
        monkeypatch.setattr(kernels, "FLAGS", [*kernels.FLAGS, "-O1"])  # built in a third of the time
        kernels.compile_kernels(kernels.find_compiler(), tmp_path / "kernels.so", "x86-64")
        other = ctypes.CDLL(str(tmp_path / "kernels.so"))
    else:
        other = wheel_kernels(level)
    monkeypatch.setattr(kernels, "library", lambda: other)
    for case, tensors in zip(cases, expected, strict=True):
        limit = 1e-2 if case[2] else 1e-5
        for ours, theirs in zip(numbers(*case), tensors, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=limit, atol=limit * max(1.0, theirs.abs().max().item()))
