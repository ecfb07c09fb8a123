"""The paper's block, one prefix at a time: slow and obvious. Every fast path is held equal to it."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def attention_expert(attention, x):
    batch, length, size = x.shape
    heads = attention.num_heads

    def split(y):
        return y.view(batch, length, heads, size // heads).transpose(1, 2)

    query = F.elu(split(attention.q_proj(x)))
    key = F.elu(split(attention.k_proj(x)))
    value = split(attention.v_proj(x))
    query = query / query.norm(dim=-1, keepdim=True)
    key = key / key.norm(dim=-1, keepdim=True)
    context = query @ (key.transpose(-1, -2) @ value) / (size // heads) ** 0.5
    context = context.transpose(1, 2).reshape(batch, length, size)
    return attention.norm(attention.o_proj(context) + x)


def convolve(conv, x):
    return F.conv1d(x.transpose(1, 2), conv.weight, conv.bias, padding=1).transpose(1, 2)


def gru_expert(recurrence, x):
    c = recurrence.in_proj(x)
    if recurrence.conv_in is not None:
        c = convolve(recurrence.conv_in, c)
    y = recurrence.out_proj(recurrence.gru(c)[0])
    if recurrence.gate is not None:
        y = recurrence.gate(c) * y
    return y if recurrence.conv_out is None else convolve(recurrence.conv_out, y)


def moving_average(average, x):
    means = []
    for t in range(x.shape[1]):
        weights = torch.tensor([average.decay ** (t - s) for s in range(t + 1)], dtype=x.dtype)[:, None]
        means.append((weights * x[:, : t + 1]).sum(1) / weights.sum())
    mixed = average.average_weight * torch.stack(means, dim=1) + average.item_weight * x
    return average.norm(mixed + x)


def mamba(mixer, x):
    """Mamba's algorithm, a position at a time; (batch, length, size) in and out."""
    u, gate = mixer.in_proj(x).chunk(2, dim=-1)
    taps = mixer.conv.weight[:, 0]  # (channels, taps), the newest last
    convolved = []
    for t in range(x.shape[1]):
        near = [taps[:, -1 - back] * u[:, t - back] for back in range(min(taps.shape[1], t + 1))]
        convolved.append(sum(near) + mixer.conv.bias)
    state, outputs = torch.zeros(*u[:, 0].shape, mixer.state_size, dtype=x.dtype), []
    for v in convolved:
        v = v * torch.sigmoid(v)
        step, b, c = mixer.x_proj(v).split([mixer.rank, mixer.state_size, mixer.state_size], dim=-1)
        step = torch.log(1 + torch.exp(mixer.step_proj(step)))
        state = torch.exp(step[..., None] * -torch.exp(mixer.a_log)) * state + (step * v)[..., None] * b[:, None]
        outputs.append((state * c[:, None]).sum(-1) + mixer.skip * v)
    return mixer.out_proj(torch.stack(outputs, dim=1) * gate * torch.sigmoid(gate))


def encode_block(block, x):
    """The authors' forward pass over a whole (unpadded) prefix; (batch, t, size) in and out."""
    if block.recurrence is None:
        mixed = attention_expert(block.attention, x)
    elif block.attention is None:
        mixed = gru_expert(block.recurrence, x)
    else:
        alpha = (0.5, 0.5) if block.mixing_logits is None else torch.softmax(block.mixing_logits, 0)
        mixed = alpha[0] * gru_expert(block.recurrence, x) + alpha[1] * attention_expert(block.attention, x)
    if block.gate_proj is not None:
        mixed = mixed * F.gelu(block.gate_proj(x))
    z = (1 - block.average_share - block.state_space_share) * block.norm(block.mix_proj(mixed) + x)
    if block.average is not None:
        z = z + block.average_share * moving_average(block.average, x)
    if block.state_space is not None:
        z = z + block.state_space_share * block.state_space.norm(mamba(block.state_space.mixer, x) + x)
    if block.mlp is None:
        return z
    mlp = block.mlp
    return block.norm(mlp.out_proj(mlp.value_proj(z) * F.gelu(mlp.gate_proj(z))) + z)


def encode_all_prefixes(model, input_ids):
    """`out[:, t]` = the authors' output for the prefix that ends at t. `model` is a `GlintRUModel` in eval mode."""
    hidden = model.embed_items(input_ids)
    if model.norm is not None:
        hidden = model.norm(hidden)
    for block in model.layers:
        hidden = torch.stack([encode_block(block, hidden[:, : t + 1])[:, t] for t in range(hidden.shape[1])], dim=1)
    return hidden
