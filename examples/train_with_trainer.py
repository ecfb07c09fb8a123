"""Train with the plain Trainer. Run: python (or torchrun --nproc_per_node 2) examples/train_with_trainer.py"""

from __future__ import annotations

import argparse

import torch
from transformers import AutoModel, AutoProcessor, EarlyStoppingCallback, Trainer, TrainingArguments

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation
from modeling_glintru.data import SequenceCollator, TrainingWindows, load_source
from modeling_glintru.data.prepare import prepare
from modeling_glintru.evaluation import ModelScorer, RankingMetrics, evaluate, target_ranks

MAX_LENGTH = 32  # items that the model sees; longer histories become several windows
parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="demo", help="interactions: a file, or 'demo' for a generated set")
parser.add_argument("--output_dir", default="outputs/trainer")
parser.add_argument("--num_train_epochs", type=int, default=6)
args = parser.parse_args()

# Histories as a DatasetDict (train, validation, test), and the vocabulary of raw item ids.
data = prepare(load_source(args.data), max_length=MAX_LENGTH)
config = GlintRUConfig(vocab_size=data.processor.vocab_size, hidden_size=32, num_attention_heads=2)
trainer = Trainer(
    model=GlintRUForSequentialRecommendation(config),
    args=TrainingArguments(
        args.output_dir,
        num_train_epochs=args.num_train_epochs,
        learning_rate=5e-3,
        per_device_train_batch_size=32,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_ndcg@10",
        remove_unused_columns=False,  # the collator makes the model's inputs from the rows' own columns
        use_cpu=not torch.accelerator.is_available(),
    ),
    data_collator=SequenceCollator(MAX_LENGTH, exclude_seen=not data.processor.recommend_seen),  # ranked as served
    train_dataset=TrainingWindows(data.dataset["train"], MAX_LENGTH),  # whole histories: each target once an epoch
    eval_dataset=data.dataset["validation"],
    # Ranks instead of logits leave the model, so nothing of size users x items is ever kept.
    preprocess_logits_for_metrics=target_ranks,
    compute_metrics=RankingMetrics((10,)),
    callbacks=[EarlyStoppingCallback(early_stopping_patience=3)],
)
trainer.train()
trainer.save_model(args.output_dir)
if trainer.is_world_process_zero():  # one of the processes, where there are several
    data.processor.save_pretrained(args.output_dir)  # weights are of no use without the ids of their items
    # Loaded as anyone would; the epoch was chosen on validation, so the test split is seen here for the first time.
    model, processor = AutoModel.from_pretrained(args.output_dir), AutoProcessor.from_pretrained(args.output_dir)
    served = {"recommend_seen": processor.recommend_seen, "progress": False}
    test = evaluate(ModelScorer(model, processor.max_length), data.dataset["test"], **served)
    print(f"test ndcg@10 {test.table()['ndcg@10']['value']:.4f}")
    inputs = processor([processor.item_ids[:3]])
    scores = model(**inputs, exclude_item_ids=inputs["input_ids"]).logits  # nothing that was already taken
    print([item["item_id"] for item in processor.decode_top_k(scores, top_k=3)[0]])
