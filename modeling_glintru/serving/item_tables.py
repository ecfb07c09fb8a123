"""What every item gives to the state of a one-block GLINT-RU, multiplied with the weights once and then looked up.

The block reads rows of the item table, so most of its products are the same for every history that holds the item: what
is left is the recurrence's own product, and the running sum of the attention.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kernels.block import HEAD_SIZES
from ..kernels.calls import ROWS, call, packed
from ..kernels.recurrence import can_scan
from ..models.modeling_glintru import GlintRUBlock, joined
from ..models.ops_glintru import features, heads_of

__all__ = ["ItemTables"]

TABLE_BYTES = 2**28  # tables are made up to this size


class ItemTables:
    """States of histories from their ids; float32 on the CPU, by the C kernels.

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
