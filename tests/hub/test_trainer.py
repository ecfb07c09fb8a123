"""`push_to_hub=True` of a Trainer: the plain one works, ours takes the model along and nothing else."""

from __future__ import annotations

import io
import logging
import zipfile

import pytest
import torch
from datasets import Dataset
from transformers import AutoModel, Trainer, TrainingArguments

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation, GlintRUProcessor
from modeling_glintru.errors import RecipeError
from modeling_glintru.models.loading import load_model_folder
from modeling_glintru.training.trainer import GlintRUTrainer

from ..hub_server import ANN
from .conftest import ITEMS


def trained(kind: type[Trainer], tmp_path, **options) -> Trainer:
    model = GlintRUForSequentialRecommendation(GlintRUConfig(vocab_size=5, hidden_size=8, num_attention_heads=2))
    rows = [{"user_id": "somebody@home", "input_ids": [1, 2, 3], "labels": [2, 3, 4]} for _ in range(4)]
    arguments = TrainingArguments(
        str(tmp_path / "run"),
        max_steps=2,
        save_steps=1,
        per_device_train_batch_size=2,
        use_cpu=True,
        disable_tqdm=True,
        push_to_hub=True,
        hub_model_id="ann/run",
        **{"hub_strategy": "every_save", "hub_always_push": True, "hub_token": ANN, **options},
    )
    trainer = kind(
        model,
        arguments,
        train_dataset=Dataset.from_list(rows).select_columns(["input_ids", "labels"]),
        data_collator=_batch,
        processing_class=GlintRUProcessor(ITEMS),
    )
    trainer.train()
    trainer.push_to_hub()
    return trainer


def _batch(rows):
    return {key: torch.tensor([row[key] for row in rows]) for key in ("input_ids", "labels")}


def test_only_the_model_leaves(hub, tmp_path):
    trained(GlintRUTrainer, tmp_path)
    commits = hub.repo("ann/run").branches["main"][1:]
    assert [commit.title for commit in commits][-1] == "End of training" and len(commits) >= 2
    for commit in commits:  # each of them is a whole model
        names = set(commit.files) - {".gitattributes", "README.md"}
        assert {"model.safetensors", "config.json", "modeling_glintru.py", "item_vocabulary.safetensors"} <= names
        assert all(n.endswith((".safetensors", "config.json", "_glintru.py", "manifest.json")) for n in names)
        for name, blob in commit.files.items():
            for secret in (ANN, str(tmp_path), "somebody"):
                assert secret.encode() not in blob.data, name
            assert not zipfile.is_zipfile(io.BytesIO(blob.data)) and blob.data[:1] != b"\x80", name  # no pickle
    model, processor = load_model_folder("ann/run")
    assert list(processor.item_ids) == ITEMS and len(processor) + 1 == model.config.vocab_size


def test_a_push_that_fails_does_not_stop_the_training(hub, tmp_path, caplog):
    refused: list[str] = []

    def once(method: str, path: str) -> int | None:
        if "/commit/" in path and not refused:
            refused.append(path)
            return 403
        return None

    hub.on_request = once
    logging.getLogger("transformers").propagate = True
    try:
        trained(GlintRUTrainer, tmp_path)
    finally:
        logging.getLogger("transformers").propagate = False
    assert refused and "A push during training failed, the next one takes all along: this login may not" in caplog.text
    load_model_folder("ann/run")


def test_the_plain_trainer_s_push_can_be_used_too(hub, tmp_path):
    trainer = trained(Trainer, tmp_path)
    model = AutoModel.from_pretrained("ann/run")
    assert (model.model.embed_items.weight == trainer.model.model.embed_items.weight).all()
    load_model_folder("ann/run")
    # What ours is there to avoid: a pickle with the paths of the machine in it.
    assert str(tmp_path).encode() in hub.repo("ann/run").files()["training_args.bin"]


@pytest.mark.parametrize("strategy", ["checkpoint", "all_checkpoints"])
def test_strategies_that_upload_checkpoints_are_refused(hub, tmp_path, strategy):
    with pytest.raises(RecipeError, match=f"hub_strategy '{strategy}' uploads optimizer and random states"):
        trained(GlintRUTrainer, tmp_path, hub_strategy=strategy)
