"""Configs that version 0.1.0 saved: their fields on how a model was trained are not fields any more.

This file does not travel to the Hub; a folder of that version has its own code beside the weights.
"""

from __future__ import annotations

from typing import Any

from transformers.utils import logging

from .configuration_glintru import GlintRUError

__all__ = ["take_out_old_fields"]

logger = logging.get_logger(__name__)

# Fields of older configs, with their defaults: how a model was trained is not in its config any more.
OLD_FIELDS: dict[str, Any] = {
    "loss": "cross_entropy",
    "num_negatives": 256,
    "negative_sampling": "uniform",
    "popularity_exponent": 1.0,
    "in_batch_share": 0.5,
    "gbce_t": 0.75,
    "label_smoothing": 0.0,
    "r_drop_alpha": 0.0,
    "seen_items_in_softmax": True,
    "time_gap_masking": 0.1,
    "padding_in_softmax": False,
    "padding_mode": "masked",
}


def take_out_old_fields(fields: dict[str, Any]) -> set[str]:
    """Removes old fields, and gives their names; a training would go on with another loss, which a warning says.

    Args:
        fields: Of a config, by name; changed in place.

    Raises:
        GlintRUError: The model was run with the authors' padding leak.
    """
    old = {name: fields.pop(name) for name in OLD_FIELDS if name in fields}
    if old.get("padding_mode", "masked") != "masked":
        raise GlintRUError(
            "padding_mode 'official', the authors' padding leak, is not a way to run a model any more: set "
            "padding_mode to 'masked' in config.json; modeling_glintru.hub.official computes the leak"
        )
    of_loss = {name: value for name, value in old.items() if value != OLD_FIELDS[name] and name != "padding_in_softmax"}
    if of_loss:
        logger.warning_once(
            f"This config says how its model was trained, {of_loss}; that is a loss now, not a part of the model. To "
            "train on with it, set model.training_loss = NextItemLoss(...)."
        )
    return set(old)
