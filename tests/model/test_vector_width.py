"""Kernels built for a processor with narrower registers use narrower vectors and give the same numbers."""

from __future__ import annotations

import platform
import shutil
import subprocess

import numpy as np
import pytest
import torch

from modeling_glintru.kernels import build as kernels
from modeling_glintru.kernels.step import CompiledStep
from modeling_glintru.models.ops_glintru import selective_scan

from .helpers import gradients, random_history, small_model
from .test_scan import results, scan_inputs

pytestmark = pytest.mark.skipif(
    kernels.library() is None or platform.machine() != "x86_64", reason="no C compiler, or not an x86-64 processor"
)


@pytest.mark.parametrize(("processor", "width"), [("x86-64", 4), ("haswell", 8), ("skylake-avx512", 16)])
def test_a_vector_is_as_wide_as_a_register(processor, width):
    compiler = shutil.which("cc") or shutil.which("gcc") or "clang"
    command = [compiler, f"-march={processor}", "-dM", "-E", str(kernels.SOURCES / "kernels.c")]
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


@pytest.mark.parametrize("processor", ["x86-64", "haswell"])
def test_a_narrower_build_gives_the_same_numbers(processor, monkeypatch, tmp_path):
    if processor == "haswell" and torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("no AVX2 on this machine")
    cases = [(size, heads, bf16) for size, heads in ((64, 1), (48, 3)) for bf16 in (False, True)]
    expected = [numbers(*case) for case in cases]
    flags = [{"-march=native": f"-march={processor}", "-O3": "-O1"}.get(flag, flag) for flag in kernels.FLAGS]
    monkeypatch.setattr(kernels, "FLAGS", flags)  # -O1 is built in a third of the time
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    narrow = kernels.library.__wrapped__()
    assert narrow is not None
    monkeypatch.setattr(kernels, "library", lambda: narrow)
    for case, tensors in zip(cases, expected, strict=True):
        limit = 1e-2 if case[2] else 1e-5
        for ours, theirs in zip(numbers(*case), tensors, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=limit, atol=limit * max(1.0, theirs.abs().max().item()))
