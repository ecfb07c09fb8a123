"""The fastest step by one click that this machine has for a model."""

from __future__ import annotations

from typing import Any

from ..kernels.step import CompiledStep
from .plain_step import PlainStep
from .step_types import Step

__all__ = ["make_step"]


def make_step(model: Any) -> Step:
    """A step by one item for the states of users.

    The compiled one where there is a C compiler and the weights are float32 on the CPU; otherwise the model itself.
    Either holds for the weights as they are now.

    Args:
        model: A `GlintRUForSequentialRecommendation`.

    Raises:
        GlintRUError: The model keeps no state: another architecture.
    """
    if hasattr(getattr(model, "model", None), "empty_state") and CompiledStep.serves(model):
        return CompiledStep(model)
    return PlainStep(model)
