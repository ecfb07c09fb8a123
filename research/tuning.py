"""Writes research/tuning.md from what was tried: python -m research.tuning

Each line of `records/exploration/validation.jsonl` is one training with one seed: the recipe and its overrides, NDCG@10
on validation after each epoch, and for some `scratch_code`, a change that did not stay in the package.
"""

from __future__ import annotations

from modeling_glintru.comparison.page import markdown_table, value_cell

from .default_rule import table as default_rule
from .experiments import read_lines
from .few_to_validate import table as few_to_validate
from .last_item_out import table as last_item_out
from .protocol import FOLDER
from .results import fill

SOURCE = FOLDER / "records" / "exploration" / "validation.jsonl"
PAGE = FOLDER / "tuning.md"
BETWEEN = (3, 6, 9, 12)  # epochs at which lines that were stopped can be compared


def table(recipe: str, lines: list[dict]) -> str:
    """One data set, best first, those stopped by hand at the end."""
    titles = ["overrides", "best", "epoch", "epochs", *(f"at epoch {epoch}" for epoch in BETWEEN)]
    rows = []
    for line in sorted(lines, key=lambda line: (line["stopped_by_hand"], -line["best"])):
        overrides = dict(override.split("=", 1) for override in line["overrides"])  # a later one wins
        names = ", ".join(f"{key} {value}" for key, value in overrides.items() if key != "early_stopping_patience")
        changed = "; ".join(filter(None, (names, line.get("scratch_code")))) or "the recipe"
        epochs = f"{len(line['validation_ndcg10'])}{', stopped' if line['stopped_by_hand'] else ''}"
        curve = line["validation_ndcg10"]
        between = [value_cell(curve[epoch - 1] if epoch <= len(curve) else None) for epoch in BETWEEN]
        rows.append([changed, value_cell(line["best"]), str(line["best_epoch"]), epochs, *between])
    return f"## {recipe}\n\n" + markdown_table(titles, rows)


def page() -> str:
    """The whole page."""
    lines = read_lines(SOURCE)
    recipes = sorted({line["recipe"] for line in lines})
    return fill(
        "tuning",
        last_item_out=last_item_out(),
        default_rule=default_rule(),
        few_to_validate=few_to_validate(),
        recipes="\n".join(table(recipe, [line for line in lines if line["recipe"] == recipe]) for recipe in recipes),
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"Written: {PAGE}")
