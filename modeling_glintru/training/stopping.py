"""When a run saves between two epochs, and how it stops: Ctrl-C, a signal, a time limit."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch
import torch.distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..errors import GlintRUError

__all__ = ["Interruptions", "RunStopped"]

NOTHING, SAVE, STOP = 0, 1, 2


class RunStopped(GlintRUError):
    """A run stopped as it was told to, after writing a checkpoint.

    Args:
        message: One sentence for people.
        exit_code: Of the command.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Interruptions(TrainerCallback):
    """Asks for a checkpoint every so often, and for one last checkpoint when the run has to stop.

    The first Ctrl-C (or SIGTERM, which a machine sends before it goes down) lets the step end and its checkpoint be
    written; a second one stops at once. At the end of an epoch the checkpoint comes after the validation.

    Args:
        deadline: When to stop, on the clock of `time.monotonic`; None never.
        save_seconds: Least time between two checkpoints within an epoch.
    """

    def __init__(self, deadline: float | None = None, save_seconds: float = 300.0) -> None:
        self.deadline = deadline
        self.save_seconds = save_seconds
        self.signal: int | None = None
        self.saved_at = time.monotonic()

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Inside, signals are taken as wishes."""
        if threading.current_thread() is not threading.main_thread():  # only there can signals be caught
            yield
            return
        wanted = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.getsignal(number) for number in wanted}
        for number, handler in before.items():
            if handler != signal.SIG_IGN:  # a run in the background may be told to ignore Ctrl-C
                signal.signal(number, self._take)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT and not torch.distributed.is_initialized():
            raise KeyboardInterrupt  # launchers of several processes send theirs beside the terminal's
        self.signal = number

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        steps_per_epoch = max(1, round(state.max_steps / state.num_train_epochs))
        if self._wish(args) != NOTHING and state.global_step % steps_per_epoch:  # the end of an epoch saves by itself
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        self.saved_at = time.monotonic()
        if self._wish(args) != STOP:
            return
        where = f"at step {state.global_step:,} of {state.max_steps:,}; the same command with --resume goes on"
        if self.signal is None:
            raise RunStopped(f"stopped after --max_minutes {where}", exit_code=0)
        raise RunStopped(f"stopped {where}", exit_code=128 + self.signal)

    def _wish(self, args: TrainingArguments) -> int:
        now = time.monotonic()
        wish = SAVE if now - self.saved_at >= self.save_seconds else NOTHING
        if self.signal is not None or (self.deadline is not None and now >= self.deadline):
            wish = STOP
        if args.world_size > 1:  # all processes must save and stop at the same step
            wishes = torch.tensor(wish, device=args.device)
            torch.distributed.all_reduce(wishes, torch.distributed.ReduceOp.MAX)
            wish = int(wishes)
        return wish
