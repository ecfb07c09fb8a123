"""Thins the repeats of a table of interactions, so that about a given share of the targets recurs.

    python research/thin_repeats.py foursquare-nyc.parquet thinned.csv --share 0.10

All first visits of a user to an item stay; of the later ones a random part stays.
"""

from __future__ import annotations

import argparse

import numpy as np
import polars as pl

from modeling_glintru.data import read_interactions

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("source")
parser.add_argument("output", help="a .csv file")
parser.add_argument("--share", type=float, required=True, help="of repeats among all rows that stay, about")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

frame = read_interactions(args.source).frame.sort("user_id", "timestamp", maintain_order=True)
first = frame.select(pl.struct("user_id", "item_id").is_first_distinct()).to_series().to_numpy()
chance = args.share / (1 - args.share) * first.sum() / max((~first).sum(), 1)
kept = first | (np.random.default_rng(args.seed).random(len(frame)) < chance)
frame.filter(kept).write_csv(args.output)
print(f"{kept.sum():,} of {len(frame):,} rows stay, {(kept & ~first).sum() / kept.sum():.1%} of them repeats")
