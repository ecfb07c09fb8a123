"""A branch beside the experts: a selective state space over the history (Gu and Dao, "Mamba", 2023, algorithm 2).

    u, z = W_in x;   u = SiLU(causal depthwise convolution of u);   Δ, B, C = linear in u, Δ through softplus
    h_t = exp(Δ_t A) ⊙ h_(t-1) + Δ_t u_t Bᵀ_t,   y_t = h_t C_t + D ⊙ u_t,   out = W_out (y ⊙ SiLU(z))

Not in the paper of GLINT-RU. Causal, with a state of fixed size: both identities of the block hold.
"""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from .configuration_glintru import GlintRUConfig
from .fused_glintru import Dropout, add_norm
from .losses_glintru import at_least_float32
from .scan_glintru import selective_scan

__all__ = ["GlintRUStateSpace", "SelectiveStateSpace"]

EXPAND, STATE_SIZE, TAPS = 2, 16, 4  # as in Mamba


class SelectiveStateSpace(nn.Module):
    """The Mamba block without its norm and residual.

    Args:
        size: Width of what comes in and goes out [d].
        expand: Channels for each of `size` [E].
        state_size: Numbers of state for each channel [N].
        taps: Of the causal convolution.
    """

    def __init__(self, size: int, expand: int = EXPAND, state_size: int = STATE_SIZE, taps: int = TAPS) -> None:
        super().__init__()
        channels = expand * size
        self.rank, self.state_size, self.taps = math.ceil(size / 16), state_size, taps
        self.in_proj = nn.Linear(size, 2 * channels, bias=False)
        self.conv = nn.Conv1d(channels, channels, taps, groups=channels)
        self.x_proj = nn.Linear(channels, self.rank + 2 * state_size, bias=False)
        self.step_proj = nn.Linear(self.rank, channels)
        self.a_log = nn.Parameter(torch.zeros(channels, state_size))
        self.skip = nn.Parameter(torch.ones(channels))
        self.out_proj = nn.Linear(channels, size, bias=False)

    def initialize(self) -> None:
        """Normal weights with 0.02, zero biases, PyTorch's own for the convolution, A = -1 … -N, D = 1."""
        for layer in (self.in_proj, self.x_proj, self.step_proj, self.out_proj):
            init.normal_(layer.weight, std=0.02)
        assert self.conv.bias is not None and self.step_proj.bias is not None
        init.zeros_(self.step_proj.bias)
        bound = self.taps**-0.5
        init.uniform_(self.conv.weight, -bound, bound)
        init.uniform_(self.conv.bias, -bound, bound)
        init.copy_(self.a_log, torch.arange(1.0, self.state_size + 1).log().expand_as(self.a_log))
        init.ones_(self.skip)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, length, size) in and out; the mask, (batch, length, 1), is 0 at padding, which is at the ends."""
        return self.advance(x, mask, None, None)[0]

    def advance(
        self, x: Tensor, mask: Tensor | None, taps: Tensor | None, state: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `forward`, after a history.

        Args:
            x, mask: Items before padding.
            taps: (batch, channels, taps - 1), what the convolution read last; `None` where there is no history.
            state: (batch, channels, state_size), or `None`.

        Returns:
            (batch, length, size); what the convolution read at each position and before, (batch, channels, taps - 1 +
            length); and the state after the last item.
        """
        u, gate = self.in_proj(x if mask is None else x * mask).chunk(2, dim=-1)
        reads = u.transpose(1, 2)
        reads = F.pad(reads, (self.taps - 1, 0)) if taps is None else torch.cat((taps.to(u.dtype), reads), dim=2)
        u = F.silu(self.conv(reads).transpose(1, 2))
        step, b, c = self.x_proj(u).split([self.rank, self.state_size, self.state_size], dim=-1)
        step = F.softplus(at_least_float32(self.step_proj(step)))
        if mask is not None:
            step = step * mask  # the state does not move at padding
        # bf16 would lose the small steps.
        with torch.autocast(x.device.type, enabled=False) if not x.is_meta else nullcontext():
            u, a_log, b, c = (at_least_float32(part) for part in (u, self.a_log, b, c))
            y, state = selective_scan(step, u, -a_log.exp(), b, c, state)
            y = y + self.skip * u
        return self.out_proj(y.to(gate.dtype) * F.silu(gate)), reads, state


class GlintRUStateSpace(nn.Module):
    """`norm(x + dropout(state space of x))`."""

    def __init__(self, config: GlintRUConfig) -> None:
        super().__init__()
        self.mixer = SelectiveStateSpace(config.hidden_size)
        self.dropout = Dropout(config.hidden_dropout)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(batch, length, hidden_size) in and out; the mask as in `SelectiveStateSpace`."""
        return add_norm(self.mixer(x, mask), x, self.dropout, self.norm)

    def advance(
        self, x: Tensor, mask: Tensor | None, taps: Tensor, space: Tensor, num_items: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As `forward`, after a history.

        Args:
            x, mask: Items before padding.
            taps, space: What the history left of itself, see `state_glintru.py`.
            num_items: (batch,) int64, items of each row.

        Returns:
            (batch, length, hidden_size), and the new `taps` and `space`.
        """
        out, reads, state = self.mixer.advance(x, mask, taps, space)
        return add_norm(out, x, self.dropout, self.norm), self._left(reads, state, num_items)

    def memory(self, x: Tensor, counts: Tensor) -> dict[str, Tensor]:
        """What each row's first `counts` (batch,) items leave; x (batch, length, hidden_size)."""
        mask = (torch.arange(x.shape[1], device=x.device) < counts[:, None])[..., None].to(x.dtype)
        _, reads, state = self.mixer.advance(x, mask, None, None)
        return self._left(reads, state, counts)

    def _left(self, reads: Tensor, state: Tensor, num_items: Tensor) -> dict[str, Tensor]:
        """`taps` and `space` after each row's items, from what the mixer's `advance` gives."""
        last = num_items[:, None] + torch.arange(self.mixer.taps - 1, device=reads.device)
        return {"taps": reads.gather(2, last[:, None].expand(-1, reads.shape[1], -1)), "space": state}
