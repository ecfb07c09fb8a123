"""From a table of (user, item, time) to recommendations, settings chosen from the data. Run: ... --data FILE

A csv, tsv, parquet or jsonl file, or a Hub data set; without `--data` a generated table is written first.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from modeling_glintru.data import synthetic_interactions
from modeling_glintru.jobs import train_and_evaluate, with_data
from modeling_glintru.recipe import change_recipe
from modeling_glintru.rule import blank_recipe, data_shape, describe, preset
from modeling_glintru.serving import Recommender

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", help="the table")
parser.add_argument("--user_column", help="its columns, where their names do not say what they are")
parser.add_argument("--item_column")
parser.add_argument("--time_column")
parser.add_argument("--output_dir", default="outputs/mine")
parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a value of your own")
args = parser.parse_args()

if args.data is None:
    args.data = "interactions.csv"
    if not Path(args.data).exists():
        synthetic_interactions().frame.write_csv(args.data)

columns = {name: getattr(args, name) for name in ("user_column", "item_column", "time_column")}
recipe = with_data(change_recipe(blank_recipe(), args.set), args.data, columns)


def choose_settings(recipe, data):
    """Sizes and settings from the shape of the data, each with its reason."""
    recipe, choices = preset(data_shape(data), recipe, args.set)
    print(describe(choices))
    return recipe


result, data, tests = train_and_evaluate(
    recipe, Path(args.output_dir), overwrite=True, complete=choose_settings, progress=False
)
for name, test in tests.items():  # the trained model first, then popularity and item-kNN
    ndcg = test.table()["ndcg@10"]
    print(f"{name}: test ndcg@10 {ndcg['value']:.4f} [{ndcg['low']:.4f}, {ndcg['high']:.4f}]")

recommender = Recommender.from_pretrained(args.output_dir)
history = list(data.processor.item_ids[:3])
(recommended,) = recommender.recommend([history], top_k=3)
print(f"after {', '.join(map(str, history))}: {', '.join(str(item['item_id']) for item in recommended.items)}")
