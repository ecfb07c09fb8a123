"""A validation that is like the test: the last item of each training history is in the history, but was not trained.

    python -m research.last_item_out --data FILE --recipe amazon-beauty-best --set num_hidden_layers=2
    python -m research.last_item_out --page

In leave-one-out validation a history ends in an item that the model was trained to predict for this very user; in the
test it ends in one that it was not. Here the training histories lose their last item, so that validation asks what the
test asks. The first line trains one recipe so and adds a line to records/exploration/last_item_out.jsonl: NDCG@10 of
the validation targets from the whole history (`untrained_end`) and, as ordinary validation is, of the items that were
left out from the items before them (`trained_end`). `--page` prints the table of research/tuning.md.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, Features

from modeling_glintru.comparison.page import markdown_table, value_cell
from modeling_glintru.comparison.run_trial import commit, curve
from modeling_glintru.data import PreparedData
from modeling_glintru.evaluation import ModelScorer
from modeling_glintru.jobs import prepare_data, with_data
from modeling_glintru.recipe import load_recipe

from .experiments import add_line_or_page, ndcg_of_users, read_lines, train_aside

RESULTS = Path(__file__).parent / "records" / "exploration" / "last_item_out.jsonl"


def without_last(row: dict[str, Any]) -> dict[str, Any]:
    """A training history that ends one item sooner."""
    shorter = {"item_ids": row["item_ids"][:-1]}
    if "time_gaps" in row:
        shorter["time_gaps"] = [*row["time_gaps"][:-2], -1.0]
    return shorter


def last_as_target(row: dict[str, Any]) -> dict[str, Any]:
    """The same history, and what was left out."""
    asked = {"item_ids": row["item_ids"][:-1], "target": row["item_ids"][-1]}
    return asked | ({"time_gaps": row["time_gaps"][:-1]} if "time_gaps" in row else {})


def split_again(data: PreparedData) -> tuple[PreparedData, Dataset]:
    """The data with shorter training histories, and their last items as targets."""
    histories = data.dataset["train"].filter(lambda row: len(row["item_ids"]) > 2)
    features = histories.features
    validation = data.dataset["validation"]
    ends = histories.map(last_as_target, features=Features({**features, "target": validation.features["target"]}))
    train_split = histories.map(without_last, features=features)
    return replace(data, dataset=DatasetDict(train=train_split, validation=validation)), ends


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Trains, and gives the line."""
    recipe = with_data(load_recipe(options.recipe, options.changes), options.data, {})
    data, ends = split_again(prepare_data(recipe, say=lambda text: None))
    result, seconds = train_aside(recipe, data)
    scorer = ModelScorer(result.model, recipe.training.max_length)

    def ndcg(split: Dataset) -> float:
        return round(float(ndcg_of_users(scorer, split, data.item_counts).mean()), 5)

    return {
        "recipe": options.recipe,
        "changes": options.changes,
        "commit": commit(),
        "cpu_seconds": round(seconds),
        "best_epoch": result.best_epoch,
        "curve": [point["ndcg@10"] for point in curve(result.log_history, "ndcg@10")],
        "untrained_end": ndcg(data.dataset["validation"]),
        "trained_end": ndcg(ends),
    }


def table() -> str:
    """What was measured, best first."""
    lines = read_lines(RESULTS)
    titles = ["recipe", "changes", "as in the test", "as in validation", "share", "best epoch", "CPU seconds"]
    rows = []
    for line in sorted(lines, key=lambda line: (line["recipe"].split("-best")[0], -line["untrained_end"])):
        after, before = line["untrained_end"], line["trained_end"]
        changes = ", ".join(change.replace("=", " ") for change in line["changes"] if "patience" not in change)
        changes = "; ".join(filter(None, (changes, line.get("scratch_code"))))
        what = [value_cell(after), value_cell(before), f"{after / before:.3f}"]
        rows.append([line["recipe"], changes, *what, f"{line['best_epoch']:g}", f"{line['cpu_seconds']:,}"])
    return markdown_table(titles, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="FILE")
    parser.add_argument("--recipe")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    add_line_or_page(parser, RESULTS, ("data", "recipe"), measure, table)


if __name__ == "__main__":
    main()
