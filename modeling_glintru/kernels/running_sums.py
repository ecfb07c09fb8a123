"""Running sums with a decay in chunks, so that the cost is linear in the length; in PyTorch, on any device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.ops_glintru import decay_matrix, decayed_sums, shift_in

__all__ = ["FORMS", "chunked_sums"]

CHUNK = 32


def chunked_sums(x: Tensor, decay: float, before: Tensor | None = None) -> Tensor:
    """The operation `decayed_sums`: each chunk as one product, and the sums at the ends of the chunks as another."""
    at_once = decayed_sums.plain  # type: ignore[attr-defined]
    batch, length, size = x.shape
    parts = F.pad(x, (0, 0, 0, -length % CHUNK)).view(batch, -1, CHUNK, size)
    ends = decay_matrix(torch.arange(CHUNK - 1, -1, -1, device=x.device), decay, x.dtype) @ parts
    carried = shift_in(before, at_once(ends, decay**CHUNK, before))
    return at_once(parts, decay, carried).view(batch, -1, size)[:, :length]


def _serves(x: Tensor, decay: float, before: Tensor | None = None) -> bool:
    # In an export the number of chunks would be fixed to that of the example.
    return not isinstance(x.shape[1], torch.SymInt) and x.shape[1] > CHUNK


FORMS = {"decayed_sums": (_serves, chunked_sums)}
