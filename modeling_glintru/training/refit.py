"""The training that follows the measured one: on everything, held-out items and users included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from ..data import PreparedData
from ..machine import is_main_process
from ..recipe import Recipe, find_model_recipe
from ..terminal import print_lines
from .folder import refit_folder
from .run import TrainingResult, train
from .start import Start
from .stopping import Interruptions, TimeIsUp

__all__ = ["Refit", "refit", "refit_in_time", "warn_of_refitted", "with_refit"]


@dataclass(frozen=True)
class Refit:
    """
    Args:
        model: Trained on everything.
        item_counts: int64 (n,), how often each item occurs in everything, in the order of the processor's `item_ids`.
        summary: `epochs`, `steps`, `seconds` and `num_interactions`, for `metrics.json`.
    """

    model: PreTrainedModel
    item_counts: np.ndarray
    summary: dict[str, Any]


def refit(
    measured: TrainingResult,
    recipe: Recipe,
    everything: PreparedData,
    output_dir: Path,
    *,
    start: Start | None = None,
    resume: bool = False,
    interruptions: Interruptions | None = None,
    progress: bool = True,
    say: Callable[[str], None] = print_lines,
) -> Refit:
    """Trains once more from the same beginning (seed, start model, settings), for as many epochs as were kept.

    The schedule stays that of all epochs of the recipe and stops where the best epoch stood, so that each epoch has the
    learning rates with which it was found good.

    Args:
        measured: What `train` gave for the same recipe on the training split.
        recipe: As for `train`, and so are the other arguments.
        everything: From `with_everything`.

    Raises:
        RunStopped: See `Interruptions`; `TimeIsUp` where it was the time limit. `resume` then goes on.
    """
    epochs = max(1, round(measured.best_epoch))
    count = int(everything.item_counts.sum())
    say(f"Refit     {_epochs(epochs)} on everything, {count:,} interactions: what was held out is learned from too")
    if is_main_process():
        refit_folder(output_dir, epochs, resume)
    result = train(
        recipe,
        everything,
        output_dir,
        start=start,
        epochs=epochs,
        resume=resume,
        interruptions=interruptions,
        progress=progress,
        say=say,
    )
    summary = {
        "epochs": epochs,
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
        "num_interactions": count,
    }
    return Refit(result.model, everything.item_counts[1:], summary)


def refit_in_time(
    measured: TrainingResult, *args: Any, say: Callable[[str], None] = print_lines, **options: Any
) -> tuple[TrainingResult, Refit | None]:
    """`refit` within the time limit; arguments as there.

    Returns:
        What was measured, with the place where the time limit ended the training or the refit, if it did, and the
        refit where there is one.
    """
    if measured.stopped is not None:
        say("Refit     none: the time was up before the training was done")
        return measured, None
    try:
        return measured, refit(measured, *args, say=say, **options)
    except TimeIsUp as limit:
        at = replace(limit.at, of=max(1, round(measured.best_epoch)), during="refit")
        say(f"Stopped   by --max_minutes after {at} of the refit: the model before it is kept")
        return replace(measured, stopped=at), None


def with_refit(measured: TrainingResult, last: Refit | None) -> TrainingResult:
    """What was measured, with the weights of the refit where there is one."""
    return measured if last is None else replace(measured, model=last.model, refit=last.summary)


def warn_of_refitted(start: Start, say: Callable[[str], None]) -> None:
    """Says where a fine-tuning starts from a model that has learned from what is measured now."""
    name = start.settings.from_model
    trained = find_model_recipe(name) if start.settings.items != "new" else None
    if trained is not None and trained.training.refit:
        say(
            f"Start     {Path(name).name} was trained on everything that its data held: where --data holds the same "
            "interactions, the figures of this run are too good"
        )


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"
