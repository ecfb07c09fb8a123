"""The page: its numbers are those of the files, and it says only what they show."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest

from modeling_glintru.comparison import Results
from modeling_glintru.comparison.rows import MAIN, Row, row_label, verdict
from modeling_glintru.recipe import Recipe, change_recipe, load_recipe
from research.charts import draw_charts
from research.report import StudyReport, reached_in, short_form, verdicts
from research.results import make_reports, overrides, render, train_command, users_page

from ..comparison.helpers import lines


@pytest.fixture
def report(finished):
    job, _ = finished
    return StudyReport("toy", job.comparison, job.results, num_bootstrap=200)


def tables(page: str) -> list[list[dict[str, str]]]:
    """Every table of the page: rows of title to cell."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", page, flags=re.MULTILINE):
        cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in block.strip().splitlines()]
        found.append([dict(zip(cells[0], row, strict=True)) for row in cells[2:]])
    return found


def by_row(job, row):
    return [line for line in lines(job) if line["row"] == row and line["stage"] != "tune"]


def test_the_numbers_of_the_page_are_those_of_the_files(finished, tmp_path):
    job, _ = finished
    page = tmp_path / "results.md"
    reports = [StudyReport("toy", job.comparison, job.results)]
    charts = draw_charts(reports, page)
    text = render(reports, page)
    _short, main, differences, settings, ablations, progress = tables(text)
    labels = {"GLINT-RU": "glintru", "GLINT-RU (paper)": "paper", "GRU4Rec": "gru4rec"}
    labels |= {"Popularity": "popularity", "Item-kNN": "item_knn"}
    assert {row["model"] for row in main} == set(labels)
    served = "full_with_history"  # items recur in this set, so they are recommended again
    columns = {"HR@10": (served, "hr@10"), "MRR@10": (served, "mrr@10"), "NDCG@20": (served, "ndcg@20")}
    columns |= {"NDCG@10, past items excluded": ("full", "ndcg@10"), "NDCG@10, pop100": ("pop100", "ndcg@10")}
    for row in main:
        runs = by_row(job, labels[row["model"]])
        for title, (column, metric) in columns.items():
            assert row[title] == f"{np.mean([run['test'][column][metric] for run in runs]):.4f}"
        value = np.mean([run["test"][served]["ndcg@10"] for run in runs])
        shown, low, high = map(float, re.findall(r"[\d.]+", row["NDCG@10"]))
        assert shown == round(value, 4) and low <= value <= high
        assert (
            row["seeds"] == str(len(runs))
            and row["one user, ms"] == f"{np.median([r['latency_ms'] for r in runs]):.2f}"
        )
        assert row["parameters"] == (f"{runs[0]['parameters']:,}" if runs[0]["parameters"] else "–")
    assert [row["NDCG@10"] for row in main] == sorted((row["NDCG@10"] for row in main), reverse=True)
    keys = {key for row in settings for key in re.findall(r"`(\w+)`", row["keys"])}
    assert keys == {line["key"] for line in lines(job) if line["stage"] not in ("tune", "ablation")}
    assert [row["change"] for row in ablations] == ["no GRU"] and len(differences) == 4
    assert [row["trials of the search"] for row in progress] == ["3 of 3", "3 of 3"]
    link = re.search(r"\]\(([^)]*toy\.jsonl)\)", text)
    assert link and (page.parent / link[1]).resolve() == job.results.file("toy").resolve()
    assert [chart.name for chart, _ in charts] == [
        f"results_{kind}.png" for kind in ("quality", "training_time", "latency")
    ]
    short = users_page(reports, charts)
    for chart, _ in charts:
        assert chart.name in short and min(matplotlib.image.imread(chart).shape[:2]) > 200
    assert {row["model"] for row in tables(short)[1]} == set(labels)


