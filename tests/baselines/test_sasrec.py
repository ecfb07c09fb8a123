"""SASRec against a plain transcription of its equations."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from .helpers import histories, make


@pytest.mark.parametrize("heads", [1, 4])
def test_sasrec_is_the_paper(heads):
    model = make("sasrec", num_attention_heads=heads, max_position_embeddings=12)
    ids = torch.stack(histories(9, 9))
    encoder = model.model
    x = (
        encoder.embed_items(ids) * 4 + encoder.embed_positions.weight[3:12]
    )  # sqrt(16); the newest item is the last place
    for block in encoder.layers:
        q_in = block.attention_norm(x)
        key, value = (
            F.linear(x, w, b) for w, b in zip(block.kv_proj.weight.split(16), block.kv_proj.bias.split(16), strict=True)
        )
        out = torch.zeros_like(x)
        for head in range(heads):
            part = slice(head * 16 // heads, (head + 1) * 16 // heads)
            for t in range(9):
                scores = (
                    block.q_proj(q_in)[:, t, None, part] @ key[:, : t + 1, part].transpose(1, 2) / math.sqrt(16 / heads)
                )
                out[:, t, part] = (scores.softmax(-1) @ value[:, : t + 1, part])[:, 0]
        z = block.norm(q_in + block.o_proj(out))
        x = z + block.down_proj(F.relu(block.up_proj(z)))
    torch.testing.assert_close(encoder(ids).last_hidden_state, encoder.norm(x), rtol=0, atol=1e-10)
