"""LRURec (Yue et al., "Linear Recurrent Units for Sequential Recommendation", WSDM 2024) behind the shared head.

Each block is a linear recurrent unit with a complex diagonal state (their section 3.2) and a position-wise network:

    h_t = λ ⊙ h_(t-1) + γ ⊙ (B x_t + b),   λ = exp(-exp(nu) + i exp(theta)),   y_t = Re(C h_t + c),
    z_t = norm(dropout(y_t) + x_t),        out_t = norm(z_t + dropout(W2 dropout(GELU(W1 z_t)))).

Departs from the paper and the authors' code: no bias for each item in the scores, since the head is shared by all
models; B and C are held as real matrices, which is the same function (the imaginary part of c never reaches y). The
parallel scan doubles its reach in each step, where theirs splits the padded history in halves: the same sums. On CPUs
the recurrence is walked, which is faster there.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init

from .configuration_glintru import NextItemConfig, above_zero, at_least_one, rates
from .head_glintru import NextItemHead, PrefixEncoder
from .layers_baselines import FeedForward, at_least_zero, through
from .ops_glintru import Dropout, add_norm

__all__ = ["LRURecConfig", "LRURecForSequentialRecommendation", "LRURecModel", "linear_recurrence"]

SMALLEST_RADIUS, LARGEST_RADIUS = 0.8, 0.99  # of |λ| at the start, as in the authors' code


@strict
class LRURecConfig(NextItemConfig):
    """Sizes of LRURec; shared fields as in `GlintRUConfig`.

    Args:
        num_hidden_layers: Blocks.
        intermediate_size: Inner width of the feed-forward network; the authors have 4 * `hidden_size`, which 0 means.
        hidden_dropout: Dropout on the item embeddings and in the feed-forward network.
        recurrence_dropout: Dropout on the output of the recurrence.
        layer_norm_eps: Epsilon of the layer normalisations.
    """

    model_type = "lrurec"

    num_hidden_layers: int = 2
    intermediate_size: int = 0
    hidden_dropout: float | int = 0.2
    recurrence_dropout: float | int = 0.2
    layer_norm_eps: float | int = 1e-5

    def validate_blocks(self) -> None:
        """Sizes and rates are in their ranges."""
        at_least_one(self, "num_hidden_layers")
        at_least_zero(self, "intermediate_size")
        rates(self, "hidden_dropout", "recurrence_dropout")
        above_zero(self, "layer_norm_eps")


def linear_recurrence(decay: Tensor, x: Tensor, parallel: bool | None = None) -> Tensor:
    """`h[t] = decay * h[t - 1] + x[t]` from zero.

    In parallel it takes log2(length) steps: after the one with reach k, `h[t]` is the sum of
    `decay ** (t - s) * x[s]` over the last 2k positions s.

    Args:
        decay: Complex (size,).
        x: Complex (batch, length, size).
        parallel: Whether for all t at once; by default not on CPUs, where one position after the other takes a fourth
            of the time.
    """
    if not (x.device.type != "cpu" if parallel is None else parallel):
        state, states = torch.zeros_like(x[:, 0]), []
        for now in x.unbind(1):
            state = torch.addcmul(now, decay, state)
            states.append(state)
        return torch.stack(states, 1)
    reach = 1
    while reach < x.shape[1]:
        x = x + decay * F.pad(x, (0, 0, reach, 0))[:, : x.shape[1]]
        decay, reach = decay * decay, 2 * reach
    return x


class LinearRecurrentUnit(nn.Module):
    """The recurrence with its dropout, residual and norm. (batch, length, hidden_size) in and out."""

    def __init__(self, config: LRURecConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.in_proj = nn.Linear(size, 4 * size)  # real, then imaginary parts of a state of 2 * size
        self.out_proj = nn.Linear(4 * size, size)
        self.nu_log = nn.Parameter(torch.zeros(2 * size))
        self.theta_log = nn.Parameter(torch.zeros(2 * size))
        self.gamma_log = nn.Parameter(torch.zeros(2 * size))
        self.dropout = Dropout(config.recurrence_dropout)
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        real, imaginary = self.in_proj(x).to(self.nu_log.dtype).chunk(2, dim=-1)  # no complex numbers in bf16
        gamma = self.gamma_log.exp()
        decay = torch.polar((-self.nu_log.exp()).exp(), self.theta_log.exp())
        state = linear_recurrence(decay, torch.complex(real * gamma, imaginary * gamma))
        out = self.out_proj(torch.cat([state.real, state.imag], dim=-1))
        return add_norm(out, x, self.norm, self.dropout.rate())


class LRURecBlock(nn.Module):
    """One recurrence and one feed-forward network."""

    def __init__(self, config: LRURecConfig) -> None:
        super().__init__()
        size, dropout = config.hidden_size, config.hidden_dropout
        self.recurrence = LinearRecurrentUnit(config)
        inner = config.intermediate_size or 4 * size
        self.mlp = FeedForward(size, inner, dropout, config.layer_norm_eps, inner_dropout=dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.recurrence(x))


class LRURecPreTrainedModel(PreTrainedModel):
    config: LRURecConfig
    config_class = LRURecConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _no_split_modules = ["LRURecBlock"]  # noqa: RUF012

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Normal with 0.02, cut at two deviations, and |λ| uniform on the ring, as in the authors' code."""
        super()._init_weights(module)
        if isinstance(module, (nn.Embedding, nn.Linear)):
            for parameter in module.parameters():  # biases too
                init.trunc_normal_(parameter, std=0.02, a=-0.04, b=0.04)
        elif isinstance(module, LinearRecurrentUnit):
            low, high = SMALLEST_RADIUS**2, LARGEST_RADIUS**2
            radius = (torch.rand(module.nu_log.shape) * (high - low) + low).sqrt()
            init.copy_(module.nu_log, (-radius.log()).log())
            init.copy_(module.theta_log, (torch.rand(radius.shape) * 2 * math.pi).clamp_min(1e-6).log())
            init.copy_(module.gamma_log, (1 - radius**2).sqrt().log())


class LRURecModel(PrefixEncoder, LRURecPreTrainedModel):
    """Item embeddings, their norm, and the blocks. Causal: padding after the items needs no mask."""

    items_first = True

    def __init__(self, config: LRURecConfig) -> None:
        super().__init__(config)
        self.embed_items = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=0)
        self.dropout = Dropout(config.hidden_dropout)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(LRURecBlock(config) for _ in range(config.num_hidden_layers))
        self.post_init()

    def encode(self, embeds: Tensor, mask: Tensor | None) -> list[Tensor]:
        """The normalised embeddings, and the output of every block."""
        return through(self.layers, self.norm(self.dropout(embeds)))


class LRURecForSequentialRecommendation(NextItemHead, LRURecPreTrainedModel):
    """LRURec with scores for every item."""

    def __init__(self, config: LRURecConfig) -> None:
        super().__init__(config)
        self.model = LRURecModel(config)
        self.post_init()
