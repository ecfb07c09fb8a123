"""Scores that depend on the time of the request: classes of gaps, the layer, and the head around it."""

from __future__ import annotations

import pytest
import torch

from modeling_glintru import GlintRUError, GlintRUForSequentialRecommendation
from modeling_glintru.models.auto import MODELS
from modeling_glintru.models.head_glintru import NUM_GAPS, gap_classes
from modeling_glintru.models.pipeline_glintru import checked_gaps

from ..baselines.helpers import NAMES, make
from .helpers import random_history, small_model

GAPS = torch.tensor([[0.0, 5.0, 3e6, 60.0], [1.0, 0.0, 7.0, 9e9]])


@pytest.fixture(scope="module")
def timed():
    return small_model(use_time_gaps=True)


def test_a_class_for_each_doubling():
    unknown, none, below = [-1.0, float("nan"), -1e9, float("-inf")], [0.0], [1e-9, 0.999]
    assert gap_classes(torch.tensor(unknown)).tolist() == [0] * 4
    assert gap_classes(torch.tensor(none + below)).tolist() == [1, 2, 2]
    powers = torch.tensor([2.0**n for n in range(70)])
    expected = [min(3 + n, NUM_GAPS) for n in range(70)]
    assert gap_classes(powers).tolist() == expected
    assert gap_classes(powers * 1.99).tolist() == expected
    assert gap_classes(torch.tensor([float("inf")])).tolist() == [NUM_GAPS]
    assert gap_classes(torch.tensor([[3, 4], [-1, 0]])).tolist() == [[4, 5], [0, 1]]  # integers as well


def test_the_layer_is_its_equation(timed):
    hidden = torch.randn(5, 16)
    layer = timed.time_gaps
    gate, shift = layer.gap_proj.weight.T[[0, 3, 22]].chunk(2, dim=1)  # classes 1, 4 and 23
    inner = hidden @ layer.in_proj.weight.T + layer.in_proj.bias
    inner = inner * torch.sigmoid(inner)
    expected = hidden[1:4] + (inner[1:4] * gate) @ layer.out_proj.weight.T + shift
    found = layer(hidden, torch.tensor([-1.0, 0.0, 3.0, 2.0**20, float("nan")]))
    torch.testing.assert_close(found[1:4], expected)
    assert torch.equal(found[[0, 4]], hidden[[0, 4]])  # bit for bit, where nothing is known


def test_without_times_nothing_is_different(timed):
    ids = random_history(2, 4)
    state = {name: value for name, value in timed.state_dict().items() if not name.startswith("time_gaps.")}
    plain = small_model()
    plain.load_state_dict(state)
    assert torch.equal(timed(ids).logits, plain(ids).logits)
    assert torch.equal(timed(ids, time_gaps=torch.full((2,), -1.0)).logits, plain(ids).logits)
    assert timed.model.fingerprint() == plain.model.fingerprint()  # states are the same ones
    assert not torch.allclose(timed(ids, time_gaps=GAPS).logits[:, 1:], plain(ids).logits[:, 1:], atol=1e-3)


@pytest.mark.parametrize("side", ["left", "right"])
def test_all_forms_say_the_same(timed, side):
    """One gap a row, one a position, all positions at once, padding on either side, a state to go on from."""
    ids = random_history(2, 4)
    ids[1, 2:] = 0
    last = torch.tensor([GAPS[0, 3], GAPS[1, 1]])
    if side == "left":
        moved, gaps = ids.clone(), GAPS.clone()
        moved[1], gaps[1] = ids[1].roll(2), GAPS[1].roll(2)
        ids, where = moved, [3, 3]
    else:
        gaps, where = GAPS, [3, 1]
    one = timed(ids, time_gaps=last).logits
    torch.testing.assert_close(timed(ids, time_gaps=gaps).logits, one)
    everywhere = timed(ids, time_gaps=gaps, return_all_logits=True).logits
    torch.testing.assert_close(everywhere[[0, 1], where], one)
    for t in range(4):  # a position's scores are those of a request at that time
        if ids[0, t]:
            alone = timed(ids[:1, : t + 1], time_gaps=gaps[:1, t]).logits[0]
            torch.testing.assert_close(everywhere[0, t], alone)
    state = timed(ids[:1, :-1], use_cache=True).state
    torch.testing.assert_close(timed(ids[:1, -1:], state=state, time_gaps=last[:1]).logits, one[:1])
    state = timed(ids[:1], use_cache=True).state
    nothing = torch.zeros(1, 0, dtype=torch.long)
    torch.testing.assert_close(timed(nothing, state=state, time_gaps=last[:1]).logits, one[:1])


