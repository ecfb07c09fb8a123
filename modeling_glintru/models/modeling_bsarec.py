"""BSARec (Shin et al., "An Attentive Inductive Bias for Sequential Recommendation beyond the Self-Attention", AAAI
2024) behind the shared head.

Each block mixes a frequency layer and a causal self-attention, both with residual and norm (their section 4):

    low = the lowest frequencies of x over time,   F = norm(x + dropout(low + β² ⊙ (x - low))),
    A = norm(x + dropout(attention(x))),           out = feed_forward(α F + (1 - α) A).

The filter runs over the whole history, so the model is not causal: it is trained with one example for each prefix.

As in the authors' code, the places before a short history hold position embeddings alone and take part in the filter,
and their rows of the attention, which their mask leaves without a key, see every place. Departs from it in one number:
their padding item has a random embedding that is never trained, here it is zero.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init

from .configuration_glintru import GlintRUError, NextItemConfig, above_zero, at_least_one, heads_divide, rates
from .layers_baselines import FeedForward, SelfAttention, at_least_zero
from .ops_glintru import Dropout, add_norm, at_least_float32
from .whole_history_baselines import WholeHistoryEncoder, WholeHistoryHead

__all__ = ["BSARecConfig", "BSARecForSequentialRecommendation", "BSARecModel"]


@strict
class BSARecConfig(NextItemConfig):
    """Sizes of BSARec; shared fields as in `GlintRUConfig`.

    Args:
        num_attention_heads: Heads; divides `hidden_size`.
        num_hidden_layers: Blocks.
        intermediate_size: Inner width of the feed-forward network; the authors have 4 * `hidden_size`, which 0 means.
        max_position_embeddings: Places [N]; every history is laid on all of them, so the cost is that of a long one.
        alpha: Share of the frequency layer [α], 0 (self-attention alone) to 1 (filter alone).
        cutoff: Frequencies that count as low [c]: the bins 0 to `cutoff // 2` of `max_position_embeddings`.
        hidden_dropout: Dropout on embeddings and on the output of each layer.
        attention_dropout: Dropout on the attention weights.
        layer_norm_eps: Epsilon of the layer normalisations.
    """

    model_type = "bsarec"

    num_attention_heads: int = 1
    num_hidden_layers: int = 2
    intermediate_size: int = 0
    max_position_embeddings: int = 50
    alpha: float | int = 0.7
    cutoff: int = 5
    hidden_dropout: float | int = 0.5
    attention_dropout: float | int = 0.5
    layer_norm_eps: float | int = 1e-12

    def validate_blocks(self) -> None:
        """Sizes and rates are in their ranges."""
        at_least_one(self, "num_attention_heads", "num_hidden_layers", "max_position_embeddings", "cutoff")
        heads_divide(self)
        at_least_zero(self, "intermediate_size")
        if not 0 <= self.alpha <= 1:
            raise GlintRUError(f"alpha must be between 0 and 1, got {self.alpha}")
        rates(self, "hidden_dropout", "attention_dropout")
        above_zero(self, "layer_norm_eps")


class FrequencyLayer(nn.Module):
    """Rescales the high frequencies by β², feature by feature. (batch, places, hidden_size) in and out."""

    def __init__(self, config: BSARecConfig) -> None:
        super().__init__()
        self.num_low = config.cutoff // 2 + 1
        self.beta = nn.Parameter(torch.zeros(config.hidden_size))
        self.dropout = Dropout(config.hidden_dropout)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        wide = at_least_float32(x)  # no transform in bf16
        spectrum = torch.fft.rfft(wide, dim=1)
        low = torch.fft.irfft(F.pad(spectrum[:, : self.num_low], (0, 0, 0, spectrum.shape[1])), n=x.shape[1], dim=1)
        return add_norm(low + self.beta**2 * (wide - low), x, self.norm, self.dropout.rate())


class BSARecBlock(nn.Module):
    """The two layers side by side, then the feed-forward network."""

    def __init__(self, config: BSARecConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.alpha = config.alpha
        self.filter = FrequencyLayer(config)
        self.attention = SelfAttention(
            size,
            config.num_attention_heads,
            config.hidden_dropout,
            config.layer_norm_eps,
            attention_dropout=config.attention_dropout,
        )
        self.mlp = FeedForward(size, config.intermediate_size or 4 * size, config.hidden_dropout, config.layer_norm_eps)

    def forward(self, x: Tensor, visible: Tensor, last_only: bool) -> Tensor:
        mixed = self.alpha * self.filter(x) + (1 - self.alpha) * self.attention(x, visible)
        return self.mlp(mixed[:, -1:] if last_only else mixed)


class BSARecPreTrainedModel(PreTrainedModel):
    config: BSARecConfig
    config_class = BSARecConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _no_split_modules = ["BSARecBlock"]  # noqa: RUF012

    def _init_weights(self, module: nn.Module) -> None:
        """Normal with 0.02 (the default of transformers too), zero biases, β standard normal."""
        super()._init_weights(module)
        if isinstance(module, FrequencyLayer):
            init.normal_(module.beta)


class BSARecModel(WholeHistoryEncoder, BSARecPreTrainedModel):
    """Item and position embeddings, their norm, and the blocks."""

    def __init__(self, config: BSARecConfig) -> None:
        super().__init__(config)
        self.embed_items = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=0)
        self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList(BSARecBlock(config) for _ in range(config.num_hidden_layers))
        self.post_init()

    def encode_canvas(self, embeds: Tensor, items: Tensor) -> list[Tensor]:
        """The normalised embeddings, and the output of every block."""
        places = items.shape[1]
        causal = torch.ones(places, places, dtype=torch.bool, device=items.device).tril()
        visible = ((causal & items[:, None]) | ~items[..., None])[:, None]
        states = [self.dropout(self.norm(embeds + self.embed_positions.weight))]
        for layer in self.layers:
            # Of the last block nothing but the last place is used.
            states.append(layer(states[-1], visible, last_only=layer is self.layers[-1]))
        return states


class BSARecForSequentialRecommendation(WholeHistoryHead, BSARecPreTrainedModel):
    """BSARec with scores for every item."""

    def __init__(self, config: BSARecConfig) -> None:
        super().__init__(config)
        self.model = BSARecModel(config)
        self.post_init()
