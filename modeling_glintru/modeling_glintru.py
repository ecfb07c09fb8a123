"""GLINT-RU (arXiv 2406.10244, KDD 2025) as a `PreTrainedModel`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple

from .configuration_glintru import GlintRUConfig, GlintRUError
from .head_glintru import NextItemHead, check_indices, is_last_item, item_mask, padding_layout
from .layers_glintru import Dropout, GlintRUBlock

__all__ = [
    "GlintRUForSequentialRecommendation",
    "GlintRUModel",
    "GlintRUModelOutput",
    "GlintRUPreTrainedModel",
]


@dataclass
class GlintRUModelOutput(ModelOutput):
    """
    Args:
        last_hidden_state: (batch, length, hidden_size); at t, the representation of the prefix that ends at t, zeros
            at padding.
        hidden_states: On request, the embeddings and the output of every block, num_hidden_layers + 1 tensors.
    """

    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class GlintRUPreTrainedModel(PreTrainedModel):
    config: GlintRUConfig
    config_class = GlintRUConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ["GlintRUBlock"]  # noqa: RUF012

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialisation as published: Xavier, zero biases, PyTorch's own for the convolutions."""
        super()._init_weights(module)
        if isinstance(module, nn.Embedding):
            init.xavier_normal_(module.weight)
            if not getattr(module.weight, "_is_hf_initialized", False):
                module.weight[0].zero_()
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.GRU):
            for weight in module.all_weights[0]:
                init.xavier_uniform_(weight)
        elif isinstance(module, nn.Conv1d):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            if module.bias is not None:
                bound = (module.in_channels * module.kernel_size[0]) ** -0.5
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, GlintRUBlock) and module.mixing_logits is not None:
            init.constant_(module.mixing_logits, 0.5)


