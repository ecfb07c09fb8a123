"""Every loss against a plain formula, and the fused cross-entropy against torch's own."""

from __future__ import annotations

import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from modeling_glintru import GlintRUError
from modeling_glintru.kernels import build as kernels
from modeling_glintru.kernels import softmax
from modeling_glintru.models import losses
from modeling_glintru.models.losses import LossConfig, NextItemLoss
from modeling_glintru.models.ops_glintru import cross_entropy

from .helpers import gradients, random_history, small_model


@pytest.fixture
def pairs():
    """Representations (7, 16), targets (7,), item embeddings (31, 16), in float64 with gradients."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 16, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(31, 16, dtype=torch.float64, generator=generator, requires_grad=True)
    return hidden, torch.tensor([1, 30, 5, 5, 17, 2, 9]), weight


def assert_same(ours, plain, inputs, atol=1e-12):
    torch.testing.assert_close(ours, plain, rtol=0, atol=atol)
    for a, b in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(plain, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


def test_unit_rows_are_unit(pairs):
    weight = pairs[2]
    with torch.no_grad():
        weight[0] = 0  # the row of padding
    grad = torch.randn(weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    grad[0] = 0
    ours, plain = losses.unit_rows(weight), losses.unit(weight)
    assert torch.equal(ours, plain)
    assert_same((ours * grad).sum(), (plain * grad).sum(), [weight])


def tables_made(unit, rows: int) -> int:
    """How many tables of the input's size the backward pass of `unit` makes."""
    table = torch.ones(rows, 16, requires_grad=True)
    made, grad = unit(table), torch.ones(rows, 16)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        made.backward(grad)
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    return sum(event.nbytes() >= table.numel() * 4 for event in events)


def test_unit_rows_make_fewer_tables():
    assert tables_made(losses.unit_rows, 1_000) == 2 < tables_made(losses.unit, 1_000)


@pytest.mark.parametrize(("temperature", "smoothing"), [(1.0, 0.0), (0.5, 0.0), (1.0, 0.1), (2.0, 0.3)])
@pytest.mark.parametrize("chunk_elements", [1, 1 << 21])
def test_cross_entropy(pairs, temperature, smoothing, chunk_elements, monkeypatch):
    monkeypatch.setattr(softmax.LinearCrossEntropy, "CHUNK_ELEMENTS", chunk_elements)
    hidden, targets, weight = (t.repeat(30, *[1] * (t.dim() - 1)) if i < 2 else t for i, t in enumerate(pairs))
    ours = cross_entropy(hidden, weight, targets, temperature, smoothing, None)
    scores = (hidden @ weight.T)[:, 1:] / temperature
    plain = F.cross_entropy(scores, targets - 1, label_smoothing=smoothing, reduction="sum")
    assert_same(ours * 0.3, plain * 0.3, (pairs[0], pairs[2]), atol=1e-10)


