"""A model of the past, fine-tuned on the next slice of time and measured on the rest.

    python -m research.fine_tuning --ml_1m interactions.parquet --beauty interactions.parquet
    python -m research.fine_tuning --page

The first line measures (about 20 minutes of one core) and the second writes the tables of docs/fine_tuning.md from
what it left in research/records/fine_tuning.json.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from modeling_glintru.comparison.rows import interval, resampled_rows
from modeling_glintru.comparison.run_trial import commit
from modeling_glintru.data import Interactions, PreparedData, read_interactions
from modeling_glintru.data.prepare import prepare
from modeling_glintru.evaluation import ModelScorer, evaluate, library_versions
from modeling_glintru.evaluation.metrics import per_user_metrics
from modeling_glintru.machine import processor_name
from modeling_glintru.models.loading import load_model_folder
from modeling_glintru.recipe import FineTuningRecipe, Recipe, load_recipe
from modeling_glintru.training.start import Start

from .experiments import train_aside

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "research" / "records" / "fine_tuning.json", ROOT / "docs" / "fine_tuning.md"
EPOCHS = 0.25  # of the first training
LORA_RANK = 8


def arrivals(file: str) -> Interactions:
    """MovieLens-1M on one axis of time: its users one after another, each with all items.

    The file has positions in the history in place of times, but GroupLens numbered the users from the last to the
    first: films of autumn 2000 are rated by low numbers. Nearly everybody rated everything in one sitting.
    """
    read = read_interactions(file)
    time_axis = (pl.col("user_id").max() - pl.col("user_id")) * 10_000 + pl.col("timestamp")
    return replace(read, frame=read.frame.with_columns(time_axis.alias("timestamp")))


DATA: dict[str, Any] = {
    "ml-1m": {
        "read": arrivals,
        "past": 0.6,
        "slice": 0.2,
        "recipe": ("ml-1m", ["hidden_size=64", "num_attention_heads=4", "num_train_epochs=12", "warmup_steps=100"]),
        "factors": (1.0, 0.5, 0.25, 0.1),  # of the learning rate, tried on validation
        "lora_factors": (1.0, 2.5),
    },
    "amazon-beauty": {
        "read": read_interactions,
        "past": 0.7,
        "slice": 0.15,
        "recipe": ("amazon-beauty", ["num_train_epochs=8", "learning_rate=2e-3", "warmup_steps=100"]),
        "factors": (1.0, 0.25),
        "lora_factors": (1.0,),
    },
}


class Padded:
    """A model with fewer items than the vocabulary: those that it lacks score minus infinity, so they are missed."""

    def __init__(self, scorer: ModelScorer, vocab_size: int) -> None:
        self.scorer, self.vocab_size = scorer, vocab_size

    def __call__(self, histories: Any) -> torch.Tensor:
        known = self.scorer.model.config.vocab_size
        scores = self.scorer([history[history < known] for history in histories])
        return torch.nn.functional.pad(scores, (0, self.vocab_size - known), value=-torch.inf)


def cut(read: Interactions, past: float, part: float) -> tuple[Any, Any]:
    """The times that end the past and the slice."""
    times = np.sort(read.frame["timestamp"].to_numpy())
    return times[int(len(times) * past)], times[int(len(times) * (past + part))]


def only(read: Interactions, rows: pl.Expr) -> Interactions:
    return replace(read, frame=read.frame.filter(rows))


def of_users(read: Interactions, rows: pl.Expr) -> pl.Expr:
    """The rows of all users who have one of `rows`."""
    users = read.frame.filter(rows)["user_id"].unique().implode()
    return pl.col("user_id").is_in(users)


def trained(recipe: Recipe, data: PreparedData, start: Start | None = None) -> tuple[Any, dict[str, Any]]:
    """A model, and the CPU time and validation of its training."""
    result, seconds = train_aside(recipe, data, start)
    best = max(entry["eval_ndcg@10"] for entry in result.log_history if "eval_ndcg@10" in entry)
    numbers = {
        "cpu_minutes": round(seconds / 60, 2),
        "epochs": round(max(entry["epoch"] for entry in result.log_history)),
        "best_epoch": result.best_epoch,
        "validation_ndcg@10": round(best, 4),
        "learning_rate": recipe.training.learning_rate,
    }
    return result.model, numbers


def tuned(recipe: Recipe, start: Start, factor: float, **settings: Any) -> tuple[Recipe, Start]:
    training = replace(
        recipe.training,
        learning_rate=recipe.training.learning_rate * factor,
        num_train_epochs=math.ceil(recipe.training.num_train_epochs * EPOCHS),
        warmup_steps=0,
    )
    start = replace(start, settings=replace(start.settings, **settings))
    return start.fitted(replace(recipe, training=training)), start


def measure(name: str, file: str, other_shop: str | None = None) -> Iterator[dict[str, Any]]:
    """All figures of one data set; gives those that there are after each training, the most wanted first.

    Args:
        name: In `DATA`.
        file: Its interactions.
        other_shop: Folder of a model of the same sizes for other items, whose block is to start from.
    """
    about = DATA[name]
    read = about["read"](file)
    recipe = load_recipe(*about["recipe"])
    first, second = cut(read, about["past"], about["slice"])
    when = pl.col("timestamp")
    in_past, in_slice, in_future = when < first, (when >= first) & (when < second), when >= second
    past = prepare(only(read, in_past))
    known = past.processor
    slice_alone = prepare(only(read, in_slice), processor=known, add_items=True)
    grown = slice_alone.processor
    whole = prepare(only(read, of_users(read, in_slice) & (when < second)), processor=grown)
    until_now = prepare(only(read, when < second), processor=grown)
    future = prepare(only(read, of_users(read, in_future)), processor=grown)
    gone = prepare(only(read, in_past & ~of_users(read, in_slice | in_future)), processor=grown)
    future_target = np.asarray(future.dataset["test"]["target"])
    sets = {
        "future": future.dataset["test"],
        "past": gone.dataset["test"],
        "new_items": future.dataset["test"].select(np.flatnonzero(future_target >= known.vocab_size)),
    }
    users = {
        part: set(only(read, rows).frame["user_id"])
        for part, rows in (("past", in_past), ("slice", in_slice), ("future", in_future))
    }
    counts = {
        "interactions": {
            part: int(read.frame.select(rows.sum()).item())
            for part, rows in (("past", in_past), ("slice", in_slice), ("future", in_future))
        },
        "users": {part: len(found) for part, found in users.items()},
        "new_users_in_slice": len(users["slice"] - users["past"]),
        "new_users_in_future": len(users["future"] - users["past"] - users["slice"]),
        "items_of_past": len(known),
        "new_items_in_slice": len(grown) - len(known),
        "items_only_in_future": future.summary["unknown_to_model"],
        "evaluated": {split: len(rows) for split, rows in sets.items()},
    }
    print(name, json.dumps(counts, indent=1), flush=True)
    ranks: dict[str, dict[str, np.ndarray]] = {}
    runs: dict[str, dict[str, Any]] = {}
    length = recipe.training.max_length

    def record(row: str, model: Any, **numbers: Any) -> None:
        scorer: Any = ModelScorer(model, length)
        if model.config.vocab_size < grown.vocab_size:
            scorer = Padded(scorer, grown.vocab_size)
        ranks[row] = {
            split: per_user_metrics(evaluate(scorer, rows, progress=False).ranks["full"], (10,))["ndcg@10"]
            for split, rows in sets.items()
            if len(rows)
        }
        runs[row] = numbers
        print(row, {split: round(float(values.mean()), 4) for split, values in ranks[row].items()}, numbers, flush=True)

    report = {"recipe": recipe.to_dict(), "counts": counts, "runs": runs}
    old, numbers = trained(recipe, past)
    record("as it was", old, **numbers)
    start = Start(old, known, FineTuningRecipe(from_model="past", items="add"))
    if len(grown) > len(known):
        for init in ("mean", "neighbours"):
            initial = replace(start, settings=replace(start.settings, new_vectors=init)).model_for(recipe, until_now)
            record(f"items added ({init}), not trained", initial)
    best: dict[str, float] = {}
    for factor in about["factors"]:
        model, numbers = trained(*_arguments(recipe, whole, start, factor))
        best[f"fine-tuned, × {factor:g}"] = numbers["validation_ndcg@10"]
        record(f"fine-tuned, × {factor:g}", model, **numbers)
    chosen = report["chosen"] = max(best, key=lambda row: best[row])
    model, numbers = trained(recipe, until_now)
    record("trained anew on past and slice", model, **numbers)
    yield report | {"ndcg@10": _intervals(ranks, chosen)}
    if counts["new_users_in_slice"] < 0.9 * len(users["slice"]):  # else it is the same data
        model, numbers = trained(*_arguments(recipe, slice_alone, start, float(chosen.split()[-1])))
        record("fine-tuned on new interactions alone", model, **numbers)
    model, numbers = trained(recipe, whole)
    record("trained anew on the slice", model, **numbers)
    yield report | {"ndcg@10": _intervals(ranks, chosen)}
    if find_spec("peft"):
        for factor in about["lora_factors"]:
            model, numbers = trained(*_arguments(recipe, whole, start, factor, lora_rank=LORA_RANK))
            record(f"LoRA of rank {LORA_RANK}, × {factor:g}", model, **numbers)
    report["ndcg@10"] = _intervals(ranks, chosen)
    yield report
    if other_shop is not None:
        for report["another_shop"] in another_shop(recipe, only(read, in_past), other_shop):
            yield report


def another_shop(recipe: Recipe, read: Interactions, folder: str) -> Iterator[dict[str, Any]]:
    """From new weights, and from another shop's block: on every tenth user alone, and on all."""
    settings = FineTuningRecipe(from_model=Path(folder).name, items="new")
    start = Start(*load_model_folder(folder), settings)
    found: dict[str, Any] = {}
    for share, every in (("every tenth user", 10), ("all users", 1)):
        users = read.frame["user_id"].unique().sort().gather_every(every).implode()
        data = prepare(only(read, pl.col("user_id").is_in(users)))
        values, numbers = {}, {}
        for row, begin in (("new weights", None), ("the other shop's block", start)):
            fitted = recipe if begin is None else begin.fitted(recipe)
            model, numbers[row] = trained(fitted, data, begin)
            evaluation = evaluate(ModelScorer(model, recipe.training.max_length), data.dataset["test"], progress=False)
            values[row] = {"past": per_user_metrics(evaluation.ranks["full"], (10,))["ndcg@10"]}
            print(share, row, float(values[row]["past"].mean()), numbers[row], flush=True)
        found[share] = {
            "users": data.summary["test_users"],
            "runs": numbers,
            "ndcg@10": _intervals(values, "the other shop's block")["past"],
        }
        yield found