class GlintRUModel(GlintRUPreTrainedModel):
    """Item indices in, the representation of every prefix out."""

    def __init__(self, config: GlintRUConfig) -> None:
        super().__init__(config)
        self.embed_items = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=0)
        self.dropout = Dropout(config.embedding_dropout)
        self.layers = nn.ModuleList(GlintRUBlock(config) for _ in range(config.num_hidden_layers))
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embed_items

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embed_items = cast(nn.Embedding, value)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> GlintRUModelOutput:
        """
        Args:
            input_ids: (batch, length) int64 item indices in time order; 0 is padding, anywhere in the row.
            attention_mask: (batch, length), 1 at items. Optional: index 0 is padding.
            inputs_embeds: (batch, length, hidden_size) instead of `input_ids`.
            output_hidden_states: Whether to return the output of every block.

        Raises:
            GlintRUError: Neither or both inputs, an index out of range, or a mask of another shape.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise GlintRUError("give either input_ids or inputs_embeds")
        if input_ids is not None:
            if input_ids.dim() != 2:
                raise GlintRUError(f"input_ids must have shape (batch, length), got {tuple(input_ids.shape)}")
            check_indices("input_ids", input_ids, self.config.vocab_size)
            inputs_embeds = self.embed_items(input_ids)
        assert inputs_embeds is not None
        mask = item_mask(input_ids, attention_mask, inputs_embeds)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states

        order = None
        if self.config.padding_mode == "official":
            has_padding = False  # the leak is the point: padding is read like an item
        else:
            has_padding, has_gaps = padding_layout(mask)
            if has_gaps:
                order = mask.argsort(dim=1, descending=True, stable=True)
                mask = mask.gather(1, order)
                inputs_embeds = inputs_embeds.gather(1, order[..., None].expand_as(inputs_embeds))

        hidden = self.dropout(inputs_embeds)
        weights = mask.unsqueeze(-1).to(hidden.dtype) if has_padding else None
        states = [hidden]
        for layer in self.layers if mask.shape[1] else ():  # a GRU refuses a sequence of no step
            hidden = layer(hidden, weights)
            states.append(hidden)
        if weights is not None:
            states = [state * weights.to(state.dtype) for state in states]
        if order is not None:
            states = [torch.zeros_like(s).scatter(1, order[..., None].expand_as(s), s) for s in states]
        return GlintRUModelOutput(
            last_hidden_state=states[-1], hidden_states=tuple(states) if output_hidden_states else None
        )


class GlintRUForSequentialRecommendation(NextItemHead, GlintRUPreTrainedModel):
    """GLINT-RU with scores for every item: inner products with the item embeddings, trained on the next item."""

    def __init__(self, config: GlintRUConfig) -> None:
        super().__init__(config)
        self.model = GlintRUModel(config)
        self.post_init()

    def check_labels(self, chosen: Tensor, mask: Tensor) -> None:
        """The authors' computation knows only the representation of the whole sequence."""
        if self.config.padding_mode == "official" and bool((chosen & ~is_last_item(mask)).any()):
            raise GlintRUError("padding_mode 'official' knows only one label a row, at the last item")

    @classmethod
    def from_official_state_dict(
        cls,
        state_dict: Mapping[str, Tensor],
        num_attention_heads: int,
        padding_mode: str = "masked",
        **config_options: Any,
    ) -> GlintRUForSequentialRecommendation:
        """Takes weights under the authors' parameter names (szhang-cityu/GLINT-RU).

        Args:
            state_dict: Their `state_dict`; sizes are read from it.
            num_attention_heads: Their `n_heads`, which no tensor tells.
            padding_mode: `"masked"` (padding never changes a number) or `"official"`, which reproduces their padding
                leak exactly, for checking a conversion.
            **config_options: Further fields of `GlintRUConfig`.

        Raises:
            GlintRUError: A tensor is missing, unexpected or of another shape; it is named.
        """
        embedding = state_dict.get("item_embedding.weight")
        if embedding is None:
            raise GlintRUError("the state dict has no 'item_embedding.weight': not one of the authors' GLINT-RU")
        config = GlintRUConfig(
            vocab_size=embedding.shape[0],
            hidden_size=embedding.shape[1],
            num_attention_heads=num_attention_heads,
            padding_mode=padding_mode,
            **{"padding_in_softmax": True, **config_options},
        )
        model = cls(config)
        renamed = {official_to_ours(name): tensor for name, tensor in state_dict.items()}
        expected = model.state_dict()
        for problem, names in (
            ("lacks", expected.keys() - renamed.keys()),
            ("has the unknown", renamed.keys() - expected.keys()),
        ):
            if names:
                raise GlintRUError(f"the state dict {problem} {', '.join(sorted(names))}")
        for name, tensor in renamed.items():
            if tensor.shape != expected[name].shape:
                raise GlintRUError(f"{name} has shape {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}")
        model.load_state_dict(renamed)
        return model


_OFFICIAL_NAMES = {
    "item_embedding": "model.embed_items",
    "weights": "model.layers.0.mixing_logits",
    "linearattention.query": "model.layers.0.attention.q_proj",
    "linearattention.key": "model.layers.0.attention.k_proj",
    "linearattention.value": "model.layers.0.attention.v_proj",
    "linearattention.dense": "model.layers.0.attention.o_proj",
    "linearattention.LayerNorm": "model.layers.0.attention.norm",
    "dense1": "model.layers.0.recurrence.in_proj",
    "conv1d": "model.layers.0.recurrence.conv_in",
    "gru_layers": "model.layers.0.recurrence.gru",
    "projection": "model.layers.0.recurrence.out_proj",
    "selective_gate": "model.layers.0.recurrence.gate",
    "conv1dforgru": "model.layers.0.recurrence.conv_out",
    "dense2": "model.layers.0.gate_proj",
    "dense": "model.layers.0.mix_proj",
    "LayerNorm": "model.layers.0.norm",
    "dense3": "model.layers.0.mlp.value_proj",
    "dense4": "model.layers.0.mlp.gate_proj",
    "denseout": "model.layers.0.mlp.out_proj",
}


def official_to_ours(name: str) -> str:
    """The name here of a parameter in the authors' code; unknown names come back as they are."""
    for official in sorted(_OFFICIAL_NAMES, key=len, reverse=True):
        if name == official or name.startswith(official + "."):
            return _OFFICIAL_NAMES[official] + name[len(official) :]
    return name
