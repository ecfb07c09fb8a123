"""Train with the item table shared out by rows (FSDP2). Run: torchrun --nproc_per_node 2 examples/train_sharded.py

Each process keeps its part of the item table, its gradient and its two AdamW moments; the whole table is gathered for
the length of a step. One process, started with plain python, gives the same losses.
"""

from __future__ import annotations

import argparse

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader
from transformers import set_seed

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation
from modeling_glintru.data import LengthBucketSampler, SequenceCollator, TrainingWindows, load_source
from modeling_glintru.data.prepare import prepare
from modeling_glintru.machine import leave, num_processes
from modeling_glintru.training.trainer import ProcessShare, ShareCollator

MAX_LENGTH, BATCH_SIZE = 32, 32  # the batch of all processes together
parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="demo", help="interactions: a file, or 'demo' for a generated set")
parser.add_argument("--output_dir", default="outputs/sharded")
parser.add_argument("--num_train_epochs", type=int, default=6)
parser.add_argument("--dropout", type=float, default=0.1)
args = parser.parse_args()

set_seed(42)  # the same first weights everywhere
processes, device = num_processes(), "cuda" if torch.cuda.is_available() else "cpu"
data = prepare(load_source(args.data), max_length=MAX_LENGTH)
rates = dict.fromkeys(("embedding_dropout", "attention_dropout", "hidden_dropout"), args.dropout)
config = GlintRUConfig(vocab_size=data.processor.vocab_size, hidden_size=32, num_attention_heads=2, **rates)
mesh = init_device_mesh(device, (processes,)) if processes > 1 else None  # starts gloo or NCCL
rank = dist.get_rank() if mesh else 0
model = GlintRUForSequentialRecommendation(config).to(device)
if mesh:
    fully_shard(model, mesh=mesh)
    print(f"process {rank} keeps {len(model.model.embed_items.weight.to_local())} of {config.vocab_size} rows")
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)  # after the sharding: its moments are sharded too
windows = TrainingWindows(data.dataset["train"], MAX_LENGTH)
shares = ProcessShare(LengthBucketSampler(windows, BATCH_SIZE), rank, processes)
loader = DataLoader(windows, batch_sampler=shares, collate_fn=ShareCollator(SequenceCollator(MAX_LENGTH)))


def total(value: torch.Tensor) -> torch.Tensor:
    """The sum over all processes."""
    if mesh:
        dist.all_reduce(value)
    return value


for epoch in range(args.num_train_epochs):
    shares.set_epoch(epoch)
    for batch in loader:
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        targets = total((batch["labels"] != -100).sum())
        loss = model(**batch, num_items_in_batch=targets).loss
        (loss * processes).backward()  # gradients are averaged over the processes
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss = total(loss.detach())
    if rank == 0:
        print(f"epoch {epoch + 1}: loss {loss.item():.5f}")
weights = {name: weight.full_tensor() if mesh else weight for name, weight in model.state_dict().items()}
if rank == 0:
    whole = GlintRUForSequentialRecommendation(config)
    whole.load_state_dict(weights)
    whole.save_pretrained(args.output_dir)
    data.processor.save_pretrained(args.output_dir)
leave(0)  # without Python's own end, which sometimes aborts beside the threads of gloo
