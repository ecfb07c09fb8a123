"""One run of a recipe: prepared data in, a trained model out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from torch import nn
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from ..data import PreparedData, SequenceCollator, TrainingPrefixes, TrainingWindows
from ..data.histories import history_lengths
from ..data.windows import check_gaps_differ
from ..errors import ModelFolderError, RecipeError
from ..machine import is_main_process, keep_freed_memory, processor_name
from ..models.auto import MODELS
from ..recipe import NEW_WEIGHTS, Recipe, TrainingRecipe
from ..terminal import print_lines
from .checkpoint import WRITING, RunTrainer, has_checkpoints, newest_checkpoint, remove_other_checkpoints
from .cooccurrence import NeighborSmoothing, near_pairs, neighbors, start_from_cooccurrence
from .folder import CHECKPOINTS, REFIT
from .item_table import add_features, materialise, mean_query, projection_of
from .start import Start, add_adapters, merge_adapters
from .stopping import Interruptions, Stop, TimeIsUp
from .trainer import device_batch_size

__all__ = ["TrainingResult", "save_model_folder", "train", "use_bf16"]


@dataclass(frozen=True)
class TrainingResult:
    """
    Args:
        model: With the weights of the best epoch.
        log_history: The Trainer's log: loss by step, validation metrics by epoch.
        best_epoch: The epoch whose weights were kept.
        seconds: Wall time of the training, validation and the time before an interruption included.
        steps: Optimizer steps.
        stopped: Where the time limit ended the training, or the refit after it; None where all was done.
        refit: Of the training on everything that followed, as in `metrics.json`; `model` then has its weights, and all
            else is of the training that was measured.
    """

    model: PreTrainedModel
    log_history: list[dict[str, Any]]
    best_epoch: float
    seconds: float
    steps: int
    stopped: Stop | None = None
    refit: dict[str, Any] | None = None

    def summary(self) -> dict[str, Any]:
        """The run in numbers, for `metrics.json`."""
        epochs = max((entry.get("epoch", 0.0) for entry in self.log_history), default=0.0)
        return {
            "seconds": round(self.seconds, 1),
            "seconds_per_epoch": round(self.seconds / max(epochs, 1e-9), 1),
            "epochs": epochs,
            "best_epoch": self.best_epoch,
            "steps": self.steps,
            "num_parameters": self.model.num_parameters(),
            "threads": torch.get_num_threads(),
            "device": self.model.device.type,
            "processor": processor_name(self.model.device.type),
        }

    def outcome(self) -> dict[str, Any]:
        """What is out of the ordinary, for `metrics.json`: `stopped` and `refit`, where they are."""
        stopped = {} if self.stopped is None else {"stopped": {"by": "max_minutes", **asdict(self.stopped)}}
        return stopped | ({} if self.refit is None else {"refit": self.refit})


def use_bf16(precision: str) -> bool:
    """Whether to train under bf16 autocast: as told, or, for `"auto"`, where the hardware multiplies in bf16."""
    if precision != "auto":
        return precision == "bf16"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return not torch.backends.mps.is_available() and bool(supported())


def training_arguments(recipe: Recipe, checkpoints: Path, progress: bool, validates: bool = True) -> TrainingArguments:
    """The recipe in the words of `transformers`."""
    training = recipe.training
    choice: dict[str, Any] = {"eval_strategy": "no"}
    if validates:
        choice = {"eval_strategy": "epoch", "load_best_model_at_end": True, "greater_is_better": True}
        choice |= {"metric_for_best_model": f"eval_{training.metric}"}
    arguments = TrainingArguments(
        output_dir=str(checkpoints / WRITING),
        num_train_epochs=training.num_train_epochs,
        per_device_train_batch_size=training.train_batch_size,
        per_device_eval_batch_size=training.eval_batch_size,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.lr_scheduler_type,
        warmup_steps=training.warmup_steps,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        bf16=use_bf16(training.precision),
        use_cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()),
        seed=recipe.seed,
        logging_steps=training.logging_steps,
        save_strategy="epoch",
        save_only_model=True,  # `RunCheckpoints` adds the rest, without pickles
        restore_callback_states_from_checkpoint=True,  # the patience of early stopping
        batch_eval_metrics=True,
        remove_unused_columns=False,
        dataloader_num_workers=training.dataloader_num_workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_find_unused_parameters=False,  # every weight takes part in every step
        disable_tqdm=not progress,
        report_to="none",
        **choice,
    )
    devices = arguments.world_size * max(1, arguments.n_gpu)
    arguments.per_device_train_batch_size = device_batch_size(training.train_batch_size, devices)
    return arguments


def sorted_by_length(split: Dataset) -> Dataset:
    """The same rows, longest history first: less padding in evaluation, and metrics do not depend on the order."""
    return split.select(np.argsort(-history_lengths(split), kind="stable"))


def training_rows(recipe: Recipe, split: Dataset, examples: str, time_gaps: bool = False) -> TrainingWindows:
    """The rows that a model is trained on, `"windows"` or `"prefixes"` as its class says (`training_examples`)."""
    training = recipe.training
    common: dict[str, Any] = {"seed": recipe.seed, "time_gaps": time_gaps}
    if examples == "prefixes":
        if training.train_batch_targets is not None:
            raise RecipeError(
                "training.train_batch_targets is for models that train on windows, and this one trains on prefixes, of "
                "one target each; use training.train_batch_size."
            )
        return TrainingPrefixes(split, training.max_length, share=training.prefix_share, **common)
    return TrainingWindows(split, training.max_length, random_shift=training.random_window_shift, **common)


def train(
    recipe: Recipe,
    data: PreparedData,
    output_dir: Path,
    *,
    compute_metrics: Callable | None = None,
    preprocess_logits_for_metrics: Callable | None = None,
    start: Start | None = None,
    epochs: int | None = None,
    resume: bool = False,
    interruptions: Interruptions | None = None,
    keep_best: bool = False,
    progress: bool = True,
    say: Callable[[str], None] = print_lines,
) -> TrainingResult:
    """Trains a new model, or that of `start`, as the recipe says; the epoch is chosen on the validation split.

    Args:
        recipe: Sizes and settings.
        data: Histories and vocabulary.
        output_dir: Checkpoints go to a folder inside, which stays: see `run_folder`.
        compute_metrics, preprocess_logits_for_metrics: As `transformers.Trainer` takes them; they give the
            recipe's validation metric (`modeling_glintru.evaluation` has a pair).
        start: From `open_start(recipe.fine_tuning)`, with the recipe that its `fitted` gave; it stays as it is.
        epochs: Train for so many epochs, along the recipe's schedule, and keep the last weights: no validation. That is
            the refit, whose checkpoints are in a folder of their own inside that of the run.
        resume: Whether to go on from the newest checkpoint that is whole; from the beginning where none was written.
        interruptions: When to save and to stop.
        keep_best: Whether the time limit ends the training with the best epoch so far (with the present weights, before
            any epoch was validated), instead of raising `RunStopped`.
        progress: Whether to show a bar and a line an epoch.
        say: Gets a line about a damaged checkpoint and about where a resumed run goes on.

    Raises:
        DataError: The recipe has `use_time_gaps`, and the data no times between items, or always the same.
        ModelFolderError: All checkpoints are damaged.
        RecipeError: The batch cannot be shared out to the processes, or the launcher asks for sharded weights.
        RunStopped: See `Interruptions`; `TimeIsUp` where it was the time limit.
        TrainingDivergedError: The loss or a weight is no longer a finite number; earlier checkpoints stay.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":  # ignored by Accelerate on the CPU
        raise RecipeError("glintru train keeps whole weights in each process; examples/train_sharded.py shards them")
    if recipe.fine_tuning is not None and start is None:
        raise RecipeError(f"the recipe {recipe.name!r} fine-tunes a model, but this trains new weights")
    for name in NEW_WEIGHTS if start is not None else ():
        if getattr(recipe.training, name):
            raise RecipeError(f"training.{name} is for new weights; a model that is fine-tuned has its own")
    if recipe.model.get("use_time_gaps"):
        check_gaps_differ(data.dataset["train"])
    keep_freed_memory()
    set_seed(recipe.seed)
    training = recipe.training
    checkpoints = output_dir / CHECKPOINTS
    if epochs is not None:
        checkpoints /= REFIT
    arguments = training_arguments(recipe, checkpoints, progress and is_main_process(), validates=epochs is None)
    checkpoint = _agreed_checkpoint(checkpoints, say) if resume else None
    smoothing = None
    if start is None:
        model = MODELS[recipe.model_name](recipe.config(data.processor.vocab_size))
        smoothing = _begin_table(model.get_input_embeddings(), data, training, resumed=checkpoint is not None)
    else:
        model = start.model_for(recipe, data)
        if data.item_features is not None and start.settings.items == "new":
            table: Any = model.get_input_embeddings()
            add_features(table, data.item_features, data.item_counts, start.projection)
    config, adapted = model.config, None
    if start is not None and start.settings.lora_rank:
        new_items = start.settings.items == "new" or len(data.processor) > len(start.processor)
        adapted = add_adapters(model, start.settings.lora_rank, train_embeddings=new_items)
        say(f"LoRA      {model.num_parameters(only_trainable=True):,} of {model.num_parameters():,} parameters train")
    model.training_loss = recipe.training_loss(data.item_counts)
    interruptions = interruptions or Interruptions()
    trainer = RunTrainer(
        model=model,
        args=arguments,
        batch_targets=training.train_batch_targets,
        smoothing=smoothing,
        data_collator=SequenceCollator(
            training.max_length, exclude_seen=not data.processor.recommend_seen, time_gaps=config.use_time_gaps
        ),
        train_dataset=training_rows(recipe, data.dataset["train"], model.training_examples, config.use_time_gaps),
        eval_dataset=sorted_by_length(data.dataset["validation"]) if epochs is None else None,
        compute_metrics=compute_metrics,
        preprocess_logits_for_metrics=preprocess_logits_for_metrics,
        callbacks=[*_ends(training, epochs, say if progress else lambda text: None), interruptions],
    )
    stopped = None
    try:
        with interruptions.caught():
            trainer.train(resume_from_checkpoint=checkpoint)
        trainer.check_weights()
    except TimeIsUp as limit:
        if not keep_best:
            raise
        stopped = limit.at
        trainer.keep_best()
    steps_per_epoch = trainer.state.max_steps / arguments.num_train_epochs
    best_step = trainer.state.best_global_step or trainer.state.global_step
    # Accelerate leaves its autocast around `forward`; evaluation is in full precision.
    model = trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    if adapted is not None:
        model = merge_adapters(adapted)
    materialise(model.get_input_embeddings())
    return TrainingResult(
        model=model.eval(),
        log_history=trainer.state.log_history,
        best_epoch=round(best_step / steps_per_epoch, 2),
        seconds=trainer.seconds,
        steps=trainer.state.global_step,
        stopped=stopped,
    )