def test_the_loss_is_of_the_same_scores(timed):
    ids, labels = random_history(2, 4), random_history(2, 4, seed=1)
    labels[0, 1] = -100
    scores = timed(ids, time_gaps=GAPS, return_all_logits=True).logits
    expected = torch.nn.functional.cross_entropy(scores.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(timed(ids, labels=labels, time_gaps=GAPS).loss, expected)
    labels[:, :-1] = -100
    one = timed(ids, labels=labels, time_gaps=GAPS[:, 3])
    torch.testing.assert_close(one.loss, torch.nn.functional.cross_entropy(one.logits, labels[:, -1]))


def test_hidden_in_training_only():
    model = small_model(use_time_gaps=True)
    hidden, gaps = torch.ones(4000, 16), torch.full((4000,), 7.0)
    found = model.time_gaps.train()(hidden, gaps)
    unchanged = (found == hidden).all(1).float().mean()
    assert 0.08 < unchanged < 0.12
    assert not (model.time_gaps.eval()(hidden, gaps) == hidden).all(1).any()


def test_saved_and_loaded(timed, tmp_path):
    timed.save_pretrained(tmp_path)
    again = GlintRUForSequentialRecommendation.from_pretrained(tmp_path).eval()
    ids = random_history(2, 4)
    assert torch.equal(again(ids, time_gaps=GAPS).logits, timed(ids, time_gaps=GAPS).logits)


@pytest.mark.parametrize("name", [name for name in NAMES if MODELS[name].takes_time_gaps])
def test_every_model_takes_times(name):
    model = make(name, use_time_gaps=True)
    ids = random_history(2, 4)
    labels = torch.full_like(ids, -100)
    labels[:, -1] = 3
    output = model(ids, labels=labels, time_gaps=GAPS)
    assert not torch.allclose(output.logits[:, 1:], model(ids).logits[:, 1:], atol=1e-6)
    output.loss.backward()
    assert model.time_gaps.gap_proj.weight.grad.any()


def test_refusals(timed):
    ids = random_history(2, 4)
    with pytest.raises(GlintRUError, match="use_time_gaps is not for BERT4Rec"):
        make("bert4rec", use_time_gaps=True)
    with pytest.raises(GlintRUError, match="use_time_gaps=True, and this one was made without"):
        small_model()(ids, time_gaps=GAPS)
    with pytest.raises(GlintRUError, match=r"time_gaps must have shape \(2,\), got \(3,\)"):
        timed(ids, time_gaps=torch.zeros(3))


@pytest.mark.parametrize(
    ("gaps", "message"),
    [
        ([1.0], "one time gap a user, got 1 for 2 users"),
        ([1.0, -2.0], "at least 0, or None where not known, got -2.0"),
        ([1.0, "soon"], "got 'soon'"),
        ([True, 1.0], "got True"),
        ([float("nan"), 1.0], "got nan"),
        ("ab", "list of numbers, one a user, got 'ab'"),
        (3.0, "list of numbers, one a user, got 3.0"),
    ],
)
def test_gaps_that_are_none(timed, gaps, message):
    with pytest.raises(GlintRUError, match=message):
        checked_gaps(gaps, 2, timed)
    assert checked_gaps([None, 3], 2, timed).tolist() == [-1.0, 3.0]
