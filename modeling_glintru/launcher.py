"""What `torchrun` and `accelerate launch` tell each process that they start."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

__all__ = ["is_main_process", "leave", "num_processes"]


def is_main_process() -> bool:
    """Whether this process writes and prints: the first of those that a launcher started, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def num_processes() -> int:
    """How many processes a launcher started for this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def leave(code: int) -> NoReturn:
    """Ends a process that shares a run with others, at once.

    The teardown of an interpreter with threads of a process group was seen to abort, and to wait for ever.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
