"""Recommend before every click of the newest day(s), then take the click in. Run: python examples/streaming.py

A small model is trained on all clicks before those days; `--data ml-100k` replays a real day of MovieLens.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path

import polars as pl
import torch
from torch.utils.data import DataLoader

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation
from modeling_glintru.data import LengthBucketSampler, SequenceCollator, TrainingWindows, load_source
from modeling_glintru.data.prepare import prepare
from modeling_glintru.serving import StreamingRecommender

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="demo", help="interactions with times in seconds: a file, 'demo' or 'ml-100k'")
parser.add_argument("--days", type=float, default=1, help="how many of the newest days to replay")
parser.add_argument("--num_train_epochs", type=int, default=6)
args = parser.parse_args()

clicks = load_source(args.data)
begin = clicks.frame["timestamp"].max() - args.days * 86_400
before = dataclasses.replace(clicks, frame=clicks.frame.filter(pl.col("timestamp") <= begin))
days = clicks.frame.filter(pl.col("timestamp") > begin).sort("timestamp", maintain_order=True)

torch.manual_seed(42)
data = prepare(before, max_length=100)
config = GlintRUConfig(vocab_size=data.processor.vocab_size, hidden_size=32, num_attention_heads=2)
model = GlintRUForSequentialRecommendation(config)
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
windows = TrainingWindows(data.dataset["train"], 100)
loader = DataLoader(windows, 32, sampler=LengthBucketSampler(windows, 32), collate_fn=SequenceCollator(100))
for _ in range(args.num_train_epochs):
    for batch in loader:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

folder = tempfile.TemporaryDirectory()
store = Path(folder.name, "users.db")  # a shop keeps it
with folder, StreamingRecommender(model, data.processor, store, item_counts=data.item_counts) as recommender:
    past = before.frame.sort("timestamp", maintain_order=True).select("user_id", "item_id")
    for part in past.iter_slices(5000):  # the histories that the day begins with
        recommender.observe_many(part.rows())
    hits = 0
    for number, (user, item, time) in enumerate(days.select("user_id", "item_id", "timestamp").iter_rows(), start=1):
        hits += item in [best["item_id"] for best in recommender.recommend(user, top_k=10).items]
        recommender.observe(user, item, event_id=number, time=time)  # on the disk when it returns
        if number % 50 == 0 or number == len(days):
            print(f"{number} clicks, hit rate at 10 so far {hits / number:.3f}", flush=True)
