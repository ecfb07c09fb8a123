"""The authors' weights and the authors' computation (szhang-cityu/GLINT-RU), to convert and to check a conversion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import GlintRUError
from ..models.configuration_glintru import GlintRUConfig
from ..models.modeling_glintru import GlintRUBlock, GlintRUForSequentialRecommendation, GlintRUModel
from ..models.ops_glintru import attention_parts

__all__ = ["from_official_state_dict", "official_encode", "official_representation", "official_to_ours"]


def from_official_state_dict(
    state_dict: Mapping[str, Tensor], num_attention_heads: int, **config_options: Any
) -> GlintRUForSequentialRecommendation:
    """A model with weights under the authors' parameter names.

    Args:
        state_dict: Their `state_dict`; sizes are read from it.
        num_attention_heads: Their `n_heads`, which no tensor tells.
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
        **config_options,
    )
    model = GlintRUForSequentialRecommendation(config)
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


def official_representation(model: GlintRUModel, input_ids: Tensor) -> Tensor:
    """What the authors' code computes for padded rows, its padding leak included: nothing is masked.

    Attention, convolutions and recurrence read the padding after the items (and before it, the items after a position),
    so the result depends on how far the rows are padded. Gradients flow, and in training mode dropout drops.

    Args:
        model: A one-layer GLINT-RU encoder of the published block.
        input_ids: (batch, length) int64, items before padding (0).

    Returns:
        (batch, length, hidden_size); theirs is the one at the last item of each row.
    """
    return official_encode(model, model.embed_items(input_ids))[-1]


def official_encode(model: GlintRUModel, embeds: Tensor, mask: Tensor | None = None) -> list[Tensor]:
    """As `GlintRUModel.encode`, by the authors' computation, which knows no mask."""
    (block,) = model.layers
    x = model.dropout(embeds)
    return [x, _block(block, x)]  # type: ignore[arg-type]


def _block(block: GlintRUBlock, x: Tensor) -> Tensor:
    attention, recurrence, mlp = block.attention, block.recurrence, block.mlp
    assert attention is not None and recurrence is not None and mlp is not None and block.mixing_logits is not None
    assert recurrence.conv_in is not None and recurrence.conv_out is not None and recurrence.gate is not None
    assert block.gate_proj is not None
    qkv = torch.cat([layer(x) for layer in (attention.q_proj, attention.k_proj, attention.v_proj)], dim=-1)
    query, key, value = attention_parts(qkv, attention.num_heads)
    context = query @ (key.transpose(-1, -2) @ value) * query.shape[-1] ** -0.5
    attended = attention.norm(attention.dropout(attention.o_proj(context.transpose(1, 2).flatten(2))) + x)
    c = _convolved(recurrence.conv_in, recurrence.in_proj(x))
    gate = recurrence.dropout(recurrence.gate(c))
    recurrent = _convolved(recurrence.conv_out, gate * recurrence.out_proj(recurrence.gru(c)[0]))
    shares = block.mixing_logits.softmax(0)
    mixed = (shares[0] * recurrent + shares[1] * attended) * F.gelu(block.gate_proj(x))
    z = block.norm(block.dropout(block.mix_proj(mixed)) + x)
    return block.norm(block.dropout(mlp.out_proj(mlp.value_proj(z) * F.gelu(mlp.gate_proj(z)))) + z)


def _convolved(convolution: torch.nn.Conv1d, x: Tensor) -> Tensor:
    return convolution(x.transpose(1, 2)).transpose(1, 2)


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
