"""SASRec (Kang and McAuley, ICDM 2018) with the head, loss and trainer of this package.

Departs from the paper: full cross-entropy (or any loss of this package) instead of one sampled negative a position, and
GELU instead of ReLU on request. A position is counted from the newest item of the window, which is what the authors'
left padding amounts to.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init

from .configuration_glintru import NextItemConfig, above_zero, at_least_one, heads_divide, rates
from .head_glintru import NextItemHead, PrefixEncoder
from .layers_baselines import at_least_zero, one_of, positions_from_newest, through
from .ops_glintru import Dropout

__all__ = ["SASRecConfig", "SASRecForSequentialRecommendation", "SASRecModel"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


@strict
class SASRecConfig(NextItemConfig):
    """Sizes of SASRec; shared fields as in `GlintRUConfig`.

    Args:
        num_attention_heads: Heads; divides `hidden_size`.
        num_hidden_layers: Blocks [b].
        intermediate_size: Inner width of the feed-forward network; the paper has `hidden_size`, which 0 means.
        max_position_embeddings: Longest history [n].
        embedding_dropout: Dropout on the sum of item and position embeddings.
        attention_dropout: Dropout on the attention weights.
        hidden_dropout: Dropout in the feed-forward network.
        hidden_act: `"relu"` (the paper) or `"gelu"`.
        layer_norm_eps: Epsilon of the layer normalisations.
    """

    model_type = "sasrec"

    num_attention_heads: int = 1
    num_hidden_layers: int = 2
    intermediate_size: int = 0
    max_position_embeddings: int = 200
    embedding_dropout: float | int = 0.2
    attention_dropout: float | int = 0.2
    hidden_dropout: float | int = 0.2
    hidden_act: str = "relu"
    layer_norm_eps: float | int = 1e-8

    def validate_blocks(self) -> None:
        """Sizes and rates are in their ranges."""
        at_least_one(self, "num_attention_heads", "num_hidden_layers", "max_position_embeddings")
        heads_divide(self)
        rates(self, "embedding_dropout", "attention_dropout", "hidden_dropout")
        above_zero(self, "layer_norm_eps")
        one_of(self, "hidden_act", tuple(ACTIVATIONS))
        at_least_zero(self, "intermediate_size")


class SASRecBlock(nn.Module):
    """`Q = norm(x); y = Q + attention(Q, x, x); z = norm(y); z + feed_forward(z)`, as in the authors' code."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        size, inner = config.hidden_size, config.intermediate_size or config.hidden_size
        self.num_heads = config.num_attention_heads
        self.attention_dropout = config.attention_dropout
        self.attention_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.q_proj = nn.Linear(size, size)
        self.kv_proj = nn.Linear(size, 2 * size)
        self.o_proj = nn.Linear(size, size)
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.up_proj = nn.Linear(size, inner)
        self.down_proj = nn.Linear(inner, size)
        self.dropout = Dropout(config.hidden_dropout)
        self.activation = ACTIVATIONS[config.hidden_act]

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.attention_norm(x)
        key, value = self.kv_proj(x).chunk(2, dim=-1)
        # Items stand before padding in each row, so the causal mask alone keeps padding out.
        attended = F.scaled_dot_product_attention(
            self._heads(self.q_proj(normed)),
            self._heads(key),
            self._heads(value),
            is_causal=True,
            dropout_p=self.attention_dropout if self.training else 0.0,
        )
        z = self.norm(normed + self.o_proj(attended.transpose(1, 2).flatten(2)))
        return z + self.dropout(self.down_proj(self.dropout(self.activation(self.up_proj(z)))))


class SASRecPreTrainedModel(PreTrainedModel):
    config: SASRecConfig
    config_class = SASRecConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _no_split_modules = ["SASRecBlock"]  # noqa: RUF012

    def _init_weights(self, module: nn.Module) -> None:
        """Xavier normal everywhere, as in the authors' code; zero biases."""
        super()._init_weights(module)
        if isinstance(module, (nn.Embedding, nn.Linear)):
            init.xavier_normal_(module.weight)


class SASRecModel(PrefixEncoder, SASRecPreTrainedModel):
    """Item and position embeddings, causal self-attention blocks, a last layer normalisation."""

    items_first = True

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__(config)
        self.embed_items = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=0)
        self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.dropout = Dropout(config.embedding_dropout)
        self.layers = nn.ModuleList(SASRecBlock(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def encode(self, embeds: Tensor, mask: Tensor | None) -> list[Tensor]:
        """The embeddings, and the output of every block, the last one normalised."""
        positions = positions_from_newest(embeds, mask, self.config.max_position_embeddings)
        scaled = embeds * self.config.hidden_size**0.5
        states = through(self.layers, self.dropout(scaled + self.embed_positions(positions)))
        states[-1] = self.norm(states[-1])
        return states


class SASRecForSequentialRecommendation(NextItemHead, SASRecPreTrainedModel):
    """SASRec with scores for every item."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__(config)
        self.model = SASRecModel(config)
        self.post_init()
