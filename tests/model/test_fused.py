"""The fused parts of the block equal the same in PyTorch's own operations, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from modeling_glintru.kernels import block
from modeling_glintru.kernels import build as kernels
from modeling_glintru.kernels.block import Drop, DropFunction
from modeling_glintru.models import ops_glintru as ops

from .helpers import gradients, random_history, small_model

needs_kernel = pytest.mark.skipif(kernels.library() is None, reason="no C compiler on this machine")
BATCH, LENGTH = 3, 37


DROP = Drop(12345, 678, round(0.3 * 2**32), 1 / 0.7)
LIBRARY = kernels.library


def same_dropout(x: torch.Tensor, p: float) -> torch.Tensor:
    """The mask of `DROP` by a plain product, also where the kernels are off."""
    places = torch.ones(x.shape, dtype=torch.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "library", LIBRARY)
        mask = DropFunction.apply(places, DROP)
    return x * mask.to(x.dtype)


@pytest.fixture
def drops_the_same(monkeypatch):
    """Kernels and plain operations with a dropout drop the same places."""
    draw = block.draw
    monkeypatch.setattr(block, "draw", lambda p: DROP if p else draw(p))
    monkeypatch.setattr(ops, "dropout", same_dropout)


class Norm:
    """A layer normalisation of tensors that are not its parameters."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        self.weight, self.bias, self.eps = weight, bias, 1e-12

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


def parts(size: int, heads: int, mask: torch.Tensor | None) -> dict[str, tuple[Callable, list[tuple[int, ...]]]]:
    """Name -> the function of its tensors, and their shapes."""
    row, both = (BATCH, LENGTH, size), (2, BATCH, LENGTH, size)
    return {
        "attention": (lambda x: ops.linear_attention(x, mask, heads), [(BATCH, LENGTH, 3 * size)]),
        "edges": (lambda taps, bias: ops.prefix_convolution(taps, bias, mask), [(BATCH, LENGTH, 3 * size), (size,)]),
        "pairs": (lambda g, v: ops.gated_pairs(g, v, mask, 0.3), [both, both]),
        "pairs without dropout": (lambda g, v: ops.gated_pairs(g, v, mask, 0.0), [both, both]),
        "add_norm": (lambda a, x, *w: ops.add_norm(a, x, Norm(*w), 0.3), [row, row, (size,), (size,)]),
        "add_norm without dropout": (
            lambda a, x, *w: ops.add_norm(a, x, Norm(*w), 0.0),
            [row, row, (size,), (size,)],
        ),
        "gelu_gate": (ops.gelu_gate, [row, row]),
        "gelu_gate of two": (ops.gelu_gate, [row, row, row, (2,)]),
    }


FULL_PRECISION = {
    "edges": {1},
    "add_norm": {1, 2, 3},
    "add_norm without dropout": {1, 2, 3},
    "gelu_gate of two": {2, 3},
}


@needs_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("size", "heads"), [(16, 1), (96, 3), (64, 1)])
@pytest.mark.parametrize("name", list(parts(16, 1, None)))
def test_the_kernel_equals_plain_operations(name, size, heads, padded, dtype, monkeypatch, drops_the_same):
    torch.manual_seed(0)
    mask = (torch.rand(BATCH, LENGTH, 1) > 0.3).float() if padded else None
    function, shapes = parts(size, heads, mask)[name]
    inputs = [torch.randn(shape) for shape in shapes]
    full = FULL_PRECISION.get(name, set())
    inputs = [(x if i in full else x.to(dtype)).requires_grad_() for i, x in enumerate(inputs)]
    fast = function(*inputs)
    direction = torch.randn(fast.shape).to(fast.dtype)
    fast_grads = torch.autograd.grad(fast, inputs, direction)
    monkeypatch.setattr(kernels, "library", lambda: None)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    plain = function(*exact)
    plain_grads = torch.autograd.grad(plain, exact, direction.double())
    assert fast.dtype == (torch.float32 if name.startswith("add_norm") else dtype)
    tolerance = 3e-6 if dtype == torch.float32 else 1e-2
    for a, b in zip((fast, *fast_grads), (plain, *plain_grads), strict=True):
        limit = tolerance if a.dtype == dtype else 3e-6
        torch.testing.assert_close(a.double(), b, rtol=limit, atol=limit * max(1.0, b.abs().max().item()))


@needs_kernel
@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_nothing(threads):
    torch.manual_seed(0)
    x = torch.randn(7, 9, 96)
    alone = ops.linear_attention(x, None, 2)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(ops.linear_attention(x, None, 2), alone)
    finally:
        torch.set_num_threads(before)


