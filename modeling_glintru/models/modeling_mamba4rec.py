"""Mamba4Rec (Liu et al., "Mamba4Rec: Towards Efficient Sequential Recommendation with Selective State Space Models",
2024, arXiv 2403.03900) behind the shared head.

Each block is a Mamba block (Gu and Dao, 2023; `SelectiveStateSpace`) and a position-wise network, both with their norm
behind, with a residual around the Mamba block only where there is more than one block, as in the authors' code. Their
initialisation too is kept, though it overwrites Mamba's own for the step size (weights normal with 0.02, bias zero).

Departs from it in the scan alone: a kernel for CPUs, elsewhere plain PyTorch, instead of one for CUDA.
"""

from __future__ import annotations

from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedModel

from .configuration_glintru import NextItemConfig, above_zero, at_least_one, rates
from .head_glintru import NextItemHead, PrefixEncoder
from .layers_baselines import FeedForward, at_least_zero, through
from .modeling_glintru import SelectiveStateSpace
from .ops_glintru import Dropout, add_norm

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


class Mamba4RecBlock(nn.Module):
    """One Mamba block and one feed-forward network."""

    def __init__(self, config: Mamba4RecConfig) -> None:
        super().__init__()
        size, dropout, eps = config.hidden_size, config.hidden_dropout, config.layer_norm_eps
        self.mixer = SelectiveStateSpace(size, config.expand, config.state_size, config.conv_kernel)
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(size, eps=eps)
        self.mlp = FeedForward(size, config.intermediate_size or 4 * size, dropout, eps, inner_dropout=dropout)
        self.residual = config.num_hidden_layers > 1

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mixer(x, None)[0]
        if self.residual:
            return self.mlp(add_norm(mixed, x, self.norm, self.dropout.rate()))
        return self.mlp(self.norm(self.dropout(mixed)))


class Mamba4RecPreTrainedModel(PreTrainedModel):
    config: Mamba4RecConfig
    config_class = Mamba4RecConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _no_split_modules = ["Mamba4RecBlock"]  # noqa: RUF012

    def _init_weights(self, module: nn.Module) -> None:
        """Normal with 0.02, the default of transformers too, and as `SelectiveStateSpace` says."""
        super()._init_weights(module)
        if isinstance(module, SelectiveStateSpace):
            module.initialize()


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
