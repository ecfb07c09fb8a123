"""The representation of whole histories, without those of their prefixes.

A recommendation needs the last position alone. All but the last block of GLINT-RU are run as they are; the last one is
run as a stream would: its recurrence reads all items but the newest without output, and one step adds the newest.
Where the last block is the first one, what it reads are rows of the item table: their products with the weights are
computed once for each item, and then only looked up. Together a third of the time of all prefixes on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..fused_glintru import add_norm, linear_attention
from ..head_glintru import last_item
from ..kernels_glintru import GRUScan
from ..layers_glintru import Border, GlintRUSelectiveGRU, can_scan, gru_states, joined
from ..modeling_glintru import GlintRUModel

__all__ = ["LastItemEncoder"]

TABLE_BYTES = 2**28  # products of items are kept up to this size


class LastItemEncoder:
    """What `last_hidden_state` is at the last item of each row, equal to it up to rounding.

    Args:
        model: A recommender of this package, in eval mode; its weights may not change afterwards.
        num_positions: About how many items it will read: below the size of the catalogue, tables would not pay.
    """

    def __init__(self, model: PreTrainedModel, num_positions: int = 0) -> None:
        self.encoder: Any = model.model
        self.by_stream = isinstance(self.encoder, GlintRUModel) and not self.encoder.reads_padding
        self.gates: Tensor | None = None
        self.queries: Tensor | None = None
        if self.by_stream and len(self.encoder.layers) == 1:
            items, size = self.encoder.embed_items.weight.shape
            if items <= num_positions and 12 * size * items * 4 <= TABLE_BYTES:
                self._fill_tables(self.encoder.layers[0], self.encoder.embed_items.weight)

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
        x, counts = self.encoder.embed_items(input_ids), (input_ids != 0).sum(1)
        if len(self.encoder.layers) > 1:
            mask = (input_ids != 0)[..., None].to(x.dtype)
            for layer in self.encoder.layers[:-1]:
                x = layer(x, mask)
        block = self.encoder.layers[-1]
        newest = _at(x, counts - 1)[:, None]
        recurrent = attended = None
        if block.recurrence is not None:
            memory = self._memory(block.recurrence, x, input_ids, counts)
            border = Border(torch.ones_like(counts), (counts > 1)[:, None, None].to(x.dtype), fresh=False)
            recurrent, _ = block.recurrence.advance(newest, memory, border)
        if block.attention is not None:
            attention = block.attention
            parts = [attention.q_proj, attention.k_proj, attention.v_proj]
            qkv = joined(parts, x) if self.queries is None else F.embedding(input_ids, self.queries)
            context = _at(linear_attention(qkv, None, attention.num_heads), counts - 1)[:, None]
            attended = add_norm(attention.o_proj(context), newest, attention.dropout, attention.norm)
        return block.finish(newest, newest, recurrent, attended)[:, 0] * (counts > 0)[:, None].to(x.dtype)

    def _memory(
        self, recurrence: GlintRUSelectiveGRU, x: Tensor, input_ids: Tensor, counts: Tensor
    ) -> dict[str, Tensor]:
        """What the recurrence keeps of all but the newest item of each row; see `state_glintru.py`."""
        convolution = recurrence.conv_in
        if convolution is None:
            states = gru_states(recurrence.gru, recurrence.in_proj(x[:, :-1])) if x.shape[1] > 1 else x[:, :0]
            return {"hidden": _at(states, counts - 2)}
        assert convolution.bias is not None
        # Before its newest item a memory has read all values that have their right neighbour: those up to counts - 3.
        if x.shape[1] < 3:
            states = x[:, :0]
        elif self.gates is None:
            after, own, before = convolution.taps(recurrence.in_proj, x[:, :-1]).chunk(3, dim=-1)
            after = F.pad(after[:, :-2], (0, 0, 1, 0))
            states = gru_states(recurrence.gru, after + own[:, :-1] + before[:, 1:] + convolution.bias)
        else:
            after, own, before = self.gates.unbind(0)
            gates = F.embedding(input_ids[:, :-2], own)
            gates += F.embedding(input_ids[:, 1:-1], before)
            gates[:, 1:] += F.embedding(input_ids[:, :-3], after)
            states = GRUScan.apply(gates[None], recurrence.gru.all_weights[0][1])[0]
        pair = torch.stack((_at(x, counts - 3), _at(x, counts - 2)), dim=1)
        after, own, _ = convolution.taps(recurrence.in_proj, pair).chunk(3, dim=-1)
        after = after * torch.stack((counts > 2, counts > 1), dim=1)[..., None].to(x.dtype)
        return {
            "hidden": _at(states, counts - 3),
            "edge": after[:, 0] + own[:, 1] + convolution.bias,
            "after": after[:, 1],
        }

    @torch.inference_mode()
    def _fill_tables(self, block: nn.Module, items: Tensor) -> None:
        """For each item its queries, keys and values, and what it gives to the gates of its neighbours and its own."""
        recurrence: Any = block.recurrence
        attention: Any = block.attention
        if attention is not None:
            self.queries = joined([attention.q_proj, attention.k_proj, attention.v_proj], items)
        if recurrence is None or recurrence.conv_in is None:
            return
        weight_x, weight_h = recurrence.gru.all_weights[0]
        after, own, before = recurrence.conv_in.taps(recurrence.in_proj, items).chunk(3, dim=-1)
        if can_scan(items, weight_h):
            self.gates = F.linear(torch.stack((after, own + recurrence.conv_in.bias, before)), weight_x)


def _at(x: Tensor, index: Tensor) -> Tensor:
    """`x` (batch, length, size) at one position of each row, zeros where the index is negative. (batch, size)."""
    if x.shape[1] == 0:
        return x.new_zeros(x.shape[0], x.shape[2])
    picked = x.gather(1, index.clamp(0, x.shape[1] - 1)[:, None, None].expand(-1, 1, x.shape[2]))[:, 0]
    return picked * (index >= 0)[:, None].to(x.dtype)