class LastEpoch(TrainerCallback):
    """Ends a training after so many epochs; the schedule of its learning rate is that of all.

    Args:
        epochs: At least 1.
        say: Gets a line an epoch.
    """

    def __init__(self, epochs: int, say: Callable[[str], None]) -> None:
        self.epochs = epochs
        self.say = say

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        epoch = round(state.epoch or 0)
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        self.say(f"refit epoch {epoch}/{self.epochs}" + (f"  loss {losses[-1]:.3f}" if losses else ""))
        if epoch >= self.epochs:
            control.should_training_stop = True


def _ends(training: TrainingRecipe, epochs: int | None, say: Callable[[str], None]) -> list[TrainerCallback]:
    """What ends a training before the last epoch of its recipe."""
    if epochs is not None:
        return [LastEpoch(epochs, say)]
    patience = training.early_stopping_patience
    return [EarlyStoppingCallback(patience)] if patience else []


def _begin_table(
    table: nn.Embedding, data: PreparedData, training: TrainingRecipe, resumed: bool
) -> NeighborSmoothing | None:
    """Lets co-occurrence and features into new item embeddings; gives the smoothing, where the settings ask for it."""
    share = 0.0 if resumed else training.cooccurrence_start  # a checkpoint's weights replace these at once
    weight = training.cooccurrence_smoothing
    counts = near_pairs(data.dataset["train"], table.num_embeddings) if share or weight else None
    if counts is not None and share:
        start_from_cooccurrence(table, counts, share)
    if data.item_features is not None:
        add_features(table, data.item_features, data.item_counts)
    return NeighborSmoothing(table, neighbors(counts), weight) if counts is not None and weight else None


