"""What a plain `transformers.Trainer` cannot do: batches of windows of similar length, and a quiet progress bar."""

from __future__ import annotations

import sys
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm.auto import tqdm
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from ..data import LengthBucketSampler, TargetBatchSampler
from ..data.batches import HasLengths
from ..errors import RecipeError
from .memory import ReturnFreedMemory
from .optimizer import LazyAdamW, can_train_rows, clip_grad_norm_
from .pushing import ModelPushes
from .shares import ProcessShare, ShareCollator

__all__ = ["EpochProgress", "GlintRUTrainer"]


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
        try:
            return super().train(*args, **kwargs)
        finally:  # other optimizers know only dense gradients
            if isinstance(embedding := self._item_embedding(), torch.nn.Embedding):
                embedding.sparse = False

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
        return can_train_rows(self.model) and (not distributed or torch.distributed.get_backend() == "gloo")

    def _clip_sparse_too(self, parameters: Any, max_norm: float, norm_type: float = 2.0) -> torch.Tensor:
        self.accelerator.unscale_gradients()
        return clip_grad_norm_(parameters, max_norm, norm_type)

    @property
    def _data_seed(self) -> int:
        return self.args.seed if self.args.data_seed is None else self.args.data_seed

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if not isinstance(dataset, HasLengths):
            return super()._get_train_sampler(train_dataset)
        return LengthBucketSampler(dataset, self._train_batch_size * self.args.world_size, seed=self._data_seed)

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
        )
        # One process, as the batches are shares already.
        return prepare_data_loader(loader, self.args.device, num_processes=1, process_index=0, put_on_device=True)

    def _batch_sampler(self) -> Sampler | None:
        """Where the plain Trainer's loader does not do: batches by targets, or the share of this process in each."""
        processes = self.args.world_size
        if self.batch_targets is not None:
            if processes > 1:
                raise RecipeError(
                    f"training.train_batch_targets works in one process, but there are {processes}; "
                    "use training.train_batch_size."
                )
            dataset: Any = self.train_dataset
            return TargetBatchSampler(dataset, self.batch_targets, seed=self._data_seed)
        sampler = self._get_train_sampler() if processes > 1 else None
        if not isinstance(sampler, LengthBucketSampler):
            return None
        return ProcessShare(sampler, self.args.process_index, processes)
