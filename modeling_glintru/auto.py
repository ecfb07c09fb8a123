"""`AutoModelForSequentialRecommendation`, and the registration of our classes with transformers' auto classes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor
from transformers.models.auto.auto_factory import _BaseAutoModelClass, _LazyAutoMapping

from .configuration_glintru import GlintRUConfig
from .modeling_glintru import GlintRUForSequentialRecommendation
from .processing_glintru import GlintRUProcessor


class AutoModelForSequentialRecommendation(_BaseAutoModelClass):
    """Loads the recommender that a folder or Hub repository holds, whichever model of this package it is."""

    _model_mapping: Any = _LazyAutoMapping(OrderedDict(), OrderedDict())


def register() -> None:
    """Makes the auto classes of transformers know this package. Called once, at import.

    transformers has no class for recommenders, so `AutoModel` gives the recommender, here and as remote code.
    """
    AutoConfig.register("glintru", GlintRUConfig, exist_ok=True)
    AutoModel.register(GlintRUConfig, GlintRUForSequentialRecommendation, exist_ok=True)
    AutoModelForSequentialRecommendation.register(GlintRUConfig, GlintRUForSequentialRecommendation, exist_ok=True)
    AutoFeatureExtractor.register(GlintRUConfig, GlintRUProcessor, exist_ok=True)
    AutoProcessor.register(GlintRUConfig, GlintRUProcessor, exist_ok=True)
    # What a saved folder needs to load as remote code; without this a re-saved one would lose its files.
    GlintRUConfig.register_for_auto_class()
    GlintRUProcessor.register_for_auto_class("AutoFeatureExtractor")
    GlintRUForSequentialRecommendation.register_for_auto_class("AutoModel")