def test_words_follow_the_intervals(report, tmp_path):
    text = render([report], tmp_path / "results.md")
    ((lead, others),) = report.leads
    assert others == [row for row in report.rows if row is not lead]
    rows = {row.label: row for row in report.rows if row is not lead}
    for cells in tables(text)[2]:
        value, low, high = report.difference(lead, rows[cells[f"{lead.label} minus"]])
        assert cells["NDCG@10 difference"] == f"{value:+.4f}" and cells["95 % interval"] == f"[{low:+.4f}, {high:+.4f}]"
        said = cells[f"{lead.label} is"]
        assert said == ("better" if low > 0 else "worse" if high < 0 else "open")
        sentence = next(line for line in text.splitlines() if line.startswith(f"{lead.label}, the row"))
        words = {"better": "better than", "worse": "worse than", "open": "not told apart from"}[said]
        assert rows[cells[f"{lead.label} minus"]].label in sentence.partition(words)[2].partition(";")[0]
    assert [verdict(*bounds) for bounds in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1), (0.0, 0.1))] == [
        *("better", "worse", "open", "open")
    ]


def test_times_of_several_machines_are_told_apart(report, tmp_path):
    assert "Only times of one machine" not in render([replace(report)], tmp_path / "results.md")
    key = next(key for key, line in report.lines.items() if line["row"] == "paper" and line["stage"] == "preset")
    report.lines[key] = report.lines[key] | {"processor": "A Faster One", "bf16": True}
    text = render([report], tmp_path / "results.md")
    assert "A Faster One, bf16" in text.partition("Only times of one machine compare: ")[2].splitlines()[0]
    marks = {row["model"]: re.findall(r"\((\w)\)", row["training, s"]) for row in tables(text)[1]}
    assert marks["GLINT-RU"] == marks["GRU4Rec"] != marks["GLINT-RU (paper)"] and marks["Popularity"] == []
    assert sorted({mark for found in marks.values() for mark in found}) == ["a", "b"]
    report.lines[key] = report.lines[key] | {"device": "cuda", "workers": 3}
    again = replace(report)
    again.lines[key] = report.lines[key]
    assert "A Faster One, bf16, 3 runs at a time" in render([again], tmp_path / "results.md")


def test_when_one_row_was_as_good_as_another(report):
    def run(values, seconds, device="cpu"):
        curve = [{"epoch": n + 1.0, "ndcg@10": value} for n, value in enumerate(values)]
        line = {"model": "glintru", "curve": curve, "cpu_seconds": seconds, "seconds": 1.0, "device": device}
        return (
            line
            | {"epochs_run": float(len(values)), "bf16": False, "processor": "P"}
            | {"validation": {"full": {"ndcg@10": max(values)}}}
        )

    lead = Row("best", "preset", [run([0.1, 0.3, 0.2, 0.4], 40.0), run([0.3, 0.3], 30.0), run([0.1, 0.3], 20.0)])
    other = Row("glintru", "final", [run([0.25, 0.1], 90.0), run([0.1, 0.15, 0.15], 60.0)])
    worse = Row("paper", "preset", [run([0.1], 5.0)])
    said = reached_in(report, lead, [worse, other])
    # 0.2 is the mean of the best values; it was passed after 20, 15 and 20 seconds.
    assert said == (
        "On validation GLINT-RU (best) passed the best of GLINT-RU (0.2000) after 20 s of its 30; GLINT-RU was trained "
        "for 75 s.\n"
    )
    assert reached_in(report, other, [lead]) == ""  # it never was
    elsewhere = Row("glintru", "final", [line | {"processor": "Q"} for line in other.lines])
    timed = Row("best", "preset", [line | {"recipe": {"model": {"use_time_gaps": True}}} for line in lead.lines])
    assert reached_in(report, lead, [elsewhere]) == reached_in(report, timed, [other]) == ""
    assert reached_in(report, lead, [elsewhere, other]) == said  # the one that was timed beside it
    assert reached_in(report, lead, [row for row in report.rows if row.stage == "reference"]) == ""


