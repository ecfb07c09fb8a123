"""When a run saves between two epochs, and how it stops: Ctrl-C, a signal, a time limit."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
import torch.distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..errors import GlintRUError

__all__ = ["Interruptions", "RunStopped", "Stop", "TimeIsUp"]

NOTHING, SAVE, TIME, SIGNAL = 0, 1, 2, 3  # a signal's wish is SIGNAL plus its number; the greatest wish wins


class RunStopped(GlintRUError):
    """A run stopped as it was told to, after writing a checkpoint.

    Args:
        message: One sentence for people.
        exit_code: Of the command.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Stop:
    """Where the time limit ended a training.

    Args:
        epochs: Epochs done, with a fraction for the one that was cut off.
        of: Epochs that the recipe allows, or that the refit was to have.
        during: `"training"` or `"refit"`.
    """

    epochs: float
    of: int
    during: str = "training"

    def __str__(self) -> str:
        return f"{self.epochs:.3g} of {self.of} epochs"


class TimeIsUp(RunStopped):
    """A run stopped at its time limit, after writing a checkpoint.

    Args:
        message: One sentence for people.
        at: How far it came.
    """

    def __init__(self, message: str, at: Stop) -> None:
        super().__init__(message, exit_code=0)
        self.at = at


class Interruptions(TrainerCallback):
    """Asks for a checkpoint every so often, and for one last checkpoint when the run has to stop.

    The first Ctrl-C (or SIGTERM, which a machine sends before it goes down) lets the step end and its checkpoint be
    written; a second one stops at once. At the end of an epoch the checkpoint comes after the validation.

    Args:
        deadline: When all must be done, on the clock of `time.monotonic`; None never.
        save_seconds: Least time between two checkpoints within an epoch.
        passes_after: The measuring that follows the training, in passes over the validation split of one process. The
            training stops so much before the deadline, as soon as the first validation has shown what a pass costs.
    """

    def __init__(self, deadline: float | None = None, save_seconds: float = 300.0, passes_after: float = 0.0) -> None:
        self.deadline = deadline
        self.save_seconds = save_seconds
        self.passes_after = passes_after
        self.seconds_after = 0.0
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

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        for entry in state.log_history:  # of a run that goes on
            self._learn_cost(args, entry)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        self._learn_cost(args, kwargs.get("metrics") or {})

    def _learn_cost(self, args: TrainingArguments, metrics: dict[str, Any]) -> None:
        """All processes validate together, but the first one measures alone."""
        seconds = metrics.get("eval_runtime", 0.0) * args.world_size * self.passes_after
        self.seconds_after = max(self.seconds_after, seconds)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        steps_per_epoch = max(1, round(state.max_steps / state.num_train_epochs))
        if self._wish(args) != NOTHING and state.global_step % steps_per_epoch:  # the end of an epoch saves by itself
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        self.saved_at = time.monotonic()
        wish = self._wish(args)
        if wish < TIME or (wish == TIME and control.should_training_stop):  # the training is at its end anyway
            return
        where = f"at step {state.global_step:,} of {state.max_steps:,}; the same command with --resume goes on"
        if wish == TIME:
            at = Stop(round(state.epoch or 0.0, 4), state.num_train_epochs)
            raise TimeIsUp(f"stopped after --max_minutes {where}", at)
        raise RunStopped(f"stopped {where}", exit_code=128 + wish - SIGNAL)

    def _wish(self, args: TrainingArguments) -> int:
        now = time.monotonic()
        wish = SAVE if now - self.saved_at >= self.save_seconds else NOTHING
        if self.deadline is not None and now >= self.deadline - self.seconds_after:
            wish = TIME
        if self.signal is not None:
            wish = SIGNAL + self.signal
        if args.world_size > 1:  # all processes must save and stop at the same step, and for the same reason
            wishes = torch.tensor(wish, device=args.device)
            torch.distributed.all_reduce(wishes, torch.distributed.ReduceOp.MAX)
            wish = int(wishes)
        return wish
