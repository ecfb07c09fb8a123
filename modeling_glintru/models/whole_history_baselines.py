"""For models that are not causal: an earlier position sees later items, so only a whole history has a representation.

They are trained in the form of their papers, one example for each prefix (`data.windows.TrainingPrefixes`), and refuse
anything else. Their operators over time have one weight for each place, so every history lies on the same canvas of
`max_position_embeddings` places, the newest item at its end, as the left padding of the published codes does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .configuration_glintru import GlintRUError
from .head_glintru import NextItemHead, PrefixEncoder, is_last_item
from .layers_baselines import check_length, count_items

__all__ = ["WholeHistoryEncoder", "WholeHistoryHead"]


class WholeHistoryEncoder(PrefixEncoder):
    """Lays histories on the canvas. `last_hidden_state` and `hidden_states` are zero but at the last item."""

    items_first = True
    fixed_canvas = True  # off: the canvas is only as long as the longest history of the batch

    def encode_canvas(self, embeds: Tensor, items: Tensor) -> list[Tensor]:
        """The hidden states, from the embeddings to the last layer.

        Args:
            embeds: (batch, places, hidden_size), zeros where `items` is false.
            items: (batch, places) bool, true at items, which stand at the end of each row.

        Returns:
            num_hidden_layers + 1 tensors (batch, places, hidden_size). Their last place is used; the last tensor may
            have no other.
        """
        raise NotImplementedError

    def encode(self, embeds: Tensor, mask: Tensor | None) -> list[Tensor]:
        """See `PrefixEncoder`."""
        check_length(embeds.shape[1], self.config.max_position_embeddings)
        longest = self.config.max_position_embeddings if self.fixed_canvas else embeds.shape[1]
        counts = count_items(embeds, mask)
        source = torch.arange(longest, device=embeds.device) - longest + counts
        items = source >= 0
        index = source.clamp_min(0)[..., None].expand(-1, -1, embeds.shape[2])
        canvas = embeds.gather(1, index).masked_fill(~items[..., None], 0)
        states = self.encode_canvas(canvas, items)
        last = torch.arange(embeds.shape[1], device=embeds.device) == counts - 1
        return [state[:, -1:] * last[..., None].to(state.dtype) for state in states]


class WholeHistoryHead(NextItemHead):
    """The shared head for a model that represents nothing but the whole history."""

    training_examples = "prefixes"

    def check_labels(self, chosen: Tensor, mask: Tensor) -> None:
        """One label a row, at its last item."""
        if bool((chosen & ~is_last_item(mask)).any()):
            raise GlintRUError(f"{type(self).__name__} knows only one label a row, at the last item")

    def _logits(self, hidden: Tensor, exclude_item_ids: Any) -> Tensor:
        if hidden.dim() == 3:
            raise GlintRUError(
                f"{type(self).__name__} encodes a whole history: give each prefix its own row, not return_all_logits"
            )
        return super()._logits(hidden, exclude_item_ids)
