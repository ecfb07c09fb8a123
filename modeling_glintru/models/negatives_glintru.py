"""Negative items for the sampled losses: draws whose cost does not grow with the catalogue."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .configuration_glintru import GlintRUConfig, GlintRUError

__all__ = ["ItemPopularity", "draw_other_items", "draw_shared_negatives"]


class ItemPopularity:
    """How often items occur in training, as a distribution to draw from.

    One table is made for each exponent and device, on first use; then n draws cost O(n log vocab_size) and nothing
    reads the whole catalogue.

    Args:
        counts: (vocab_size,) non-negative numbers; index 0 (padding) is never drawn.
    """

    def __init__(self, counts: Tensor) -> None:
        self.counts = counts
        self.tables: dict[tuple[float, torch.device], Tensor] = {}

    def table(self, exponent: float, device: torch.device) -> Tensor:
        """(vocab_size,) float64 running sum of the probabilities `∝ (count + 1) ** exponent`.

        The added 1 keeps the logarithm finite for items that were never seen. In float32 the sum of millions of
        probabilities would lose the rare ones.
        """
        if device.type == "mps":  # has no float64
            device = torch.device("cpu")
        if (exponent, device) not in self.tables:
            weights = (self.counts.to(device=device, dtype=torch.float64) + 1) ** exponent
            weights[0] = 0.0
            self.tables[exponent, device] = weights.cumsum(0).div_(weights.sum())
        return self.tables[exponent, device]

    def draw(self, number: int, exponent: float, device: torch.device) -> Tensor:
        """(number,) int64 items, drawn with replacement."""
        table = self.table(exponent, device)
        draws = torch.rand(number, dtype=table.dtype, device=table.device)
        return torch.searchsorted(table, draws, right=True).clamp_(1, len(table) - 1).to(device)

    def probability(self, items: Tensor, exponent: float) -> Tensor:
        """Of drawing each of `items`, float64 of their shape; items are 1 or above."""
        table = self.table(exponent, items.device)
        items = items.to(table.device)
        return table[items] - table[items - 1]


def draw_other_items(targets: Tensor, vocab_size: int) -> Tensor:
    """One uniform negative for each target, never the target itself. (targets,) int64."""
    if vocab_size < 3:
        raise GlintRUError("BPR needs at least two items to draw a negative from")
    draw = torch.randint(1, vocab_size - 1, targets.shape, device=targets.device)
    return draw + (draw >= targets)


def draw_shared_negatives(
    config: GlintRUConfig, popularity: ItemPopularity | None, targets: Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
    """Negatives that a batch shares, drawn with replacement.

    In-batch negatives are drawn from the targets of the batch, which come up as often as they do in training (Yi et
    al. 2019). Mixed, they stand beside draws from the catalogue, so that items the batch lacks are told apart too,
    and an item's probability is that of the mixture (Yang et al. 2020).

    Args:
        config: Its `num_negatives`, `negative_sampling`, `in_batch_share` and `popularity_exponent`.
        popularity: Needed by all kinds but uniform.
        targets: (targets,) int64.

    Returns:
        Items, (num_negatives,) int64, only those from the catalogue where there are no targets; and the function from
        items to the float32 logarithm of their probability, `None` when uniform.

    Raises:
        GlintRUError: `popularity` is missing.
    """
    kind, number, device = config.negative_sampling, config.num_negatives, targets.device
    if kind == "uniform":
        return torch.randint(1, config.vocab_size, (number,), device=device), None
    if popularity is None:
        raise GlintRUError(f"negative_sampling {kind!r} needs model.set_item_counts(counts) before training")
    exponent = float(config.popularity_exponent)
    in_batch = round({"popularity": 0.0, "in_batch": 1.0}.get(kind, float(config.in_batch_share)) * number)
    negatives = popularity.draw(number - in_batch, exponent, device)
    if len(targets):
        negatives = torch.cat((negatives, targets[torch.randint(len(targets), (in_batch,), device=device)]))
    # Shares of the mixture, by the exponent of each part.
    shares = {exponent: 1 - in_batch / number}
    shares[1.0] = shares.get(1.0, 0.0) + in_batch / number

    def log_q(items: Tensor) -> Tensor:
        parts = [share * popularity.probability(items, power) for power, share in shares.items() if share]
        return torch.stack(parts).sum(0).log().to(device=device, dtype=torch.float32)

    return negatives, log_q
