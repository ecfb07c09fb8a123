"""The representation of whole histories, without those of their prefixes.

A recommendation needs the last position alone. All but the last block of GLINT-RU are run as they are; the last one is
run as a stream would: it absorbs all items but the newest without an output, and one step adds the newest. Where the
last block is the first one, what it reads are rows of the item table, whose products with the weights are computed once
for each item and then only looked up (`item_tables.py`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..models.head_glintru import last_item
from ..models.modeling_glintru import GlintRUModel, Past, at
from .item_tables import ItemTables

__all__ = ["LastItemEncoder"]


class LastItemEncoder:
    """What `last_hidden_state` is at the last item of each row, equal to it up to rounding.

    Args:
        model: A recommender of this package, in eval mode; its weights may not change afterwards.
        num_positions: About how many items it will read: below the size of the catalogue, tables would not pay.
    """

    def __init__(self, model: PreTrainedModel, num_positions: int = 0) -> None:
        self.encoder: Any = model.model
        self.by_stream = isinstance(self.encoder, GlintRUModel)
        self.tables: ItemTables | None = None
        if self.by_stream and len(self.encoder.layers) == 1:
            block, items = self.encoder.layers[0], self.encoder.embed_items.weight.detach()
            if len(items) <= num_positions and ItemTables.serve(block, items):
                self.tables = ItemTables(block, self.encoder.block_input(items))

    @torch.inference_mode()
    def __call__(self, input_ids: Tensor) -> Tensor:
        """
        Args:
            input_ids: (batch, length) int64, items before padding (0) in each row, length at least 1.

        Returns:
            (batch, hidden_size); zeros for a row without items.
        """
        if not self.by_stream:
            return last_item(self.encoder(input_ids).last_hidden_state, input_ids != 0)
        counts, block = (input_ids != 0).sum(1), self.encoder.layers[-1]
        older = (counts - 1).clamp_min(0)
        if self.tables is None:
            x = self._block_input(input_ids)
            tensors, newest = block.absorb(x, older), at(x, counts - 1)
        else:
            tensors = self._looked_up(input_ids, counts, older)
            newest = self._embedded(input_ids.gather(1, older[:, None]))[:, 0]
        hidden, _ = block(newest[:, None], None, Past(tensors, older))
        return hidden[:, 0] * (counts > 0)[:, None].to(hidden.dtype)

    def _embedded(self, input_ids: Tensor) -> Tensor:
        """What the first block reads, (batch, length, size)."""
        return self.encoder.block_input(self.encoder.embed_items(input_ids))

    def _block_input(self, input_ids: Tensor) -> Tensor:
        """What the last block reads, (batch, length, size)."""
        x = self._embedded(input_ids)
        if len(self.encoder.layers) > 1:
            mask = (input_ids != 0)[..., None].to(x.dtype)
            for layer in self.encoder.layers[:-1]:
                x, _ = layer(x, mask)
        return x

    def _looked_up(self, input_ids: Tensor, counts: Tensor, older: Tensor) -> dict[str, Tensor]:
        """As `GlintRUBlock.absorb`, with the tables for the parts that they serve."""
        assert self.tables is not None
        block = self.encoder.layers[0]
        tensors = self.tables(input_ids, counts)
        if block.recurrence is not None:  # the last two items that are absorbed give the rest
            places = (older - 2).clamp_min(0)[:, None] + torch.arange(2, device=input_ids.device)
            pair = input_ids.gather(1, places.clamp_max(input_ids.shape[1] - 1))
            last = block.recurrence.absorb(self._embedded(pair), older.clamp_max(2))
            tensors |= {name: last[name] for name in ("edge", "after")}
        rest = [part for name, part in block.parts().items() if name not in ("recurrence", "attention")]
        if rest:
            x = self._embedded(input_ids)
            for part in rest:
                tensors |= part.absorb(x, older)
        return tensors
