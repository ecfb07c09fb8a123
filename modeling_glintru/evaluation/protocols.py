"""What a target is ranked against: all items, or a seeded sample of them."""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError

__all__ = ["NegativeSampler", "parse_protocol", "uniform_draws"]


def parse_protocol(name: str) -> tuple[str, int]:
    """`"full"` -> `("full", 0)`, `"pop100"` -> `("pop", 100)`, `"uni100"` -> `("uni", 100)`.

    Raises:
        DataError: For anything else.
    """
    if name == "full":
        return "full", 0
    match = re.fullmatch(r"(pop|uni)([1-9]\d{0,5})", name)
    if match is None:
        raise DataError(f"unknown protocol {name!r}: allowed are 'full', 'pop100' and 'uni100' (or another number)")
    return match[1], int(match[2])


def uniform_draws(seed: int, rows: np.ndarray, count: int) -> np.ndarray:
    """Uniform numbers that depend on nothing but `(seed, row, position)`, so never on the batch.

    They are outputs of SplitMix64 (Steele, Lea and Flood 2014) at the counter `row * count + position`.

    Args:
        seed: Any integer.
        rows: Row numbers, integer, (B,).
        count: Numbers a row.

    Returns:
        float64 in [0, 1), (B, count).
    """
    counter = rows.astype(np.uint64)[:, None] * np.uint64(count) + np.arange(1, count + 1, dtype=np.uint64)
    start = _mix(np.array([seed % 2**64], dtype=np.uint64))
    return (_mix(start + counter * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(11)) * 2.0**-53


def _mix(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


class NegativeSampler:
    """Draws items with probability proportional to integer weights, with replacement, past a list of barred items.

    There is no rejection: a draw is a position in the mass that the row's barred items leave, and the barred items
    before it are then added back. The result depends on the seed and the row number only.

    Args:
        weights: Non-negative integers, (vocab_size,): training counts for `pop`, ones for `uni`. Index 0 is ignored.
        seed: Seed of all draws.
    """

    def __init__(self, weights: np.ndarray, seed: int) -> None:
        self.weights = torch.from_numpy(np.array(weights, dtype=np.int64))
        if self.weights.ndim != 1 or bool((self.weights < 0).any()):
            raise DataError("the weights of sampled items must be one non-negative count for each item index")
        self.weights[0] = 0
        self.cumulative = self.weights.cumsum(0)
        self.seed = seed

    def draw(self, rows: np.ndarray, barred: Tensor, count: int) -> Tensor:
        """Sampled items of some rows.

        Args:
            rows: Row numbers, integer, (B,); they pick the random numbers.
            barred: Items that must not be drawn, int64, (B, S), S >= 1, padded with 0; repeats are harmless.
            count: Items to draw for each row.

        Returns:
            int64 item indices, (B, count).

        Raises:
            DataError: When a row has no item left to draw.
        """
        barred = barred.sort(dim=1).values
        mass = self.weights[barred]
        mass[:, :-1][barred[:, :-1] == barred[:, 1:]] = 0  # of repeats the last one counts
        removed = mass.cumsum(1)
        remaining = self.cumulative[-1] - removed[:, -1:]
        if bool((remaining <= 0).any()):
            row = int(rows[int((remaining[:, 0] <= 0).nonzero()[0, 0])])
            raise DataError(
                f"row {row} of the split has no item left to sample, its history covers all that could be drawn; "
                "use the protocol 'full'"
            )
        uniform = torch.from_numpy(uniform_draws(self.seed, rows, count))
        position = torch.minimum((uniform * remaining).long(), remaining - 1)
        # Allowed mass in front of each barred item: never decreasing along a row.
        front = self.cumulative[barred] - self.weights[barred] - (removed - mass)
        passed = torch.searchsorted(front, position, right=True)
        shift = torch.nn.functional.pad(removed, (1, 0)).gather(1, passed)
        return torch.searchsorted(self.cumulative, position + shift, right=True)
