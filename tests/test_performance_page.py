"""The page on performance says what the files of results say."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def writer(monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("write_performance")
    monkeypatch.setattr(module.page_parts, "DOCS", tmp_path)
    return module


def test_the_page_is_what_the_results_give(writer, tmp_path):
    assert writer.page() == (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    for picture in tmp_path.glob("*.png"):
        assert (ROOT / "docs" / picture.name).exists()
    assert len(list(tmp_path.glob("*.png"))) == 4
