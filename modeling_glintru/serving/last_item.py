"""The representation of whole histories, without those of their prefixes.

A recommendation needs the last position alone. All but the last block of GLINT-RU are run as they are; the last one is
run as a stream would: its experts read all items but the newest without output, and one step adds the newest. Where the
last block is the first one, what it reads are rows of the item table, whose products with the weights are computed once
for each item and then only looked up (`item_tables.py`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..models.fused_glintru import features, heads_of
from ..models.head_glintru import last_item
from ..models.layers_glintru import Border, gru_states, joined
from ..models.modeling_glintru import GlintRUModel
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
        self.by_stream = isinstance(self.encoder, GlintRUModel) and not self.encoder.reads_padding
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
        x = None
        if self.tables is None:
            x = self._block_input(input_ids)
            memory, newest = _memory(block, x, counts), _newest(x, counts)
        else:
            memory = self.tables(input_ids, counts)
            newest = self._embedded(_newest(input_ids[..., None], counts)[..., 0])
        if block.recurrence is not None and block.recurrence.conv_in is not None:
            memory |= _taps(block.recurrence, newest, counts)
        if block.average is not None:
            x = self._embedded(input_ids) if x is None else x
            memory["average"] = block.average.last_sum(x, counts - 1)
        if block.state_space is not None:
            x = self._embedded(input_ids) if x is None else x
            memory |= block.state_space.memory(x, (counts - 1).clamp_min(0))
        has_before = (counts > 1)[:, None, None].to(newest.dtype)
        border = Border(torch.ones_like(counts), has_before, (counts - 1).clamp_min(0), fresh=False)
        hidden, _ = block(newest[:, 2:].contiguous(), None, memory, border)
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
                x = layer(x, mask)
        return x


def _memory(block: Any, x: Tensor, counts: Tensor) -> dict[str, Tensor]:
    """As `ItemTables` gives it, from the block's input; without convolutions `hidden` lacks the newest item alone."""
    memory = {}
    recurrence, attention = block.recurrence, block.attention
    if recurrence is not None and recurrence.conv_in is None:
        states = gru_states(recurrence.gru, recurrence.in_proj(x[:, :-1])) if x.shape[1] > 1 else x[:, :0]
        memory["hidden"] = _at(states, counts - 2)
    elif recurrence is not None:
        # The value of an item is there once its right neighbour is.
        states = x[:, :0]
        if x.shape[1] > 2:
            after, own, before = recurrence.conv_in.taps(recurrence.in_proj, x[:, :-1]).chunk(3, dim=-1)
            values = own[:, :-1] + before[:, 1:] + recurrence.conv_in.bias
            values[:, 1:] += after[:, :-2]
            states = gru_states(recurrence.gru, values)
        memory["hidden"] = _at(states, counts - 3)
    if attention is not None:
        key, value = joined([attention.k_proj, attention.v_proj], x).chunk(2, dim=-1)
        older = torch.arange(x.shape[1], device=x.device) < (counts - 1)[:, None]
        key, value = (heads_of(part, attention.num_heads) for part in (key, value * older[..., None]))
        memory["attention"] = features(key).transpose(-1, -2) @ value
    return memory


def _taps(recurrence: Any, newest: Tensor, counts: Tensor) -> dict[str, Tensor]:
    """What the first convolution keeps of all but the newest item: its value without a right neighbour, its tap."""
    after, own, _ = recurrence.conv_in.taps(recurrence.in_proj, newest[:, :2].contiguous()).chunk(3, dim=-1)
    after = after * torch.stack((counts > 2, counts > 1), dim=1)[..., None].to(after.dtype)
    return {"edge": after[:, 0] + own[:, 1] + recurrence.conv_in.bias, "after": after[:, 1]}


def _newest(x: Tensor, counts: Tensor) -> Tensor:
    """The newest three positions of each row of (batch, length, size), zeros for those that a row lacks."""
    return torch.stack([_at(x, counts - back) for back in (3, 2, 1)], dim=1)


def _at(x: Tensor, index: Tensor) -> Tensor:
    """`x` (batch, length, size) at one position of each row, zeros where the index is negative. (batch, size)."""
    if x.shape[1] == 0:
        return x.new_zeros(x.shape[0], x.shape[2])
    picked = x.gather(1, index.clamp(0, x.shape[1] - 1)[:, None, None].expand(-1, 1, x.shape[2]))[:, 0]
    return picked * (index >= 0)[:, None].to(x.dtype)
