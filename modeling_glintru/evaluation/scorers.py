"""A scorer is a callable from histories to scores; here is the one that asks a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import GlintRUError
from ..models.configuration_glintru import check_knows_time

__all__ = ["ModelScorer", "Scorer"]


class Scorer(Protocol):
    """Anything that scores all items after each history; models and baselines alike.

    One with a true `needs_time_gaps` is called with a further float32 array, (B,): the time from each history's last
    item to the request.
    """

    def __call__(self, histories: Sequence[np.ndarray]) -> Tensor:
        """Scores of all items.

        Args:
            histories: B integer arrays of item indices, each the full chronological history; one may be empty.

        Returns:
            float32 (B, vocab_size); column 0 is ignored.
        """
        ...


class ModelScorer:
    """Scores with a model whose `forward(input_ids, attention_mask)` returns `.logits`, (B, vocab_size).

    The model runs in eval mode without gradients, on the device where it is, and gets its training mode back.
    Autocast is the caller's: wrap the call to `evaluate` in it.

    Args:
        model: The model, for example `GlintRUForSequentialRecommendation`.
        max_length: The newest items of a history that the model sees, at least 1.
        time_gaps: Whether `evaluate` is to give the time of the request; by default where the model has
            `use_time_gaps`. False measures such a model without.
    """

    def __init__(self, model: nn.Module, max_length: int, *, time_gaps: bool | None = None) -> None:
        if max_length < 1:
            raise GlintRUError(f"max_length must be at least 1, found {max_length}")
        self.model = model
        self.max_length = max_length
        if time_gaps:
            check_knows_time(model)
        able = bool(getattr(getattr(model, "config", None), "use_time_gaps", False))
        self.needs_time_gaps = able if time_gaps is None else time_gaps

    def __call__(self, histories: Sequence[np.ndarray], time_gaps: np.ndarray | None = None) -> Tensor:
        """See `Scorer`; rows are padded with 0 on the right, a row without items is all padding.

        Args:
            histories: As `Scorer`.
            time_gaps: float (B,), from each last item to the request; None where nothing is known of it.
        """
        input_ids = torch.from_numpy(self._pad([history[-self.max_length :] for history in histories]))
        input_ids = input_ids.to(next(self.model.parameters()).device)
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        try:
            with torch.inference_mode():
                timed = {} if time_gaps is None else {"time_gaps": torch.from_numpy(time_gaps).to(input_ids.device)}
                output = self.model(input_ids=input_ids, attention_mask=(input_ids != 0).long(), **timed)
        finally:
            for module in training:  # each by itself: a part may have been in eval mode on purpose
                module.training = True
        return output.logits.float()

    @staticmethod
    def _pad(histories: list[np.ndarray]) -> np.ndarray:
        """int64 (B, longest), at least one column."""
        padded = np.zeros((len(histories), max([1, *(len(history) for history in histories)])), dtype=np.int64)
        for row, history in enumerate(histories):
            padded[row, : len(history)] = history
        return padded
