"""What a plain `transformers.Trainer` cannot do: batches of windows of similar length, shared out to processes, memory
that does not grow from step to step, and a quiet progress bar.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, Sampler
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from ..data import LengthBucketSampler, TargetBatchSampler
from ..data.batches import IGNORED_LABEL, HasLengths
from ..errors import RecipeError, TrainingDivergedError
from ..machine import give_back_memory, own_bytes
from ..models.loading import weights_that_are_not_finite
from .item_table import has_features, made_once
from .optimizer import LazyAdamW, can_train_rows, clip_grad_norm_
from .pushing import ModelPushes

__all__ = [
    "EpochProgress",
    "GlintRUTrainer",
    "ProcessShare",
    "ReturnFreedMemory",
    "ShareCollator",
    "device_batch_size",
]


class EpochProgress(ProgressCallback):
    """One bar for the run and one line an epoch, instead of one line for every log entry.

    Where standard error is not a terminal (a log file, a pipe) there are only the lines.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bars = sys.stderr.isatty()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        if self.bars:
            super().on_train_begin(args, state, control, **kwargs)
            if self.training_bar is not None:
                self.training_bar.set_description("train")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        if self.bars:
            super().on_step_end(args, state, control, **kwargs)

    def on_prediction_step(self, *args: Any, **kwargs: Any):
        if self.bars:
            super().on_prediction_step(*args, **kwargs)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        if self.bars:
            super().on_train_end(args, state, control, **kwargs)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ):
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{float(logs['loss']):.3f}")

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        super().on_evaluate(args, state, control, **kwargs)
        name = args.metric_for_best_model
        value = (kwargs.get("metrics") or {}).get(name)
        if value is None or not state.is_world_process_zero:
            return
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        loss = f"loss {losses[-1]:.3f}  " if losses else ""
        best = max(value, state.best_metric if state.best_metric is not None else value)
        epoch = f"epoch {state.epoch or 0:g}/{args.num_train_epochs:g}"
        line = f"{epoch:<14}{loss}validation {str(name).removeprefix('eval_')} {value:.4f}  best {best:.4f}"
        if self.bars:
            tqdm.write(line)
        else:
            print(line, flush=True)


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


def device_batch_size(train_batch_size: int, devices: int) -> int:
    """Windows of one device in a step, so that the recipe's batch is the batch of all devices together.

    Raises:
        RecipeError: The batch cannot be shared out evenly.
    """
    if train_batch_size % devices:
        raise RecipeError(
            f"training.train_batch_size is the batch of all processes together, but {train_batch_size} windows cannot "
            f"be shared out evenly to {devices}; take a multiple of {devices} with --set train_batch_size=..."
        )
    return train_batch_size // devices


class ProcessShare(Sampler[list[int]]):
    """The rows of each global batch that fall to one process: every `processes`-th, so that all get like lengths.

    Unlike Accelerate's own split nothing is repeated to fill the last batch, which keeps the loss that of one process.
    A share of the last batch may be empty, see `ShareCollator`.

    Args:
        sampler: Gives rows in an order in which each `sampler.batch_size` consecutive ones are a global batch.
        rank: Number of this process, from 0.
        processes: How many there are.
        drop_last: Whether to leave out a last batch that is not full.
    """

    def __init__(self, sampler: LengthBucketSampler, rank: int, processes: int, drop_last: bool = False) -> None:
        self.sampler = sampler
        self.rank = rank
        self.processes = processes
        self.batch_size = sampler.batch_size // processes
        self.drop_last = drop_last

    def set_epoch(self, epoch: int) -> None:
        """The next pass uses the order of this epoch."""
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        rows, size = len(self.sampler), self.sampler.batch_size
        return rows // size if self.drop_last else -(-rows // size)

    def __iter__(self) -> Iterator[list[int]]:
        order, size = list(self.sampler), self.sampler.batch_size
        for start in range(0, len(self) * size, size):
            yield order[start : start + size][self.rank :: self.processes]


