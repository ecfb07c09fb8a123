"""LinRec (Liu et al., "LinRec: Linear Attention Mechanism for Long-term Sequential Recommender Systems", SIGIR 2023)
behind the shared head: SASRec's network of two sublayers with norms behind them, its attention replaced by

    q̂ = elu(q) / ‖elu(q)‖₂,   k̂ = elu(k) / ‖elu(k)‖₂,   C_t = q̂_t Σ_(s ≤ t) k̂_s v_sᵀ / sqrt(d / H),

each feature vector normalised over its own head and position, as in the authors' code.

Departs from that code in one thing: it lets every position see the whole history and trains one example for each
prefix; here the sum stops at t, so all prefixes are trained in one pass. With one layer the two give the same scores;
with more, earlier positions of deeper layers no longer see later items. Positions are counted from the newest item.
"""

from __future__ import annotations

from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedModel

from .configuration_glintru import NextItemConfig, above_zero, at_least_one, heads_divide, rates
from .head_glintru import NextItemHead, PrefixEncoder
from .layers_baselines import FeedForward, at_least_zero, positions_from_newest, through
from .ops_glintru import Dropout, add_norm, linear_attention

__all__ = ["LinRecConfig", "LinRecForSequentialRecommendation", "LinRecModel"]


@strict
class LinRecConfig(NextItemConfig):
    """Sizes of LinRec; shared fields as in `GlintRUConfig`.

    Args:
        num_attention_heads: Heads [H]; divides `hidden_size`.
        num_hidden_layers: Blocks.
        intermediate_size: Inner width of the feed-forward network; 0 means 4 * `hidden_size`.
        max_position_embeddings: Longest history.
        hidden_dropout: Dropout on embeddings and on the output of each sublayer.
        layer_norm_eps: Epsilon of the layer normalisations.
    """

    model_type = "linrec"

    num_attention_heads: int = 2
    num_hidden_layers: int = 2
    intermediate_size: int = 0
    max_position_embeddings: int = 200
    hidden_dropout: float | int = 0.2
    layer_norm_eps: float | int = 1e-12

    def validate_blocks(self) -> None:
        """Sizes and rates are in their ranges."""
        at_least_one(self, "num_attention_heads", "num_hidden_layers", "max_position_embeddings")
        heads_divide(self)
        at_least_zero(self, "intermediate_size")
        rates(self, "hidden_dropout")
        above_zero(self, "layer_norm_eps")


class LinRecAttention(nn.Module):
    """Causal linear attention with residual and norm. (batch, length, hidden_size) in and out."""

    def __init__(self, config: LinRecConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.qkv_proj = nn.Linear(size, 3 * size)
        self.o_proj = nn.Linear(size, size)
        self.dropout = Dropout(config.hidden_dropout)
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        context = linear_attention(self.qkv_proj(x), None, self.num_heads)  # no item stands behind padding
        return add_norm(self.o_proj(context), x, self.norm, self.dropout.rate())


class LinRecBlock(nn.Module):
    """One attention and one feed-forward network."""

    def __init__(self, config: LinRecConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.attention = LinRecAttention(config)
        self.mlp = FeedForward(size, config.intermediate_size or 4 * size, config.hidden_dropout, config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.attention(x))


class LinRecPreTrainedModel(PreTrainedModel):
    """Initialised normal with 0.02 and zero biases, which is what transformers does by itself."""

    config: LinRecConfig
    config_class = LinRecConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _no_split_modules = ["LinRecBlock"]  # noqa: RUF012


class LinRecModel(PrefixEncoder, LinRecPreTrainedModel):
    """Item and position embeddings, their norm, and the blocks. Causal: padding after the items needs no mask."""

    items_first = True

    def __init__(self, config: LinRecConfig) -> None:
        super().__init__(config)
        self.embed_items = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=0)
        self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList(LinRecBlock(config) for _ in range(config.num_hidden_layers))
        self.post_init()

    def encode(self, embeds: Tensor, mask: Tensor | None) -> list[Tensor]:
        """The normalised embeddings, and the output of every block."""
        places = positions_from_newest(embeds, mask, self.config.max_position_embeddings)
        return through(self.layers, self.dropout(self.norm(embeds + self.embed_positions(places))))


class LinRecForSequentialRecommendation(NextItemHead, LinRecPreTrainedModel):
    """LinRec with scores for every item."""

    def __init__(self, config: LinRecConfig) -> None:
        super().__init__(config)
        self.model = LinRecModel(config)
        self.post_init()
