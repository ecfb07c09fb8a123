"""LazyAdamW against torch's AdamW, and the trainer that picks it."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import Trainer, TrainingArguments, set_seed

from modeling_glintru import GlintRUConfig, GlintRUError, GlintRUForSequentialRecommendation
from modeling_glintru.models import losses
from modeling_glintru.models.losses import NextItemLoss
from modeling_glintru.training import GlintRUTrainer, LazyAdamW
from modeling_glintru.training.optimizer import clip_grad_norm_

OPTIONS = {"lr": 0.05, "weight_decay": 0.1, "betas": (0.8, 0.95)}
ROWS, WIDTH = 12, 4


def table(seed: int = 0) -> nn.Parameter:
    return nn.Parameter(torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(seed)))


def gradient(rows: list[int], step: int) -> torch.Tensor:
    """(ROWS, WIDTH) dense, zero outside `rows`."""
    values = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(100 + step))
    return torch.zeros(ROWS, WIDTH).index_copy(0, torch.tensor(rows), values[rows])


def sparse(grad: torch.Tensor) -> torch.Tensor:
    """Not coalesced: every row comes in two halves."""
    rows = grad.abs().sum(1).nonzero().T
    halves = (grad[rows[0]] / 2).repeat(2, 1)
    return torch.sparse_coo_tensor(rows.repeat(1, 2), halves, grad.shape, check_invariants=True)


def walk(optimizer, parameter, grads, to=lambda grad: grad):
    for grad in grads:
        parameter.grad = to(grad)
        optimizer.step()
    return parameter.detach().clone()


@pytest.mark.parametrize("fused", [False, True])
def test_rows_that_are_in_every_step_move_as_with_adamw(fused):
    grads = [gradient(list(range(ROWS)), step) for step in range(30)]
    lazy, dense = table(), table()
    walked = walk(LazyAdamW([lazy], fused=fused, **OPTIONS), lazy, grads, sparse)
    torch.testing.assert_close(walked, walk(torch.optim.AdamW([dense], **OPTIONS), dense, grads), rtol=1e-5, atol=1e-6)


def test_each_row_is_an_adamw_that_ticks_when_it_is_used():
    parameter, used = table(), [[3, 5], [3], [5, 7], [3, 7], [3]]
    grads = [gradient(rows, step) for step, rows in enumerate(used)]
    start = parameter.detach().clone()
    optimizer = LazyAdamW([parameter], **OPTIONS)
    walked = walk(optimizer, parameter, grads, sparse)
    for row in (3, 5, 7):
        alone = nn.Parameter(start[row].clone())
        own = [grad[row] for grad, rows in zip(grads, used, strict=True) if row in rows]
        torch.testing.assert_close(walked[row], walk(torch.optim.AdamW([alone], **OPTIONS), alone, own))
    others = [row for row in range(ROWS) if row not in (3, 5, 7)]
    assert torch.equal(walked[others], start[others])
    assert optimizer.state[parameter]["step"][[3, 5, 7, 0]].tolist() == [4, 2, 2, 0]


def test_more_rows_than_a_block():
    torch.manual_seed(0)
    lazy, dense = (nn.Parameter(torch.zeros(5000, 2)) for _ in range(2))
    grads = [torch.randn(5000, 2) for _ in range(2)]
    walk(LazyAdamW([lazy], **OPTIONS), lazy, grads, sparse)
    torch.testing.assert_close(lazy, walk(torch.optim.AdamW([dense], **OPTIONS), dense, grads))


def test_dense_parameters_are_adamws_own_affair():
    grads = [gradient(list(range(ROWS)), step) for step in range(3)]
    row_wise, lazy, dense = table(), table(), table()
    optimizer = LazyAdamW([row_wise, lazy], fused=True, **OPTIONS)
    for grad in grads:
        row_wise.grad, lazy.grad = sparse(gradient([1], 0)), grad
        optimizer.step()
        assert row_wise.grad.is_sparse  # gradients are as before the step
    assert torch.equal(lazy, walk(torch.optim.AdamW([dense], fused=True, **OPTIONS), dense, grads))


@pytest.mark.parametrize("fused", [False, True])
def test_a_saved_state_goes_on_as_if_nothing_had_happened(tmp_path, fused):
    grads = [gradient([step % 5, 7], step) for step in range(8)]
    whole, first = table(), table()
    walk(LazyAdamW([whole], fused=fused, **OPTIONS), whole, grads, sparse)
    optimizer = LazyAdamW([first], fused=fused, **OPTIONS)
    walk(optimizer, first, grads[:4], sparse)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    second = nn.Parameter(first.detach().clone())
    again = LazyAdamW([second], fused=fused, **OPTIONS)
    again.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    assert torch.equal(walk(again, second, grads[4:], sparse), whole)


def test_the_state_of_adamw_is_taken_on():
    grads = [gradient(list(range(ROWS)), step) for step in range(6)]
    whole, first = table(), table()
    dense = torch.optim.AdamW([first], **OPTIONS)
    walk(dense, first, grads[:3])
    lazy = LazyAdamW([first], **OPTIONS)
    lazy.load_state_dict(copy.deepcopy(dense.state_dict()))
    walk(lazy, first, grads[3:], sparse)
    torch.testing.assert_close(first, walk(torch.optim.AdamW([whole], **OPTIONS), whole, grads), rtol=1e-5, atol=1e-6)
    first.grad = grads[0]
    with pytest.raises(GlintRUError, match="dense gradient after sparse"):
        lazy.step()


def test_what_it_does_not_know_is_refused():
    parameter = table()
    parameter.grad = sparse(gradient([1], 0))
    with pytest.raises(GlintRUError, match="amsgrad"):
        LazyAdamW([parameter], amsgrad=True).step()


@pytest.mark.parametrize("max_norm", [0.5, 1e6, float("inf")])
def test_clipping(max_norm):
    dense, mixed = [table(0), table(1)], [table(0), table(1)]
    for seed, (a, b) in enumerate(zip(dense, mixed, strict=True)):
        a.grad = gradient([1, 4], seed)
        b.grad = sparse(a.grad) if seed else a.grad.clone()
    expected = nn.utils.clip_grad_norm_(dense, max_norm)
    torch.testing.assert_close(clip_grad_norm_(mixed, max_norm), expected)
    assert mixed[1].grad.is_sparse
    for a, b in zip(dense, mixed, strict=True):
        torch.testing.assert_close(b.grad.to_dense(), a.grad)


VOCAB = 60


def trainer(folder, kind=GlintRUTrainer, loss="sampled_softmax", items=VOCAB, **options):
    set_seed(0)
    rates = dict.fromkeys(("embedding_dropout", "attention_dropout", "hidden_dropout"), 0.0)
    config = GlintRUConfig(vocab_size=VOCAB, hidden_size=16, num_attention_heads=2, **rates)
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(1, items, (64, 7), generator=generator)
    arguments = {
        "max_steps": 8,
        "learning_rate": 0.01,
        "weight_decay": 0.1,
        "per_device_train_batch_size": 4,
        "save_strategy": "no",
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
        "use_cpu": True,
        "report_to": "none",
    }
    model = GlintRUForSequentialRecommendation(config)
    model.training_loss = NextItemLoss(loss, num_negatives=4)
    return kind(
        model=model,
        args=TrainingArguments(str(folder), **(arguments | options)),
        train_dataset=[{"input_ids": row[:-1], "labels": row[1:]} for row in rows],
    )


@pytest.mark.parametrize(
    ("loss", "optim", "lazy"),
    [
        ("sampled_softmax", "adamw_torch_fused", True),
        ("gbce", "adamw_torch", True),
        ("bpr", "adamw_torch_fused", True),
        ("cross_entropy", "adamw_torch_fused", False),
        ("sampled_softmax", "sgd", False),
    ],
)
def test_the_trainer_chooses_it_by_the_loss(tmp_path, loss, optim, lazy):
    made = trainer(tmp_path, loss=loss, optim=optim)
    embedding, sparse_steps = made.model.get_input_embeddings(), []
    embedding.weight.register_post_accumulate_grad_hook(lambda weight: sparse_steps.append(weight.grad.is_sparse))
    made.train()
    assert isinstance(made.optimizer.optimizer, LazyAdamW) is lazy
    assert sparse_steps == [lazy] * 8 and not embedding.sparse  # as before, for whoever trains it next
    assert all(torch.isfinite(parameter).all() for parameter in made.model.parameters())
    if lazy:
        group = made.optimizer.param_groups[0]
        assert (group["fused"] or False) is (optim == "adamw_torch_fused")
        assert [group["weight_decay"] for group in made.optimizer.param_groups] == [0.1, 0.0]


def test_training_goes_on_in_a_second_call(tmp_path):
    made = trainer(tmp_path)
    made.train()
    before = made.optimizer.optimizer.state[made.model.get_input_embeddings().weight]["step"].sum()
    made.train()
    assert made.optimizer.optimizer.state[made.model.get_input_embeddings().weight]["step"].sum() > before


def test_the_plain_trainer_keeps_its_optimizer(tmp_path):
    made = trainer(tmp_path, Trainer)
    made.train()
    assert type(made.optimizer.optimizer) is torch.optim.AdamW
    assert not made.model.get_input_embeddings().sparse


def test_rows_that_no_step_used_stay(tmp_path, monkeypatch):
    made = trainer(tmp_path, loss="sampled_softmax", items=20)
    draw = losses.draw_shared_negatives
    # No negative at 30 or above.
    monkeypatch.setattr(losses, "draw_shared_negatives", lambda *arguments: draw(*arguments[:3], 30))
    before = made.model.get_input_embeddings().weight.detach().clone()
    made.train()
    after = made.model.get_input_embeddings().weight.detach()
    assert torch.equal(after[30:], before[30:]) and torch.equal(after[0], before[0])
    assert (after[1:20] != before[1:20]).any(1).all()


@pytest.mark.parametrize("max_grad_norm", [0.0, 0.05])
def test_both_trainers_agree_with_an_optimizer_without_memory(tmp_path, max_grad_norm):
    """With betas of zero and no decay there is nothing that a row could miss: sparse and dense are the same."""
    options = {"adam_beta1": 0.0, "adam_beta2": 0.0, "weight_decay": 0.0, "max_grad_norm": max_grad_norm}
    options |= {"adam_epsilon": 1.0, "max_steps": 4, "gradient_accumulation_steps": 2}
    weights, norms = [], []
    for kind in (Trainer, type("Ordered", (GlintRUTrainer,), {"_batch_sampler": lambda self: None})):
        made = trainer(tmp_path, kind, logging_steps=1, **options)
        made.train()
        weights.append(made.model.state_dict())
        norms.append([entry["grad_norm"] for entry in made.state.log_history if "grad_norm" in entry])
    assert len(norms[0]) == 4 and norms[0] == pytest.approx(norms[1], rel=1e-4)
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_a_checkpoint_resumes_the_lazy_state(tmp_path):
    whole = trainer(tmp_path / "whole", lr_scheduler_type="constant")
    whole.train()
    trainer(tmp_path / "part", lr_scheduler_type="constant", save_strategy="steps", save_steps=4).train()
    again = trainer(tmp_path / "again", lr_scheduler_type="constant")
    again.train(resume_from_checkpoint=str(tmp_path / "part" / "checkpoint-4"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name


def test_a_loop_without_a_trainer():
    """`embedding.sparse` and the optimizer are all there is to it."""
    embedding = nn.Embedding(100, 4, sparse=True)
    optimizer = LazyAdamW(embedding.parameters(), lr=0.1)
    before = embedding.weight.detach().clone()
    for _ in range(3):
        F.mse_loss(embedding(torch.tensor([2, 3, 3])), torch.zeros(3, 4)).backward()
        clip_grad_norm_(embedding.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    moved = (embedding.weight != before).any(1).nonzero().flatten()
    assert moved.tolist() == [2, 3]
