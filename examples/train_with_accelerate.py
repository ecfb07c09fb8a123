"""Train in a bare Accelerate loop. Run: python examples/train_with_accelerate.py"""

from __future__ import annotations

import argparse

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation
from modeling_glintru.data import LengthBucketSampler, SequenceCollator, TrainingWindows, load_source
from modeling_glintru.data.prepare import prepare
from modeling_glintru.evaluation import ModelScorer, evaluate

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="demo", help="interactions: a file, or 'demo' for a generated set")
parser.add_argument("--output_dir", default="outputs/accelerate")
parser.add_argument("--num_train_epochs", type=int, default=6)
args = parser.parse_args()

set_seed(42)
accelerator = Accelerator()
data = prepare(load_source(args.data), split="leave_one_out")
config = GlintRUConfig(
    vocab_size=data.processor.vocab_size,
    hidden_size=32,
    num_attention_heads=2,
    hidden_dropout=0.1,
    embedding_dropout=0.1,
)
model = GlintRUForSequentialRecommendation(config)
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
windows = TrainingWindows(data.dataset["train"], max_length=32)
sampler = LengthBucketSampler(windows, batch_size=32)  # windows of like length share a batch: little padding
loader = DataLoader(windows, batch_size=32, sampler=sampler, collate_fn=SequenceCollator(max_length=32))
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
best = 0.0
for epoch in range(args.num_train_epochs):
    model.train()
    sampler.set_epoch(epoch)
    for batch in loader:
        loss = model(**batch).loss
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    plain = accelerator.unwrap_model(model)
    validation = evaluate(ModelScorer(plain, max_length=32), data.dataset["validation"], progress=False)
    ndcg = validation.table(num_bootstrap=100)["ndcg@10"]["value"]
    accelerator.print(f"epoch {epoch + 1}: loss {loss.item():.3f}, validation ndcg@10 {ndcg:.4f}")
    if ndcg > best and accelerator.is_main_process:  # the epoch is chosen on validation, never on test
        best = ndcg
        plain.save_pretrained(args.output_dir)
        data.processor.save_pretrained(args.output_dir)

kept = GlintRUForSequentialRecommendation.from_pretrained(args.output_dir)
test = evaluate(ModelScorer(kept, max_length=32), data.dataset["test"], progress=False)
accelerator.print(f"test ndcg@10 {test.table()['ndcg@10']['value']:.4f}")
