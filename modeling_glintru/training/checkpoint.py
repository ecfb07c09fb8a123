"""Checkpoints on disk: safetensors and JSON alone, whole or not there, and damage is noticed.

A checkpoint is written to `checkpoint-next.partial/checkpoint-N`, flushed to the disk and moved to `checkpoint-N`.
`files.json` in it holds size and CRC-32 of every file. Nothing is pickled, so that reading a folder from elsewhere
runs no code.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..errors import ModelFolderError
from ..whole_files import checksum, flush
from .cooccurrence import NeighborSmoothing
from .trainer import GlintRUTrainer

__all__ = [
    "WRITING",
    "RunTrainer",
    "has_checkpoints",
    "newest_checkpoint",
    "random_state",
    "read_optimizer",
    "read_weights",
    "remove_other_checkpoints",
    "remove_superseded",
    "replace_json",
    "seal",
    "set_random_state",
    "write_optimizer",
    "write_weights",
]

WRITING = "checkpoint-next.partial"  # the Trainer's output folder; whole checkpoints move up, beside it
WEIGHTS, OPTIMIZER, SCHEDULER = "model.safetensors", "optimizer.safetensors", "scheduler.json"
PROCESS = "process-{}.json"
FILES = "files.json"
TRAINER_STATE = "trainer_state.json"  # the name that the Trainer reads it under
KEPT = 2  # the newest, and the one before for when the newest is damaged


def replace_json(path: Path, content: Any) -> None:
    """Writes JSON so that the file is there whole or as it was before."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content), encoding="utf-8")
    flush(partial)
    os.replace(partial, path)


# ---------------------------------------------------------------------- what is in a checkpoint


def write_weights(path: Path, model: nn.Module) -> None:
    """Writes all weights and buffers, each from memory of its own: on GPUs those of a GRU are parts of one tensor."""
    tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, path, metadata={"format": "pt"})


def read_weights(path: Path, model: nn.Module) -> None:
    """Puts what `write_weights` wrote into the model."""
    model.load_state_dict(load_file(path))


def write_optimizer(path: Path, state: dict[str, Any]) -> None:
    """Writes `Optimizer.state_dict()`: tensors as they are, everything else as JSON in the header."""
    tensors: dict[str, torch.Tensor] = {}
    values: dict[str, Any] = {}
    for index, entry in state["state"].items():
        for name, value in entry.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}.{name}"] = value.detach().cpu().contiguous()
            else:
                values[f"{index}.{name}"] = value
    save_file(tensors, path, metadata={"json": json.dumps({"groups": state["param_groups"], "values": values})})


def read_optimizer(path: Path) -> dict[str, Any]:
    """What `write_optimizer` wrote, ready for `Optimizer.load_state_dict`."""
    with safe_open(path, framework="pt") as file:
        rest = json.loads(file.metadata()["json"])
        values = {**rest["values"], **{key: file.get_tensor(key) for key in file.keys()}}  # noqa: SIM118
    state: dict[int, dict[str, Any]] = {}
    for key, value in values.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    return {"state": state, "param_groups": rest["groups"]}


def random_state() -> dict[str, Any]:
    """The global random number generators of this process, as JSON can hold them."""
    numpy_state: dict[str, Any] = dict(np.random.get_state(legacy=False))
    numpy_state["state"] = {**numpy_state["state"], "key": numpy_state["state"]["key"].tolist()}
    state = {"python": random.getstate(), "numpy": numpy_state, "torch": _hex(torch.get_rng_state())}
    if torch.cuda.is_available():
        state["cuda"] = [_hex(device) for device in torch.cuda.get_rng_state_all()]
    if torch.backends.mps.is_available():
        state["mps"] = _hex(torch.mps.get_rng_state())
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Puts the generators back to what `random_state` gave."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    numpy_state = state["numpy"]
    key = np.asarray(numpy_state["state"]["key"], dtype=np.uint32)
    np.random.set_state({**numpy_state, "state": {**numpy_state["state"], "key": key}})
    torch.set_rng_state(_bytes(state["torch"]))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([_bytes(device) for device in state["cuda"]])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(_bytes(state["mps"]))


def _hex(state: torch.Tensor) -> str:
    return state.cpu().numpy().tobytes().hex()


def _bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)


# ---------------------------------------------------------------------- whole or not there


def seal(partial: Path, final: Path) -> None:
    """Notes size and checksum of every file, flushes all to the disk, and gives the folder its name."""
    names = sorted(file.name for file in partial.iterdir())
    replace_json(partial / FILES, {name: checksum(partial / name) for name in names})
    for name in names:
        flush(partial / name)
    flush(partial)
    if final.exists():  # of an earlier try, and damaged: otherwise the run would have gone on behind it
        shutil.rmtree(final)
    os.replace(partial, final)
    flush(final.parent)


def has_checkpoints(folder: Path) -> bool:
    """Whether there is any checkpoint, damaged or not."""
    return bool(_checkpoints(folder))


