"""What every model behind the shared head must do, whatever it is."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError

from modeling_glintru import AutoModelForSequentialRecommendation, GlintRUError
from modeling_glintru.models.auto import MODELS, OUR_MODELS, model_label
from modeling_glintru.models.losses import NextItemLoss

from .helpers import CAUSAL, LONGEST, NAMES, WHOLE, histories, make, next_labels, small_config


def test_the_models():
    assert set(NAMES) == {path.split(".")[0].removeprefix("modeling_") for path in OUR_MODELS}


def test_labels():
    labels = {name: model_label(MODELS[name]) for name in ("glintru", "fmlprec", "sasrec")}
    assert labels == {"glintru": "GLINT-RU", "fmlprec": "FMLP-Rec", "sasrec": "SASRec"}


@pytest.mark.parametrize("name", NAMES)
def test_forward_backward_and_loss(name):
    model = make(name)
    ids, labels = next_labels(name, torch.stack(histories(10, 10)))
    labels[:, :-1] = -100
    output = model(ids, labels=labels)
    assert output.logits.shape == (2, 31) and output.last_hidden_state.shape == (2, 9, 16)
    assert output.logits[:, 0].eq(float("-inf")).all()
    expected = F.cross_entropy(output.logits, labels[:, -1])  # -inf: padding does not compete
    torch.testing.assert_close(output.loss, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(model(ids, labels=labels, num_items_in_batch=4).loss, expected / 2, rtol=0, atol=1e-12)
    output.loss.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all() and parameter.grad.any(), parameter_name
    states = model(ids, output_hidden_states=True).hidden_states
    assert len(states) == model.config.num_hidden_layers + 1
    assert torch.equal(states[-1], output.last_hidden_state)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("loss", ["bpr", "sampled_softmax", "gbce"])
def test_sampled_losses_touch_only_their_rows(name, loss):
    """In training mode without logits, and with a sparse gradient where the embedding wants one."""
    model = make(name, vocab_size=400).train()
    counts = torch.arange(400)
    model.training_loss = NextItemLoss(loss, num_negatives=6, negative_sampling="mixed", item_counts=counts)
    model.get_input_embeddings().sparse = True
    ids, labels = next_labels(name, torch.stack(histories(10, 10)))
    output = model(ids, labels=labels)
    assert torch.isfinite(output.loss) and output.logits is None
    output.loss.backward()
    grad = model.get_input_embeddings().weight.grad
    assert grad.is_sparse and grad.coalesce().values().shape[0] <= 2 * 10 + 2 * 10


@pytest.mark.parametrize("name", NAMES)
def test_r_drop_draws_two_passes_together(name):
    ids, labels = next_labels(name, torch.stack(histories(10, 10)))
    found = []
    for alpha in (1, 2, 3):
        model = make(name).train()
        model.training_loss = NextItemLoss(r_drop_alpha=alpha)
        torch.manual_seed(1)
        found.append(model(ids, labels=labels).loss)
    less, middle, more = found
    assert more - less > 1e-4  # twice half of a divergence, with the same dropout
    torch.testing.assert_close(middle, (less + more) / 2, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("repeats", [False, True])
def test_seen_items_are_left_out_of_the_softmax(name, repeats):
    ids = torch.stack(histories(10, 10))
    ids[0, :4] = 0
    labels = torch.full_like(ids, -100)
    labels[:, -1] = ids[:, -3] if repeats else torch.tensor([3, 7])
    if not repeats:
        ids[(ids == 3) | (ids == 7)] = 9
    model = make(name)
    model.training_loss = NextItemLoss(seen_items_in_softmax=False)
    output = model(ids, labels=labels)
    scores = output.logits.detach().clone()
    for row, history, target in zip(scores, ids, labels[:, -1], strict=True):
        row[history[(history > 0) & (history != target)]] = float("-inf")
    torch.testing.assert_close(output.loss, F.cross_entropy(scores, labels[:, -1]), rtol=0, atol=1e-12)
    assert abs(make(name)(ids, labels=labels).loss - output.loss) > 1e-3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", ["left", "right", "gaps"])
def test_padding_and_mates_change_nothing(name, side):
    model = make(name)
    torch.manual_seed(0)
    rows = histories(1, 4, 9)
    ids = torch.zeros(3, LONGEST, dtype=torch.long)
    for row, history in zip(ids, rows, strict=True):
        n = len(history)
        places = {
            "left": torch.arange(LONGEST - n, LONGEST),
            "right": torch.arange(n),
            "gaps": torch.randperm(LONGEST)[:n].sort().values,
        }
        row[places[side]] = history
    together = model(ids)
    for row, history in enumerate(rows):
        alone = model(history[None])
        torch.testing.assert_close(together.logits[row], alone.logits[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(
            together.last_hidden_state[row][ids[row] > 0], alone.last_hidden_state[0], rtol=0, atol=1e-12
        )
    assert not together.last_hidden_state[ids == 0].any()
    with torch.no_grad():
        model.model.embed_items.weight[0] = 1e6
    assert torch.equal(model(ids).logits, together.logits)


@pytest.mark.parametrize("name", NAMES)
def test_a_history_without_items_scores_zero_everywhere(name):
    ids = torch.stack([torch.zeros(5, dtype=torch.long), *histories(5)])
    logits = make(name)(ids).logits
    assert not logits[0, 1:].any() and logits[1, 1:].any()


@pytest.mark.parametrize("name", CAUSAL)
def test_no_later_item_reaches_a_representation(name):
    model = make(name)
    a, b = histories(10, 10)
    b[:6] = a[:6]
    states = model(torch.stack([a, b])).last_hidden_state
    torch.testing.assert_close(states[0, :6], states[1, :6], rtol=0, atol=1e-12)
    assert not torch.allclose(states[0, 6:], states[1, 6:])


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("layers", [1, 2])
def test_each_position_is_the_run_on_its_prefix(name, layers):
    """Positions, where a model has them, are counted from the newest item: the prefix gets those of the long run."""
    model = make(name, num_hidden_layers=layers)
    (history,) = histories(11)
    states = model(history[None]).last_hidden_state[0]
    positions = getattr(model.model, "embed_positions", torch.nn.Embedding(1, 1)).weight.data
    as_trained = positions.clone()
    for t in range(11):
        positions.copy_(as_trained.roll(11 - (t + 1), 0))
        alone = model(history[None, : t + 1]).last_hidden_state[0, -1]
        torch.testing.assert_close(states[t], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", WHOLE)
def test_a_model_of_whole_histories_represents_nothing_but_the_whole(name):
    """Its earlier positions have seen later items: they are not given, not scored and not trained on."""
    model = make(name)
    ids, labels = next_labels(name, torch.stack(histories(8, 8)))
    output = model(ids, output_hidden_states=True)
    assert all(not state[:, :-1].any() for state in output.hidden_states)
    assert output.last_hidden_state[:, -1].all()
    labels[:, 2] = 1
    with pytest.raises(GlintRUError, match="one label a row, at the last item"):
        model(ids, labels=labels)
    with pytest.raises(GlintRUError, match="whole history"):
        model(ids, return_all_logits=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_items_matters(name):
    model = make(name)
    (history,) = histories(9)
    swapped = history.clone()
    swapped[[1, 4]] = history[[4, 1]]
    assert not torch.allclose(model(history[None]).logits, model(swapped[None]).logits)


@pytest.mark.parametrize("name", NAMES)
def test_save_load_and_learn(name, tmp_path):
    model = make(name).float()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequentialRecommendation.from_pretrained(tmp_path)
    assert type(loaded) is MODELS[name] and not loaded.training
    items = torch.stack(histories(9, 9, 9))
    assert torch.equal(loaded(items).logits, model(items).logits)
    ids, labels = next_labels(name, items)
    optimizer = torch.optim.Adam(loaded.train().parameters(), 1e-2)
    losses = []
    for _ in range(60):
        loss = loaded(ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


@pytest.mark.parametrize("name", NAMES)
def test_a_new_model_starts_near_chance_and_trains_in_bf16(name):
    torch.manual_seed(0)
    model = MODELS[name](small_config(name)).train()
    ids, labels = next_labels(name, torch.stack(histories(9, 9, 9)))
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(ids, labels=labels).loss
    loss.backward()
    assert 2 < loss.item() < 6  # log 30 is 3.4
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_bad_sizes_and_rates_are_refused(name):
    kind = MODELS[name].config_class
    own = [field for field in kind.__annotations__ if field not in ("name",)]
    refused = 0
    for field in own:
        default = getattr(kind, field)
        if isinstance(default, bool):
            continue
        wrong = "sideways" if isinstance(default, str) else -1
        with pytest.raises((StrictDataclassError, GlintRUError), match=field):
            small_config(name, **{field: wrong})
        refused += 1
        if field.endswith(("dropout", "probability")):
            with pytest.raises((StrictDataclassError, GlintRUError), match=field):
                small_config(name, **{field: 1.5})
    assert refused >= 2
    assert dataclasses.is_dataclass(kind)


@pytest.mark.parametrize(
    "name", [name for name in NAMES if hasattr(MODELS[name].config_class, "max_position_embeddings")]
)
def test_a_history_that_is_too_long_is_named(name):
    with pytest.raises(GlintRUError, match="at most 4 items, got 5"):
        make(name, max_position_embeddings=4)(torch.stack(histories(5)))
