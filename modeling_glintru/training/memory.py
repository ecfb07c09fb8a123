"""A training whose memory does not grow from step to step."""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..machine import give_back_memory, own_bytes

__all__ = ["ReturnFreedMemory"]


class ReturnFreedMemory(TrainerCallback):
    """Gives freed memory back to the system when the process holds a fifth more than a step needs.

    Batches differ in shape, so a step cannot always use the gaps that earlier steps left in the memory of the C
    library. Small blocks that stay between two steps, such as the code that oneDNN generates for each new shape, cut
    the gaps into pieces, and the process grows. The numbers of the training do not change.

    `GlintRUTrainer` has this callback; a plain Trainer takes it as `callbacks=[ReturnFreedMemory()]`. It works where
    the C library is glibc (Linux); elsewhere it does nothing.
    """

    GROWTH = 1.2
    # Giving back costs about a tenth of a second of page faults for each 500 MB that the next step takes again.
    LEAST_STEPS = 10
    MEASURED_STEPS = 2  # the optimizer makes its moments in the first step of a training

    def __init__(self) -> None:
        self._steps = 0
        self._needed = math.inf

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        self._steps, self._needed = 0, math.inf

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        held = own_bytes()
        if held is None:
            return
        self._steps += 1
        if self._steps == self.MEASURED_STEPS:  # the least, for what a step takes depends on the gaps that it finds
            self._needed = min(self._needed, held)
        elif self._steps >= self.LEAST_STEPS and held > self.GROWTH * self._needed:
            give_back_memory()
            self._steps = 0