def _agreed_checkpoint(folder: Path, say: Callable[[str], None]) -> str | None:
    """Where all processes go on, which the first one finds out; None at the beginning."""
    found: list[str | None] = [None]
    if is_main_process():
        checkpoint = newest_checkpoint(folder, say)
        refit = folder.name == REFIT
        if checkpoint is None and has_checkpoints(folder) and not refit:  # a refit starts again
            raise ModelFolderError(f"no checkpoint in {folder} is whole; start again with --overwrite")
        remove_other_checkpoints(folder, checkpoint)
        if checkpoint is not None:
            say(f"The {'refit' if refit else 'run'} goes on from {checkpoint.name}")
        elif not refit:
            say("The run goes on from the beginning: no checkpoint was written yet")
        found = [None if checkpoint is None else str(checkpoint)]
    broadcast_object_list(found)
    return found[0]


def save_model_folder(output_dir: Path, result: TrainingResult, data: PreparedData, recipe: Recipe) -> None:
    """Writes weights, vocabulary, recipe and log: a folder that `from_pretrained` and `glintru` take.

    Where the items have features, the folder also gets what makes rows of new items of theirs.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    data.processor.max_length = recipe.training.max_length
    if data.processor.item_counts is None:  # prepared by an earlier version
        data.processor.item_counts = data.item_counts[1:]
    result.model.save_pretrained(output_dir)
    data.processor.save_pretrained(output_dir)
    if data.item_features is not None:
        table: Any = result.model.get_input_embeddings()
        projection = projection_of(table, data.item_features, data.item_counts)
        projection.query = mean_query(result.model, data.dataset["train"], recipe.training.max_length)
        projection.save(output_dir)
        data.item_features.encoder.save(output_dir)
    recipe.save(output_dir / "recipe.yaml")
    (output_dir / "training_log.json").write_text(json.dumps(result.log_history, indent=1), encoding="utf-8")
