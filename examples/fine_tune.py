"""Fine-tune a model on new interactions with the plain Trainer. Run: python examples/fine_tune.py MODEL --data FILE"""

from __future__ import annotations

import argparse

import torch
from transformers import AutoModel, AutoProcessor, Trainer, TrainingArguments

import modeling_glintru  # noqa: F401 (registers the model)
from modeling_glintru.data import SequenceCollator, TrainingWindows, load_source
from modeling_glintru.data.prepare import prepare
from modeling_glintru.evaluation import ModelScorer, RankingMetrics, evaluate, target_ranks

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("model", nargs="?", default="outputs/trainer", help="a folder, as train_with_trainer.py leaves it")
parser.add_argument("--data", default="demo", help="new interactions: a file, or 'demo' for a generated set")
parser.add_argument("--output_dir", default="outputs/fine_tuned")
parser.add_argument("--num_train_epochs", type=int, default=2)
args = parser.parse_args()

model, processor = AutoModel.from_pretrained(args.model), AutoProcessor.from_pretrained(args.model)
length, served = processor.max_length, {"recommend_seen": processor.recommend_seen, "progress": False}
# Items that the model does not know are added behind its own, which keep their indices.
data = prepare(load_source(args.data), processor=processor, add_items=True)
num_new = len(data.processor) - len(processor)
model.add_items(num_new, init="neighbours", histories=data.dataset["train"]["item_ids"])


def test_ndcg() -> float:
    return evaluate(ModelScorer(model, length), data.dataset["test"], **served).table()["ndcg@10"]["value"]


print(f"{num_new} new items; before: test ndcg@10 {test_ndcg():.4f}")
trainer = Trainer(
    model=model,
    args=TrainingArguments(
        args.output_dir,
        num_train_epochs=args.num_train_epochs,
        learning_rate=1.25e-3,  # a quarter of what the model was trained with
        per_device_train_batch_size=32,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="eval_ndcg@10",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        use_cpu=not torch.accelerator.is_available(),
    ),
    data_collator=SequenceCollator(length, exclude_seen=not processor.recommend_seen),
    train_dataset=TrainingWindows(data.dataset["train"], length),
    eval_dataset=data.dataset["validation"],
    preprocess_logits_for_metrics=target_ranks,
    compute_metrics=RankingMetrics((10,)),
)
trainer.train()
trainer.save_model(args.output_dir)
data.processor.save_pretrained(args.output_dir)
print(f"after: test ndcg@10 {test_ndcg():.4f}; the model is in {args.output_dir}")
