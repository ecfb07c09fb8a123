"""GRU4Rec (Hidasi et al., ICLR 2016; Tan et al., DLRS 2016) with the head, loss and trainer of this package.

Departs from the paper as RecBole does: item embeddings instead of one-hot input, a linear layer behind the GRU, no
biases, full cross-entropy over all positions of a history instead of session-parallel mini-batches with sampled losses.
"""

from __future__ import annotations

from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init

from .configuration_glintru import NextItemConfig, at_least_one, rates
from .head_glintru import NextItemHead, PrefixEncoder
from .ops_glintru import Dropout, gru_states

__all__ = ["GRU4RecConfig", "GRU4RecForSequentialRecommendation", "GRU4RecModel"]


@strict
class GRU4RecConfig(NextItemConfig):
    """Sizes of GRU4Rec; shared fields as in `GlintRUConfig`.

    Args:
        num_hidden_layers: GRU layers.
        embedding_dropout: Dropout on the item embeddings.
    """

    model_type = "gru4rec"

    num_hidden_layers: int = 1
    embedding_dropout: float | int = 0.3

    def validate_layers(self) -> None:
        """Sizes and rates are in their ranges."""
        at_least_one(self, "num_hidden_layers")
        rates(self, "embedding_dropout")


class GRU4RecPreTrainedModel(PreTrainedModel):
    config: GRU4RecConfig
    config_class = GRU4RecConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"

    def _init_weights(self, module: nn.Module) -> None:
        """Xavier normal embeddings, Xavier uniform GRU weights, as in RecBole."""
        super()._init_weights(module)
        if isinstance(module, nn.Embedding):
            init.xavier_normal_(module.weight)
        elif isinstance(module, nn.GRU):
            for weight in module.all_weights[0]:
                init.xavier_uniform_(weight)


class GRU4RecModel(PrefixEncoder, GRU4RecPreTrainedModel):
    """Embeddings, GRU layers, a linear layer."""

    def __init__(self, config: GRU4RecConfig) -> None:
        super().__init__(config)
        size = config.hidden_size
        self.embed_items = nn.Embedding(config.vocab_size, size, padding_idx=0)
        self.dropout = Dropout(config.embedding_dropout)
        self.layers = nn.ModuleList(
            nn.GRU(size, size, bias=False, batch_first=True) for _ in range(config.num_hidden_layers)
        )
        self.out_proj = nn.Linear(size, size)
        self.post_init()

    def encode(self, embeds: Tensor, mask: Tensor | None) -> list[Tensor]:
        """The embeddings after dropout, the states of every GRU layer but the last, and the output."""
        states = [self.dropout(embeds)]
        for layer in self.layers:
            assert isinstance(layer, nn.GRU)
            # A zero input leaves a zero state zero: left padding does nothing.
            states.append(gru_states(layer, states[-1] if mask is None else states[-1] * mask))
        states[-1] = self.out_proj(states[-1])
        return states


class GRU4RecForSequentialRecommendation(NextItemHead, GRU4RecPreTrainedModel):
    """GRU4Rec with scores for every item."""

    def __init__(self, config: GRU4RecConfig) -> None:
        super().__init__(config)
        self.model = GRU4RecModel(config)
        self.post_init()
