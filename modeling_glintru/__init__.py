"""GLINT-RU for Hugging Face: interactions in, a Hub model out, a recommendation after every click.

    from modeling_glintru import Recommender

    recommender = Recommender.fit("interactions.csv")
    recommender.recommend([[50, 172, 181]], top_k=10)

Importing this package makes the auto classes of transformers know its models. The command `glintru` alone waits with
that until it needs a model, so that `glintru --help` answers at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import machine  # first of all, since it must come before torch
from ._version import __version__

if TYPE_CHECKING:
    from .jobs import evaluate, train
    from .models.auto import AutoModelForSequentialRecommendation, register_model
    from .models.configuration_glintru import GlintRUConfig, GlintRUError
    from .models.losses import NextItemLoss
    from .models.modeling_glintru import GlintRUForSequentialRecommendation, GlintRUModel
    from .models.pipeline_glintru import SequentialRecommendationPipeline
    from .models.processing_glintru import GlintRUProcessor, UnknownItemError
    from .models.state_glintru import GlintRUState
    from .serving import Recommender, StreamingRecommender

__all__ = [
    "AutoModelForSequentialRecommendation",
    "GlintRUConfig",
    "GlintRUError",
    "GlintRUForSequentialRecommendation",
    "GlintRUModel",
    "GlintRUProcessor",
    "GlintRUState",
    "NextItemLoss",
    "Recommender",
    "SequentialRecommendationPipeline",
    "StreamingRecommender",
    "UnknownItemError",
    "__version__",
    "evaluate",
    "register_model",
    "train",
]

_HOMES = {
    "AutoModelForSequentialRecommendation": "models.auto",
    "GlintRUConfig": "models.configuration_glintru",
    "GlintRUError": "models.configuration_glintru",
    "GlintRUForSequentialRecommendation": "models.modeling_glintru",
    "GlintRUModel": "models.modeling_glintru",
    "GlintRUProcessor": "models.processing_glintru",
    "GlintRUState": "models.state_glintru",
    "NextItemLoss": "models.losses",
    "Recommender": "serving",
    "SequentialRecommendationPipeline": "models.pipeline_glintru",
    "StreamingRecommender": "serving",
    "UnknownItemError": "models.processing_glintru",
    "evaluate": "jobs",
    "register_model": "models.auto",
    "train": "jobs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if not machine.is_own_command():
    import_module(".models.auto", __name__)