@dataclass(frozen=True)
class ShareCollator:
    """A collator for which an empty share is one row that asks nothing: the process must still take part in the step.

    Args:
        collate: The collator of shares that hold rows.
    """

    collate: Callable[[Sequence[Mapping[str, Any]]], dict[str, torch.Tensor]]

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch, as `collate` gives it."""
        if rows:
            return self.collate(rows)
        batch = self.collate([{"item_ids": np.ones(2, dtype=np.int64)}])
        return {**batch, "labels": torch.full_like(batch["labels"], IGNORED_LABEL)}


class GlintRUTrainer(ModelPushes):
    """`transformers.Trainer` whose training batches hold windows of similar length.

    Where the loss is sampled (any but the full cross-entropy) and the optimizer is AdamW, as it is by default, a step
    touches only the rows of the item embedding that it uses: see `LazyAdamW`. Everything else, arguments included, is
    the plain Trainer's. A training set without `lengths` is sampled as usual.
    Several processes share the rows of each batch, so that they do together what one process does with that batch.
    Memory that steps have freed goes back to the system before it piles up: see `ReturnFreedMemory`.
    With `push_to_hub=True` only the model leaves: see `ModelPushes`.

    Args:
        batch_targets: Batches hold about this many targets each, instead of `per_device_train_batch_size` windows.
    """

    def __init__(self, *args: Any, batch_targets: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.batch_targets = batch_targets
        self.add_callback(ReturnFreedMemory)
        self.remove_callback(PrinterCallback)
        if self.pop_callback(ProgressCallback) is not None:  # notebooks have a callback of their own, which stays
            self.add_callback(EpochProgress)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        if hasattr(self.model.config, "states_vocab_size"):  # type: ignore[union-attr]
            self.model.config.states_vocab_size = None  # type: ignore[union-attr]
        try:
            return super().train(*args, **kwargs)
        finally:  # other optimizers know only dense gradients
            if isinstance(embedding := self._item_embedding(), torch.nn.Embedding):
                embedding.sparse = False

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """The plain Trainer's step, after which a loss that is no finite number ends the training.

        Raises:
            TrainingDivergedError: The message names the step, the learning rate, and what to try.
        """
        with made_once(self._item_embedding()):
            loss = super().training_step(model, inputs, num_items_in_batch)
        if not loss.isfinite():
            self._diverged(f"the loss of step {self.state.global_step + 1:,} is {loss.item():g}")
        return loss

    def check_weights(self) -> None:
        """Makes sure that every weight is a finite number; error as of `training_step`."""
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled  # no process has whole weights then
        if not sharded and (broken := weights_that_are_not_finite(self.model)):  # type: ignore[arg-type]
            self._diverged(f"after step {self.state.global_step:,} {broken[0]} holds numbers that are not finite")

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The plain Trainer's figures, of weights that are finite numbers; error as of `training_step`."""
        self.check_weights()
        with made_once(self._item_embedding()):
            return super().evaluate(*args, **kwargs)

    def _diverged(self, what: str) -> NoReturn:
        rate = self.optimizer.param_groups[0]["lr"] if self.optimizer is not None else self.args.learning_rate
        raise TrainingDivergedError(
            f"the training diverged: {what}, at a learning rate of {rate:g}. Try a lower learning_rate, more "
            "warmup_steps or a smaller max_grad_norm. Checkpoints from before stay as they are"
        )

    def _item_embedding(self) -> Any:
        return getattr(self.model, "get_input_embeddings", lambda: None)()

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The plain Trainer's, or `LazyAdamW` where that serves."""
        if not self._can_train_rows():
            return super().create_optimizer(model)
        if self.optimizer is None and self.optimizer_cls_and_kwargs is None:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, model or self.model)  # type: ignore[arg-type]
            if kind is torch.optim.AdamW:
                self.optimizer_cls_and_kwargs = LazyAdamW, options
        optimizer = super().create_optimizer(model)
        if isinstance(getattr(optimizer, "optimizer", optimizer), LazyAdamW):
            self._item_embedding().sparse = True
            self.accelerator.clip_grad_norm_ = self._clip_sparse_too
        return optimizer

    def _can_train_rows(self) -> bool:
        """Only where gradients stay in one process or travel by gloo; other ways know dense ones alone."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return False
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if has_features(self._item_embedding()):  # whose gradient is that of every row
            return False
        return can_train_rows(self.model) and (not distributed or torch.distributed.get_backend() == "gloo")

    def _clip_sparse_too(self, parameters: Any, max_norm: float, norm_type: float = 2.0) -> torch.Tensor:
        self.accelerator.unscale_gradients()
        return clip_grad_norm_(parameters, max_norm, norm_type)

    def get_train_dataloader(self) -> DataLoader:
        """Batches of this process; see `transformers.Trainer.get_train_dataloader`."""
        batches = self._batch_sampler()
        if batches is None:
            return super().get_train_dataloader()
        dataset: Any = self.train_dataset
        collate: Any = self.data_collator
        loader = DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=ShareCollator(collate) if self.args.world_size > 1 else collate,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )
        # One process, as the batches are shares already.
        return prepare_data_loader(loader, self.args.device, num_processes=1, process_index=0, put_on_device=True)

    def _batch_sampler(self) -> Sampler | None:
        """The share of this process in batches of similar length, or of as many targets; None for other data sets."""
        dataset, processes = self.train_dataset, self.args.world_size
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        if not isinstance(dataset, HasLengths):
            return None
        if self.batch_targets is None:
            sampler = LengthBucketSampler(dataset, self._train_batch_size * processes, seed=seed)
            return ProcessShare(sampler, self.args.process_index, processes, drop_last=self.args.dataloader_drop_last)
        if processes > 1:
            raise RecipeError(
                f"training.train_batch_targets works in one process, but there are {processes}; "
                "use training.train_batch_size."
            )
        return TargetBatchSampler(dataset, self.batch_targets, seed=seed)
