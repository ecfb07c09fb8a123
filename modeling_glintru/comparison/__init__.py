"""`glintru compare`: several models on one table, with the same split, candidates, seeds and paired intervals."""

from __future__ import annotations

from .compare import compare_trained, declare, run_comparison
from .plan import Comparison, Search
from .results import Results
from .rows import Report

__all__ = ["Comparison", "Report", "Results", "Search", "compare_trained", "declare", "run_comparison"]