@pytest.mark.parametrize("kernel", [False, True])
@pytest.mark.parametrize(("temperature", "smoothing"), [(1.0, 0.0), (0.5, 0.2)])
@pytest.mark.parametrize("items", [1, 15, 16, 31, 33, 1000])
def test_cross_entropy_in_float32(items, temperature, smoothing, kernel, monkeypatch):
    if not kernel:
        monkeypatch.setattr(kernels, "library", lambda: None)
    elif kernels.library() is None:
        pytest.skip("no C compiler on this machine")
    torch.manual_seed(0)
    hidden, weight = torch.randn(70, 16, requires_grad=True), torch.randn(items + 1, 16, requires_grad=True)
    targets = torch.randint(1, items + 1, (70,))
    ours = cross_entropy(hidden, weight, targets, temperature, smoothing, None)
    scores = (hidden @ weight.T)[:, 1:] / temperature
    plain = F.cross_entropy(scores, targets - 1, label_smoothing=smoothing, reduction="sum")
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-4)
    for a, b in zip(
        torch.autograd.grad(ours, (hidden, weight)), torch.autograd.grad(plain, (hidden, weight)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("kernel", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.07, 30.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cross_entropy_without_the_items_seen(temperature, dtype, kernel, monkeypatch):
    """In several chunks; a target that was seen before competes nevertheless."""
    if not kernel:
        monkeypatch.setattr(kernels, "library", lambda: None)
    elif kernels.library() is None:
        pytest.skip("no C compiler on this machine")
    monkeypatch.setattr(softmax.LinearCrossEntropy, "CHUNK_ELEMENTS", 1)
    torch.manual_seed(0)
    hidden, weight = torch.randn(150, 16, dtype=dtype), torch.randn(34, 16, dtype=dtype)
    inputs = hidden.requires_grad_(), weight.requires_grad_()
    targets, seen = torch.randint(1, 34, (150,)), torch.randint(1, 34, (150, 12))
    assert (seen == targets[:, None]).any()
    ours = cross_entropy(hidden, weight, targets, temperature, 0.0, seen)
    hidden_items = torch.zeros(150, 34, dtype=torch.bool).scatter_(1, seen, True).scatter_(1, targets[:, None], False)
    scores = (hidden @ weight.T / temperature).masked_fill(hidden_items, float("-inf"))[:, 1:]
    plain = F.cross_entropy(scores, targets - 1, reduction="sum")
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(ours, plain, rtol=tolerance, atol=tolerance)
    for a, b in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(plain, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance / temperature)


def test_the_seen_items_of_a_target_are_those_up_to_its_position():
    """With targets in the middle, padding on the left, a masked item and training mode; and not without input_ids."""
    ids, mask = random_history(3, 6), torch.ones(3, 6, dtype=torch.long)
    ids[0, :2], mask[1, 0] = 0, 0
    labels = random_history(3, 6, seed=1)
    labels[2, :4] = labels[0, :2] = labels[1, 0] = -100
    model = small_model(seen_items_in_softmax=False, embedding_dropout=0, attention_dropout=0, hidden_dropout=0).train()
    output = model(ids, mask, labels, return_all_logits=True)
    losses_ = []
    for row, position in (labels != -100).nonzero().tolist():
        seen = ids[row, : position + 1][mask[row, : position + 1].bool()]
        target = labels[row, position]
        scores = output.logits[row, position].clone()
        scores[seen[(seen != target) & (seen > 0)]] = float("-inf")
        losses_.append(F.cross_entropy(scores, target))
    torch.testing.assert_close(output.loss, torch.stack(losses_).mean(), rtol=0, atol=1e-5)
    with pytest.raises(GlintRUError, match="seen_items_in_softmax=False needs input_ids"):
        model(inputs_embeds=torch.randn(3, 6, 16), labels=labels)


def test_cross_entropy_shows_a_nan():
    hidden, weight = torch.randn(3, 16), torch.randn(40, 16)
    hidden[1, 3] = float("nan")
    assert cross_entropy(hidden, weight, torch.tensor([1, 2, 3]), 1.0, 0.0, None).isnan()


def test_cross_entropy_with_huge_scores_is_finite(pairs):
    hidden, targets, weight = pairs
    ours = cross_entropy(hidden * 1e4, weight, targets, 1.0, 0.0, None)
    plain = F.cross_entropy((hidden * 1e4 @ weight.T)[:, 1:], targets - 1, reduction="sum")
    assert_same(ours, plain, (hidden, weight), atol=1e-8)


def test_cross_entropy_in_bf16_is_near(pairs):
    hidden, targets, weight = (t.detach().float().requires_grad_() if t.is_floating_point() else t for t in pairs)
    plain = cross_entropy(hidden, weight, targets, 1.0, 0.0, None)
    with torch.autocast("cpu", torch.bfloat16):
        ours = cross_entropy(hidden, weight, targets, 1.0, 0.0, None)
    torch.testing.assert_close(ours, plain, rtol=0.02, atol=0)
    (a,), (b,) = torch.autograd.grad(ours, [weight]), torch.autograd.grad(plain, [weight])
    assert (a - b).norm() < 0.02 * b.norm()


def test_bpr(pairs):
    hidden, targets, weight = pairs
    negatives = torch.tensor([2, 3, 4, 6, 7, 8, 10])
    ours = losses.bpr(hidden, targets, negatives, weight, 0.5)
    plain = sum(
        -torch.log(torch.sigmoid((h @ weight[t] - h @ weight[n]) / 0.5))
        for h, t, n in zip(hidden, targets, negatives, strict=True)
    )
    assert_same(ours, plain, (hidden, weight))


@pytest.mark.parametrize("popularity", [False, True])
def test_sampled_softmax(pairs, popularity):
    hidden, targets, weight = pairs
    negatives = torch.tensor([5, 3, 3, 30, 12])
    log_q = torch.randn(31, dtype=torch.float64).log_softmax(0) if popularity else None
    ours = losses.sampled_softmax(hidden, targets, negatives, log_q.__getitem__ if popularity else None, weight, 1.0)

    plain = torch.zeros((), dtype=torch.float64)
    for h, target in zip(hidden, targets, strict=True):
        items = [target, *(n for n in negatives if n != target)]
        scores = torch.stack([h @ weight[i] - (0 if log_q is None else torch.log(5 * log_q[i].exp())) for i in items])
        plain = plain - scores.log_softmax(0)[0]
    assert_same(ours, plain, (hidden, weight))


@pytest.mark.parametrize("calibration", [0.0, 0.75, 1.0])
def test_gbce(pairs, calibration):
    hidden, targets, weight = pairs
    negatives = torch.tensor([5, 3, 3, 30, 12])
    ours = losses.gbce(hidden, targets, negatives, weight, 1.0, calibration)
    alpha = 5 / 29
    beta = alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)
    plain = torch.zeros((), dtype=torch.float64)
    for h, target in zip(hidden, targets, strict=True):
        plain = plain - torch.log(torch.sigmoid(h @ weight[target]) ** beta) / 6
        for n in negatives[negatives != target]:
            plain = plain - torch.log(1 - torch.sigmoid(h @ weight[n])) / 6
    assert_same(ours, plain, (hidden, weight))


@pytest.mark.parametrize(
    ("negatives", "rows", "alpha"), [([2], 31, 1 / 29), ([1, 2, 2], 4, 1.0), ([2, 1], 3, 1.0), ([1], 2, 1.0)]
)
def test_gbce_of_few_negatives_and_few_items(pairs, negatives, rows, alpha):
    """The sampling rate alpha is at most 1; one negative and one item are the least."""
    hidden, weight = pairs[0][:1], pairs[2][:rows]
    beta = alpha * (0.75 * (1 - 1 / alpha) + 1 / alpha)
    ours = losses.gbce(hidden, torch.tensor([1]), torch.tensor(negatives), weight, 1.0, 0.75)
    plain = -beta * F.logsigmoid(hidden[0] @ weight[1])
    for negative in negatives:
        if negative != 1:
            plain = plain - F.logsigmoid(-hidden[0] @ weight[negative])
    assert_same(ours, plain / (len(negatives) + 1), (pairs[0], pairs[2]))


def test_fully_uncalibrated_gbce_is_bce(pairs):
    hidden, targets, weight = pairs
    negatives = torch.tensor([3, 4, 6])
    positive = (hidden * weight[targets]).sum(1)
    plain = F.softplus(-positive).sum() + F.softplus(hidden @ weight[negatives].T).sum()
    assert_same(losses.gbce(hidden, targets, negatives, weight, 1.0, 0.0), plain / 4, (hidden, weight))


@pytest.mark.parametrize("loss", ["cross_entropy", "bpr", "sampled_softmax", "gbce"])
def test_every_loss_learns_through_the_model(loss):
    torch.manual_seed(0)
    model = small_model(loss=loss, num_negatives=8).train()
    ids = random_history(8, 12)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    first = last = None
    for _ in range(40):
        output = model(ids[:, :-1], labels=ids[:, 1:])
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        last = output.loss.item()
        first = first or last
    assert last < 0.8 * first


@pytest.mark.parametrize("loss", ["cross_entropy", "bpr", "sampled_softmax", "gbce"])
def test_normalised_scores_are_cosines(loss):
    """The model's loss and scores are those of the inner product, of vectors that were normalised beforehand."""
    torch.manual_seed(0)
    model = small_model(loss=loss, num_negatives=8, temperature=0.07, normalize_scores=True).double()
    hidden = torch.randn(7, model.config.hidden_size, dtype=torch.float64, requires_grad=True)
    targets, weight = torch.tensor([1, 5, 9, 30, 5, 2, 30]), model.model.embed_items.weight

    def plain_loss():
        unit = [x / x.norm(dim=1, keepdim=True).clamp_min(1e-12) for x in (hidden, weight)]
        embedding = SimpleNamespace(weight=unit[1], sparse=False)
        config = SimpleNamespace(temperature=0.07, normalize_scores=False)
        plain = SimpleNamespace(config=config, get_input_embeddings=lambda: embedding)
        return model.training_loss(plain, [unit[0]], targets)

    torch.manual_seed(1)
    ours = model.training_loss(model, [hidden], targets)
    torch.manual_seed(1)
    assert_same(ours, plain_loss(), (hidden, weight))

    ids = random_history(3, 6)
    output = model(ids)
    cosines = F.cosine_similarity(output.last_hidden_state[:, -1, None], weight[None, 1:], dim=-1) / 0.07
    torch.testing.assert_close(output.logits[:, 1:], cosines)
    torch.testing.assert_close(
        model.query_vectors(output.last_hidden_state[:, -1]) @ model.item_vectors()[1:].T, cosines
    )


@pytest.mark.parametrize("name", ["bpr", "sampled_softmax", "gbce"])
def test_each_name_is_its_own_loss(pairs, name):
    hidden, targets, weight = pairs
    embedding, config = (
        SimpleNamespace(weight=weight, sparse=False),
        SimpleNamespace(temperature=0.5, normalize_scores=0),
    )
    model = SimpleNamespace(config=config, get_input_embeddings=lambda: embedding)
    torch.manual_seed(1)
    ours = NextItemLoss(name, num_negatives=8, gbce_t=0.6)(model, [hidden], targets)
    torch.manual_seed(1)
    if name == "bpr":
        plain = losses.bpr(hidden, targets, losses.draw_other_items(targets, 31), weight, 0.5)
    elif name == "gbce":
        plain = losses.gbce(hidden, targets, torch.randint(1, 31, (8,)), weight, 0.5, 0.6)
    else:
        plain = losses.sampled_softmax(hidden, targets, torch.randint(1, 31, (8,)), None, weight, 0.5)
    assert_same(ours, plain, (hidden, weight))


def test_popularity_sampling_needs_counts():
    ids, options = random_history(2, 4), {"loss": "sampled_softmax", "negative_sampling": "popularity"}
    with pytest.raises(GlintRUError, match="'popularity' needs the training counts"):
        small_model(**options)(ids, labels=ids)
    with pytest.raises(GlintRUError, match=r"shape \(31,\), got \(2,\)"):
        small_model(**options, item_counts=[1, 2])(ids, labels=ids)
    with pytest.raises(GlintRUError, match=r"shape \(31,\), got \(32,\)"):
        small_model(**options, item_counts=[1] * 32)(ids, labels=ids)
    assert torch.isfinite(small_model(**options, item_counts=torch.arange(31))(ids, labels=ids).loss)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "bce"}, "loss.name must be one of cross_entropy, bpr, sampled_softmax, gbce; got 'bce'"),
        ({"negative_sampling": "pop"}, "loss.negative_sampling must be one of uniform, popularity"),
        ({"num_negatives": 0}, "loss.num_negatives must be at least 1, got 0"),
        ({"gbce_t": 2}, "loss.gbce_t must be between 0 and 1, got 2"),
        ({"gbce_t": 1.01}, "loss.gbce_t must be between 0 and 1, got 1.01"),
        ({"gbce_t": -0.1}, "loss.gbce_t must be between 0 and 1, got -0.1"),
        ({"label_smoothing": 1.0}, "loss.label_smoothing must be at least 0 and below 1"),
        ({"label_smoothing": -0.1}, "loss.label_smoothing must be at least 0 and below 1, got -0.1"),
        ({"label_smoothing": 1.5}, "loss.label_smoothing must be at least 0 and below 1, got 1.5"),
        ({"label_smoothing": 0.1, "name": "bpr"}, "label_smoothing is for the loss cross_entropy only, got bpr"),
        ({"label_smoothing": 0.1, "name": "gbce"}, "label_smoothing is for the loss cross_entropy only, got gbce"),
        ({"seen_items_in_softmax": False, "name": "bpr"}, "seen_items_in_softmax False is for the loss cross_entropy"),
        ({"seen_items_in_softmax": False, "label_smoothing": 0.1}, "got cross_entropy and 0.1"),
        ({"seen_items_in_softmax": False, "name": "gbce"}, "seen_items_in_softmax False is for the loss cross_entropy"),
        ({"r_drop_alpha": -1}, "loss.r_drop_alpha must be 0 or above and finite, got -1"),
        ({"r_drop_alpha": float("inf")}, "loss.r_drop_alpha must be 0 or above and finite, got inf"),
        ({"r_drop_alpha": float("nan")}, "loss.r_drop_alpha must be 0 or above and finite, got nan"),
        ({"r_drop_alpha": 1, "name": "gbce"}, "r_drop_alpha 1 is for the loss cross_entropy without label_smoothing"),
        ({"r_drop_alpha": 1, "label_smoothing": 0.1}, "got cross_entropy and 0.1"),
        ({"temperature": 1}, "a loss has no setting 'temperature'; there are name, num_negatives"),
    ],
)
def test_a_loss_that_cannot_be_is_refused(options, message):
    with pytest.raises(GlintRUError, match=re.escape(message)):
        NextItemLoss(**options)


