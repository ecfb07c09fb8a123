"""`glintru compare`: the same search for every model, final runs with several seeds, and a report with intervals."""

from __future__ import annotations

from .command import make_page, run_comparison
from .protocol import Protocol, load_protocol
from .results import Results
from .schedule import Selection, plan
from .selection import select

__all__ = ["Protocol", "Results", "Selection", "load_protocol", "make_page", "plan", "run_comparison", "select"]
