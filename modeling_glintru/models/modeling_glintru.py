"""GLINT-RU (arXiv 2406.10244, KDD 2025) as a `PreTrainedModel`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init

from .average_glintru import GlintRUMovingAverage
from .configuration_glintru import GlintRUConfig, GlintRUError
from .head_glintru import NextItemHead, PrefixEncoder, is_last_item
from .layers_glintru import Border, Dropout, GlintRUBlock
from .pipeline_glintru import SequentialRecommendationPipeline  # noqa: F401 (its file is saved with the model)
from .state_glintru import GlintRUState, StateLayout, fingerprint_of
from .state_space_glintru import SelectiveStateSpace

__all__ = [
    "GlintRUForSequentialRecommendation",
    "GlintRUModel",
    "GlintRUPreTrainedModel",
]


class GlintRUPreTrainedModel(PreTrainedModel):
    config: GlintRUConfig
    config_class = GlintRUConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ["GlintRUBlock"]  # noqa: RUF012
    state_class = GlintRUState  # so that remote code can reach `load` and `from_bytes`

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
        elif isinstance(module, GlintRUMovingAverage):
            init.constant_(module.average_weight, 0.5)
            init.constant_(module.item_weight, 0.5)
        elif isinstance(module, SelectiveStateSpace):
            module.initialize()


class GlintRUModel(PrefixEncoder, GlintRUPreTrainedModel):
    """Item indices in, the representation of every prefix out."""

    def __init__(self, config: GlintRUConfig) -> None:
        super().__init__(config)
        self.embed_items = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=0)
        self.dropout = Dropout(config.embedding_dropout)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.use_embedding_norm else None
        self.layers = nn.ModuleList(GlintRUBlock(config) for _ in range(config.num_hidden_layers))
        self.reads_padding = config.padding_mode == "official"
        self.gradient_checkpointing = False
        self._fingerprint: tuple[Any, str] = (None, "")
        self.post_init()

    @torch.compiler.disable
    def fingerprint(self) -> str:
        """16 hexadecimal digits that name the weights, computed again only when they have changed."""
        # Optimizers and `load_state_dict` raise the version; an inference tensor has none and rarely changes.
        now = [(p.data_ptr(), 0 if p.is_inference() else p._version) for p in self.parameters()]
        if self._fingerprint[0] != now:
            self._fingerprint = (now, fingerprint_of(self, StateLayout.of(self.config)))
        return self._fingerprint[1]

    def _state_identity(self) -> tuple[StateLayout, str]:
        """What a state of this model says of it; in training mode the weights move and have no fingerprint."""
        if self.reads_padding:
            raise GlintRUError("padding_mode 'official' reads a whole padded row at once and has no streaming state")
        return StateLayout.of(self.config), "" if self.training else self.fingerprint()

    def empty_state(self, users: int = 1) -> GlintRUState:
        """The states of users without items, in float32, or float64 where the weights are.

        Raises:
            GlintRUError: The model has `padding_mode="official"`.
        """
        layout, fingerprint = self._state_identity()
        weight = self.embed_items.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        return GlintRUState.empty(layout, users, dtype, weight.device, fingerprint)

    def advance(
        self, embeds: Tensor, mask: Tensor | None, state: GlintRUState | None
    ) -> tuple[list[Tensor], GlintRUState]:
        """As `encode`, for rows that go on from `state`, with items before padding; see `PrefixEncoder`."""
        batch, length = embeds.shape[:2]
        fresh = state is None
        if state is None:
            state = self.empty_state(batch)
        elif not isinstance(state, GlintRUState):
            raise GlintRUError(f"state must be a GlintRUState, got {type(state).__name__}")
        else:
            state.check(*self._state_identity(), batch, embeds.device)
        if length == 0:
            return [embeds], state
        if torch.is_grad_enabled() and state.representation.is_inference():
            state = state.clone()
        kept, old = state.dtype, state.to(dtype=torch.promote_types(embeds.dtype, torch.float32))
        num_items = old.count.new_full((batch,), length) if mask is None else mask.sum((1, 2), dtype=torch.int64)
        has_before = embeds.new_ones(batch, length, 1) if mask is None else mask.roll(1, dims=1)
        has_before = torch.cat(((old.count > 0)[:, None, None].to(has_before.dtype), has_before[:, 1:]), dim=1)
        border = Border(num_items, has_before, old.count, fresh)
        hidden = [self.block_input(embeds)]
        tensors: dict[str, Tensor] = {}
        for index, layer in enumerate(self.layers):
            out, memory = layer(hidden[-1], mask, old.layer(index), border)
            hidden.append(out)
            tensors |= {f"layers.{index}.{name}": tensor for name, tensor in memory.items()}
        tensors["representation"] = border.last(old.representation, hidden[-1]).detach()
        fingerprint = "" if self.training else state.fingerprint
        return hidden, GlintRUState(state.layout, old.count + num_items, tensors, fingerprint).to(dtype=kept)

    def block_input(self, embeds: Tensor) -> Tensor:
        """What the first block reads: embeddings after dropout and, with `use_embedding_norm`, their norm."""
        x = self.dropout(embeds)
        return x if self.norm is None else self.norm(x)

    def encode(self, embeds: Tensor, mask: Tensor | None) -> list[Tensor]:
        """What the first block reads, and the output of every block."""
        states = [self.block_input(embeds)]
        for layer in self.layers:
            states.append(layer(states[-1], mask))
        return states


class GlintRUForSequentialRecommendation(NextItemHead, GlintRUPreTrainedModel):
    """GLINT-RU with scores for every item: inner products with the item embeddings, trained on the next item."""

    label = "GLINT-RU"

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
                more = f" and {len(names) - 5} more" if len(names) > 5 else ""
                raise GlintRUError(f"the state dict {problem} {', '.join(sorted(names)[:5])}{more}")
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