@needs_kernel
def test_the_kernels_are_what_runs(monkeypatch):
    calls: list[str] = []
    plain = block.call
    monkeypatch.setattr(block, "call", lambda name, *rest: calls.append(name) or plain(name, *rest))
    model = small_model(hidden_size=32, num_attention_heads=2).train()
    model(random_history(2, 5), labels=random_history(2, 5)).loss.backward()
    assert set(calls) == {
        *("attention", "attention_back", "taps", "taps_back", "gate", "gate_back", "dropout"),
        *("add_norm", "add_norm_back", "gelu_gate", "gelu_gate_back"),
    }
    calls.clear()
    small_model(hidden_size=24)(random_history(2, 5))  # does not fill vectors
    small_model(hidden_size=32).double()(random_history(2, 5))
    assert calls == []


@needs_kernel
@pytest.mark.parametrize("options", [{}, {"use_gru": False, "r_drop_alpha": 1.0}, {"use_linear_attention": False}])
def test_no_step_generates_code_for_its_shape(options):
    """oneDNN would: it makes PyTorch's GELU, and keeps a piece of code for every new shape of a batch."""
    model = small_model(hidden_size=32, num_attention_heads=2, **options).train()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        model(random_history(2, 5), labels=random_history(2, 5)).loss.backward()
    names = {event.key for event in profile.key_averages()}
    assert "aten::embedding" in names
    assert not {name for name in names if "gelu" in name and name.startswith("aten::")}


@needs_kernel
@pytest.mark.parametrize("place", [0, 5, 40, 70])
def test_nan_is_not_hidden(place):
    x = torch.randn(1, 4, 96)
    x[0, 2, place] = float("nan")
    assert ops.linear_attention(x, None, 2)[0, 2].isnan().any()
    assert not ops.linear_attention(x, None, 2)[0, :2].isnan().any()
    gate = torch.zeros(1, 1, 32)
    gate[0, 0, 3] = float("nan")
    assert ops.gelu_gate(torch.ones(1, 1, 32), gate).isnan().sum() == 1
    assert ops.add_norm(gate, torch.ones(1, 1, 32), nn.LayerNorm(32), 0.0).isnan().all()


@needs_kernel
def test_large_and_tiny_values():
    big = torch.tensor([-1e30, -100.0, -20.0, -1e-20, 1e-20, 20.0, 100.0, 1e30]).repeat(2)[None, None]
    expected = nn.functional.gelu(big.double())
    torch.testing.assert_close(ops.gelu_gate(torch.ones_like(big), big).double(), expected, rtol=1e-6, atol=1e-7)
    tiny = torch.full((1, 2, 48), -1e-4)
    torch.testing.assert_close(
        ops.linear_attention(tiny, None, 1).double(),
        ops.linear_attention(tiny.double(), None, 1),
        rtol=1e-5,
        atol=0,
    )
    zero = torch.zeros(1, 2, 48, requires_grad=True)
    (grad,) = torch.autograd.grad(ops.linear_attention(zero, None, 1).sum(), zero)
    assert torch.isfinite(grad).all()


def test_bf16_autocast_gives_about_the_same_gradients():
    ids = random_history(4, 30)
    model = small_model(hidden_size=32, num_attention_heads=2)
    exact = gradients(model(ids, labels=ids).loss, model)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(ids, labels=ids).loss
    for name, grad in gradients(loss, model).items():
        scale = exact[name].abs().max().item()
        assert (grad - exact[name]).abs().max().item() < 0.1 * scale + 1e-6, name


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean_and_drops_the_rate(rate):
    torch.manual_seed(0)
    x = torch.ones(1001, 1008, requires_grad=True)
    layer = ops.Dropout(rate)
    y = layer(x)
    assert (y == 0).float().mean().item() == pytest.approx(rate, abs=2e-3)
    assert y.mean().item() == pytest.approx(1, abs=1e-2)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(grad, y.detach())
    assert not torch.equal(layer(x), y)  # another mask each time
    columns = (y == 0).float().mean(0)
    assert columns.std().item() == pytest.approx((rate * (1 - rate) / 1001) ** 0.5, rel=0.15)  # no pattern
    for place in range(4):  # each quarter of a 64-bit draw alike
        assert (y.flatten()[place::4] == 0).float().mean().item() == pytest.approx(rate, abs=4e-3)


def test_dropout_is_seeded_and_off_in_evaluation():
    x = torch.ones(100)
    layer = ops.Dropout(0.3)
    torch.manual_seed(1)
    first = layer(x)
    torch.manual_seed(1)
    assert torch.equal(layer(x), first)
    assert torch.equal(layer.eval()(x), x)
