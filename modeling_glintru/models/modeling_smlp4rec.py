"""SMLP4Rec (Gao et al., "SMLP4Rec: An Efficient All-MLP Architecture for Sequential Recommendations", ACM TOIS 2024)
behind the shared head.

Each block normalises its input once and adds up networks of two bias-free layers that mix it in parallel: over time,
over channels and over the fields of an item. Without item features there is one field, the item itself, so the third
is a learned scalar function of each number:

    x' = norm(x),   out = time(x') + channels(x') + fields(x'),   each W2 dropout(GELU(W1 ·)) with dropout behind it.

The mixing over time has a weight for each pair of places, so the model is not causal: it is trained with one example
for each prefix.

Departs from the authors' code: every block has weights of its own (theirs applies one block again); the newest item
stands at the last place whatever the length of the history, where theirs pads behind it, so that the weights over time
mean the same for every user; the places before a short history hold zeros, not a random embedding.
"""

from __future__ import annotations

import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedModel

from .configuration_glintru import NextItemConfig, above_zero, at_least_one, rates
from .layers_baselines import through
from .ops_glintru import Dropout
from .whole_history_baselines import WholeHistoryEncoder, WholeHistoryHead

__all__ = ["SMLP4RecConfig", "SMLP4RecForSequentialRecommendation", "SMLP4RecModel"]


@strict
class SMLP4RecConfig(NextItemConfig):
    """Sizes of SMLP4Rec; shared fields as in `GlintRUConfig`.

    Args:
        num_hidden_layers: Blocks.
        expand: Inner width of each mixing network, in multiples of what it mixes.
        max_position_embeddings: Places; every history is laid on all of them, so the cost is that of a long one.
        hidden_dropout: Dropout inside and behind each mixing network.
        layer_norm_eps: Epsilon of the layer normalisations.
    """

    model_type = "smlp4rec"

    num_hidden_layers: int = 2
    expand: int = 3
    max_position_embeddings: int = 50
    hidden_dropout: float | int = 0.2
    layer_norm_eps: float | int = 1e-5

    def validate_blocks(self) -> None:
        """Sizes and rates are in their ranges."""
        at_least_one(self, "num_hidden_layers", "expand", "max_position_embeddings")
        rates(self, "hidden_dropout")
        above_zero(self, "layer_norm_eps")


class Mixer(nn.Module):
    """Two bias-free layers over the last dimension, (..., width) in and out."""

    def __init__(self, width: int, expand: int, dropout: float) -> None:
        super().__init__()
        self.up_proj = nn.Linear(width, expand * width, bias=False)
        self.down_proj = nn.Linear(expand * width, width, bias=False)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.down_proj(self.dropout(F.gelu(self.up_proj(x)))))


class SMLP4RecBlock(nn.Module):
    """The three mixing networks side by side. (batch, places, hidden_size) in and out."""

    def __init__(self, config: SMLP4RecConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.time, self.channels, self.fields = (
            Mixer(width, config.expand, config.hidden_dropout)
            for width in (config.max_position_embeddings, config.hidden_size, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.time(x.transpose(1, 2)).transpose(1, 2) + self.channels(x) + self.fields(x[..., None]).squeeze(-1)


class SMLP4RecPreTrainedModel(PreTrainedModel):
    """Initialised normal with 0.02, which is what transformers does by itself."""

    config: SMLP4RecConfig
    config_class = SMLP4RecConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _no_split_modules = ["SMLP4RecBlock"]  # noqa: RUF012


class SMLP4RecModel(WholeHistoryEncoder, SMLP4RecPreTrainedModel):
    """Item embeddings, the blocks, and a last norm."""

    def __init__(self, config: SMLP4RecConfig) -> None:
        super().__init__(config)
        self.embed_items = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=0)
        self.layers = nn.ModuleList(SMLP4RecBlock(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def encode_canvas(self, embeds: Tensor, items: Tensor) -> list[Tensor]:
        """The embeddings, and the output of every block, the last one normalised."""
        states = through(self.layers, embeds)
        states[-1] = self.norm(states[-1])
        return states


class SMLP4RecForSequentialRecommendation(WholeHistoryHead, SMLP4RecPreTrainedModel):
    """SMLP4Rec with scores for every item."""

    def __init__(self, config: SMLP4RecConfig) -> None:
        super().__init__(config)
        self.model = SMLP4RecModel(config)
        self.post_init()
