"""Train with the plain Trainer of transformers. Run: python examples/train_with_trainer.py"""

from __future__ import annotations

import argparse

from transformers import AutoModel, AutoProcessor, EarlyStoppingCallback, Trainer, TrainingArguments

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation
from modeling_glintru.data import SequenceCollator, TrainingWindows, load_source
from modeling_glintru.data.prepare import prepare
from modeling_glintru.evaluation import ModelScorer, RankingMetrics, evaluate, target_ranks

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="demo", help="interactions: a file, or 'demo' for a generated set")
parser.add_argument("--output_dir", default="outputs/trainer")
parser.add_argument("--num_train_epochs", type=int, default=6)
args = parser.parse_args()

# Histories as a DatasetDict (train, validation, test), and the vocabulary of raw item ids.
data = prepare(load_source(args.data), split="leave_one_out")
config = GlintRUConfig(
    vocab_size=data.processor.vocab_size,
    hidden_size=32,
    num_attention_heads=2,
    hidden_dropout=0.1,
    embedding_dropout=0.1,
)
trainer = Trainer(
    model=GlintRUForSequentialRecommendation(config),
    args=TrainingArguments(
        args.output_dir,
        num_train_epochs=args.num_train_epochs,
        learning_rate=5e-3,
        per_device_train_batch_size=32,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="eval_ndcg@10",
        save_total_limit=1,
        dataloader_pin_memory=False,
        remove_unused_columns=False,  # the collator makes the model's inputs from the rows' own columns
    ),
    data_collator=SequenceCollator(max_length=32),
    # Windows over whole histories: every target is used once an epoch, not only those of the newest items.
    train_dataset=TrainingWindows(data.dataset["train"], max_length=32),
    eval_dataset=data.dataset["validation"],
    # Ranks instead of logits leave the model, so nothing of size users x items is ever kept.
    compute_metrics=RankingMetrics((10,)),
    preprocess_logits_for_metrics=target_ranks,
    callbacks=[EarlyStoppingCallback(early_stopping_patience=3)],
)
trainer.train()
trainer.save_model(args.output_dir)
data.processor.save_pretrained(args.output_dir)

model, processor = AutoModel.from_pretrained(args.output_dir), AutoProcessor.from_pretrained(args.output_dir)
test = evaluate(ModelScorer(model, max_length=32), data.dataset["test"], progress=False)
print(f"test ndcg@10 {test.table()['ndcg@10']['value']:.4f}")
print(processor.decode_top_k(model(**processor([processor.item_ids[:3]])).logits, top_k=3))
