"""Metrics inside a real `transformers.Trainer`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments

from modeling_glintru.errors import DataError
from modeling_glintru.evaluation import ModelScorer, RankingMetrics, evaluate, target_ranks

from .helpers import make_split

NUM_ITEMS = 12


class NextItem(nn.Module):
    """The smallest model with our outputs: the last item picks a row of scores."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(NUM_ITEMS + 1, NUM_ITEMS + 1)

    def forward(self, input_ids, attention_mask, labels=None, exclude_item_ids=None):
        states = self.table(input_ids)
        last = attention_mask.sum(dim=1, keepdim=True) - 1
        logits = states.gather(1, last[..., None].expand(-1, -1, states.shape[-1])).squeeze(1)
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(states.flatten(0, 1), labels.flatten(), ignore_index=-100)
        if exclude_item_ids is not None:
            logits = logits.scatter(1, exclude_item_ids, -torch.inf)
        return {"loss": loss, "logits": logits, "last_hidden_state": states}


def collate(rows: list[dict]) -> dict[str, torch.Tensor]:
    """Rows with `target` are evaluated, the others train."""
    length = max(len(row["item_ids"]) for row in rows)
    batch = {
        "input_ids": torch.zeros(len(rows), length, dtype=torch.int64),
        "labels": torch.full((len(rows), length), -100),
    }
    for index, row in enumerate(rows):
        items = torch.tensor(row["item_ids"])
        if "target" in row:
            batch["input_ids"][index, : len(items)] = items
            batch["labels"][index, len(items) - 1] = row["target"]
        else:
            batch["input_ids"][index, : len(items) - 1] = items[:-1]
            batch["labels"][index, : len(items) - 1] = items[1:]
    batch["attention_mask"] = (batch["input_ids"] != 0).long()
    if "target" in rows[0]:
        batch["exclude_item_ids"] = batch["input_ids"].clone()
    return batch


def walks(count: int, seed: int) -> list[list[int]]:
    """Item i is followed by i + 1, around the circle; lengths vary so that batches are padded."""
    rng = np.random.default_rng(seed)
    return [
        [(start + step) % NUM_ITEMS + 1 for step in range(length)]
        for start, length in zip(rng.integers(0, NUM_ITEMS, count), rng.integers(3, 8, count), strict=True)
    ]


@pytest.mark.parametrize("by_batch", [False, True])
def test_best_checkpoint_and_early_stopping_on_ndcg(tmp_path: Path, by_batch: bool) -> None:
    torch.manual_seed(0)
    validation = [{"item_ids": walk[:-1], "target": walk[-1]} for walk in walks(37, seed=1)]
    model = NextItem()
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(tmp_path),
            num_train_epochs=40,
            learning_rate=0.05,
            per_device_train_batch_size=16,
            per_device_eval_batch_size=8,
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=1,
            load_best_model_at_end=True,
            metric_for_best_model="eval_ndcg@10",
            greater_is_better=True,
            batch_eval_metrics=by_batch,
            remove_unused_columns=False,
            label_names=["labels"],
            disable_tqdm=True,
            use_cpu=True,
            seed=1,
        ),
        train_dataset=[{"item_ids": walk} for walk in walks(80, seed=0)],
        eval_dataset=validation,
        data_collator=collate,
        compute_metrics=RankingMetrics(ks=(1, 10)),
        preprocess_logits_for_metrics=target_ranks,
        callbacks=[EarlyStoppingCallback(early_stopping_patience=2)],
    )
    trainer.train()
    scores = [entry["eval_ndcg@10"] for entry in trainer.state.log_history if "eval_ndcg@10" in entry]
    assert len(scores) < 40, "early stopping never came"
    assert max(scores) == trainer.state.best_metric > 0.9 > scores[0]

    last = trainer.evaluate()
    assert last["eval_ndcg@10"] == pytest.approx(trainer.state.best_metric)  # the best checkpoint was loaded
    split = make_split([row["item_ids"] for row in validation], [row["target"] for row in validation])
    scorer = ModelScorer(_LogitsAttribute(model), max_length=10)
    table = evaluate(scorer, split, ks=(1, 10), progress=False).table()
    for name in ("ndcg@10", "hr@10", "mrr@10", "ndcg@1"):
        assert last[f"eval_{name}"] == pytest.approx(table[name]["value"])
    predicted = trainer.predict(validation)
    assert predicted.metrics["test_hr@1"] == pytest.approx(table["hr@1"]["value"])
    assert predicted.predictions.shape == (37,)


class _LogitsAttribute(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs):
        return SimpleNamespace(**self.model(**inputs))


def test_the_target_is_the_last_label_of_a_row() -> None:
    logits = torch.tensor(
        [[9.0, 3.0, 2.0, 1.0], [9.0, 3.0, -torch.inf, 1.0], [0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]]
    )
    labels = torch.tensor([[-100, 2, -100], [1, 3, -100], [-100, -100, -100], [-100, -100, 3]])
    assert target_ranks(logits, labels).tolist() == [2, 2, 0, 1]
    assert target_ranks((logits, torch.zeros(4, 3, 8)), labels).tolist() == [2, 2, 0, 1]


def test_rows_without_target_do_not_count() -> None:
    found = RankingMetrics(ks=(10,))(SimpleNamespace(predictions=np.array([1, 0, 20])))
    assert found == {"ndcg@10": 0.5, "hr@10": 0.5, "mrr@10": 0.5}
    with pytest.raises(DataError, match="no evaluated row has a target"):
        RankingMetrics()(SimpleNamespace(predictions=np.array([0, 0])))


def test_batches_are_remembered_until_the_result_and_then_forgotten() -> None:
    metrics = RankingMetrics(ks=(1,))
    assert metrics(SimpleNamespace(predictions=torch.tensor([1, 1, 1])), compute_result=False) == {}
    assert metrics(SimpleNamespace(predictions=torch.tensor([2])), compute_result=True)["hr@1"] == 0.75
    metrics(SimpleNamespace(predictions=torch.tensor([1, 1, 1])), compute_result=False)
    metrics.reset()
    assert metrics(SimpleNamespace(predictions=torch.tensor([2])))["hr@1"] == 0.0


def test_logits_instead_of_ranks_are_explained() -> None:
    with pytest.raises(DataError, match="preprocess_logits_for_metrics=target_ranks"):
        RankingMetrics()(SimpleNamespace(predictions=np.zeros((4, 13))))