def _arguments(recipe: Recipe, data: PreparedData, start: Start, factor: float, **settings: Any) -> Any:
    recipe, start = tuned(recipe, start, factor, **settings)
    return recipe, data, start


def _intervals(ranks: dict[str, dict[str, np.ndarray]], chosen: str) -> dict[str, Any]:
    """By evaluated set and row: value, 95 % interval over users, and the paired difference of the chosen run to it."""
    found: dict[str, Any] = {}
    for split in next(iter(ranks.values())):
        samples = resampled_rows({row: [values[split]] for row, values in ranks.items()})
        found[split] = {
            row: {
                "value": float(ranks[row][split].mean()),
                "interval": interval(samples[row]),
                "chosen_minus_this": float(ranks[chosen][split].mean() - ranks[row][split].mean()),
                "difference_interval": interval(samples[chosen] - samples[row]),
            }
            for row in ranks
        }
    return found


def page(report: dict[str, Any]) -> str:
    """The tables of docs/fine_tuning.md."""
    parts = []
    for name, data in report["data"].items():
        counts = data["counts"]
        sizes = ", ".join(
            f"{part} {counts['interactions'][part]:,} interactions of {counts['users'][part]:,} users"
            for part in ("past", "slice", "future")
        )
        parts.append(
            f"### {TITLES[name]}\n\n{sizes}. New in the slice: {counts['new_users_in_slice']:,} users and "
            f"{counts['new_items_in_slice']:,} items; new in the future: {counts['new_users_in_future']:,} users, and "
            f"{counts['items_only_in_future']['items']:,} items that nobody can know (left out). "
            f"Evaluated: "
            + ", ".join(f"{COLUMNS[split]} {count:,}" for split, count in counts["evaluated"].items() if count)
            + ".\n"
        )
        parts.append(_table(data))
        if "another_shop" in data:
            parts.append(_other_shop_table(data["another_shop"]))
    return "\n".join(parts)


