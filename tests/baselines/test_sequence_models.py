"""SASRec and GRU4Rec against plain transcriptions, and what every model behind the shared head must do."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from modeling_glintru import GlintRUError
from modeling_glintru.baselines import gru4rec, sasrec

MODELS = {
    "sasrec": (sasrec.SASRecConfig, sasrec.SASRecForSequentialRecommendation),
    "gru4rec": (gru4rec.GRU4RecConfig, gru4rec.GRU4RecForSequentialRecommendation),
}


def make(name: str, **options):
    config, kind = MODELS[name]
    torch.manual_seed(0)
    model = kind(config(**{"vocab_size": 31, "hidden_size": 16, **options}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.double().eval()


def histories(*lengths: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(1, 31, (length,), generator=generator) for length in lengths]


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


@pytest.mark.parametrize("layers", [1, 2])
def test_gru4rec_is_its_equations(layers):
    model = make("gru4rec", num_hidden_layers=layers)
    ids = torch.stack(histories(7, 7))
    encoder = model.model
    x = encoder.embed_items(ids)
    for layer in encoder.layers:
        weight_x, weight_h = layer.all_weights[0]
        state, states = torch.zeros(2, 16, dtype=torch.float64), []
        for t in range(7):
            rx, zx, nx = (x[:, t] @ weight_x.T).chunk(3, 1)
            rh, zh, nh = (state @ weight_h.T).chunk(3, 1)
            new = torch.tanh(nx + torch.sigmoid(rx + rh) * nh)
            update = torch.sigmoid(zx + zh)
            state = (1 - update) * new + update * state
            states.append(state)
        x = torch.stack(states, 1)
    torch.testing.assert_close(encoder(ids).last_hidden_state, encoder.out_proj(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("side", ["left", "right", "gaps"])
def test_padding_and_mates_change_nothing(name, side):
    model = make(name)
    torch.manual_seed(0)
    rows = histories(1, 4, 9)
    ids = torch.zeros(3, 12, dtype=torch.long)
    for row, history in zip(ids, rows, strict=True):
        n = len(history)
        places = {
            "left": torch.arange(12 - n, 12),
            "right": torch.arange(n),
            "gaps": torch.randperm(12)[:n].sort().values,
        }
        row[places[side]] = history
    together = model(ids)
    for row, history in enumerate(rows):
        alone = model(history[None])
        torch.testing.assert_close(together.logits[row], alone.logits[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(
            together.last_hidden_state[row][ids[row] > 0], alone.last_hidden_state[0], rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("name", MODELS)
def test_no_later_item_reaches_a_score(name):
    model = make(name)
    a, b = histories(10, 10)
    b[:6] = a[:6]
    states = model(torch.stack([a, b])).last_hidden_state
    torch.testing.assert_close(states[0, :6], states[1, :6], rtol=0, atol=1e-12)
    assert not torch.allclose(states[0, 6:], states[1, 6:])


@pytest.mark.parametrize("name", MODELS)
def test_save_load_and_learn(name, tmp_path):
    model = make(name).float()
    model.save_pretrained(tmp_path)
    loaded = MODELS[name][1].from_pretrained(tmp_path)
    ids = torch.stack(histories(8, 8, 8))
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    optimizer = torch.optim.Adam(loaded.train().parameters(), 1e-2)
    losses = []
    for _ in range(60):
        loss = loaded(ids[:, :-1], labels=ids[:, 1:]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_sasrec_names_a_history_that_is_too_long():
    with pytest.raises(GlintRUError, match="at most 4 items, got 5"):
        make("sasrec", max_position_embeddings=4)(torch.stack(histories(5)))
