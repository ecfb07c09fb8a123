"""`AtTime`: the time of the request in numpy; for one user PyTorch takes five times as long to call as to compute."""

from __future__ import annotations

import numpy as np

from ..models.head_glintru import NUM_GAPS, TimeGaps

__all__ = ["AtTime"]


class AtTime:
    """`TimeGaps` without PyTorch, equal to it up to rounding.

    Args:
        layer: Its weights are copied.
    """

    def __init__(self, layer: TimeGaps) -> None:
        def numbers(weight) -> np.ndarray:
            return weight.detach().to("cpu").float().numpy().copy()

        self.inner, self.bias, self.outer = map(
            numbers, (layer.in_proj.weight.T, layer.in_proj.bias, layer.out_proj.weight.T)
        )
        table = numbers(layer.gap_proj.weight.T)
        self.table = np.concatenate([np.zeros_like(table[:1]), table])  # class 0, unknown, changes nothing

    def __call__(self, hidden: np.ndarray, gaps: np.ndarray) -> np.ndarray:
        """
        Args:
            hidden: (n, d) float32 representations.
            gaps: (n,) float32 times, negative where not known.

        Returns:
            (n, d) float32.
        """
        classes = np.clip(np.frexp(gaps)[1] + 2, 2, NUM_GAPS)
        classes = np.where(gaps > 0, classes, gaps == 0)
        gate, shift = np.split(self.table[classes], 2, axis=1)
        x = hidden @ self.inner + self.bias
        with np.errstate(over="ignore"):  # of a very negative number, whose share is zero
            x *= gate / (1 + np.exp(-x))
        return hidden + x @ self.outer + shift
