"""Every model of this package by name, `AutoModelForSequentialRecommendation`, and transformers' auto classes."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from .pipeline_glintru import SequentialRecommendationPipeline
from .processing_glintru import GlintRUProcessor

__all__ = ["MODELS", "AutoModelForSequentialRecommendation", "model_label", "register", "register_model"]

# The models of `--model NAME`; NAME is the `model_type` of the config. A new file needs one line here.
OUR_MODELS = (
    "modeling_glintru.GlintRUForSequentialRecommendation",
    "modeling_bert4rec.BERT4RecForSequentialRecommendation",
    "modeling_bsarec.BSARecForSequentialRecommendation",
    "modeling_fmlprec.FMLPRecForSequentialRecommendation",
    "modeling_gru4rec.GRU4RecForSequentialRecommendation",
    "modeling_linrec.LinRecForSequentialRecommendation",
    "modeling_lrurec.LRURecForSequentialRecommendation",
    "modeling_mamba4rec.Mamba4RecForSequentialRecommendation",
    "modeling_sasrec.SASRecForSequentialRecommendation",
    "modeling_smlp4rec.SMLP4RecForSequentialRecommendation",
)
MODELS: dict[str, Any] = {}  # name -> class of the recommender; filled by `register_model`


class AutoModelForSequentialRecommendation(AutoModel):
    """Loads the recommender that a folder or Hub repository holds, whichever model of this package it is."""

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As `AutoModel.from_pretrained`; raises `ValueError` for a model that is not a recommender."""
        loaded = super().from_pretrained(*args, **kwargs)
        name = (loaded[0] if isinstance(loaded, tuple) else loaded).config.model_type
        if name not in MODELS:
            raise ValueError(f"{name} is not a recommender; known are {', '.join(MODELS)}")
        return loaded


def register_model(model: Any) -> None:
    """Makes a recommender usable by name: in recipes, on the command line, and in the auto classes of transformers.

    transformers has no class for recommenders, so `AutoModel` gives the recommender too.

    Args:
        model: A `PreTrainedModel` with `NextItemHead`; its name is the `model_type` of its `config_class`.
    """
    config = model.config_class
    MODELS[config.model_type] = model
    AutoConfig.register(config.model_type, config, exist_ok=True)
    AutoModel.register(config, model, exist_ok=True)
    AutoFeatureExtractor.register(config, GlintRUProcessor, exist_ok=True)
    AutoProcessor.register(config, GlintRUProcessor, exist_ok=True)


def register() -> None:
    """Makes the auto classes of transformers know this package. Called once, when this file is imported."""
    for path in OUR_MODELS:
        module, _, name = path.rpartition(".")
        model = getattr(import_module(f".{module}", __package__), name)
        register_model(model)
        # What a saved folder needs to load as remote code; without this a re-saved one would lose its files.
        model.config_class.register_for_auto_class()
        model.register_for_auto_class("AutoModel")
    GlintRUProcessor.register_for_auto_class("AutoFeatureExtractor")
    PIPELINE_REGISTRY.register_pipeline(
        "sequential-recommendation", pipeline_class=SequentialRecommendationPipeline, pt_model=AutoModel
    )


def model_label(kind: type) -> str:
    """What a model's class is called in tables, such as `"SASRec"`: its `label`, or the beginning of its name."""
    return getattr(kind, "label", kind.__name__.removesuffix("ForSequentialRecommendation"))


register()
