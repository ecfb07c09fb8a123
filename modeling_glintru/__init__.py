"""GLINT-RU for Hugging Face: interactions in, a Hub model out, a recommendation after every click."""

from . import machine  # noqa: F401 (must come before torch)
from ._version import __version__
from .models.auto import AutoModelForSequentialRecommendation, register
from .models.configuration_glintru import GlintRUConfig, GlintRUError
from .models.modeling_glintru import GlintRUForSequentialRecommendation, GlintRUModel
from .models.pipeline_glintru import SequentialRecommendationPipeline
from .models.processing_glintru import GlintRUProcessor, UnknownItemError
from .models.state_glintru import GlintRUState

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
