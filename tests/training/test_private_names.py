"""Each private name of transformers that the package leans on, and what breaks where a version changes it."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import torch
from transformers import Trainer, TrainingArguments

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation
from modeling_glintru.data import SequenceCollator, TrainingWindows, load_source
from modeling_glintru.data.prepare import prepare
from modeling_glintru.training import GlintRUTrainer
from modeling_glintru.training.pushing import ModelPushes

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "_internal_call": "modeling_glintru/training/pushing.py",
    "_push_from_checkpoint": "modeling_glintru/training/pushing.py",
    "_train_batch_size": "modeling_glintru/training/trainer.py",
}


def test_the_list_is_complete(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    found = importlib.import_module("private_names").private_names(ROOT / "modeling_glintru")
    for name, places in found.items():
        assert name in FILES, f"{name} ({', '.join(places)}) needs a test here"
        assert {place.rpartition(":")[0].rpartition("/")[2] for place in places} == {FILES[name].rpartition("/")[2]}
    assert set(found) == set(FILES)


def test_saving_a_model_for_a_push_does_not_push():
    """Without `_internal_call`, `push_to_hub` calls `save_model`, which calls `push_to_hub`, and so on."""
    assert "_internal_call" in inspect.signature(Trainer.save_model).parameters


def test_the_trainer_pushes_what_it_saved_through_a_method_of_ours(tmp_path, monkeypatch):
    """Without `_push_from_checkpoint`, `hub_strategy="every_save"` uploads training_args.bin, or nothing."""
    pushed = []
    monkeypatch.setattr(GlintRUTrainer, "init_hf_repo", lambda *args, **kwargs: None)
    monkeypatch.setattr(ModelPushes, "_push_from_checkpoint", lambda self, folder: pushed.append(Path(folder).name))
    trainer(tmp_path, max_steps=2, save_steps=1, push_to_hub=True).train()
    assert pushed == ["checkpoint-1", "checkpoint-2"]


def test_a_batch_that_does_not_fit_is_halved(tmp_path):
    """Without `_train_batch_size`, `auto_find_batch_size` tries again with batches of the same size."""
    sizes = []

    class Small(GlintRUTrainer):
        def training_step(self, model, inputs, *rest):
            sizes.append(len(inputs["input_ids"]))
            if len(inputs["input_ids"]) > 16:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().training_step(model, inputs, *rest)

    trainer(tmp_path, Small, max_steps=1, auto_find_batch_size=True, per_device_train_batch_size=32).train()
    assert sizes[0] == 32 and sizes[-1] <= 16


def trainer(folder: Path, kind: type[Trainer] = GlintRUTrainer, **options) -> Trainer:
    data = prepare(load_source("demo"))
    config = GlintRUConfig(vocab_size=data.processor.vocab_size, hidden_size=16, num_attention_heads=2)
    defaults = {"remove_unused_columns": False, "disable_tqdm": True, "use_cpu": True, "report_to": "none"}
    return kind(
        model=GlintRUForSequentialRecommendation(config),
        args=TrainingArguments(str(folder), **(defaults | options)),
        data_collator=SequenceCollator(32),
        train_dataset=TrainingWindows(data.dataset["train"], 32),
    )
