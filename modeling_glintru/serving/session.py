"""One person's clicks, one after the other, each of which can be taken back."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from ..errors import GlintRUError
from ..models.item_sets import ItemFilter
from ..models.pipeline_glintru import leaves_out_seen
from ..models.processing_glintru import GlintRUProcessor
from .top_k import check_k

__all__ = ["ClickSession"]


class ClickSession:
    """Recommends after each click: GLINT-RU from its state, other models from the whole history.

    Args:
        model: Any recommender of this package, in eval mode.
        processor: Its vocabulary.
        top_k: Items to recommend, between 1 and the number of items.
        exclude_seen: Whether what was clicked is left out; by default unless the processor says `recommend_seen`.
        allowed: Raw ids, a mask or an `ItemSet`: nothing else is recommended.
        exclude: The same: not recommended, whatever their score.

    Raises:
        GlintRUError: `top_k` is out of range, or the model knows no item of `allowed`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: GlintRUProcessor,
        top_k: int = 10,
        exclude_seen: bool | None = None,
        *,
        allowed: Any = None,
        exclude: Any = None,
    ) -> None:
        self.model: Any = model
        self.processor = processor
        self.top_k = check_k(top_k, len(processor), "top_k")
        self.exclude_seen = leaves_out_seen(exclude_seen, processor)
        self.filters = ItemFilter.of(processor, allowed, exclude)
        self.clicks: list[int] = []
        streams = hasattr(model, "state_class")
        # One state for each length of the history, so that a click can be taken back; empty for other models.
        self.states: list[Any] = [self.model.model.empty_state()] if streams else []

    def click(self, raw_id: Any) -> list[dict[str, Any]]:
        """The best next items, as `GlintRUProcessor.decode_top_k` gives them, after one more item.

        Raises:
            UnknownItemError: The model does not know the item; the session is as before.
        """
        clicks = [*self.clicks, self.processor.index_of(raw_id)]
        device = self.model.device
        exclude = torch.tensor([clicks], device=device) if self.exclude_seen else None
        with torch.inference_mode():
            if self.states:
                newest = torch.tensor([clicks[-1:]], device=device)
                output = self.model(newest, state=self.states[-1], exclude_item_ids=exclude)
                self.states.append(output.state)
            else:
                newest = torch.tensor([clicks[-self.processor.max_length :]], device=device)
                output = self.model(newest, exclude_item_ids=exclude)
            logits = output.logits
            if self.filters:
                logits[:, torch.from_numpy(~self.filters.passing).to(device)] = -torch.inf
        self.clicks = clicks
        return self.processor.decode_top_k(logits, self.top_k)[0]

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
