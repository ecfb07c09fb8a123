"""Train in a bare Accelerate loop. Run: python (or torchrun --nproc_per_node 2) examples/train_with_accelerate.py"""

from __future__ import annotations

import argparse

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from torch.utils.data import DataLoader
from transformers import AutoModel, AutoProcessor

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation
from modeling_glintru.data import LengthBucketSampler, SequenceCollator, TrainingWindows, load_source
from modeling_glintru.data.prepare import prepare
from modeling_glintru.evaluation import ModelScorer, evaluate

MAX_LENGTH, BATCH_SIZE = 32, 32
parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="demo", help="interactions: a file, or 'demo' for a generated set")
parser.add_argument("--output_dir", default="outputs/accelerate")
parser.add_argument("--num_train_epochs", type=int, default=6)
args = parser.parse_args()
set_seed(42)
sharing = DataLoaderConfiguration(split_batches=True)  # several processes share the rows of each batch
accelerator = Accelerator(cpu=not torch.accelerator.is_available(), dataloader_config=sharing)
data = prepare(load_source(args.data), max_length=MAX_LENGTH)
config = GlintRUConfig(vocab_size=data.processor.vocab_size, hidden_size=32, num_attention_heads=2)
model = GlintRUForSequentialRecommendation(config)
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
windows = TrainingWindows(data.dataset["train"], MAX_LENGTH)
sampler = LengthBucketSampler(windows, BATCH_SIZE)  # windows of like length share a batch: little padding
loader = DataLoader(windows, BATCH_SIZE, sampler=sampler, collate_fn=SequenceCollator(MAX_LENGTH))
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
plain = accelerator.unwrap_model(model)  # without what Accelerate puts around it: for scoring and saving
scorer, best, again = ModelScorer(plain, MAX_LENGTH), -1.0, data.processor.recommend_seen  # ranked as it serves
for epoch in range(args.num_train_epochs):
    model.train()
    sampler.set_epoch(epoch)  # another order every epoch
    for batch in loader:
        targets = accelerator.reduce((batch["labels"] != -100).sum())  # the loss is a mean over those of all processes
        loss = model(**batch, num_items_in_batch=targets).loss * accelerator.num_processes
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    table = evaluate(scorer, data.dataset["validation"], recommend_seen=again, progress=False).table()
    ndcg = table["ndcg@10"]["value"]
    accelerator.print(f"epoch {epoch + 1}: validation ndcg@10 {ndcg:.4f}")
    if ndcg > best and accelerator.is_main_process:  # the epoch is chosen on validation, never on test
        best = ndcg
        plain.save_pretrained(args.output_dir)
        data.processor.save_pretrained(args.output_dir)
if accelerator.is_main_process:
    kept, processor = (auto.from_pretrained(args.output_dir) for auto in (AutoModel, AutoProcessor))
    test = evaluate(ModelScorer(kept, MAX_LENGTH), data.dataset["test"], recommend_seen=again, progress=False)
    print(f"test ndcg@10 {test.table()['ndcg@10']['value']:.4f}")
    inputs = processor([processor.item_ids[:3]])
    scores = kept(**inputs, exclude_item_ids=inputs["input_ids"]).logits  # nothing that was already taken
    print([item["item_id"] for item in processor.decode_top_k(scores, top_k=3)[0]])
