"""The compiled recurrence equals `nn.GRU`, forward and backward, and gives way where it cannot serve."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from modeling_glintru.kernels import build as kernels
from modeling_glintru.kernels import calls, recurrence
from modeling_glintru.models.ops_glintru import gru_prefix_states

from .helpers import gradients, random_history, small_model

needs_kernel = pytest.mark.skipif(kernels.library() is None, reason="no C compiler on this machine")


@needs_kernel
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("batch", "length", "size"), [(1, 1, 16), (3, 7, 32), (8, 50, 64), (13, 30, 48), (33, 9, 128)])
def test_the_kernel_equals_nn_gru(batch, length, size, threads):
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        gru = torch.nn.GRU(size, size, bias=False, batch_first=True)
        weights = gru.all_weights[0]
        x = (3 * torch.randn(batch, length, size)).requires_grad_()
        direction = torch.randn(batch, length, size)
        plain = gru(x)[0]
        fast = recurrence.GRUScan.apply(F.linear(x, weights[0])[None], weights[1])[0]
        torch.testing.assert_close(fast, plain, rtol=0, atol=2e-6)
        inputs = [x, *weights]
        for a, b in zip(
            torch.autograd.grad(fast, inputs, direction), torch.autograd.grad(plain, inputs, direction), strict=True
        ):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * b.abs().max().item())
    finally:
        torch.set_num_threads(before)


@needs_kernel
@pytest.mark.parametrize(("batch", "length", "size"), [(1, 1, 16), (11, 20, 32), (8, 5, 64)])
def test_the_kernel_with_edges_equals_a_step_from_the_state_before(batch, length, size, monkeypatch):
    torch.manual_seed(0)
    gru = torch.nn.GRU(size, size, bias=False, batch_first=True)
    both = (2 * torch.randn(2, batch, length, size)).requires_grad_()
    inputs = [both, *gru.all_weights[0]]
    directions = torch.randn(2, batch, length, size)
    fast = gru_prefix_states(gru, both)
    fast_grads = torch.autograd.grad(fast, inputs, directions)
    only_edges = torch.autograd.grad(gru_prefix_states(gru, both)[1], inputs, directions[1])
    monkeypatch.setattr(kernels, "library", lambda: None)
    plain = gru_prefix_states(gru, both)
    torch.testing.assert_close(fast, plain, rtol=0, atol=2e-6)
    for grads, outputs, grad_outputs in ((fast_grads, plain, directions), (only_edges, plain[1], directions[1])):
        for a, b in zip(grads, torch.autograd.grad(outputs, inputs, grad_outputs, retain_graph=True), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * max(b.abs().max().item(), 1e-3))


@needs_kernel
def test_the_model_gives_the_same_numbers_with_and_without_the_kernel(monkeypatch):
    ids = random_history(5, 40)
    ids[0, :15] = 0  # left padding: the state must stay zero
    ids[1, 20:] = 0
    labels = ids.roll(-1, 1)
    labels[ids == 0] = -100
    labels[labels == 0] = -100
    model = small_model(hidden_size=32, num_hidden_layers=2)
    fast = model(ids, labels=labels)
    fast_grads = gradients(fast.loss, model)
    monkeypatch.setattr(kernels, "library", lambda: None)
    plain = model(ids, labels=labels)
    torch.testing.assert_close(fast.last_hidden_state, plain.last_hidden_state, rtol=0, atol=1e-5)
    torch.testing.assert_close(fast.logits, plain.logits, rtol=0, atol=1e-5)
    for name, grad in gradients(plain.loss, model).items():
        torch.testing.assert_close(fast_grads[name], grad, rtol=0, atol=1e-5, msg=name)


@needs_kernel
def test_the_kernel_is_what_runs(monkeypatch):
    calls = []
    forward = recurrence.GRUScan.forward
    monkeypatch.setattr(recurrence.GRUScan, "forward", staticmethod(lambda *a: calls.append(1) or forward(*a)))
    small_model(hidden_size=32)(random_history(2, 5))
    assert calls == [1]
    small_model(hidden_size=24)(random_history(2, 5))  # does not fill vectors
    small_model(hidden_size=32).double()(random_history(2, 5))
    small_model(hidden_size=32).bfloat16()(random_history(2, 5))
    assert calls == [1]


@needs_kernel
def test_nan_and_infinity_are_not_hidden():
    gates, weight = torch.zeros(2, 3, 48), torch.zeros(48, 16)
    gates[0, 1, 20] = float("nan")
    gates[1, 0] = float("inf")
    (states,) = recurrence.GRUScan.apply(gates[None], weight)
    assert states[0, 1, 4].isnan() and not states[0, 0].isnan().any()
    assert torch.isfinite(states[1]).all()  # saturated gates, as in nn.GRU


@needs_kernel
@pytest.mark.parametrize("team", [True, False])
def test_parts_of_a_batch_are_shared_out(team, monkeypatch):
    """By PyTorch's OpenMP threads where it has GNU's, by a pool elsewhere: each row once, the same numbers."""
    if team and calls._openmp() is None:
        pytest.skip("PyTorch has another OpenMP here")
    if not team:
        monkeypatch.setattr(calls, "_openmp", lambda: None)
    torch.manual_seed(0)
    gates, weight = torch.randn(1, 37, 6, 48), torch.randn(48, 16)
    parts: list[tuple[int, int]] = []
    plain = kernels.library().gru_forward
    monkeypatch.setattr(
        kernels.library(), "gru_forward", lambda *a: parts.append((a[6], a[7])) or plain(*a), raising=False
    )
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = recurrence.GRUScan.apply(gates, weight)
        assert parts == [(0, 37)]
        torch.set_num_threads(3)
        assert torch.equal(recurrence.GRUScan.apply(gates, weight), alone)
    finally:
        torch.set_num_threads(before)
    assert sorted(parts[1:]) == [(0, 8), (8, 24), (24, 37)]


@needs_kernel
def test_loading_the_kernel_does_not_flush_denormals():
    kernels.library()
    assert (torch.tensor(1e-40) * 1.0).item() > 0


def test_the_kernel_can_be_switched_off():
    code = "from modeling_glintru.kernels.build import library; print(library())"
    env = {**os.environ, "GLINTRU_KERNELS": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


def test_a_broken_compiler_is_no_error(tmp_path):
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    code = "from modeling_glintru.kernels.build import library; print(library())"
    env = {**os.environ, "CC": str(broken), "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


def test_a_missing_compiler_is_built_without(tmp_path):
    code = "from modeling_glintru.kernels.build import library; print(library())"
    env = {**os.environ, "PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_parts_in_parallel_give_their_results_and_their_errors(workers):
    assert calls.in_parallel(lambda part: part * part, workers) == [part * part for part in range(workers)]
    with pytest.raises(ZeroDivisionError):
        calls.in_parallel(lambda part: 1 // (workers - 1 - part), workers)


@needs_kernel
@pytest.mark.parametrize("sides", [1, 2])
def test_without_gradients_the_states_are_the_same_bits(sides):
    torch.manual_seed(0)
    gates, weight = torch.randn(sides, 11, 9, 96), torch.randn(96, 32, requires_grad=True)
    states = recurrence.gru_scan(gates, weight)
    assert states.grad_fn is not None
    with torch.no_grad():
        assert torch.equal(recurrence.gru_scan(gates, weight), states)
    assert recurrence.gru_scan(gates, weight.detach()).grad_fn is None
