"""Which items may be recommended: lists and masks that are looked up once, and the most popular items that pass.

This file travels to the Hub as remote code, hence its few imports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from transformers.utils import logging

from .configuration_glintru import GlintRUError

__all__ = ["ItemFilter", "ItemSet", "leaves_out_seen"]

logger = logging.get_logger(__name__)

CHUNK = 4096  # popular items that are looked at together: nearly always the first ones are enough


class ItemSet:
    """Items for `allowed` or `exclude`, looked up once: an allow-list, a category, what is out of stock.

    Args:
        processor: The vocabulary.
        item_ids: Raw ids, in a list, array, set or column; or a mask, booleans of shape (num_items,) in the order of
            `processor.item_ids`, True for the items that are meant.
        unknown_items: `"drop"` or `"error"`, the processor's own policy by default.

    Attributes:
        processor: As given; indices mean nothing to another one.
        indices: The known items' indices, int64, ascending, each once.
        num_unknown_items: How many of the ids the model does not know.

    Raises:
        UnknownItemError: The policy is `"error"` and there are unknown items.
        GlintRUError: Ids of another type than the vocabulary's, or a mask of another shape.
    """

    def __init__(self, processor: Any, item_ids: Any, unknown_items: str | None = None) -> None:
        self.processor = processor
        mask = _as_mask(item_ids)
        if mask is None:
            found = processor.encode_ids(item_ids, unknown_items)
        elif mask.shape != (len(processor),):
            raise GlintRUError(
                f"a mask of items has the shape ({len(processor)},), one boolean for each of processor.item_ids, but "
                f"got {mask.shape}"
            )
        else:
            found = np.flatnonzero(mask) + 1
        self.indices = np.unique(found[found > 0])
        self.num_unknown_items = int((found == 0).sum())

    @classmethod
    def of(cls, processor: Any, items: Any, unknown_items: str | None = None) -> ItemSet:
        """The set itself, or one of ids or a mask.

        Raises:
            GlintRUError: The set is of another processor; else as the constructor.
        """
        found = items if isinstance(items, cls) else cls(processor, items, unknown_items)
        if found.processor is not processor:
            raise GlintRUError("an ItemSet belongs to the recommender whose item_set made it: make it again")
        return found

    def __len__(self) -> int:
        return len(self.indices)


def _as_mask(items: Any) -> np.ndarray | None:
    """Booleans as an array; None for anything else."""
    is_list = isinstance(items, (list, tuple)) and len(items) > 0 and isinstance(items[0], (bool, np.bool_))
    array = np.asarray(items) if is_list or hasattr(items, "__array__") else None
    return array if array is not None and array.dtype == bool else None


@dataclass(frozen=True)
class ItemFilter:
    """What `allowed` and `exclude` of a call leave to recommend.

    Args:
        processor: The vocabulary.
        only: Indices of the items that are allowed, None for all.
        never: Indices of the items that are left out.
    """

    processor: Any
    only: np.ndarray | None
    never: np.ndarray

    @classmethod
    def of(cls, processor: Any, allowed: Any, exclude: Any, unknown_items: str | None = None) -> ItemFilter:
        """From raw ids, masks, or objects of `ItemSet`; None for no filter.

        Raises:
            GlintRUError: The model knows no item of `allowed`; else as `ItemSet`.
        """
        only = None if allowed is None else ItemSet.of(processor, allowed, unknown_items).indices
        if only is not None and not len(only):
            raise GlintRUError("allowed has no item that the model knows, so there is nothing to recommend")
        never = np.zeros(0, np.int64) if exclude is None else ItemSet.of(processor, exclude, unknown_items).indices
        return cls(processor, only, never)

    def __bool__(self) -> bool:
        """Whether any item is left out."""
        return self.only is not None or len(self.never) > 0

    @cached_property
    def passing(self) -> np.ndarray:
        """bool (vocab_size,), by index: what may be recommended. Padding may not."""
        passing = np.full(self.processor.vocab_size, self.only is None)
        if self.only is not None:
            passing[self.only] = True
        passing[self.never] = False
        passing[0] = False
        return passing

    def most_popular(self, top_k: int, hidden: Sequence[int] | np.ndarray = (), order: Any = None) -> np.ndarray:
        """What a user gets of whom no item is known.

        Args:
            top_k: Items at most.
            hidden: Indices of further items that are left out.
            order: All indices, the most popular first; by default the processor's `popular_items`.

        Returns:
            Indices, int64, up to `top_k`.
        """
        if order is None:
            order = self.processor.popular_items
            if self.processor.item_counts is None:
                logger.warning_once(
                    "This model was saved without item counts, so users of whom no item is known get the items in the "
                    "order of the vocabulary; set processor.item_counts and save it again, or train again."
                )
        passing = self.passing
        if len(hidden):
            passing = passing.copy()
            passing[hidden] = False
        found, number = [np.zeros(0, np.int64)], 0
        for start in range(0, len(order), CHUNK):
            part = order[start : start + CHUNK]
            found.append(part[passing[part]])
            number += len(found[-1])
            if number >= top_k:
                break
        return np.concatenate(found)[:top_k]


def leaves_out_seen(exclude_seen: bool | None, processor: Any) -> bool:
    """Whether items of the history are not recommended again; warns where their scores may mean nothing.

    Args:
        exclude_seen: What the call says; None for what was decided in training, the processor's `recommend_seen`.
        processor: The vocabulary.
    """
    if exclude_seen is None:
        return not processor.recommend_seen
    if not exclude_seen and not processor.recommend_seen:
        logger.warning_once(
            "This model was trained and measured with past items left out: it may never have learned to score them, "
            "so leave them out (exclude_seen), or train with recommend_seen=true."
        )
    return exclude_seen