def newest_checkpoint(folder: Path, warn: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that is whole, the weights of its best epoch included.

    Args:
        folder: Holds `checkpoint-N` folders.
        warn: Gets a line for each damaged checkpoint that is passed over.
    """
    for checkpoint in reversed(_checkpoints(folder)):
        damage = _damage(checkpoint)
        if damage is None:
            return checkpoint
        warn(f"warning: {checkpoint} is damaged ({damage}) and was skipped")
    return None


def remove_other_checkpoints(folder: Path, checkpoint: Path | None) -> None:
    """Removes what a run that goes on from `checkpoint` cannot use.

    That is later checkpoints, half-written ones, and files that we did not write: the Trainer would read pickles.
    """
    usable = [] if checkpoint is None else [c for c in _checkpoints(folder) if _step(c) <= _step(checkpoint)]
    for entry in folder.glob("checkpoint-*"):
        if entry.is_dir() and entry not in usable:
            shutil.rmtree(entry)
    if checkpoint is not None:
        ours = {FILES, *json.loads((checkpoint / FILES).read_text(encoding="utf-8"))}
        for file in checkpoint.iterdir():
            if file.name not in ours:
                shutil.rmtree(file) if file.is_dir() else file.unlink()


def remove_superseded(folder: Path) -> None:
    """Removes all but the newest checkpoints and those that hold the best weights of one of them."""
    checkpoints = _checkpoints(folder)
    newest = checkpoints[-KEPT:]
    kept = {checkpoint.name for checkpoint in newest} | {f"checkpoint-{_best_step(c)}" for c in newest}
    for checkpoint in checkpoints:
        if checkpoint.name not in kept:
            shutil.rmtree(checkpoint)


def _checkpoints(folder: Path) -> list[Path]:
    """By step, oldest first."""
    return sorted((entry for entry in folder.glob("checkpoint-*") if _step(entry) >= 0), key=_step)


def _step(checkpoint: Path) -> int:
    match = re.fullmatch(r"checkpoint-(\d+)", checkpoint.name)
    return int(match.group(1)) if match else -1


def _best_step(checkpoint: Path) -> int | None:
    try:
        return json.loads((checkpoint / TRAINER_STATE).read_text(encoding="utf-8"))["best_global_step"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, or with the one that holds its best weights; None if nothing is."""
    damage = _own_damage(checkpoint)
    best = _best_step(checkpoint)
    if damage is None and best is not None and best != _step(checkpoint):
        damage = _own_damage(checkpoint.with_name(f"checkpoint-{best}"))
        return damage and f"its best epoch's checkpoint-{best}: {damage}"
    return damage


def _own_damage(checkpoint: Path) -> str | None:
    try:
        expected = json.loads((checkpoint / FILES).read_text(encoding="utf-8"))
        if not isinstance(expected, dict) or TRAINER_STATE not in expected:
            return f"{FILES} is not complete"
        for name, fingerprint in expected.items():
            if checksum(checkpoint / Path(name).name) != fingerprint:
                return f"{name} is not what was written"
    except OSError as error:
        return f"{Path(error.filename or FILES).name}: {error.strerror}"
    except ValueError:
        return f"{FILES} is not JSON"
    return None


# ---------------------------------------------------------------------- the Trainer that writes and reads them


class RunTrainer(GlintRUTrainer):
    """`GlintRUTrainer` whose checkpoints are those of this file, so that a stopped run goes on as if it never stopped.

    The Trainer itself writes weights and its own state, and reads them; `RunCheckpoints` adds the rest. Beside what a
    plain Trainer saves, that is the loss since the last log line, so that the log is the same too.

    Args:
        smoothing: Of the item embeddings, or None; its gradients are dense, whatever the loss.
    """

    # Optional in the plain Trainer, but set when a checkpoint is written or read.
    args: Any
    state: Any
    model: Any

    def __init__(
        self,
        *args: Any,
        smoothing: NeighborSmoothing | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        **kwargs: Any,
    ) -> None:
        self.checkpoints = RunCheckpoints()  # before callbacks that stop a run when its checkpoint is whole
        super().__init__(*args, callbacks=[self.checkpoints, *callbacks], **kwargs)
        self._smoothing = smoothing

    @property
    def seconds(self) -> float:
        """Wall time of the training so far, that before an interruption included."""
        return self.checkpoints.seconds

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        made = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if made and self._smoothing is not None:
            self._smoothing.attach(optimizer)
        return optimizer

    def _can_train_rows(self) -> bool:
        return self._smoothing is None and super()._can_train_rows()

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        if resume_from_checkpoint is not None:
            past = self.checkpoints.open(Path(resume_from_checkpoint), self.args.process_index)
            if past["ended"] is not None:  # early stopping, or the last epoch: nothing is left but the end
                self.args.num_train_epochs = past["ended"]
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def keep_best(self) -> None:
        """Ends a training that a `RunStopped` broke off: the model gets the weights of the best epoch so far.

        Where no epoch was validated yet, the present weights stay, and their metrics go into the log. Checkpoints know
        nothing of that: a run that goes on from them is the same run as ever.
        """
        if self.state.best_global_step:
            read_weights(Path(self.state.best_model_checkpoint) / WEIGHTS, self.model)
        else:
            self.evaluate()
        self.control = self.callback_handler.on_train_end(self.args, self.state, self.control)

    def save_model(self, output_dir: str | None = None, *args: Any, **kwargs: Any) -> None:
        """Writes the weights of a checkpoint, and nothing else; called by the Trainer."""
        self.check_weights()
        if self.args.should_save:
            folder = Path(str(output_dir))
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            write_weights(folder / WEIGHTS, self.model)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        self.checkpoints.add_loss(loss)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs losses of the whole run, where the Trainer's own begin again when a run goes on."""
        losses = self.checkpoints
        if "loss" in logs:
            mean = self.accelerator.gather(losses.since_log).mean().item()
            logs["loss"] = losses.logged(mean, self.state.global_step)
        if "train_loss" in logs:
            logs["train_loss"] = (losses.before + losses.since_log.item()) / max(self.state.global_step, 1)
        super().log(logs, start_time)


class RunCheckpoints(TrainerCallback):
    """Adds to a checkpoint what the Trainer would pickle, and puts it back into a run that goes on.

    Those are the states of the optimizer, of the schedule and of the random numbers, and the sums of losses. The
    Trainer writes to a folder `WRITING`, from which a checkpoint moves up when all of it is there.
    """

    def __init__(self) -> None:
        self.since_log = torch.zeros(())
        self.before = 0.0  # the sum of the losses that were logged
        self.last_logged_step = 0
        self._folder: Path | None = None  # where a run goes on
        self._past: dict[str, Any] = {}  # what that checkpoint holds of this process
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        return self._past.get("seconds", 0.0) + time.perf_counter() - self._began

    def open(self, folder: Path, process: int) -> dict[str, Any]:
        """Goes on from a checkpoint; returns what it holds of a process.

        Raises:
            ModelFolderError: An earlier version of this package wrote it.
        """
        file = folder / PROCESS.format(process)
        self._folder = folder
        self._past = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if "ended" not in self._past:
            raise ModelFolderError(
                f"{folder} was written by an earlier version, and this one cannot go on from it: start again with "
                "--overwrite"
            )
        return self._past

    def add_loss(self, loss: torch.Tensor) -> None:
        """Adds the loss of a step."""
        self.since_log = self.since_log.to(loss.device) + loss

    def logged(self, total: float, step: int) -> float:
        """Begins a new sum of losses; gives the mean of the last one, whose `total` is that of all processes."""
        mean = total / (step - self.last_logged_step)
        self.before += total
        self.last_logged_step, self.since_log = step, torch.zeros_like(self.since_log)
        return mean

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        if self._folder is None:
            return
        kwargs["optimizer"].load_state_dict(read_optimizer(self._folder / OPTIMIZER))
        kwargs["lr_scheduler"].load_state_dict(json.loads((self._folder / SCHEDULER).read_text(encoding="utf-8")))
        self.since_log = torch.tensor(self._past["loss_since_log"], device=args.device)
        self.before, self.last_logged_step = self._past["loss_before"], self._past["last_logged_step"]
        self._name_best(args, state)  # the folder may have moved since

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        if float(state.epoch or 0).is_integer():  # within an epoch, batches are passed over first
            self._go_on_drawing()

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        self._go_on_drawing()

    def _go_on_drawing(self) -> None:
        if "random" in self._past:
            set_random_state(self._past.pop("random"))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        wait = PartialState().wait_for_everyone
        name = f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        partial, final = Path(str(args.output_dir)) / name, _final_folder(args) / name
        wait()
        own = {
            "random": random_state(),
            "loss_since_log": self.since_log.item(),
            "loss_before": self.before,
            "last_logged_step": self.last_logged_step,
            "seconds": self.seconds,
            "ended": round(state.epoch or 0) if control.should_training_stop else None,
        }
        replace_json(partial / PROCESS.format(args.process_index), own)
        if args.should_save:
            write_optimizer(partial / OPTIMIZER, kwargs["optimizer"].state_dict())
            replace_json(partial / SCHEDULER, kwargs["lr_scheduler"].state_dict())
        wait()
        if args.should_save:
            seal(partial, final)
            shutil.rmtree(partial.parent)
            remove_superseded(final.parent)
        wait()
        self._name_best(args, state)

    @staticmethod
    def _name_best(args: TrainingArguments, state: TrainerState) -> None:
        best = state.best_global_step
        state.best_model_checkpoint = str(_final_folder(args) / f"{PREFIX_CHECKPOINT_DIR}-{best}") if best else None


def _final_folder(args: TrainingArguments) -> Path:
    """Where whole checkpoints are; the Trainer writes to `WRITING` inside."""
    return Path(str(args.output_dir)).parent
