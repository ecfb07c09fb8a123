"""docs/results.md and the README's short form say what the files of results say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modeling_glintru.comparison import Results, load_protocol, make_page

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> str:
    """The page, rendered anew as if it lay where it lies."""
    folder = ROOT / "benchmarks" / "results" / "quality"
    page = tmp_path_factory.mktemp("page") / "results.md"
    make_page(load_protocol(), Results(folder), [], page)
    text = page.read_text(encoding="utf-8")
    return text.replace(os.path.relpath(folder, page.parent), os.path.relpath(folder, ROOT / "docs"))


def test_the_page_is_what_the_files_give(written):
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == written


def test_the_readme_has_its_short_form(written):
    short = written.partition("## In short\n")[2].partition("\n![")[0].strip()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert short.count("|") > 20 and short in readme
