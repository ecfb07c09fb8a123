"""The compiled step by one click equals the model itself, and gives way where it cannot serve."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from modeling_glintru import GlintRUError
from modeling_glintru.kernels import build
from modeling_glintru.kernels.step import CompiledStep
from modeling_glintru.models.modeling_gru4rec import GRU4RecConfig, GRU4RecForSequentialRecommendation
from modeling_glintru.serving.step import PlainStep, make_step

from ..model.helpers import random_history, small_model
from ..model.test_identity import PARTS, STATE_SPACE

needs_kernel = pytest.mark.skipif(build.library() is None, reason="no C compiler on this machine")
CLOSE = {"rtol": 2e-5, "atol": 2e-5}


def check(options: dict, users: int = 3, length: int = 8, seed: int = 0) -> None:
    """Chains of single items give the states and queries of the plain path."""
    model = small_model(seed, **options)
    fast, plain = make_step(model), PlainStep(model)
    assert isinstance(fast, CompiledStep)
    assert (fast.layout, fast.fingerprint, fast.row_size) == (plain.layout, plain.fingerprint, plain.row_size)
    items = random_history(users, length, model.config.vocab_size, seed).numpy()
    ours, theirs = fast.empty(users), plain.empty(users)
    for t in range(length):
        counts, before = np.full(users, t), ours.copy()
        after = fast.advance(ours, counts, items[:, t])
        assert (ours == before).all() and after.shape == ours.shape and after.dtype == np.float32
        ours, theirs = after, plain.advance(theirs, counts, items[:, t])
        np.testing.assert_allclose(ours, theirs, **CLOSE)
        np.testing.assert_allclose(fast.queries(ours), plain.queries(theirs), **CLOSE)
    with torch.no_grad():
        full = model.model(torch.from_numpy(items)).last_hidden_state[:, -1]
    np.testing.assert_allclose(ours[:, -model.config.hidden_size :], full, **CLOSE)


@needs_kernel
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("part", PARTS)
def test_every_part_can_be_switched_off(part, layers):
    check({part: False, "num_hidden_layers": layers}, seed=layers)


@needs_kernel
@pytest.mark.parametrize("seed", range(16))
def test_random_models(seed):
    """Any width and heads, any set of parts, cosines or not, users in tiles that are not full."""
    draw = random.Random(seed)
    off = {part: False for part in PARTS if draw.random() < 0.3}
    if not (off.get("use_gru", True) or off.get("use_linear_attention", True)):
        del off["use_gru"]
    heads = draw.choice([1, 2, 3, 4])
    options = {
        **off,
        "num_attention_heads": heads,
        "hidden_size": heads * draw.randint(2, 24),
        "num_hidden_layers": draw.randint(1, 3),
        "normalize_scores": draw.random() < 0.5,
        "temperature": draw.choice([1.0, 0.5]),
        "layer_norm_eps": draw.choice([1e-12, 1e-3]),
        "average_share": draw.choice([0.0, 0.4]),
        "average_decay": draw.choice([0.0, 0.5, 0.9]),
        "state_space_share": draw.choice([0.0, 0.5]),
        "use_embedding_norm": draw.choice([False, True]),
    }
    check(options, users=draw.choice([1, 2, 4, 5, 11]), seed=seed)


@needs_kernel
@pytest.mark.parametrize(("size", "heads"), [(64, 4), (128, 8), (200, 4), (96, 1)])
def test_sizes_that_people_use(size, heads):
    check({"hidden_size": size, "num_attention_heads": heads, "num_hidden_layers": 2, "vocab_size": 100}, length=5)


@needs_kernel
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_hidden_layers": 2, "normalize_scores": True, "temperature": 0.07},
        {"average_share": 0.4},
        STATE_SPACE,
    ],
    ids=str,
)
def test_long_chains(options):
    """Rounding does not add up over hundreds of clicks: the end equals one pass in float64."""
    model = small_model(**options)
    step, items = make_step(model), random_history(2, 600)
    rows = step.empty(2)
    for t in range(600):
        rows = step.advance(rows, np.full(2, t), items[:, t].numpy())
    exact = model.double()(items, use_cache=True)
    hidden = exact.state.representation.detach().numpy()
    np.testing.assert_allclose(rows[:, -16:], hidden, rtol=1e-4, atol=1e-4)
    scores = step.queries(rows) @ model.item_vectors().detach().float().numpy().T
    np.testing.assert_allclose(scores[:, 1:], exact.logits.detach().numpy()[:, 1:], rtol=1e-3, atol=1e-3)


@needs_kernel
def test_new_and_old_users_in_one_batch():
    model = small_model(num_hidden_layers=2)
    step = make_step(model)
    histories = [random_history(1, n, seed=n)[0].numpy() for n in (1, 9, 2, 1, 30, 4)]
    rows = step.empty(6)
    for user, history in enumerate(histories):
        for t, item in enumerate(history[:-1]):
            rows[user : user + 1] = step.advance(rows[user : user + 1], np.array([t]), np.array([item]))
    counts = np.array([len(h) - 1 for h in histories])
    after = step.advance(rows, counts, np.array([h[-1] for h in histories]))
    for user, history in enumerate(histories):
        with torch.no_grad():
            alone = model.model(torch.from_numpy(history)[None]).last_hidden_state[0, -1]
        np.testing.assert_allclose(after[user, -16:], alone, **CLOSE)
        single = step.advance(rows[user : user + 1], counts[user : user + 1], history[-1:])
        assert (single[0] == after[user]).all()  # the same bits, whoever is beside


@needs_kernel
def test_rows_that_cannot_be_written_to_and_rows_with_gaps():
    """As they come from bytes, and as parts of a larger array."""
    step = make_step(small_model())
    rows = step.advance(step.empty(4), np.zeros(4, int), np.array([3, 4, 5, 6]))
    counts, items = np.ones(4, int), np.array([7, 8, 9, 1])
    after = step.advance(rows, counts, items)
    frozen = np.frombuffer(rows.tobytes(), np.float32).reshape(rows.shape)
    assert (step.advance(frozen, counts.astype(np.int32), items) == after).all()
    assert (step.advance(rows[::2], counts[::2], items[::2]) == after[::2]).all()


@needs_kernel
def test_what_is_refused():
    step = make_step(small_model())
    one = np.array([1])
    for item in (0, 31, -1):
        with pytest.raises(GlintRUError, match=rf"item_ids\[1\] is {item}, but items must be between 1 and 30"):
            step.advance(step.empty(2), np.zeros(2, int), np.array([5, item]))
    with pytest.raises(GlintRUError, match="advance needs rows"):
        step.advance(step.empty(2), one, one)
    with pytest.raises(GlintRUError, match="advance needs rows"):
        step.advance(np.zeros((1, 3), np.float32), one, one)
    assert step.advance(step.empty(0), one[:0], one[:0]).shape == (0, step.row_size)


@needs_kernel
def test_a_step_is_a_copy_of_the_weights():
    model = small_model()
    step = make_step(model)
    first = step.advance(step.empty(), np.zeros(1, int), np.array([3]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    assert (step.advance(step.empty(), np.zeros(1, int), np.array([3])) == first).all()
    assert step.fingerprint != make_step(model).fingerprint


def test_where_the_kernel_cannot_serve(monkeypatch):
    assert isinstance(make_step(small_model().double()), PlainStep)
    assert isinstance(make_step(small_model().to(torch.bfloat16)), PlainStep)
    monkeypatch.setattr("modeling_glintru.kernels.build.library", lambda: None)
    assert isinstance(make_step(small_model()), PlainStep)


def test_models_without_a_state():
    gru4rec = GRU4RecForSequentialRecommendation(GRU4RecConfig(vocab_size=9, hidden_size=8))
    with pytest.raises(GlintRUError, match="GRU4RecForSequentialRecommendation keeps no state"):
        make_step(gru4rec)
