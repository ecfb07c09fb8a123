"""Mamba4Rec (Liu et al., "Mamba4Rec: Towards Efficient Sequential Recommendation with Selective State Space Models",
2024, arXiv 2403.03900) behind the shared head.

Each block is a Mamba block (Gu and Dao, 2023, algorithm 2) and a position-wise network, both with their norm behind:

    u, z = W_in x;   u = SiLU(causal depthwise convolution of u);   Δ, B, C = linear in u, Δ through softplus
    h_t = exp(Δ_t A) ⊙ h_(t-1) + Δ_t u_t Bᵀ_t,   y_t = h_t C_t + D ⊙ u_t,   out = W_out (y ⊙ SiLU(z)),

with a residual around it only where there is more than one block, as in the authors' code. Their initialisation too is
kept, though it overwrites Mamba's own for the step size Δ (weights normal with 0.02, bias zero).

Departs from it in the scan alone: a kernel for CPUs, elsewhere plain PyTorch, instead of one for CUDA.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init

from ..configuration_glintru import NextItemConfig, above_zero, at_least_one, rates
from ..fused_glintru import Dropout, add_norm
from ..head_glintru import NextItemHead, PrefixEncoder
from ..losses_glintru import at_least_float32
from ..scan_glintru import selective_scan
from .layers import FeedForward, at_least_zero, through

__all__ = ["Mamba4RecConfig", "Mamba4RecForSequentialRecommendation", "Mamba4RecModel"]


@strict
class Mamba4RecConfig(NextItemConfig):
    """Sizes of Mamba4Rec; shared fields as in `GlintRUConfig`.

    Args:
        num_hidden_layers: Blocks; with a single one there is no residual around the Mamba block.
        intermediate_size: Inner width of the feed-forward network; the authors have 4 * `hidden_size`, which 0 means.
        state_size: Numbers of state for each channel [N].
        conv_kernel: Taps of the causal convolution.
        expand: Channels of the Mamba block for each of `hidden_size` [E].
        hidden_dropout: Dropout on embeddings, on the Mamba block and in the feed-forward network.
        layer_norm_eps: Epsilon of the layer normalisations.
    """

    model_type = "mamba4rec"

    num_hidden_layers: int = 1
    intermediate_size: int = 0
    state_size: int = 32
    conv_kernel: int = 4
    expand: int = 2
    hidden_dropout: float | int = 0.2
    layer_norm_eps: float | int = 1e-12

    def validate_blocks(self) -> None:
        """Sizes and rates are in their ranges."""
        at_least_one(self, "num_hidden_layers", "state_size", "conv_kernel", "expand")
        at_least_zero(self, "intermediate_size")
        rates(self, "hidden_dropout")
        above_zero(self, "layer_norm_eps")


class MambaMixer(nn.Module):
    """The Mamba block. (batch, length, hidden_size) in and out."""

    def __init__(self, config: Mamba4RecConfig) -> None:
        super().__init__()
        size, channels = config.hidden_size, config.expand * config.hidden_size
        self.rank, self.state_size = math.ceil(size / 16), config.state_size
        self.in_proj = nn.Linear(size, 2 * channels, bias=False)
        self.conv = nn.Conv1d(channels, channels, config.conv_kernel, groups=channels, padding=config.conv_kernel - 1)
        self.x_proj = nn.Linear(channels, self.rank + 2 * self.state_size, bias=False)
        self.step_proj = nn.Linear(self.rank, channels)
        self.a_log = nn.Parameter(torch.zeros(channels, self.state_size))
        self.skip = nn.Parameter(torch.ones(channels))
        self.out_proj = nn.Linear(channels, size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        u, gate = self.in_proj(x).chunk(2, dim=-1)
        u = F.silu(self.conv(u.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        step, b, c = self.x_proj(u).split([self.rank, self.state_size, self.state_size], dim=-1)
        step = F.softplus(at_least_float32(self.step_proj(step)))
        with torch.autocast(x.device.type, enabled=False):  # bf16 would lose the small steps
            u, a_log, b, c = (at_least_float32(part) for part in (u, self.a_log, b, c))
            y = selective_scan(step, u, -a_log.exp(), b, c)[0] + self.skip * u
        return self.out_proj(y.to(gate.dtype) * F.silu(gate))


class Mamba4RecBlock(nn.Module):
    """One Mamba block and one feed-forward network."""

    def __init__(self, config: Mamba4RecConfig) -> None:
        super().__init__()
        size, dropout, eps = config.hidden_size, config.hidden_dropout, config.layer_norm_eps
        self.mixer = MambaMixer(config)
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(size, eps=eps)
        self.mlp = FeedForward(size, config.intermediate_size or 4 * size, dropout, eps, inner_dropout=dropout)
        self.residual = config.num_hidden_layers > 1

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mixer(x)
        if self.residual:
            return self.mlp(add_norm(mixed, x, self.dropout, self.norm))
        return self.mlp(self.norm(self.dropout(mixed)))


class Mamba4RecPreTrainedModel(PreTrainedModel):
    config: Mamba4RecConfig
    config_class = Mamba4RecConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _no_split_modules = ["Mamba4RecBlock"]  # noqa: RUF012

    def _init_weights(self, module: nn.Module) -> None:
        """Normal with 0.02 (the default of transformers too), PyTorch's own for the convolution, A = -1 … -N."""
        super()._init_weights(module)
        if isinstance(module, nn.Conv1d):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            bound = module.kernel_size[0] ** -0.5
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, MambaMixer):
            init.copy_(module.a_log, torch.arange(1.0, module.state_size + 1).log().expand_as(module.a_log))
            init.ones_(module.skip)


class Mamba4RecModel(PrefixEncoder, Mamba4RecPreTrainedModel):
    """Item embeddings, their norm, and the blocks. Causal: padding after the items needs no mask."""

    items_first = True

    def __init__(self, config: Mamba4RecConfig) -> None:
        super().__init__(config)
        self.embed_items = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=0)
        self.dropout = Dropout(config.hidden_dropout)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(Mamba4RecBlock(config) for _ in range(config.num_hidden_layers))
        self.post_init()

    def encode(self, embeds: Tensor, mask: Tensor | None) -> list[Tensor]:
        """The normalised embeddings, and the output of every block."""
        return through(self.layers, self.norm(self.dropout(embeds)))


class Mamba4RecForSequentialRecommendation(NextItemHead, Mamba4RecPreTrainedModel):
    """Mamba4Rec with scores for every item."""

    def __init__(self, config: Mamba4RecConfig) -> None:
        super().__init__(config)
        self.model = Mamba4RecModel(config)
        self.post_init()
