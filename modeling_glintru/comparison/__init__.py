"""`glintru compare`: the same search for every model, final runs with several seeds, and a report with intervals."""

from __future__ import annotations

from .protocol import Protocol, load_protocol
from .queue import Job, run_queue
from .results import Results
from .schedule import Selection, plan

__all__ = ["Job", "Protocol", "Results", "Selection", "load_protocol", "plan", "run_queue"]
