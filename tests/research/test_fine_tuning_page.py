"""The tables on fine-tuning are what the file of results says."""

from __future__ import annotations

import json

from research.fine_tuning import PAGE, RESULTS, page


def test_the_tables_are_what_the_results_give():
    report = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert page(report) in PAGE.read_text(encoding="utf-8")