TITLES = {
    "ml-1m": "MovieLens-1M, users in the order of their arrival",
    "amazon-beauty": "Amazon Beauty 2014, by time",
}
COLUMNS = {"future": "future", "past": "past", "new_items": "future, target new in the slice"}


def _value(entry: dict[str, Any]) -> str:
    low, high = entry["interval"]
    return f"{entry['value']:.4f} [{low:.4f}, {high:.4f}]"


def _difference(entry: dict[str, Any]) -> str:
    low, high = entry["difference_interval"]
    return f"{entry['chosen_minus_this']:+.4f} [{low:+.4f}, {high:+.4f}]"


def _table(data: dict[str, Any]) -> str:
    splits = list(data["ndcg@10"])
    chosen = data["chosen"]
    head = ["", *(COLUMNS[split] for split in splits), "chosen minus this, future", "validation", "epochs", "minutes"]
    lines = [head, ["---"] * len(head)]
    for row, run in data["runs"].items():
        entries = [data["ndcg@10"][split][row] for split in splits]
        numbers = [run.get(key, "") for key in ("validation_ndcg@10", "epochs", "cpu_minutes")]
        title = f"**{row}** (chosen)" if row == chosen else row
        difference = "" if row == chosen else _difference(entries[0])
        lines.append([title, *map(_value, entries), difference, *map(str, numbers)])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def _other_shop_table(data: dict[str, Any]) -> str:
    head = ["trained on", "from", "NDCG@10", "block minus this", "best epoch", "minutes"]
    lines = [head, ["---"] * len(head)]
    for share, found in data.items():
        for row, entry in found["ndcg@10"].items():
            run = found["runs"][row]
            difference = "" if row.endswith("block") else _difference(entry)
            where = f"{share} of the past ({found['users']:,})"
            lines.append([where, row, _value(entry), difference, f"{run['best_epoch']:g}", str(run["cpu_minutes"])])
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return (
        f"Another shop: the block of a model of Amazon Video Games, `--items new`, on the past of Beauty.\n\n{table}\n"
    )


