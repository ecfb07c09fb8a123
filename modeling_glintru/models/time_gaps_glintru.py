"""What the time since the last item says about the next one, without a change to what encodes the history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_glintru import GlintRUError

__all__ = ["NUM_GAPS", "UNKNOWN_GAP", "TimeGaps", "check_knows_time", "checked_gaps", "gap_classes"]

UNKNOWN_GAP = -1.0
HIDDEN_SHARE = 0.1  # of the gaps, in training
NUM_GAPS = 64  # no gap, less than one unit, and a doubling each: enough for microseconds in 64 bits


def gap_classes(gaps: Tensor) -> Tensor:
    """The class of each gap: 0 unknown (negative or NaN), 1 none, 2 below one unit, then one for each doubling.

    Args:
        gaps: Times of any shape: seconds where interactions have dates or Unix times, else in the unit of their column.

    Returns:
        int64 of the same shape, 0 to `NUM_GAPS`.
    """
    # Exponents are exact, where a logarithm may round a power of two down.
    exponents = torch.frexp(gaps.float().nan_to_num(UNKNOWN_GAP, posinf=2.0**62)).exponent.long()
    return (exponents + 2).clamp(2, NUM_GAPS).where(gaps > 0, (gaps == 0).long())


def check_knows_time(model: Any) -> None:
    """Refuses times that a model would not use.

    Raises:
        GlintRUError: The model was made without `use_time_gaps`.
    """
    if not getattr(getattr(model, "config", None), "use_time_gaps", False):
        raise GlintRUError("time gaps are for models with use_time_gaps=True, and this one was made without")


def checked_gaps(gaps: Sequence[float | None], count: int, model: Any) -> Tensor:
    """The times from users' last items to now, as a model takes them.

    Args:
        gaps: One a user, in the unit of the training data; None where not known.
        count: Users.
        model: The recommender.

    Returns:
        float32 (count,), `UNKNOWN_GAP` for None.

    Raises:
        GlintRUError: The model knows nothing of time, or there is not one number of at least 0 a user.
    """
    check_knows_time(model)
    if isinstance(gaps, (str, bytes)) or not isinstance(gaps, Iterable):
        raise GlintRUError(f"time gaps must be a list of numbers, one a user, got {gaps!r}")
    values = []
    for gap in gaps:
        if gap is None:
            gap = UNKNOWN_GAP
        elif isinstance(gap, bool) or not isinstance(gap, Real) or not 0 <= gap < float("inf"):
            raise GlintRUError(f"a time gap must be a number of at least 0, or None where not known, got {gap!r}")
        values.append(float(gap))
    if len(values) != count:
        raise GlintRUError(f"there must be one time gap a user, got {len(values)} for {count} users")
    return torch.tensor(values, dtype=torch.float32)


class TimeGaps(nn.Module):
    """What the time from the last item to the request adds to the representation of a history.

    `h + out_proj(silu(in_proj(h)) * gate[gap]) + shift[gap]`: a gated MLP whose gate is the gap. Where the gap is not
    known, `h` stays as it is, so that everything that knows no times goes on as without this.

    Args:
        config: Its `hidden_size`.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        size = config.hidden_size
        self.in_proj = nn.Linear(size, size)
        self.out_proj = nn.Linear(size, size, bias=False)
        self.gap_proj = nn.Linear(NUM_GAPS, 2 * size, bias=False)  # of the class, one-hot: gate and shift

    def forward(self, hidden: Tensor, gaps: Tensor) -> Tensor:
        """
        Args:
            hidden: (..., hidden_size) representations.
            gaps: (...) times, `UNKNOWN_GAP` where not known.

        Raises:
            GlintRUError: The shapes do not fit.
        """
        if gaps.shape != hidden.shape[:-1]:
            raise GlintRUError(f"time_gaps must have shape {tuple(hidden.shape[:-1])}, got {tuple(gaps.shape)}")
        classes = gap_classes(gaps.to(hidden.device))
        if self.training:  # so that the model also knows how to do without
            classes = classes * (torch.rand(classes.shape, device=classes.device) >= HIDDEN_SHARE)
        rows = F.embedding((classes - 1).clamp_min(0), self.gap_proj.weight.T)
        gate, shift = (rows * (classes > 0)[..., None]).to(hidden.dtype).chunk(2, dim=-1)
        return hidden + self.out_proj(F.silu(self.in_proj(hidden)) * gate) + shift
