"""R-Drop: the loss against a plain formula, the kernel against plain torch, and two passes in training alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from modeling_glintru.kernels import build as kernels
from modeling_glintru.kernels import softmax
from modeling_glintru.models.losses import NextItemLoss

from .helpers import gradients, random_history, small_model


def plain(config, hidden, again, targets, weight, seen=None):
    """The paper's equations, halved."""
    if config.normalize_scores:
        hidden, again, weight = (F.normalize(x, dim=-1) for x in (hidden, again, weight))
    scores = [(x @ weight[1:].T) / config.temperature for x in (hidden, again)]
    if seen is None:
        logs = [x.log_softmax(-1) for x in scores]
    else:
        hidden_items = torch.zeros_like(scores[0], dtype=torch.bool).scatter_(1, seen - 1, True)
        hidden_items.scatter_(1, targets[:, None] - 1, False)
        # 0 where hidden: the difference of the two must be 0 there, not -inf minus -inf.
        masses = [x.masked_fill(hidden_items, float("-inf")).logsumexp(-1, keepdim=True) for x in scores]
        logs = [(x - mass).masked_fill(hidden_items, -1e9) for x, mass in zip(scores, masses, strict=True)]
    likelihood = sum(F.nll_loss(x, targets - 1, reduction="sum") for x in logs)
    divergence = sum(F.kl_div(a, b, log_target=True, reduction="sum") for a, b in (logs, logs[::-1])) / 2
    return (likelihood + config.r_drop_alpha * divergence) / 2


class Config(SimpleNamespace):
    """What the loss depends on, as one object."""

    def __init__(self, **options):
        super().__init__(**{"temperature": 1.0, "normalize_scores": False, **options})


def r_drop(config, hidden, again, targets, weight, seen=None):
    embedding = SimpleNamespace(weight=weight, sparse=False)
    model = SimpleNamespace(config=config, get_input_embeddings=lambda: embedding)
    return NextItemLoss(r_drop_alpha=config.r_drop_alpha)(model, [hidden, again], targets, seen)


def inputs(rows, items, dtype):
    torch.manual_seed(0)
    pair = torch.randn(2, rows, 16, dtype=dtype, requires_grad=True)
    weight = torch.randn(items + 1, 16, dtype=dtype, requires_grad=True)
    return pair, torch.randint(1, items + 1, (rows,)), weight


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.5}, {"normalize_scores": True, "temperature": 0.07}],
)
@pytest.mark.parametrize("alpha", [0.5, 3])
@pytest.mark.parametrize("chunk_elements", [1, 1 << 21])
@pytest.mark.parametrize("hide_seen", [False, True])
def test_the_papers_loss(options, alpha, chunk_elements, hide_seen, monkeypatch):
    monkeypatch.setattr(softmax.LinearCrossEntropy, "CHUNK_ELEMENTS", chunk_elements)
    config = Config(r_drop_alpha=alpha, **options)
    pair, targets, weight = inputs(150, 31, torch.float64)
    seen = torch.randint(1, 32, (150, 9)) if hide_seen else None
    ours, expected = (f(config, pair[0], pair[1], targets, weight, seen) * 0.3 for f in (r_drop, plain))
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)
    found = (torch.autograd.grad(loss, (pair, weight)) for loss in (ours, expected))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kernel", [False, True])
@pytest.mark.parametrize("items", [1, 15, 16, 31, 33, 1000])
@pytest.mark.parametrize("hide_seen", [False, True])
def test_in_float32_and_bfloat16(items, kernel, hide_seen, monkeypatch):
    if not kernel:
        monkeypatch.setattr(kernels, "library", lambda: None)
    elif kernels.library() is None:
        pytest.skip("no C compiler on this machine")
    config = Config(r_drop_alpha=1.5, temperature=0.5)
    pair, targets, weight = inputs(300, items, torch.float32)
    seen = torch.randint(1, items + 1, (300, 9)) if hide_seen else None
    expected = plain(config, pair[0], pair[1], targets, weight, seen)
    wanted = torch.autograd.grad(expected, (pair, weight))
    for half in (False, True):
        with torch.autocast("cpu", enabled=half):
            ours = r_drop(config, pair[0], pair[1], targets, weight, seen)
        torch.testing.assert_close(ours, expected, rtol=1e-2 if half else 1e-5, atol=1e-3)
        for a, b in zip(torch.autograd.grad(ours, (pair, weight)), wanted, strict=True):
            atol = 0.05 * float(b.abs().max()) if half else 1e-4
            torch.testing.assert_close(a, b, rtol=1e-3, atol=atol)


@pytest.mark.parametrize("frozen", ["items", "history"])
def test_what_is_frozen_costs_no_gradient(frozen):
    config = Config(r_drop_alpha=1.0)
    pair, targets, weight = inputs(20, 31, torch.float64)
    still, moving = (weight, pair) if frozen == "items" else (pair, weight)
    still.requires_grad_(False)
    ours, expected = (f(config, pair[0], pair[1], targets, weight) for f in (r_drop, plain))
    kept = ours.grad_fn.saved_tensors
    assert [gradient is None for gradient in kept] == [frozen == "history", frozen == "items"]
    for a, b in zip(*(torch.autograd.grad(loss, (moving,)) for loss in (ours, expected)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_training_passes_twice_and_nothing_else_does():
    ids, labels = random_history(4, 7), random_history(4, 7)
    model = small_model(r_drop_alpha=1.0, hidden_dropout=0.5)
    twin = small_model(hidden_dropout=0.5)
    twin.load_state_dict(model.state_dict())
    model.eval(), twin.eval()
    assert torch.equal(model(ids, labels=labels).loss, twin(ids, labels=labels).loss)
    model.train(), twin.train()
    torch.manual_seed(3)
    passes = [twin.model(ids).last_hidden_state for _ in range(2)]
    torch.manual_seed(3)
    ours = model(ids, labels=labels).loss
    flat = [x.flatten(0, 1) for x in passes]
    expected = plain(Config(r_drop_alpha=1.0), *flat, labels.flatten(), twin.model.embed_items.weight) / labels.numel()
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    assert (flat[0] - flat[1]).abs().max() > 1e-3
    wanted = gradients(expected, twin)
    for name, gradient in gradients(ours, model).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-3, atol=1e-5)
