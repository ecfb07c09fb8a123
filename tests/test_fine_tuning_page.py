"""The tables on fine-tuning are what the file of results says."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_tables_are_what_the_results_give(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("fine_tuning")
    report = json.loads((ROOT / "benchmarks" / "results" / "fine_tuning.json").read_text(encoding="utf-8"))
    assert module.page(report) in (ROOT / "docs" / "fine_tuning.md").read_text(encoding="utf-8")
