"""A branch beside the experts: the running average of what the block reads, weighed against the item itself.

Not in the paper. Where data is sparse, the experts over-fit, and a filter helps that keeps the slow part of a history
and lets each channel decide how much of the rest it wants (BSARec, Shin et al., AAAI 2024: there over the whole padded
history in the frequency domain, here causal, so that both identities of the block hold).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_glintru import GlintRUConfig
from .fused_glintru import Dropout, add_norm, shift_in, shift_right

__all__ = ["GlintRUMovingAverage", "decayed_sums"]

CHUNK = 32  # positions summed by one small matrix


def weights_by_age(age: Tensor, decay: float, dtype: torch.dtype) -> Tensor:
    """`decay ** age`, and 0 for what is still to come (an age below 0); the shape of `age`."""
    return torch.where(age >= 0, decay ** age.clamp_min(0).to(dtype), 0.0)


def decays(length: int, decay: float, like: Tensor) -> Tensor:
    """(length, length): `decay ** (t - s)` where s <= t, else 0."""
    steps = torch.arange(length, device=like.device)
    return weights_by_age(steps[:, None] - steps, decay, like.dtype)


def sums_in_one(x: Tensor, decay: float, before: Tensor | None) -> Tensor:
    """As `decayed_sums`, by one matrix for all positions; also with more dimensions in front."""
    sums = decays(x.shape[-2], decay, x) @ x
    if before is None:
        return sums
    powers = decay ** torch.arange(1, x.shape[-2] + 1, device=x.device).to(x.dtype)
    return sums + powers[:, None] * before[..., None, :].to(x.dtype)


def decayed_sums(x: Tensor, decay: float, before: Tensor | None = None) -> Tensor:
    """At t the sum over s <= t of `decay ** (t - s) * x[s]`; linear in the length.

    Args:
        x: (batch, length, size).
        decay: 0 (the item alone) to below 1.
        before: (batch, size), the sum before the first position.

    Returns:
        (batch, length, size).
    """
    batch, length, size = x.shape
    if isinstance(length, torch.SymInt):  # in an export the number of chunks would be fixed to that of the example
        return sums_in_one(x, decay, before)
    parts = F.pad(x, (0, 0, 0, -length % CHUNK)).view(batch, -1, CHUNK, size)
    ends = weights_by_age(torch.arange(CHUNK - 1, -1, -1, device=x.device), decay, x.dtype) @ parts
    totals = sums_in_one(ends, decay**CHUNK, before)
    carried = shift_right(totals) if before is None else shift_in(before, totals)
    return sums_in_one(parts, decay, carried).view(batch, -1, size)[:, :length]


class GlintRUMovingAverage(nn.Module):
    """`norm(x + dropout(a * average(x) + b * x))`, with a and b for each channel.

    The average over items s <= t has weights proportional to `decay ** (t - s)`.
    """

    def __init__(self, config: GlintRUConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.decay = float(config.average_decay)
        self.average_weight = nn.Parameter(torch.full((size,), 0.5))
        self.item_weight = nn.Parameter(torch.full((size,), 0.5))
        self.dropout = Dropout(config.hidden_dropout)
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)

    def sums(self, x: Tensor, mask: Tensor | None, before: Tensor | None = None) -> Tensor:
        """The weighed sum over the items up to each position; arguments as those of `forward`."""
        x = x if mask is None else x * mask
        if x.is_meta:
            return decayed_sums(x, self.decay, before)
        with torch.autocast(x.device.type, enabled=False):  # a running sum in bfloat16 would drift
            return decayed_sums(x, self.decay, before)

    def last_sum(self, x: Tensor, counts: Tensor) -> Tensor:
        """The weighed sum over each row's first `counts` (batch,) items: (batch, size)."""
        age = counts[:, None] - 1 - torch.arange(x.shape[1], device=x.device)
        return (weights_by_age(age, self.decay, x.dtype)[:, None] @ x)[:, 0]

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(batch, length, size) in and out; the mask, (batch, length, 1), is 0 at padding, which is at the ends."""
        if mask is None:
            counts = torch.arange(1, x.shape[1] + 1, device=x.device)[:, None].to(x.dtype)
        else:
            counts = mask.cumsum(1)
        return self._output(x, self.sums(x, mask), counts)

    def advance(self, x: Tensor, mask: Tensor | None, total: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, after a history.

        Args:
            x, mask: Items before padding.
            total: (batch, size), the history's last sum.
            before: (batch,) int64, its items.

        Returns:
            (batch, length, size), and the sums at each position.
        """
        sums = self.sums(x, mask, total)
        counts = before[:, None, None] + torch.arange(1, x.shape[1] + 1, device=x.device)[:, None]
        return self._output(x, sums, counts.to(x.dtype)), sums

    def _output(self, x: Tensor, sums: Tensor, counts: Tensor) -> Tensor:
        # The weights' sum, a geometric series; a position without an item has no average, and nobody reads it.
        weights = (1 - self.decay ** counts.clamp_min(1)) / (1 - self.decay)
        mixed = self.average_weight * (sums / weights) + self.item_weight * x
        return add_norm(mixed, x, self.dropout, self.norm)
