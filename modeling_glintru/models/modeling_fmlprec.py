"""FMLP-Rec (Zhou et al., "Filter-enhanced MLP is All You Need for Sequential Recommendation", WWW 2022) behind the
shared head.

Each block filters over time, with one complex weight for each frequency and feature, and has a position-wise network
(their section 3): `F = norm(x + dropout(IDFT(W ⊙ DFT(x))))`, `out = norm(F + dropout(W2 GELU(W1 F)))`.

The filter is a circular convolution over the whole history, so the model is not causal: it is trained with one example
for each prefix, with the loss of this package instead of one sampled negative.

As in the authors' code, the places before a short history hold position embeddings alone and take part in the filter.
Departs from it in one number: their padding item has a random embedding that is never trained, here it is zero.
"""

from __future__ import annotations

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init

from .configuration_glintru import NextItemConfig, above_zero, at_least_one, rates
from .layers_baselines import FeedForward, at_least_zero
from .ops_glintru import Dropout, add_norm, at_least_float32
from .whole_history_baselines import WholeHistoryEncoder, WholeHistoryHead

__all__ = ["FMLPRecConfig", "FMLPRecForSequentialRecommendation", "FMLPRecModel"]


@strict
class FMLPRecConfig(NextItemConfig):
    """Sizes of FMLP-Rec; shared fields as in `GlintRUConfig`.

    Args:
        num_hidden_layers: Blocks.
        intermediate_size: Inner width of the feed-forward network; the authors have 4 * `hidden_size`, which 0 means.
        max_position_embeddings: Places [n]; every history is laid on all of them, so the cost is that of a long one.
        hidden_dropout: Dropout on embeddings and on the output of each layer.
        layer_norm_eps: Epsilon of the layer normalisations.
    """

    model_type = "fmlprec"

    num_hidden_layers: int = 2
    intermediate_size: int = 0
    max_position_embeddings: int = 50
    hidden_dropout: float | int = 0.5
    layer_norm_eps: float | int = 1e-12

    def validate_blocks(self) -> None:
        """Sizes and rates are in their ranges."""
        at_least_one(self, "num_hidden_layers", "max_position_embeddings")
        at_least_zero(self, "intermediate_size")
        rates(self, "hidden_dropout")
        above_zero(self, "layer_norm_eps")


class FilterLayer(nn.Module):
    """A learned filter over time. (batch, places, hidden_size) in and out."""

    def __init__(self, config: FMLPRecConfig) -> None:
        super().__init__()
        shape = (config.max_position_embeddings // 2 + 1, config.hidden_size)
        self.weight_real = nn.Parameter(torch.zeros(shape))
        self.weight_imag = nn.Parameter(torch.zeros(shape))
        self.dropout = Dropout(config.hidden_dropout)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(at_least_float32(x), dim=1)  # no transform in bf16
        filtered = torch.fft.irfft(spectrum * torch.complex(self.weight_real, self.weight_imag), n=x.shape[1], dim=1)
        return add_norm(filtered, x, self.norm, self.dropout.rate())


class FMLPRecBlock(nn.Module):
    """One filter and one feed-forward network."""

    def __init__(self, config: FMLPRecConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.filter = FilterLayer(config)
        self.mlp = FeedForward(size, config.intermediate_size or 4 * size, config.hidden_dropout, config.layer_norm_eps)

    def forward(self, x: Tensor, last_only: bool) -> Tensor:
        filtered = self.filter(x)
        return self.mlp(filtered[:, -1:] if last_only else filtered)


class FMLPRecPreTrainedModel(PreTrainedModel):
    config: FMLPRecConfig
    config_class = FMLPRecConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _no_split_modules = ["FMLPRecBlock"]  # noqa: RUF012

    def _init_weights(self, module: nn.Module) -> None:
        """Normal with 0.02 (the default of transformers too), the filters as well, zero biases."""
        super()._init_weights(module)
        if isinstance(module, FilterLayer):
            init.normal_(module.weight_real, std=0.02)
            init.normal_(module.weight_imag, std=0.02)


class FMLPRecModel(WholeHistoryEncoder, FMLPRecPreTrainedModel):
    """Item and position embeddings, their norm, and the blocks."""

    def __init__(self, config: FMLPRecConfig) -> None:
        super().__init__(config)
        self.embed_items = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=0)
        self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList(FMLPRecBlock(config) for _ in range(config.num_hidden_layers))
        self.post_init()

    def encode_canvas(self, embeds: Tensor, items: Tensor) -> list[Tensor]:
        """The normalised embeddings, and the output of every block."""
        states = [self.dropout(self.norm(embeds + self.embed_positions.weight))]
        for layer in self.layers:
            # Of the last block nothing but the last place is used.
            states.append(layer(states[-1], last_only=layer is self.layers[-1]))
        return states


class FMLPRecForSequentialRecommendation(WholeHistoryHead, FMLPRecPreTrainedModel):
    """FMLP-Rec with scores for every item."""

    label = "FMLP-Rec"

    def __init__(self, config: FMLPRecConfig) -> None:
        super().__init__(config)
        self.model = FMLPRecModel(config)
        self.post_init()
