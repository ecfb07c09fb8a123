"""From a table of (user, item, time) to a measured model, settings chosen from the data. Run: ... --data FILE

A csv, tsv, parquet or jsonl file, or a Hub data set; without `--data` a generated table is written first.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from modeling_glintru import Recommender, train
from modeling_glintru.data import synthetic_interactions

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", help="the table")
parser.add_argument("--user_column", help="its columns, where their names do not say what they are")
parser.add_argument("--item_column")
parser.add_argument("--time_column")
parser.add_argument("--output_dir", default="outputs/mine")
parser.add_argument("--num_train_epochs", type=int, help="chosen from the data if left out")
args = parser.parse_args()

if args.data is None:
    args.data = "interactions.csv"
    if not Path(args.data).exists():
        synthetic_interactions().frame.write_csv(args.data)

columns = {name: getattr(args, name) for name in ("user_column", "item_column", "time_column")}
settings = {} if args.num_train_epochs is None else {"num_train_epochs": args.num_train_epochs}
result = train(args.data, args.output_dir, settings=settings, overwrite=True, **columns)
for name, test in result.evaluations.items():  # the trained model first, then popularity and item-kNN
    ndcg = test.table()["ndcg@10"]
    print(f"{name}: test ndcg@10 {ndcg['value']:.4f} [{ndcg['low']:.4f}, {ndcg['high']:.4f}]")

recommender = Recommender.from_pretrained(args.output_dir)
frame = recommender.recommend_frame(args.data, top_k=3)  # for every user of the table
frame.write_parquet(Path(args.output_dir).with_suffix(".parquet"))
print(frame)
history = list(recommender.processor.item_ids[:3])
(recommended,) = recommender.recommend([history], top_k=3)
print(f"after {', '.join(map(str, history))}: {', '.join(str(item['item_id']) for item in recommended.items)}")
