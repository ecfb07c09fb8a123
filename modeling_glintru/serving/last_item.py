"""The representation of whole histories, without those of their prefixes.

A recommendation needs the last position alone. All but the last block of GLINT-RU are run as they are; the last one is
run as a stream would: it absorbs all items but the newest without an output, and one step adds the newest. Where the
last block is the first one, what it reads are rows of the item table, whose products with the weights are computed once
for each item and then only looked up (`ItemTables`).
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from ..kernels.block import HEAD_SIZES
from ..kernels.calls import ROWS, call, packed
from ..kernels.recurrence import can_scan
from ..models.head_glintru import last_item
from ..models.modeling_glintru import GlintRUBlock, GlintRUModel, Past, at, joined
from ..models.ops_glintru import features, heads_of

__all__ = ["ItemTables", "LastItemEncoder"]

TABLE_BYTES = 2**28  # tables are made up to this size


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


class ItemTables:
    """What every item gives to the state of a one-block GLINT-RU, multiplied with the weights once, then looked up.

    The block reads rows of the item table, so most of its products are the same for every history that holds the item.
    What is left is the recurrence's own product, and the running sum of the attention: in float32 on the CPU, by the C
    kernels.

    Args:
        block: The only block of a model for which `serve` says yes; weights may not change afterwards.
        items: (vocab_size, d), the embeddings of the items.
    """

    @staticmethod
    def serve(block: GlintRUBlock, items: Tensor) -> bool:
        """Whether the kernels take the block, and the tables are not too large."""
        recurrence, attention = block.recurrence, block.attention
        size = items.shape[1]
        return (
            (recurrence is None or recurrence.conv_in is not None)
            and (attention is None or size // attention.num_heads in HEAD_SIZES)
            and can_scan(items, items)
            and 11 * items.numel() * 4 <= TABLE_BYTES
        )

    @torch.inference_mode()
    def __init__(self, block: GlintRUBlock, items: Tensor) -> None:
        self._size = items.shape[1]
        self._gates: Tensor | None = None
        self._sums: Tensor | None = None
        recurrence: Any = block.recurrence
        attention: Any = block.attention
        if recurrence is not None:
            weight_x, weight_h = recurrence.gru.all_weights[0]
            after, own, before = recurrence.conv_in.taps(recurrence.in_proj, items).chunk(3, dim=-1)
            self._gates = F.linear(torch.stack((after, own + recurrence.conv_in.bias, before)), weight_x)
            self._gates[0, 0] = 0.0  # before the first item there is nothing, not even padding
            self._recurrent = packed(weight_h.T)
        if attention is not None:
            self._heads = attention.num_heads
            key, value = joined([attention.k_proj, attention.v_proj], items).chunk(2, dim=-1)
            key = features(heads_of(key[None], self._heads)).transpose(1, 2).flatten(2)[0]
            self._sums = torch.cat((key, value), dim=-1).contiguous()

    def __call__(self, input_ids: Tensor, counts: Tensor) -> dict[str, Tensor]:
        """What the block keeps of all items but the newest, as far as it depends on more than the last two of these.

        Args:
            input_ids: (batch, length) int64, items before padding.
            counts: (batch,) int64, items of each row.

        Returns:
            `hidden`, (batch, d), over all but the newest two items, and `attention`, (batch, heads, d / heads,
            d / heads), over all but the newest, where the block has them.
        """
        (batch, length), size = input_ids.shape, self._size
        rows, memory = (input_ids.contiguous(), counts), {}
        if self._gates is not None:
            memory["hidden"] = hidden = self._gates.new_empty(batch, size)
            sizes = (length, ctypes.c_long(self._gates.shape[1]), size, self._recurrent.shape[1])
            tensors = (*rows, self._gates, self._recurrent, hidden)
            call("states_of_items", torch.float32, batch, tensors, sizes, tile=ROWS)
        if self._sums is not None:
            head = size // self._heads
            memory["attention"] = total = self._sums.new_empty(batch, self._heads, head, head)
            call("sums_of_items", torch.float32, batch, (*rows, self._sums, total), (length, size, head))
        return memory
