"""The rule of `glintru train --data FILE` on data that it was not made on.

    python -m research.default_rule --data amazon-beauty=FILE --split temporal
    python -m research.default_rule --data ml-1m=FILE --users 0.1 --model sasrec
    python -m research.default_rule --data lastfm=LastFM.txt
    python -m research.default_rule --page

A line trains one model with what the rule chooses, on the newest interactions held out of all (`--split temporal`), on
a part of the users (`--users`) or on the newest part of the interactions (`--newest`), and adds a line to
records/exploration/default_rule.jsonl. A `.txt` file has one user a line, the user and then the items, oldest first, as
sequential recommenders are often published with (github.com/RUCAIBox/CIKM2020-S3Rec, data/). `--set` changes the rule's
choice. `--page` prints the table of research/tuning.md.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from modeling_glintru.comparison.page import markdown_table, value_cell
from modeling_glintru.comparison.run_trial import commit
from modeling_glintru.data import Interactions, PreparedData, load_source, read_interactions
from modeling_glintru.data.prepare import prepare
from modeling_glintru.evaluation import ModelScorer
from modeling_glintru.models.auto import MODELS, model_label
from modeling_glintru.recipe import Recipe, change_recipe
from modeling_glintru.recipe.rule import DataShape, blank_recipe, data_shape, preset

from .experiments import add_line_or_page, ndcg_of_users, read_lines, share, train_aside

RESULTS = Path(__file__).parent / "records" / "exploration" / "default_rule.jsonl"


def part_of(interactions: Interactions, users: float, newest: float) -> Interactions:
    """A part of the users, drawn by themselves, and of what is left the newest part of the interactions."""
    frame = interactions.frame
    if users < 1:
        everyone = frame["user_id"].unique().sort()
        drawn = np.random.default_rng(0).permutation(len(everyone))[: round(users * len(everyone))]
        frame = frame.filter(pl.col("user_id").is_in(everyone[drawn].implode()))
    if newest < 1:
        order = frame["timestamp"].arg_sort(descending=True)[: round(newest * len(frame))]
        frame = frame[order.sort()]
    return replace(interactions, frame=frame)


def load_sequences(file: Path) -> Interactions:
    """A text with one user a line, the user and then the items, oldest first; times are places in the line."""
    lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines()]
    rows = [(user, item, place) for user, *items in lines for place, item in enumerate(items)]
    return read_interactions(pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row"))


def by_rule(options: argparse.Namespace, changes: list[str]) -> tuple[PreparedData, DataShape, Recipe]:
    """The data that the options name, its shape, and what the rule chooses for it, with some changes."""
    name, _, file = options.data.partition("=")
    interactions = load_sequences(Path(file)) if file.endswith(".txt") else load_source(file or name)
    data = prepare(part_of(interactions, options.users, options.newest), split=options.split)
    shape = data_shape(data)
    return data, shape, preset(shape, change_recipe(blank_recipe(), changes), changes)[0]


def of_data(options: argparse.Namespace) -> dict[str, Any]:
    """What a line says of its data, see `what`."""
    name = options.data.partition("=")[0]
    return {"data": name, "split": options.split, "users": options.users, "newest": options.newest}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Trains, and gives the line."""
    changes = [f"split={options.split}", f"model.name={options.model}", *options.changes]
    data, shape, recipe = by_rule(options, changes)
    result, seconds = train_aside(recipe, data)
    scorer = ModelScorer(result.model, recipe.training.max_length)
    line = {
        **of_data(options),
        **{"model": options.model, "changes": options.changes, "commit": commit()},
        **{"shape": asdict(shape), "recipe": {"model": recipe.model, "training": asdict(recipe.training)}},
        **{"cpu_seconds": round(seconds), "best_epoch": result.best_epoch},
    }
    for split in ("validation", "test"):
        values = ndcg_of_users(scorer, data.dataset[split], data.item_counts)
        line |= {split: round(float(values.mean()), 5), f"{split}_targets": len(values)}
    return line


def what(line: dict[str, Any]) -> str:
    """The data of a line, for people."""
    parts = [line["data"]]
    parts += [f"{line['users']:.0%} of the users"] if line["users"] < 1 else []
    parts += [f"newest {line['newest']:.0%}"] if line["newest"] < 1 else []
    return ", ".join([*parts, line["split"].replace("_", "-")])


def table() -> str:
    """What was measured: by data, best on validation first."""
    titles = ["data", "users", "items", "interactions, training", "median", "model", "validation", "test"]
    titles += ["epochs", "CPU seconds"]
    rows = []
    for line in sorted(read_lines(RESULTS), key=lambda line: (what(line), -line["validation"])):
        shape = line["shape"]
        sizes = [f"{shape[key]:,}" for key in ("users", "items", "interactions")]
        changes = "".join(f", {change.replace('=', ' ')}" for change in line["changes"])
        values = [value_cell(line["validation"]), value_cell(line["test"])]
        model = model_label(MODELS[line["model"]]) + changes
        epochs, seconds = line["recipe"]["training"]["num_train_epochs"], line["cpu_seconds"]
        rows.append([what(line), *sizes, f"{shape['median_length']:g}", model, *values, f"{epochs}", f"{seconds:,}"])
    return markdown_table(titles, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="NAME[=FILE]")
    parser.add_argument("--split", default="leave_one_out", choices=("leave_one_out", "temporal"))
    parser.add_argument("--users", type=share, default=1.0, help="share of the users")
    parser.add_argument("--newest", type=share, default=1.0, help="share of the interactions, the newest")
    parser.add_argument("--model", default="glintru", choices=sorted(MODELS))
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    add_line_or_page(parser, RESULTS, ("data",), measure, table)


if __name__ == "__main__":
    main()
