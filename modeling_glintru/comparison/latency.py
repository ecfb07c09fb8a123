"""How long the scores for one user take."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
from datasets import Dataset

from ..data.histories import arrow_view, read_rows
from ..evaluation import Scorer

__all__ = ["one_user_latency"]

WARM_UP = 10


def one_user_latency(scorer: Scorer, split: Dataset, count: int = 200, seed: int = 0) -> float:
    """Median milliseconds in which one user's items are scored, from the history on, with one thread.

    CPU time, so that other work on the machine does not count; wall time where the scores come from a GPU.

    Args:
        scorer: Gets histories one by one.
        split: Rows with `item_ids` and `target`.
        count: How many users are asked for, at most.
        seed: Which ones.
    """
    rows = np.random.default_rng(seed).permutation(len(split))[:count]
    histories, _ = read_rows(arrow_view(split, ["item_ids", "target"]), np.sort(rows))
    given = [np.zeros(1, np.float32)] if getattr(scorer, "needs_time_gaps", False) else []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        device = scorer([histories[0]], *given).device.type
        clock = time.process_time if device == "cpu" else time.perf_counter
        for history in histories[:WARM_UP]:
            scorer([history], *given)
        seconds = []
        for history in histories:
            start = clock()
            scorer([history], *given).cpu()
            seconds.append(clock() - start)
    finally:
        torch.set_num_threads(threads)
    return 1000 * statistics.median(seconds)
