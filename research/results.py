"""The pages of results, `docs/results.md` for users and `research/results.md` with all of it, from what has run.

python -m research.results
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from modeling_glintru.comparison.page import bounds_cell, markdown_table, signed, signed_bounds, value_cell
from modeling_glintru.comparison.plan import flat
from modeling_glintru.comparison.results import Results, main_column
from modeling_glintru.comparison.rows import MAIN, OTHER, row_label, verdict
from modeling_glintru.comparison.trials import FINAL, REFERENCE, TUNE
from modeling_glintru.data.sources import NAMED_SOURCES
from modeling_glintru.models.auto import MODELS
from modeling_glintru.models.losses import LossConfig
from modeling_glintru.recipe import (
    DataRecipe,
    Recipe,
    TrainingRecipe,
    flat_loss,
    list_recipes,
    load_recipe,
    model_fields,
)

from .charts import draw_charts
from .protocol import FOLDER, RECORDS, Protocol, load_protocol, study
from .report import StudyReport, base_label, parts, reached_in, short_form, verdicts

__all__ = ["PAGE", "USERS_PAGE", "fill", "make_reports", "render", "train_command", "users_page"]

PAGE, USERS_PAGE = FOLDER / "results.md", FOLDER.parent / "docs" / "results.md"
NOT_SET = ("name", "max_position_embeddings", "source", "item_titles")  # `max_length` says how many positions
KEEP = {"duplicates": "keep"}  # what the comparison has; the data sets of the recipes have no copies
BORROWED = """
† One run with the draw that the best search on the data set chose. The model's own search has not run: it may find
better.
"""
TIMED = """
Given also the time from the last item to the request, as a running shop knows it and the other rows do not: {rows}. The
best of these is in bold too.
"""


def fill(template: str, **values: str) -> str:
    """A text of `research/templates`, with values in place of its `{names}`."""
    text = (FOLDER / "templates" / f"{template}.md").read_text(encoding="utf-8")
    return text.format(**values).rstrip("\n") + "\n"


def make_reports(protocol: Protocol, results: Results, names: Sequence[str] = ()) -> list[StudyReport]:
    """A report for each data set that has results, or for those that are named."""
    chosen = names or [name for name in protocol.data if results.file(name).is_file()]
    comparison = study(protocol, {name: protocol.data_set(name) for name in chosen})
    return [StudyReport(name, comparison, results) for name in chosen]


def render(reports: Sequence[StudyReport], page: Path = PAGE) -> str:
    """The page with everything, as Markdown."""
    prefixes = sorted(row_label(name, name) for name, kind in MODELS.items() if kind.training_examples == "prefixes")
    data_sets = [part for report in reports for part in _data_set(report, page)]
    return fill(
        "results",
        introduction=fill("introduction", prefixes=", ".join(prefixes)),
        short=_short(reports),
        data_sets="\n".join(data_sets) if data_sets else "Nothing has run yet.\n",
    )


def users_page(reports: Sequence[StudyReport], charts: Sequence[tuple[Path, str]]) -> str:
    """The page for users: the figures and what they mean."""
    pictures = "\n".join(f"![{title}]({file.name})\n" for file, title in charts)
    return fill(
        "docs_results",
        short=_short(reports),
        charts=pictures,
        data_sets="\n".join(_users_table(report) for report in reports if report.rows),
    )


def _short(reports: Sequence[StudyReport]) -> str:
    table = short_form(reports)
    if not table:
        return ""
    borrowed = BORROWED if any(row.mark for report in reports for row in report.rows) else ""
    timed = list(dict.fromkeys(row.label for report in reports for row in report.rows if row.knows_time))
    return fill("short", borrowed=borrowed, timed=TIMED.format(rows=" and ".join(timed)) if timed else "", table=table)


def _users_table(report: StudyReport) -> str:
    counts, metric = report.counts, report.metric
    table = []
    for row in report.rows:
        mark = report.machine_marks.get(row.machine, "")
        cells = [row.label, f"{value_cell(row.mean('test', MAIN, metric))} {bounds_cell(report.interval(row))}"]
        cells += [value_cell(row.mean("test", MAIN, name)) for name in ("hr@10", "mrr@10")]
        cells += [f"{row.parameters:,}" if row.parameters else "–", f"{row.seconds:,.0f}{mark}"]
        table.append([*cells, f"{row.latency:.2f}{mark}"])
    titles = ["model", metric.upper(), "HR@10", "MRR@10", "parameters", "training, s", "one user, ms"]
    size = f"{counts['users']:,} users, {counts['items']:,} items, {counts['interactions']:,} interactions."
    return f"## {report.name}\n\n{size}{_machines(report)}\n\n{markdown_table(titles, table)}"


def _machines(report: StudyReport) -> str:
    marks = "; ".join(f"{mark.strip()} {machine}" for machine, mark in report.machine_marks.items())
    return f" Only times of one machine compare: {marks}." if marks else ""


def _data_set(report: StudyReport, path: Path) -> list[str]:
    if not report.lines:
        return []
    counts = report.counts
    size = (
        f"{counts['users']:,} users, {counts['items']:,} items, {counts['interactions']:,} interactions; "
        f"{counts['test_users']:,} test users. "
        if counts
        else ""
    )
    file = os.path.relpath(report.results.file(report.name), path.parent)
    parts = [f"## {report.name}\n", f"{size}Every figure is in [{report.name}.jsonl]({file}), by the keys below.\n"]
    if report.rows:
        parts += [_main_table(report), *_differences(report), _settings(report)]
    parts += [*_ablations(report), _progress(report), _origin(report), *_commands(report)]
    return parts


def _main_table(report: StudyReport) -> str:
    metric, marks = report.metric, report.machine_marks
    others = [name for name in ("ndcg@10", "hr@10", "mrr@10", "ndcg@20") if name != metric]
    titles = ["model", metric.upper(), *(name.upper() for name in others)]
    other = "past items excluded" if report.recommends_seen else "past items too"
    titles += [f"{metric.upper()}, {other}", f"{metric.upper()}, pop100"]
    titles += ["parameters", "training, s", "one user, ms", "seeds"]
    table = []
    for row in report.rows:
        cells = [row.label, value_cell(row.mean("test", MAIN, metric)) + " " + bounds_cell(report.interval(row))]
        cells += [value_cell(row.mean("test", MAIN, name)) for name in others]
        cells += [value_cell(row.mean("test", column, metric)) for column in (OTHER, "pop100")]
        mark = marks.get(row.machine, "")
        cells += [f"{row.parameters:,}" if row.parameters else "–", f"{row.seconds:,.0f}{mark}"]
        table.append([*cells, f"{row.latency:.2f}{mark}", str(len(row.lines))])
    machines = _machines(report).strip()
    return markdown_table(titles, table) + (f"\n{machines}\n" if machines else "")


def _differences(report: StudyReport) -> list[str]:
    if not report.leads:
        return []
    metric = report.metric.upper()
    ranked = "past items ranked too" if report.recommends_seen else "past items excluded"
    parts = [f"{verdicts(report)} ({metric}, {ranked}.)\n"]
    for lead, others in report.leads:
        table: list[list[str]] = []
        for row in others:
            value, low, high = report.difference(lead, row)
            table.append([row.label, signed(value), signed_bounds(low, high), verdict(low, high)])
        titles = [f"{lead.label} minus", f"{metric} difference", "95 % interval", f"{lead.label} is"]
        parts.append(markdown_table(titles, table))
        if sentence := reached_in(report, lead, others):
            parts.append(sentence)
    return parts


def _settings(report: StudyReport) -> str:
    metric = report.metric
    table = []
    for row in report.rows:
        line = row.lines[0]
        setting = ", ".join(f"{key} {value}" for key, value in flat(line["setting"] or {}).items()) or "fixed"
        if row.mark:
            setting = f"the draw of {row_label(line['setting_of'], line['setting_of'])}'s search: {setting}"
        epochs = ", ".join(f"{entry['best_epoch']:g}" for entry in row.lines if "best_epoch" in entry) or "–"
        keys = " ".join(f"`{entry['key']}`" for entry in row.lines)
        table.append([row.label, setting, value_cell(row.mean("validation", MAIN, metric)), epochs, keys])
    return markdown_table(["model", "setting", f"validation {metric.upper()}", "best epochs", "keys"], table)


def _ablations(report: StudyReport) -> list[str]:
    if not report.ablations:
        return []
    metric, table = report.metric, []
    for row in report.ablations:
        base = report.base(row)
        value = value_cell(row.mean("test", MAIN, metric))
        cells = [base_label(row), parts(row)[1], value, "–", "–", "–"]
        if base is not None:
            difference, low, high = report.difference(row, base)
            cells[3:] = [signed(difference), signed_bounds(low, high), verdict(low, high)]
        cells += [f"{row.parameters:,}", f"{row.seconds:,.0f}", " ".join(f"`{line['key']}`" for line in row.lines)]
        table.append(cells)
    titles = ["row", "change", metric.upper(), "difference", "95 % interval", "is", "parameters", "training, s", "keys"]
    return ["### Ablations\n", markdown_table(titles, table)]


def _progress(report: StudyReport) -> str:
    """What has run of what is planned, and what failed."""
    metric = report.metric
    table = []
    for model in (row for row in report.comparison.protocol.models if row in report.comparison.rows[report.name]):
        cells, found = [row_label(model, model)], []
        for stage in (TUNE, FINAL):
            steps = [step for step in report.steps if step.row == model and step.stage == stage]
            lines = [report.lines[t.key] for step in steps for t in step.trials if t.key in report.lines]
            planned = sum(len(step.trials) + step.undecided for step in steps)
            cells.append(f"{len(lines)} of {planned}")
            found += lines
        tuned = [line for line in found if line["stage"] == TUNE and line["status"] == "done"]
        best = max((line["validation"][main_column(line)][metric] for line in tuned), default=None)
        if found:
            table.append([*cells, value_cell(best)])
    text = ""
    if table:
        titles = ["model", "trials of the search", "final runs", f"best trial, validation {metric.upper()}"]
        text += "What has run:\n\n" + markdown_table(titles, table)
    failed = [line for line in report.lines.values() if line["status"] == "failed"]
    if failed:
        text += "\nFailed:\n\n" + "".join(f"- `{line['key']}` {line['row']}: {line['error']}\n" for line in failed)
    return text


def _commands(report: StudyReport) -> list[str]:
    source = report.comparison.data[report.name].data.source
    data = f"--data {report.name}" + ("" if source == report.name else "=FILE")
    bases = sorted({parts(row)[0] for row in report.ablations})
    commands = [f"python -m research.compare {data}"]
    commands += [f"python -m research.compare {data} --models {base} --ablate {base}" for base in bases]
    text = "All of it again, from an empty folder (`--results`), and this page:\n\n"
    text += _code([*commands, "python -m research.results"])
    trained = [row for row in report.rows if row.stage != REFERENCE]
    singles = [command for row in trained if (command := train_command(row.lines[0]))]
    if singles:
        text += "\n<details><summary>One run of each row</summary>\n\n" + _code(singles) + "\n</details>\n"
    return [text]


def _origin(report: StudyReport) -> str:
    """Which code and which machine the lines are from."""
    lines = [line for line in report.lines.values() if line["status"] == "done"]
    commits = ", ".join(sorted({str(line["commit"]) for line in lines}))
    versions = sorted({f"torch {line['versions']['torch']}, glintru {line['versions']['glintru']}" for line in lines})
    trained = [line for line in lines if line["stage"] != REFERENCE]
    kinds = sorted({f"{line['device']}, {'bf16' if line['bf16'] else 'fp32'}" for line in trained})
    threads = sorted({str(line["threads"]) for line in lines})
    return (
        f"{len(report.lines)} lines, at the commits {commits}; {'; '.join(versions)}; on {' and '.join(kinds)}; "
        f"threads: {', '.join(threads)}.\n"
    )


def _code(lines: Sequence[str]) -> str:
    return "```bash\n" + "\n".join(lines) + "\n```\n"


def train_command(line: dict[str, Any]) -> str | None:
    """`glintru train …` with the recipe and seed of a line; None where no recipe has the name of the data set."""
    data, model = line["data"], line["model"]
    if data not in list_recipes():
        return None
    recipe, base = Recipe.from_dict(line["recipe"]), load_recipe(data, [f"model.name={model}"])
    words = ["glintru", "train", "--recipe", data]
    words += ["--model", model] if model != "glintru" else []
    words += [] if data in NAMED_SOURCES else ["--data", "FILE"]
    words += ["--seed", str(recipe.seed), "--output_dir", f"outputs/{data}-{line['row']}"]
    for change in overrides(recipe, base):
        words += ["--set", change]
    return shlex.join(words)


def overrides(recipe: Recipe, base: Recipe) -> list[str]:
    """The texts for `--set` with which `base` computes what `recipe` does."""
    pairs = []
    config, base_config = recipe.config(2), base.config(2)
    for name in model_fields(config.model_type):
        if name not in NOT_SET:
            pairs.append((name, getattr(config, name), getattr(base_config, name)))
    loss, base_loss = (flat_loss(asdict(LossConfig(**part.loss))) for part in (recipe, base))
    pairs += [(name, value, base_loss[name]) for name, value in loss.items()]
    for section, kind in (("training", TrainingRecipe), ("data", DataRecipe)):
        for item in fields(kind):
            if item.name not in NOT_SET:
                values = (getattr(getattr(part, section), item.name) for part in (recipe, base))
                pairs.append((item.name, *values))
    return [
        f"{name}={json.dumps(value)}" for name, value, before in pairs if value != before and value != KEEP.get(name)
    ]


def main() -> None:
    """Writes both pages and the charts."""
    reports = make_reports(load_protocol(), Results(RECORDS))
    charts = draw_charts(reports, USERS_PAGE)
    USERS_PAGE.write_text(users_page(reports, charts), encoding="utf-8")
    PAGE.write_text(render(reports), encoding="utf-8")
    print("Written: " + ", ".join(map(str, [PAGE, USERS_PAGE, *(file for file, _ in charts)])))


if __name__ == "__main__":
    main()
