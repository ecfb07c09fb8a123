"""The pages of results and the README's short form say what the files of results say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from modeling_glintru.comparison import Results
from research.charts import draw_charts
from research.protocol import RECORDS, load_protocol
from research.results import PAGE, USERS_PAGE, make_reports, render, users_page

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def reports():
    return make_reports(load_protocol(), Results(RECORDS))


@pytest.fixture(scope="module")
def written(reports, tmp_path_factory) -> str:
    """The users' page."""
    return users_page(reports, draw_charts(reports, tmp_path_factory.mktemp("page") / "results.md"))


def test_the_pages_are_what_the_files_give(reports, written):
    assert PAGE.read_text(encoding="utf-8") == render(reports)
    assert USERS_PAGE.read_text(encoding="utf-8") == written


def test_the_users_page_is_short(written):
    assert len(written.splitlines()) <= 150


ROWS_OF_THE_README = {
    "GLINT-RU, recipe `-best`": "GLINT-RU (best)",
    "SASRec, trained in the same way": "SASRec (sasrec_like_best)",
    "SASRec, best of its own search": "SASRec",
    "Mamba4Rec": "Mamba4Rec",
}


def rows(page: str) -> dict[str, list[str]]:
    """The rows of the first table of a page with `GLINT-RU` in it: figures without their number of seeds."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:2] == "| "]
    return {line[0]: [re.sub(r" \(\d\)|\*", "", cell) for cell in line[1:]] for line in reversed(lines)}


def test_the_readme_has_four_rows_of_it(written):
    short = rows(written.partition("## In short\n")[2].partition("\n![")[0])
    readme = rows((ROOT / "README.md").read_text(encoding="utf-8"))
    for name, row in ROWS_OF_THE_README.items():
        figures = [cell.replace("†", "") for cell in readme[name]]
        assert figures == [cell.replace("†", "") for cell in short[row]], name
    lead = re.findall(r"^- (ml-1m|ml-100k): GLINT-RU \(best\), .* is better than (.*?)\.", written, re.MULTILINE)
    assert len(lead) == 2 and all({"SASRec", "Mamba4Rec"} <= set(re.findall(r"\w+", text)) for _, text in lead)
    open_sets = re.findall(
        r"^- (amazon-\S+): .*?not told apart from SASRec \(sasrec_like_best\)", written, re.MULTILINE
    )
    assert open_sets == ["amazon-beauty", "amazon-video-games"]