def test_the_short_form(report):
    """Trained rows first, each with its mean and its number of seeds; the best is in bold, what did not run a dash."""
    references = [row for row in report.rows if row.stage == "reference"]
    other = SimpleNamespace(name="other", metric=report.metric, rows=references, leads=[])
    assert short_form([]) == short_form([SimpleNamespace(rows=[])]) == ""
    text = short_form([report, other])
    (table,) = tables(text)
    rows = {row.label: row for row in report.rows}
    assert {cells["NDCG@10"] for cells in table} == set(rows)
    trained = [rows[cells["NDCG@10"]].stage != "reference" for cells in table]
    assert trained == sorted(trained, reverse=True)
    for cells in table:
        row = rows[cells["NDCG@10"]]
        value = f"{row.mean('test', MAIN, 'ndcg@10'):.4f}"
        shown = f"**{value}**" if row is report.rows[0] else value
        assert cells["toy"] == (shown if row in references else f"{shown} ({len(row.lines)})")
        assert cells["other"] == ("–" if row not in references else f"**{value}**" if row is references[0] else value)
    assert f"- toy: {verdicts(report)}" in text and "other:" not in text


def test_the_lead_is_chosen_on_validation(finished, tmp_path):
    """Test metrics turned upside down change the order of the table, and nobody's choice."""
    job, _ = finished
    shutil.copytree(job.folder, tmp_path / "results")
    turned = []
    for line in lines(job):
        for table in line["test"].values():
            table.update({name: 1 - value for name, value in table.items()})
        turned.append(json.dumps(line))
    (tmp_path / "results" / "toy.jsonl").write_text("\n".join(turned) + "\n", encoding="utf-8")
    clean, poison = (
        StudyReport("toy", job.comparison, results, num_bootstrap=10)
        for results in (job.results, Results(tmp_path / "results"))
    )
    assert [row.name for row in poison.rows] == [row.name for row in clean.rows][::-1]
    (found, _), (expected, _) = poison.leads[0], clean.leads[0]
    assert found.name == expected.name and poison.steps == clean.steps


def test_rows_that_see_the_time_have_a_lead_of_their_own(report, tmp_path):
    assert "time from the last item to the request" not in render([replace(report)], tmp_path / "results.md")
    for key, line in report.lines.items():
        if line["row"] in ("paper", "gru4rec") and line["stage"] != "ablation":
            recipe = line["recipe"] | {"model": line["recipe"]["model"] | {"use_time_gaps": True}}
            report.lines[key] = line | {"recipe": recipe}
    leads = {lead.label: {row.label for row in others} for lead, others in report.leads}
    ids = {"Popularity", "Item-kNN"}
    assert leads == {"GLINT-RU": ids, "GLINT-RU (paper)": {*ids, "GLINT-RU", "GRU4Rec"}}
    text = render([report], tmp_path / "results.md")
    assert re.search(r"GLINT-RU \(paper\) and GRU4Rec|GRU4Rec and GLINT-RU \(paper\)", text)
    assert "GLINT-RU (paper), with the time of the request, is" in verdicts(report)
    (table, *_) = tables(short_form([report]))
    bold = {cells["NDCG@10"] for cells in table if "**" in cells["toy"]}
    values = {row.label: row.mean("test", MAIN, "ndcg@10") for row in report.rows}
    timed = max(("GLINT-RU (paper)", "GRU4Rec"), key=values.get)
    assert bold == {timed, max(values.keys() - {"GLINT-RU (paper)", "GRU4Rec"}, key=values.get)}


@pytest.mark.parametrize(("overrides", "shown"), [([], ["no GRU"]), (["hidden_size=16"], []), (["use_gru=false"], [])])
def test_an_ablation_of_an_earlier_setting_is_not_shown_beside_the_row_as_it_is_now(report, overrides, shown):
    for key, line in report.lines.items():
        if line["row"] == "paper":
            recipe = change_recipe(Recipe.from_dict(line["recipe"]), overrides)
            report.lines[key] = line | {"recipe": recipe.to_dict()}
    assert [row.name.partition(": ")[2] for row in report.ablations] == shown