def test_what_a_loss_is_made_with_where_nothing_is_said():
    assert LossConfig() == LossConfig("cross_entropy", 256, "uniform", 0.75, 0.0, 0.0, True)


@pytest.mark.parametrize(
    "options",
    [
        *({"name": "gbce", "gbce_t": t} for t in (0, 0.5, 1)),
        *({"name": name, "num_negatives": 1} for name in ("gbce", "sampled_softmax")),
        *({"label_smoothing": smoothing} for smoothing in (0.0, 0.3, 0.99)),
        *({"r_drop_alpha": alpha} for alpha in (0.5, 1, 40.0)),
    ],
)
def test_a_loss_at_its_limits_is_allowed(options):
    loss = NextItemLoss(**options)
    assert {name: getattr(loss.config, name) for name in options} == options


def test_what_a_loss_asks_of_the_model():
    """The number of passes, whether the seen items are passed on, and whether the gradient of the table is dense."""
    kinds = {
        NextItemLoss(): (1, False, True),
        NextItemLoss(r_drop_alpha=0.5): (2, False, True),
        NextItemLoss(seen_items_in_softmax=False): (1, True, True),
        **{NextItemLoss(name): (1, False, False) for name in ("bpr", "sampled_softmax", "gbce")},
    }
    for loss, expected in kinds.items():
        assert (loss.passes, loss.wants_seen_items, loss.reads_all_items) == expected, loss


