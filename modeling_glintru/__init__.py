"""GLINT-RU for Hugging Face: interactions in, a Hub model out, a recommendation after every click."""

from . import _threads  # noqa: F401 (must come before torch)
from ._version import __version__
from .auto import AutoModelForSequentialRecommendation, register
from .configuration_glintru import GlintRUConfig, GlintRUError
from .modeling_glintru import GlintRUForSequentialRecommendation, GlintRUModel
from .pipeline_glintru import SequentialRecommendationPipeline
from .processing_glintru import GlintRUProcessor, UnknownItemError
from .state_glintru import GlintRUState

register()

__all__ = [
    "AutoModelForSequentialRecommendation",
    "GlintRUConfig",
    "GlintRUError",
    "GlintRUForSequentialRecommendation",
    "GlintRUModel",
    "GlintRUProcessor",
    "GlintRUState",
    "SequentialRecommendationPipeline",
    "UnknownItemError",
    "__version__",
]
