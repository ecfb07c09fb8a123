"""Raw item ids in, the best next items out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from ..errors import GlintRUError
from ..machine import pick_device
from ..models.item_sets import ItemFilter, ItemSet
from ..models.loading import load_model_folder
from ..models.pipeline_glintru import checked_gaps, leaves_out_seen
from ..models.processing_glintru import GlintRUProcessor
from .top_k import check_k

__all__ = ["Recommendation", "Recommender"]


@dataclass(frozen=True)
class Recommendation:
    """What to recommend after one history.

    Args:
        items: Best first, `{"item_id": raw id, "score": float}`, with `"title"` where the model knows titles.
        num_unknown_items: Items of the history that the model does not know; they were left out.
        cold_start: Whether no item of the history is known: these are the most popular items then, and their score is
            0, since the model has nothing to say of this user.
    """

    items: list[dict[str, Any]]
    num_unknown_items: int
    cold_start: bool = False


class Recommender:
    """A model and its vocabulary.

    Args:
        model: Scores all items after a history.
        processor: Its vocabulary.
        batch_size: Histories at once.

    Example:
        >>> Recommender.from_pretrained("outputs/ml-100k").recommend([[50, 172, 181]], top_k=10)
    """

    def __init__(self, model: PreTrainedModel, processor: GlintRUProcessor, batch_size: int = 128) -> None:
        self.model = model
        self.processor = processor
        self.batch_size = batch_size

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        batch_size: int = 128,
        *,
        revision: str | None = None,
        device: str | torch.device | None = None,
    ) -> Recommender:
        """From a model folder, or a Hub repository at a branch or commit.

        Args:
            name_or_path, revision: See `load_model_folder`, whose errors this has too.
            batch_size: Histories at once.
            device: Where to compute: a GPU where there is one by default, see `pick_device`.
        """
        where: Any = pick_device(device)  # one that is not there is known before anything is read
        model, processor = load_model_folder(name_or_path, revision=revision)
        return cls(model.to(where), processor, batch_size=batch_size)

    def item_set(self, item_ids: Any, unknown_items: str | None = None) -> ItemSet:
        """Items for `allowed` or `exclude`, looked up once to be used again and again; see `ItemSet`."""
        return ItemSet(self.processor, item_ids, unknown_items)

    def recommend(
        self,
        histories: Sequence[Sequence[Any]],
        top_k: int = 10,
        *,
        exclude_seen: bool | None = None,
        allowed: Any = None,
        exclude: Any = None,
        unknown_items: str | None = None,
        time_gaps: Sequence[float | None] | None = None,
    ) -> list[Recommendation]:
        """The best next items after each history.

        A history without an item that the model knows gets the most popular items of the training data, each with the
        score 0, and `cold_start` is true.

        Args:
            histories: Raw item ids, oldest first; a history may be empty.
            top_k: Items each, between 1 and the number of items. Filters may leave fewer.
            exclude_seen: Whether the items of the history, all of it, are left out; by default unless the processor
                says `recommend_seen`.
            allowed: For all histories, raw ids, a mask or an `ItemSet` (see there): nothing else is recommended.
            exclude: The same: not recommended, whatever their score.
            unknown_items: `"drop"` or `"error"`, the processor's own policy by default.
            time_gaps: For models with `use_time_gaps`: the time from each history's last item to now, in the unit of
                the training data; None where not known.

        Raises:
            GlintRUError: `top_k` out of range, a single history instead of a list of them, ids of a wrong type, no
                item of `allowed` is known, an `ItemSet` is of another recommender, or `time_gaps` that are not one a
                history, negative, or not for this model.
            UnknownItemError: An unknown item under the policy `"error"`.
        """
        filters: dict[str, Any] = {"exclude_seen": exclude_seen, "allowed": allowed, "exclude": exclude}
        return list(self.stream(histories, top_k, unknown_items=unknown_items, time_gaps=time_gaps, **filters))

    def stream(
        self,
        histories: Sequence[Sequence[Any]],
        top_k: int = 10,
        *,
        exclude_seen: bool | None = None,
        allowed: Any = None,
        exclude: Any = None,
        unknown_items: str | None = None,
        time_gaps: Sequence[float | None] | None = None,
    ) -> Iterator[Recommendation]:
        """As `recommend`, a batch at a time, so that any number of users fits."""
        top_k = check_k(top_k, len(self.processor), "top_k")
        leaves_out = leaves_out_seen(exclude_seen, self.processor)
        filters = ItemFilter.of(self.processor, allowed, exclude)
        gaps = None if time_gaps is None else checked_gaps(time_gaps, len(histories), self.model)
        for start in range(0, len(histories), self.batch_size):
            part = slice(start, start + self.batch_size)
            given = None if gaps is None else gaps[part]
            yield from self._batch(histories[part], top_k, leaves_out, filters, unknown_items, given)

    @torch.inference_mode()
    def _batch(
        self,
        histories: Sequence[Sequence[Any]],
        top_k: int,
        exclude_seen: bool,
        filters: ItemFilter,
        unknown_items: str | None,
        time_gaps: torch.Tensor | None,
    ) -> list[Recommendation]:
        for history in histories:
            # A text is a sequence too, of letters that no vocabulary knows: refused, not answered at random.
            if isinstance(history, (str, bytes)) or not isinstance(history, Iterable):
                raise GlintRUError(f"each history must be a list of raw item ids, as in [[1, 2], [3]], got {history!r}")
        options: dict[str, Any] = {"unknown_items": unknown_items, "return_num_unknown_items": True}
        inputs = self.processor(list(map(list, histories)), **options)
        unknown = inputs.pop("num_unknown_items").tolist()
        cold = (~inputs["input_ids"].bool().any(1)).tolist()
        exclude = None
        if exclude_seen:  # the whole history, not just the newest part that the model reads
            longest = max(1, *map(len, histories))
            exclude = self.processor(list(map(list, histories)), max_length=longest, **options)["input_ids"]
            exclude = exclude.to(self.model.device)
        self.model.eval()
        timed = {} if time_gaps is None else {"time_gaps": time_gaps.to(self.model.device)}
        logits = self.model(**inputs.to(self.model.device), exclude_item_ids=exclude, **timed).logits
        if filters:
            logits[:, torch.from_numpy(~filters.passing).to(logits.device)] = -torch.inf
        items = self.processor.decode_top_k(logits, top_k)
        if any(cold):
            popular = filters.most_popular(top_k).tolist()
            for place in np.flatnonzero(cold):
                items[place] = [self.processor.listed(index, 0.0) for index in popular]
        return [Recommendation(*answer) for answer in zip(items, unknown, cold, strict=True)]