def test_a_model_without_a_loss_object_has_the_cross_entropy_and_no_loss_is_saved(tmp_path):
    model, ids = small_model(normalize_scores=True, temperature=0.3).train(), random_history(3, 6)
    torch.manual_seed(0)
    expected = model(ids, labels=ids).loss
    model.training_loss = None
    torch.manual_seed(0)
    assert torch.equal(model(ids, labels=ids).loss, expected)
    model.training_loss = NextItemLoss("gbce")
    model.save_pretrained(tmp_path)
    assert "gbce" not in (tmp_path / "config.json").read_text()
    assert type(model).from_pretrained(tmp_path).training_loss is None


def test_the_loss_is_the_plain_mean_over_labels():
    model = small_model(temperature=0.7)
    ids = random_history(3, 6)
    labels = ids.roll(-1, 1)
    labels[:, -1] = -100
    output = model(ids, labels=labels, return_all_logits=True)
    plain = F.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, :-1].flatten())
    torch.testing.assert_close(output.loss, plain)


def test_the_loss_divides_by_the_batch_that_accumulation_sees():
    model = small_model().double()
    ids = random_history(4, 6)
    labels = ids.roll(-1, 1)
    labels[0, 2:] = -100  # parts of different size, where a mean of means would differ
    whole = gradients(model(ids, labels=labels).loss, model)
    count = int((labels != -100).sum())
    parts = [gradients(model(ids[i], labels=labels[i], num_items_in_batch=count).loss, model) for i in ([0, 1], [2, 3])]
    for name, grad in whole.items():
        torch.testing.assert_close(parts[0][name] + parts[1][name], grad, rtol=0, atol=1e-12, msg=name)


