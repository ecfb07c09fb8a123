"""Recommend with a trained model, in a few lines. Run: python examples/quickstart.py MODEL_FOLDER

Without a folder it trains a small model on generated demo data, which takes some seconds, unless that is there already.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from transformers import AutoModel, AutoProcessor

from modeling_glintru.jobs import train_and_evaluate
from modeling_glintru.recipe import load_recipe

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("folder", nargs="?", help="model folder or Hub repository")
parser.add_argument("--output_dir", default="outputs/demo", help="where the demo model goes")
parser.add_argument("--num_train_epochs", type=int, default=6)
args = parser.parse_args()

if args.folder is None:
    args.folder = args.output_dir
    if not (Path(args.folder) / "config.json").is_file():  # a model that is there is never trained over
        recipe = load_recipe("demo", [f"num_train_epochs={args.num_train_epochs}"])
        train_and_evaluate(recipe, Path(args.folder), progress=False)

# The same three lines load any model: weights, and the vocabulary that knows your item ids.
model = AutoModel.from_pretrained(args.folder)
processor = AutoProcessor.from_pretrained(args.folder)
history = list(processor.item_ids[:3])

inputs = processor([history])
scores = model(**inputs, exclude_item_ids=inputs["input_ids"]).logits
print(f"after {', '.join(map(str, history))}:")
for item in processor.decode_top_k(scores, top_k=5)[0]:
    print(f"  {item['item_id']}  {item.get('title') or ''}  {item['score']:.2f}")
