"""The Trainer of a run: its checkpoints hold all that the run needs to go on as if it had never been stopped."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .checkpoint import (
    TRAINER_STATE,
    random_state,
    read_optimizer,
    read_weights,
    remove_superseded,
    replace_json,
    seal,
    set_random_state,
    write_optimizer,
    write_weights,
)
from .smoothing import NeighborSmoothing
from .trainer import GlintRUTrainer

__all__ = ["RunTrainer"]

WEIGHTS, OPTIMIZER, SCHEDULER, PROCESS = (
    "model.safetensors",
    "optimizer.safetensors",
    "scheduler.json",
    "process-{}.json",
)


class RunTrainer(GlintRUTrainer):
    """`GlintRUTrainer` whose checkpoints are those of `checkpoint.py`: no pickles, and whole or not there.

    Beside what the plain Trainer keeps they hold the loss since the last log line, so that the log is the same too.

    Args:
        smoothing: Of the item embeddings, or None; its gradients are dense, whatever the loss.
    """

    # Optional in the plain Trainer, but set when a checkpoint is written or read.
    args: Any
    state: Any
    model: Any
    optimizer: Any
    lr_scheduler: Any

    def __init__(self, *args: Any, smoothing: NeighborSmoothing | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._smoothing = smoothing
        self._began = time.perf_counter()
        self._seconds_before = 0.0
        self._own_past: dict[str, Any] | None = None  # `_own_state` of the checkpoint, until it is used

    @property
    def seconds(self) -> float:
        """Wall time of the training so far, that before an interruption included."""
        return self._seconds_before + time.perf_counter() - self._began

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        made = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if made and self._smoothing is not None:
            self._smoothing.attach(optimizer)
        return optimizer

    def _can_train_rows(self) -> bool:
        return self._smoothing is None and super()._can_train_rows()

    def keep_best(self) -> None:
        """Ends a training that a `RunStopped` broke off: the model gets the weights of the best epoch so far.

        Where no epoch was validated yet, the present weights stay, and their metrics go into the log. Checkpoints know
        nothing of that: a run that goes on from them is the same run as ever.
        """
        if self.state.best_global_step:
            self._load_best_model()
        else:
            self.evaluate()
        self.control = self.callback_handler.on_train_end(self.args, self.state, self.control)

    # ------------------------------------------------------------------ writing

    def _checkpoint(self, step: int) -> Path:
        return Path(self.args.output_dir) / f"checkpoint-{step}"

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.store_flos()
        if self.state.best_global_step:
            self.state.best_model_checkpoint = str(self._checkpoint(self.state.best_global_step))
        final = self._checkpoint(self.state.global_step)
        partial = final.with_name(final.name + ".partial")
        if self.args.should_save:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        self._wait()
        replace_json(partial / PROCESS.format(self.args.process_index), self._own_state())
        if self.args.should_save:
            write_weights(partial / WEIGHTS, self.model)
            write_optimizer(partial / OPTIMIZER, self.optimizer.state_dict())
            replace_json(partial / SCHEDULER, self.lr_scheduler.state_dict())
            self._remember_callbacks()
            self.state.save_to_json(str(partial / TRAINER_STATE))
        self._wait()
        if self.args.should_save:
            seal(partial, final)
            remove_superseded(final.parent)
        self._wait()

    def _own_state(self) -> dict[str, Any]:
        return {
            "random": random_state(),
            "loss_since_log": self._tr_loss.item(),
            "loss_before": self._total_loss_scalar,
            "last_logged_step": self._globalstep_last_logged,
            "seconds": self.seconds,
        }

    def _remember_callbacks(self) -> None:
        for callback in [*self.callback_handler.callbacks, self.control]:
            if type(callback).__name__ in self.state.stateful_callbacks:
                self.state.stateful_callbacks[type(callback).__name__] = callback.state()

    def _wait(self) -> None:
        self.accelerator.wait_for_everyone()

    # ------------------------------------------------------------------ reading

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        read_weights(Path(resume_from_checkpoint) / WEIGHTS, self.model if model is None else model)

    def _load_best_model(self) -> None:
        read_weights(self._checkpoint(self.state.best_global_step) / WEIGHTS, self.model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self.optimizer.load_state_dict(read_optimizer(Path(checkpoint) / OPTIMIZER))
            self.lr_scheduler.load_state_dict(_json(Path(checkpoint) / SCHEDULER))

    def _load_scaler(self, checkpoint: str | None) -> None:
        """There is none without float16, and the plain Trainer would look for a pickle."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Called once, when a resumed run takes its first step."""
        if self._own_past is not None:
            set_random_state(self._own_past["random"])
        self._restore_loss()

    def _finalize_training(self, *args: Any) -> Any:
        self._restore_loss()  # of a run that was stopped after its last step
        return super()._finalize_training(*args)

    def _restore_loss(self) -> None:
        past, self._own_past = self._own_past, None
        if past is not None:
            self._tr_loss = torch.tensor(past["loss_since_log"], device=self.args.device)
            self._total_loss_scalar = past["loss_before"]
            self._globalstep_last_logged = past["last_logged_step"]
            self._initial_global_step = 0

    def _init_training_state(  # the first of what the Trainer does with a checkpoint
        self, max_steps: int, num_update_steps: int, num_train_epochs: int, checkpoint: str | None, trial: Any
    ) -> tuple[int, int]:
        epochs, steps = super()._init_training_state(max_steps, num_update_steps, num_train_epochs, checkpoint, trial)
        if checkpoint is None:
            return epochs, steps
        # The folder may have moved, and its own word for where the best weights are is not to be trusted.
        best = self.state.best_global_step
        self.state.best_model_checkpoint = str(self._checkpoint(best)) if best else None
        self._own_past = _json(Path(checkpoint) / PROCESS.format(self.args.process_index))
        self._seconds_before = self._own_past["seconds"]
        if self.control.should_training_stop:  # early stopping, or the last epoch: nothing is left but the end
            return num_train_epochs, 0
        return epochs, steps


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
