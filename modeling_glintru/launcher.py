"""What `torchrun` and `accelerate launch` tell each process that they start."""

from __future__ import annotations

import os

__all__ = ["is_main_process", "num_processes"]


def is_main_process() -> bool:
    """Whether this process writes and prints: the first of those that a launcher started, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def num_processes() -> int:
    """How many processes a launcher started for this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))
