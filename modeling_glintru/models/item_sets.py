"""Items for `allowed` and `exclude`, and what they leave to recommend. This file does not travel to the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .pipeline_glintru import allowed_indices, item_indices

__all__ = ["ItemFilter", "ItemSet"]

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
        found = item_indices(processor, item_ids, unknown_items)
        self.indices = np.unique(found[found > 0])
        self.num_unknown_items = int((found == 0).sum())

    def __len__(self) -> int:
        return len(self.indices)


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
        only = None if allowed is None else allowed_indices(processor, allowed, unknown_items)
        if only is not None:
            only = np.unique(only)
        never = np.zeros(0, np.int64)
        if exclude is not None:
            found = item_indices(processor, exclude, unknown_items)
            never = np.unique(found[found > 0])
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
