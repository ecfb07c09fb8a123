"""The pages of results and the README's short form say what the files of results say."""

from __future__ import annotations

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


def test_the_readme_has_its_short_form(written):
    short = written.partition("## In short\n")[2].partition("\n![")[0].strip()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert short.count("|") > 20 and short in readme
