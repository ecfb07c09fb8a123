"""Small models and batches for the tests."""

from __future__ import annotations

import torch

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation
from modeling_glintru.models.losses import LossConfig, NextItemLoss

OF_LOSS = set(LossConfig.__dataclass_fields__) - {"name"}


def small_config(**options) -> GlintRUConfig:
    return GlintRUConfig(**{"vocab_size": 31, "hidden_size": 16, "num_attention_heads": 4, **options})


def small_model(seed: int = 0, **options) -> GlintRUForSequentialRecommendation:
    """A model with every parameter off its initial value, so that no bias hides behind a zero.

    `options` are fields of the config, and of the loss, whose name is `loss`.
    """
    torch.manual_seed(seed)
    of_loss = {name: options.pop(name) for name in list(options) if name in OF_LOSS}
    loss = NextItemLoss(options.pop("loss", "cross_entropy"), item_counts=options.pop("item_counts", None), **of_loss)
    model = GlintRUForSequentialRecommendation(small_config(**options))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.training_loss = loss
    return model.eval()


def random_history(batch: int, length: int, vocab_size: int = 31, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))


def gradients(loss, model) -> dict[str, torch.Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    grads = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for n, p, g in zip(names, parameters, grads, strict=True)}
