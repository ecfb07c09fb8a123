"""Items that a user has seen: out of the training softmax, where `seen_items_in_softmax` is off."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import logging

__all__ = ["hide_seen_", "leaves_out_seen", "seen_items", "warn_of_seen_items"]

logger = logging.get_logger(__name__)

HIDDEN_SCORE = -1e4  # in units of the softmax, in the range of float16


def seen_items(items: Tensor, seen: Tensor, targets: Tensor) -> Tensor:
    """What the losses call `seen`: (targets, length) int64 items, the target itself where there is none to hide.

    Args:
        items: (targets, length) int64 items of each target's row.
        seen: (targets, length) bool, which of them the target follows.
        targets: (targets,) int64 item indices.
    """
    return torch.where(seen, items, targets[:, None])


def hide_seen_(scores: Tensor, targets: Tensor, seen: Tensor, temperature: float) -> None:
    """Takes the (rows, any) `seen` out of the softmax of (rows, items) scores, in place; targets stay in."""
    target = targets[:, None]
    kept = scores.gather(1, target)
    # Not -inf: R-Drop takes the difference of two scores. exp is 0 all the same.
    scores.scatter_(1, seen, HIDDEN_SCORE * min(temperature, 1.0)).scatter_(1, target, kept)


def leaves_out_seen(exclude_seen: bool | None, model: nn.Module, processor: Any) -> bool:
    """Whether items of the history are not recommended again; warns where their scores mean nothing.

    Args:
        exclude_seen: What the call says; None for what was decided in training, the processor's `recommend_seen`.
        model: The recommender.
        processor: Its vocabulary.
    """
    if exclude_seen is None:
        exclude_seen = not processor.recommend_seen
    if not exclude_seen:
        warn_of_seen_items(model)
    return exclude_seen


def warn_of_seen_items(model: nn.Module) -> None:
    """Says, once, that a model which was trained without seen items does not know what their scores are."""
    if not getattr(model.config, "seen_items_in_softmax", True):
        logger.warning_once(
            "This model was trained with seen_items_in_softmax=False: it never learned to score the items of the "
            "history, so leave them out (exclude_seen), or train with seen_items_in_softmax=true."
        )
