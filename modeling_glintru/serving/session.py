"""One person's clicks, one after the other, each of which can be taken back."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from ..errors import GlintRUError
from ..processing_glintru import GlintRUProcessor
from ..seen_items_glintru import warn_of_seen_items
from .top_k import check_k

__all__ = ["ClickSession"]


class ClickSession:
    """Recommends after each click: GLINT-RU from its state, other models from the whole history.

    Args:
        model: Any recommender of this package, in eval mode.
        processor: Its vocabulary.
        top_k: Items to recommend, between 1 and the number of items.
        exclude_seen: Whether what was clicked is left out.

    Raises:
        GlintRUError: `top_k` is out of range.
    """

    def __init__(
        self, model: PreTrainedModel, processor: GlintRUProcessor, top_k: int = 10, exclude_seen: bool = True
    ) -> None:
        self.model: Any = model
        self.processor = processor
        self.top_k = check_k(top_k, len(processor), "top_k")
        if not exclude_seen:
            warn_of_seen_items(model)
        self.exclude_seen = exclude_seen
        self.clicks: list[int] = []
        streams = hasattr(model, "state_class") and getattr(model.config, "padding_mode", "masked") != "official"
        # One state for each length of the history, so that a click can be taken back; empty for other models.
        self.states: list[Any] = [self.model.model.empty_state()] if streams else []

    def click(self, raw_id: Any) -> list[dict[str, Any]]:
        """The best next items, as `GlintRUProcessor.decode_top_k` gives them, after one more item.

        Raises:
            UnknownItemError: The model does not know the item; the session is as before.
        """
        clicks = [*self.clicks, self.processor.index_of(raw_id)]
        exclude = torch.tensor([clicks]) if self.exclude_seen else None
        with torch.inference_mode():
            if self.states:
                output = self.model(torch.tensor([clicks[-1:]]), state=self.states[-1], exclude_item_ids=exclude)
                self.states.append(output.state)
            else:
                newest = torch.tensor([clicks[-self.processor.max_length :]])
                output = self.model(newest, exclude_item_ids=exclude)
        self.clicks = clicks
        return self.processor.decode_top_k(output.logits, self.top_k)[0]

    def undo(self) -> Any:
        """Takes the newest click back, and says which item it was.

        Raises:
            GlintRUError: There is none.
        """
        if not self.clicks:
            raise GlintRUError("there is nothing to undo")
        if self.states:
            self.states.pop()
        return self.processor.raw_id(self.clicks.pop())
