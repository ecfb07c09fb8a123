"""From a table of interactions to recommendations, in a few lines. Run: python examples/quickstart.py

With the path of a CSV or Parquet file it learns from that one, otherwise from generated demo data.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from modeling_glintru import Recommender
from modeling_glintru.data import synthetic_interactions, synthetic_item_titles

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("data", nargs="?", help="a table with a column of users, of items and of times")
parser.add_argument("--output_dir", default="outputs/demo", help="where the model folder goes")
parser.add_argument("--num_train_epochs", type=int, help="chosen from the data if left out")
args = parser.parse_args()

if (Path(args.output_dir) / "config.json").is_file():  # a model that is there is never trained over
    recommender = Recommender.from_pretrained(args.output_dir)
else:
    table, titles = (args.data, None) if args.data else (synthetic_interactions().frame, synthetic_item_titles())
    settings = {} if args.num_train_epochs is None else {"num_train_epochs": args.num_train_epochs}
    recommender = Recommender.fit(table, output_dir=args.output_dir, titles=titles, settings=settings)

print(f"on the test split: {', '.join(f'{name} {value:.3f}' for name, value in recommender.metrics.items())}")
items, vectors = recommender.item_vectors()
history = items[:3]
print(f"after {', '.join(map(str, history))}:")
for item in recommender.recommend([history], top_k=5)[0].items:
    print(f"  {item['item_id']}  {item.get('title') or ''}  {item['score']:.2f}")
print(f"similar to {history[0]}:")
for item in recommender.similar_items(history[:1], top_k=3)[0]:
    print(f"  {item['item_id']}  {item.get('title') or ''}  {item['score']:.2f}")
