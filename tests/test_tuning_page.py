"""docs/tuning.md says what its file says."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_page_is_the_file():
    written = runpy.run_path(str(ROOT / "benchmarks" / "write_tuning.py"))["page"]()
    assert (ROOT / "docs" / "tuning.md").read_text(encoding="utf-8") == written
