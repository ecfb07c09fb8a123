"""SASRec with a key/value cache: one item more without a pass over the history, as in text generation.

It works only while positions stand still: until the history fills the window (200 items). From then on each click moves
every item to another position, and the cache has to be computed anew. numpy with one product for each matrix, since
PyTorch's dispatches would take most of the time at this size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from modeling_glintru.models.modeling_sasrec import SASRecForSequentialRecommendation


def weight_and_bias(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    return layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy()


def normalised(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    x = x - x.mean()
    return x * (1 / np.sqrt(x @ x / len(x) + eps)) * weight + bias


class CachedSASRec:
    """The state of one user whose history fills the window.

    Args:
        model: One head, ReLU.
        history: As many items as the window has places.
    """

    def __init__(self, model: SASRecForSequentialRecommendation, history: np.ndarray) -> None:
        config, encoder = model.config, model.model
        assert config.num_attention_heads == 1 and config.hidden_act == "relu"
        assert len(history) == config.max_position_embeddings  # otherwise the model counts positions otherwise
        self.eps, self.scale = config.layer_norm_eps, np.float32(config.hidden_size**-0.5)
        self.items = encoder.embed_items.weight.detach().numpy() / self.scale
        self.positions = encoder.embed_positions.weight.detach().numpy().copy()
        self.blocks = [
            [
                weight_and_bias(layer)
                for layer in (b.attention_norm, b.q_proj, b.kv_proj, b.o_proj, b.norm, b.up_proj, b.down_proj)
            ]
            for b in encoder.layers
        ]
        self.norm = weight_and_bias(encoder.norm)
        self.cache = np.zeros((len(self.blocks), 2, len(history), config.hidden_size), np.float32)
        self.history = history
        for t in range(len(history)):
            self.last = self.advance(t, history[t])

    def advance(self, t: int, item: int) -> np.ndarray:
        """(d,): the representation after item number t, whose keys and values stay."""
        x = self.items[item] + self.positions[t]
        for block, (keys, values) in zip(self.blocks, self.cache, strict=True):
            attention_norm, query, key_value, out, norm, up, down = block
            normed = normalised(x, *attention_norm, self.eps)
            keys[t], values[t] = (key_value[0] @ x + key_value[1]).reshape(2, -1)
            scores = keys[: t + 1] @ ((query[0] @ normed + query[1]) * self.scale)
            weights = np.exp(scores - scores.max())
            attended = weights @ values[: t + 1] / weights.sum()
            z = normalised(normed + out[0] @ attended + out[1], *norm, self.eps)
            x = z + down[0] @ np.maximum(up[0] @ z + up[1], 0) + down[1]
        return normalised(x, *self.norm, self.eps)

    def again(self) -> np.ndarray:
        """(1, d): the last click once more, with the whole history before it."""
        return self.advance(len(self.history) - 1, self.history[-1])[None]
