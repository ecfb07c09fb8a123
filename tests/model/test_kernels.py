"""The compiled recurrence equals `nn.GRU`, forward and backward, and gives way where it cannot serve."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


WARNING = "GLINT-RU computes without its compiled CPU kernels"
ONE_STEP = """
import torch
from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation
from modeling_glintru.kernels import build
from modeling_glintru.kernels.step import CompiledStep
torch.manual_seed(0)
model = GlintRUForSequentialRecommendation(GlintRUConfig(vocab_size=50, hidden_size=32, num_attention_heads=2)).eval()
ids = torch.arange(1, 41).view(4, 10)
loss = model(ids, labels=ids.roll(-1, 1)).loss
loss.backward()
print(build.library() is not None, CompiledStep.serves(model), loss.item())
"""


def one_step(**environment: str) -> tuple[list[str], str]:
    """What `ONE_STEP` prints, and what it says on standard error."""
    env = {**os.environ, **environment}
    done = subprocess.run([sys.executable, "-c", ONE_STEP], env=env, capture_output=True, text=True, check=True)
    return done.stdout.split(), done.stderr


def broken_compiler(folder: Path) -> str:
    compiler = folder / "cc"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o755)
    return str(compiler)


@pytest.mark.parametrize("broken", [False, True])
def test_without_a_compiler_there_is_one_warning_and_the_same_result(tmp_path, broken):
    compiler = {"CC": broken_compiler(tmp_path)} if broken else {"PATH": str(tmp_path)}
    (there, serves, loss), said = one_step(**compiler, XDG_CACHE_HOME=str(tmp_path))
    assert (there, serves) == ("False", "False")
    assert said.count(WARNING) == 1 and said.count("a training step takes") == 1
    assert ("there is no C compiler" in said) is not broken
    (_, _, with_kernels), _ = one_step()
    assert float(loss) == pytest.approx(float(with_kernels), abs=1e-5)


def test_the_kernels_can_be_switched_off_without_a_warning():
    (there, serves, _), said = one_step(GLINTRU_KERNELS="0")
    assert (there, serves) == ("False", "False") and WARNING not in said


@pytest.mark.parametrize(
    ("missing", "level"),
    [
        ((), "x86-64-v4"),
        (("avx512vl",), "x86-64-v3"),
        (("avx512f", "avx512cd"), "x86-64-v3"),
        (("fma", "avx512f"), None),
        (("avx2",), None),
    ],
)
def test_the_level_is_the_best_that_the_processor_has_all_flags_of(missing, level):
    flags = {"sse2", "avx512_vnni", "hypervisor", *kernels.LEVELS["x86-64-v4"]}
    assert kernels.best_level(flags - set(missing)) == level
    assert kernels.best_level([]) is None


@pytest.fixture
def builds(monkeypatch, tmp_path) -> list[Path]:
    """Builds into a folder of the test, of a file that only stands for a library; lists what was built."""
    made: list[Path] = []

    def compile_kernels(compiler, target, processor="native"):
        made.append(target)
        target.write_bytes(b"a library")

    monkeypatch.setattr(kernels, "compile_kernels", compile_kernels)
    monkeypatch.setattr(kernels, "find_compiler", lambda: sys.executable)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return made


def test_a_library_is_built_once_into_a_folder_of_the_user_alone(builds, tmp_path):
    file = kernels._built()
    assert kernels._built() == file and len(builds) == 1
    assert file.parent.parent == tmp_path / "cache" and file.read_bytes() == b"a library"
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert list(file.parent.iterdir()) == [file]


def test_a_library_that_was_changed_is_built_again(builds):
    file = kernels._built()
    file.write_bytes(b"another library")
    assert kernels._built() == file and len(builds) == 2
    assert file.read_bytes() == b"a library"


def test_a_library_of_which_the_disk_lost_a_part_is_built_again(builds):
    file = kernels._built()
    os.truncate(file, 3)
    assert kernels._built() == file and len(builds) == 2
    assert file.read_bytes() == b"a library"


def test_a_link_in_the_place_of_a_library_is_not_followed(builds, tmp_path):
    file = kernels._built()
    planted = file.rename(tmp_path / "planted.so")
    file.symlink_to(planted)
    assert kernels._built() == file and len(builds) == 2
    assert not file.is_symlink() and planted.exists()


def test_a_link_in_the_place_of_the_folder_is_refused(builds, tmp_path):
    folder = kernels._built().parent
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="is a link"):
        kernels._built()


def test_other_sources_flags_or_compilers_are_built_anew(builds, monkeypatch):
    kernels._built()
    monkeypatch.setattr(kernels, "FLAGS", [*kernels.FLAGS, "-g"])
    kernels._built()
    assert len(builds) == 2


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_folder_that_others_may_write_to_is_refused(builds, mode):
    folder = kernels._built().parent
    folder.chmod(mode)
    with pytest.raises(OSError, match=f"others may write to the folder {folder}"):
        kernels._built()
    folder.chmod(0o755)
    kernels._built()
    assert len(builds) == 1


def test_a_folder_of_another_user_is_refused(builds, monkeypatch):
    kernels._built()
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(OSError, match="belongs to another user"):
        kernels._built()


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
