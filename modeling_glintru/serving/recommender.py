"""Raw item ids in, the best next items out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ..errors import GlintRUError
from ..loading import load_model_folder
from ..processing_glintru import GlintRUProcessor
from ..seen_items_glintru import warn_of_seen_items
from ..time_gaps_glintru import checked_gaps
from .top_k import check_k

__all__ = ["Recommendation", "Recommender"]


@dataclass(frozen=True)
class Recommendation:
    """What to recommend after one history.

    Args:
        items: Best first, `{"item_id": raw id, "score": float}`, with `"title"` where the model knows titles.
        num_unknown_items: Items of the history that the model does not know; they were left out.
        cold_start: Whether a `StreamingRecommender` knew no item of the user: the order is one for everybody then.
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
        cls, name_or_path: str | Path, batch_size: int = 128, *, revision: str | None = None
    ) -> Recommender:
        """From a model folder, or a Hub repository at a branch or commit; errors as `load_model_folder`."""
        return cls(*load_model_folder(name_or_path, revision=revision), batch_size=batch_size)

    def recommend(
        self,
        histories: Sequence[Sequence[Any]],
        top_k: int = 10,
        *,
        exclude_seen: bool = True,
        unknown_items: str | None = None,
        time_gaps: Sequence[float | None] | None = None,
    ) -> list[Recommendation]:
        """The best next items after each history.

        Args:
            histories: Raw item ids, oldest first; a history may be empty.
            top_k: Items each, between 1 and the number of items.
            exclude_seen: Whether the items of the history, all of it, are left out.
            unknown_items: `"drop"` or `"error"`, the processor's own policy by default.
            time_gaps: For models with `use_time_gaps`: the time from each history's last item to now, in the unit of
                the training data; None where not known.

        Raises:
            GlintRUError: `top_k` out of range, a single history instead of a list of them, ids of a wrong type, or
                `time_gaps` that are not one a history, negative, or not for this model.
            UnknownItemError: An unknown item under the policy `"error"`.
        """
        options: dict[str, Any] = {"exclude_seen": exclude_seen, "unknown_items": unknown_items}
        return list(self.stream(histories, top_k, time_gaps=time_gaps, **options))

    def stream(
        self,
        histories: Sequence[Sequence[Any]],
        top_k: int = 10,
        *,
        exclude_seen: bool = True,
        unknown_items: str | None = None,
        time_gaps: Sequence[float | None] | None = None,
    ) -> Iterator[Recommendation]:
        """As `recommend`, a batch at a time, so that any number of users fits."""
        top_k = check_k(top_k, len(self.processor), "top_k")
        if not exclude_seen:
            warn_of_seen_items(self.model)
        gaps = None if time_gaps is None else checked_gaps(time_gaps, len(histories), self.model)
        for start in range(0, len(histories), self.batch_size):
            part = slice(start, start + self.batch_size)
            given = None if gaps is None else gaps[part]
            yield from self._batch(histories[part], top_k, exclude_seen, unknown_items, given)

    @torch.inference_mode()
    def _batch(
        self,
        histories: Sequence[Sequence[Any]],
        top_k: int,
        exclude_seen: bool,
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
        exclude = None
        if exclude_seen:  # the whole history, not just the newest part that the model reads
            longest = max(1, *map(len, histories))
            exclude = self.processor(list(map(list, histories)), max_length=longest, **options)["input_ids"]
            exclude = exclude.to(self.model.device)
        self.model.eval()
        timed = {} if time_gaps is None else {"time_gaps": time_gaps.to(self.model.device)}
        logits = self.model(**inputs.to(self.model.device), exclude_item_ids=exclude, **timed).logits
        items = self.processor.decode_top_k(logits, top_k)
        return [Recommendation(row, count) for row, count in zip(items, unknown, strict=True)]