def write_page(report: dict[str, Any]) -> None:
    """Puts the tables between their marks."""
    text = PAGE.read_text(encoding="utf-8")
    begin = text.index("-->\n", text.index("<!-- tables")) + 4
    end = text.index("<!-- end of tables -->")
    PAGE.write_text(f"{text[:begin]}\n{page(report)}\n{text[end:]}", encoding="utf-8")
    print(f"written: {PAGE}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ml_1m", help="MovieLens-1M: user, item and position in the history, users by their own ids")
    parser.add_argument("--beauty", help="Amazon Beauty 2014 with times")
    parser.add_argument("--other_shop", help="for Beauty: model folder of glintru train --recipe amazon-video-games")
    parser.add_argument("--page", action="store_true", help="only write the page from the results")
    args = parser.parse_args()
    files = {"ml-1m": args.ml_1m, "amazon-beauty": args.beauty}
    if not args.page:
        report = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"data": {}}
        machine = {"processor": processor_name("cpu"), "threads": torch.get_num_threads()}
        report |= {"machine": machine, "versions": library_versions(), "commit": commit()}
        for name, file in files.items():
            if file is not None:
                for figures in measure(name, file, args.other_shop if name == "amazon-beauty" else None):
                    report["data"][name] = figures
                    RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    write_page(json.loads(RESULTS.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
