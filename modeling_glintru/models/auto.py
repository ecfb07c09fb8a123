"""Every model by name: those of this package, models in files of users, and transformers' auto classes."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
import tempfile
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor, PreTrainedModel
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_glintru import GlintRUError, NextItemConfig
from .head_glintru import NextItemHead
from .pipeline_glintru import SequentialRecommendationPipeline
from .processing_glintru import GlintRUProcessor

__all__ = [
    "MODELS",
    "AutoModelForSequentialRecommendation",
    "ModelFileError",
    "model_label",
    "register",
    "register_model",
    "register_model_file",
    "registered_name",
]

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


OWN_IMPORT = re.compile(rf"^(\s*from\s+){re.escape(str(__package__))}(\.\w+\s+import\b)", re.MULTILINE)
_loaded_files: dict[Path, tuple[str, Any, Any]] = {}  # file of a user -> its text, its module, the folder beside it


class ModelFileError(GlintRUError):
    """A Python file that should define a recommender cannot be used."""


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


def registered_name(model: str) -> str:
    """The name in `MODELS` of what `--model` takes: a name, or `file.py:Class`, whose class is registered first.

    Whoever takes the name of a model from a user calls this, in each process that needs the model.

    Raises:
        ModelFileError: See `register_model_file`.
    """
    file, colon, name = model.rpartition(":")
    if colon and file.endswith(".py"):
        return register_model_file(file, name).config_class.model_type
    if model.endswith(".py"):
        raise ModelFileError(f"say which class of {model} is the model, as in {model}:MyModel")
    return model


def register_model_file(file: str | Path, name: str) -> Any:
    """Runs a Python file that defines a recommender, and registers its class with `register_model`.

    The file is run as if it lay in `modeling_glintru/models`, so that it may import from there, relatively
    (`from .head_glintru import NextItemHead`) or by the full name. When the model is saved, the file and those that it
    imports from there are saved beside the weights; `AutoModel.from_pretrained(..., trust_remote_code=True)` then loads
    it without this package.

    Args:
        file: Path of the file; it may import no other file of its own folder.
        name: The class in it, a `PreTrainedModel` with `NextItemHead`.

    Returns:
        The class.

    Raises:
        ModelFileError: There is no such file or class, the file fails, the class is no recommender, or its name or
            that of its file is one of this package's own.
    """
    with suppress(RuntimeError):  # there is no such user
        file = Path(file).expanduser()
    path = Path(file).absolute()  # not resolved: the Hub client's cache holds links with other names
    if not path.is_file():
        raise ModelFileError(f"there is no file {file} with a model")
    model = getattr(_module_of(path), name, None)
    if model is None:
        raise ModelFileError(f"{path.name} defines no class {name!r}")
    config = getattr(model, "config_class", None)
    if not (isinstance(model, type) and issubclass(model, PreTrainedModel) and issubclass(model, NextItemHead)):
        raise ModelFileError(f"{name} of {path.name} is no recommender: a class of NextItemHead and PreTrainedModel")
    if not (isinstance(config, type) and issubclass(config, NextItemConfig) and config.__dict__.get("model_type")):
        raise ModelFileError(
            f"{name} of {path.name} needs a config_class: a NextItemConfig with a model_type of its own"
        )
    taken = MODELS.get(config.model_type)
    if taken is not None and taken.__module__ != model.__module__:
        raise ModelFileError(f"the model_type {config.model_type!r} of {path.name} is that of another model: rename it")
    register_model(model)
    config.register_for_auto_class()
    model.register_for_auto_class("AutoModel")
    return model


def _module_of(path: Path) -> Any:
    """The module of a user's file, run once as long as the file does not change."""
    text = path.read_text(encoding="utf-8")
    if path in _loaded_files and _loaded_files[path][0] == text:
        return _loaded_files[path][1]
    here = Path(__file__).parent
    stem = path.stem if path.stem.startswith("modeling_") else f"modeling_{path.stem}"
    if not stem.isidentifier() or (here / f"{stem}.py").exists():
        raise ModelFileError(f"{path.name} needs another name: one of its own, made of letters, digits and underscores")
    # transformers saves a class with the files that lie beside its own, so the file gets those of this folder.
    folder = tempfile.TemporaryDirectory(prefix="glintru-model-", ignore_cleanup_errors=True)
    for source in here.glob("*.py"):
        shutil.copy(source, folder.name)
    copy = Path(folder.name) / f"{stem}.py"
    copy.write_text(OWN_IMPORT.sub(r"\1\2", text), encoding="utf-8")
    module_name = f"{__package__}.{stem}"
    spec = importlib.util.spec_from_file_location(module_name, copy)
    assert spec is not None
    module, before = importlib.util.module_from_spec(spec), sys.modules.get(module_name)
    sys.modules[module_name] = module
    try:
        exec(compile(copy.read_text(encoding="utf-8"), str(path), "exec"), module.__dict__)
    except Exception as error:
        sys.modules.pop(module_name)
        if before is not None:
            sys.modules[module_name] = before
        raise ModelFileError(f"{path.name} cannot be run: {type(error).__name__}: {error}") from error
    _loaded_files[path] = text, module, folder
    return module


def model_label(kind: type) -> str:
    """What a model's class is called in tables, such as `"SASRec"`: its `label`, or the beginning of its name."""
    return getattr(kind, "label", kind.__name__.removesuffix("ForSequentialRecommendation"))


register()