@pytest.mark.parametrize("loss", ["cross_entropy", "bpr", "sampled_softmax", "gbce"])
@pytest.mark.parametrize("kind", ["uniform", "in_batch", "mixed"])
def test_no_label_gives_zero_loss(loss, kind):
    model = small_model(loss=loss, negative_sampling=kind, item_counts=torch.ones(31))
    ids = random_history(2, 4)
    loss = model(ids, labels=torch.full_like(ids, -100)).loss
    loss.backward()
    assert loss == 0


def test_a_training_step_makes_no_logits():
    """They would cost more than all the rest where there are millions of items."""
    model = small_model(loss="sampled_softmax")
    ids = random_history(2, 4)
    assert model(ids, labels=ids).logits.shape == (2, 31)  # evaluation wants both
    model.train()
    assert model(ids, labels=ids).logits is None
    assert model(ids).logits.shape == (2, 31)
    assert model(ids, labels=ids, return_all_logits=True).logits.shape == (2, 4, 31)


@pytest.mark.parametrize("loss", ["bpr", "sampled_softmax", "gbce"])
def test_sparse_gradients_are_the_dense_ones_row_by_row(loss):
    grads = {}
    for sparse in (False, True):
        model = small_model(loss=loss, num_negatives=6, vocab_size=400).double()
        model.get_input_embeddings().sparse = sparse
        ids = random_history(3, 6)
        torch.manual_seed(1)
        model(ids[:, :-1], labels=ids[:, 1:]).loss.backward()
        grads[sparse] = model.get_input_embeddings().weight.grad
    assert grads[True].is_sparse and not grads[False].is_sparse
    assert grads[True].coalesce().values().shape[0] < 60  # of 400 rows
    torch.testing.assert_close(grads[True].to_dense(), grads[False], rtol=0, atol=1e-12)


MEMORY = """
import resource, sys, torch
from modeling_glintru.models.ops_glintru import cross_entropy

hidden, weight = torch.randn(4096, 16, requires_grad=True), torch.randn(40_000, 16, requires_grad=True)
targets = torch.randint(1, 40_000, (4096,))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << (20 if sys.platform == "darwin" else 10))
cross_entropy(hidden[:8], weight, targets[:8], 1.0, 0.0, None).backward()  # loads and compiles
before = peak()
cross_entropy(hidden, weight, targets, 1.0, 0.0, None).backward()
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs the resource module")
def test_cross_entropy_never_holds_the_logits():
    """The logits alone would be 625 MB; 256 rows of them are 39 MB, twice that without a compiled kernel."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 200
