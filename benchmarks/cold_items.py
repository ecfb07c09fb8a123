"""How well items that nobody has taken yet are recommended by their features, and what that costs the known ones.

A tenth of the items (seed 0) is taken out of training with all their interactions, and added afterwards by
`Recommender.add_items`. Three figures, NDCG@10 with past items left out:

- known: the test split, as every run measures it, among the items that were trained;
- known among all: the same targets when the new items compete;
- new: each first time that a user takes a new item after a known one, among all items.

The last two belong together: what puts new items before everybody finds the new ones and loses the known ones.

    python benchmarks/cold_items.py interactions.parquet items.parquet --output cold_items.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from modeling_glintru import Recommender
from modeling_glintru.data import ItemEncoder, load_source
from modeling_glintru.data.prepare import prepare
from modeling_glintru.evaluation.metrics import bootstrap_interval
from modeling_glintru.models.item_projection import ItemProjection

BOOSTS = (0.0, 0.05, 0.1, 0.15, 0.2)


def ndcg(recommender: Recommender, rows: list[tuple[list[Any], Any, list[Any]]]) -> np.ndarray:
    """NDCG@10 of each (known past items, target, all past items) among all items of the recommender."""
    gains = []
    for begin in range(0, len(rows), 128):
        batch = rows[begin : begin + 128]
        with torch.no_grad():
            scores = recommender.model(**recommender.processor([row[0] for row in batch])).logits
        for line, (_, target, past) in zip(scores, batch, strict=True):
            index = recommender.processor.index_of(target)
            score = line[index].clone()
            line[[recommender.processor.index_of(item) for item in set(past) - {target}]] = -torch.inf
            line[index] = -torch.inf
            rank = 1 + int((line > score).sum()) + int((line == score).sum())  # a tie is lost
            gains.append(1 / np.log2(rank + 1) if rank <= 10 else 0.0)
    return np.array(gains)


def targets(frame: pl.DataFrame, new: set[Any]) -> list[tuple[list[Any], Any, list[Any]]]:
    """Each first time that a user takes a new item after a known one: see `ndcg`."""
    rows = []
    for user in frame.group_by("user_id", maintain_order=True).agg("item_id")["item_id"].to_list():
        for place, item in enumerate(user):
            known = [past for past in user[:place] if past not in new]
            if item in new and known and item not in user[:place]:
                rows.append((known, item, user[:place]))
    return rows


def described(values: np.ndarray) -> dict[str, Any]:
    """Mean, 95 % interval and number."""
    low, high = bootstrap_interval(values, seed=0)
    return {"ndcg@10": float(values.mean()), "low": float(low), "high": float(high), "targets": len(values)}


def measure(recommender: Recommender, tests: list[Any], new: list[Any]) -> dict[str, Any]:
    """What a recommender with the new items in it reaches."""
    return {"known among all": described(ndcg(recommender, tests)), "new": described(ndcg(recommender, new))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("interactions")
    parser.add_argument("items")
    parser.add_argument(
        "--seed", type=int, default=42, help="of the training; the tenth of the items is always that of 0"
    )
    parser.add_argument("--epochs", type=int, help="fewer than the rule's")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    read = load_source(options.interactions)
    frame = read.frame.sort("user_id", "timestamp", maintain_order=True)
    ids = frame["item_id"].unique().sort().to_list()
    gone = set(np.random.default_rng(0).permutation(np.array(ids, object))[: len(ids) // 10].tolist())
    known = frame.filter(~pl.col("item_id").is_in(list(gone)))
    catalogue = pl.read_parquet(options.items)
    new = targets(frame, gone)
    data = prepare(load_source(known))
    tests = []
    for row in data.dataset["test"]:
        history = data.processor.decode(row["item_ids"])
        tests.append((history, data.processor.decode([row["target"]])[0], history))
    settings: dict[str, Any] = {"evaluation.reference_models": []}
    if options.epochs:
        settings["num_train_epochs"] = options.epochs
    result: dict[str, Any] = {"items": len(ids), "new items": len(gone), "seed": options.seed}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("ids", "features"):
            items = catalogue.filter(~pl.col("item_id").is_in(list(gone))) if name == "features" else None
            place = Path(folder) / name
            trained = Recommender.fit(
                known, items=items, output_dir=place, settings=settings, seed=options.seed, verbose=False
            )
            result[name] = {"known": described(ndcg(trained, tests)), "training": training_of(place)}
        for boost in BOOSTS:
            grown = Recommender.from_pretrained(Path(folder) / "features")
            grown.add_items(catalogue.filter(pl.col("item_id").is_in(list(gone))), boost=boost)
            result["features"][f"boost {boost}"] = measure(grown, tests, new)
        result["ids"]["regression on features"] = measure(by_regression(Path(folder), catalogue, gone), tests, new)
    print_table(result)
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def training_of(folder: Path) -> dict[str, Any]:
    """Epochs and seconds of a run."""
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["training"]


def by_regression(folder: Path, catalogue: pl.DataFrame, gone: set[Any]) -> Recommender:
    """Rows of new items by ridge regression on the table of the model that was trained without features."""
    plain = Recommender.from_pretrained(folder / "ids")
    encoder = ItemEncoder.load(folder / "features")
    known = catalogue.filter(pl.col("item_id").is_in(list(plain.processor.item_ids))).sort("item_id")
    added = catalogue.filter(pl.col("item_id").is_in(list(gone))).sort("item_id")
    places = torch.tensor([plain.processor.index_of(item) for item in known["item_id"].to_list()])
    table: Any = plain.model.get_input_embeddings().weight
    projection = ItemProjection.fit(
        torch.from_numpy(encoder.encode(known)[0]),
        table.detach()[places],
        torch.from_numpy(plain.processor.item_counts)[places - 1],
    )
    rows = projection.rows(torch.from_numpy(encoder.encode(added)[0]))
    plain.model.add_items(plain.processor.add_items(added["item_id"].to_list()), rows)
    return plain


def print_table(result: dict[str, Any]) -> None:
    """A line for each way to make the rows of new items."""

    def cell(value: dict[str, Any]) -> str:
        return f"{value['ndcg@10']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"

    print(f"{'':<32}{'known':<26}{'known among all':<26}new")
    for name in ("ids", "features"):
        print(f"{name:<32}{cell(result[name]['known'])}")
        for way, value in result[name].items():
            if way not in ("known", "training"):
                print(f"{'  ' + way:<32}{'':<26}{cell(value['known among all']):<26}{cell(value['new'])}")


if __name__ == "__main__":
    main()