def test_a_row_without_a_search_of_its_own_is_marked(finished, tmp_path):
    job, _ = finished
    assert "†" not in render([StudyReport("toy", job.comparison, job.results, 10)], tmp_path / "page.md")
    shutil.copytree(job.folder, tmp_path / "results")
    kept = []
    for line in lines(job):
        if line["row"] == "gru4rec":
            if line["stage"] != "final" or line["seed"] != 1:
                continue
            line = line | {"setting_of": "glintru"}
        kept.append(json.dumps(line))
    (tmp_path / "results" / "toy.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    report = StudyReport("toy", job.comparison, Results(tmp_path / "results"), 10)
    text = render([report], tmp_path / "page.md")
    short, main, differences, settings, *_ = tables(text)
    value = next(row for row in report.rows if row.name == "gru4rec").mean("test", MAIN, "ndcg@10")
    cell = next(row for row in short if row["NDCG@10"] == "GRU4Rec")["toy"]
    assert cell.replace("**", "") == f"{value:.4f}† (1)"
    assert next(row for row in settings if row["model"] == "GRU4Rec†")["setting"].startswith("the draw of GLINT-RU's")
    assert "GRU4Rec†" in {row["model"] for row in main} & {row["GLINT-RU minus"] for row in differences}
    assert "† One run with the draw" in text and "GRU4Rec†" in verdicts(report)
    # With its own search in the file, too, the row is its own.
    searched = [*kept, *(json.dumps(line) for line in lines(job) if line["row"] == "gru4rec" and line["rung"] == 0)]
    (tmp_path / "results" / "toy.jsonl").write_text("\n".join(searched) + "\n", encoding="utf-8")
    assert "†" not in render([replace(report)], tmp_path / "page.md")


def test_at_any_moment(finished, tmp_path):
    job, _ = finished
    every = job.results.file("toy").read_text(encoding="utf-8").splitlines(keepends=True)
    results = Results(tmp_path / "results")
    output = tmp_path / "results.md"
    assert make_reports(job.comparison.protocol, results) == []
    assert "Nothing has run yet" in render([], output)
    assert draw_charts([], output) == []
    shutil.copytree(job.folder / "ranks", results.folder / "ranks")
    for count in range(1, len(every)):
        results.file("toy").write_text("".join(every[:count]), encoding="utf-8")
        report = StudyReport("toy", job.comparison, results, num_bootstrap=5)
        text = render([report], output)
        assert "## toy" in text and f"{count} lines" in text
    failed = json.loads(every[-1]) | {"status": "failed", "error": "no memory"}
    results.add(failed)
    assert f"`{failed['key']}` {failed['row']}: no memory" in render(
        [StudyReport("toy", job.comparison, results, num_bootstrap=5)], output
    )


def test_the_commands_run_the_same_again(finished):
    """`glintru train` with the printed changes has the recipe of the line, whatever recipe it starts from."""
    job, _ = finished
    for line in lines(job):
        if line["stage"] == "reference":
            continue
        recipe = Recipe.from_dict(line["recipe"])
        base = load_recipe("ml-1m", [f"model.name={line['model']}"])
        again = change_recipe(base, [*overrides(recipe, base), f"seed={recipe.seed}"])
        assert again.config(9).to_dict() == recipe.config(9).to_dict()
        assert again.training == recipe.training and again.seed == recipe.seed
        assert replace(again.data, source=None) == replace(recipe.data, source=None)
        assert train_command(line) is None  # no recipe is called toy
        command = train_command({**line, "data": "ml-1m"})
        assert command.startswith("glintru train --recipe ml-1m") and f"--seed {line['seed']}" in command


def test_labels():
    assert row_label("glintru", "glintru") == "GLINT-RU" and row_label("best", "glintru") == "GLINT-RU (best)"
    assert row_label("bsarec", "bsarec") == "BSARec" and row_label("item_knn", "item_knn") == "Item-kNN"
