"""Opens a model folder or Hub repository and says in one sentence what is wrong with it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel
from transformers.utils import cached_file

from .auto import MODELS, AutoModelForSequentialRecommendation
from .errors import GlintRUError, ModelFolderError
from .processing_glintru import GlintRUProcessor
from .recipes import Recipe, load_recipe

__all__ = ["load_model_folder", "load_model_recipe"]

REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def load_model_folder(name_or_path: str | Path) -> tuple[PreTrainedModel, GlintRUProcessor]:
    """The model, in eval mode, and its processor.

    Args:
        name_or_path: A folder that `glintru train` wrote, or a Hub repository `owner/name`.

    Raises:
        ModelFolderError: No such folder, another kind of model, no weights, damaged, missing or misshapen weights, no
            vocabulary, or one that does not fit the weights.
    """
    name = str(name_or_path)
    folder = Path(name)
    if folder.is_dir():
        _check_folder(folder)
    elif folder.exists():
        raise ModelFolderError(f"{name} is a file, not a model folder")
    elif not REPOSITORY.fullmatch(name):
        raise ModelFolderError(f"there is no model folder {name}")
    try:
        # The processor first: it is small, and weights without vocabulary are not a model.
        processor = GlintRUProcessor.from_pretrained(name)
        model, report = AutoModelForSequentialRecommendation.from_pretrained(
            name,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # named below, in one line
        )
    except GlintRUError:
        raise
    except StrictDataclassError as error:
        raise ModelFolderError(f"{name}/config.json: {error.__cause__ or error}") from error
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelFolderError(f"{name} cannot be loaded: {_first_line(error)}") from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report.get(problem):
            names = ", ".join(sorted(key if isinstance(key, str) else key[0] for key in report[problem])[:5])
            raise ModelFolderError(
                f"the weights of {name} do not fit its config.json, {problem.replace('_', ' ')}: {names}"
            )
    if processor.vocab_size != model.config.vocab_size:
        raise ModelFolderError(
            f"the vocabulary of {name} has {len(processor)} items, but its weights are for "
            f"{model.config.vocab_size - 1}"
        )
    return model.eval(), processor


def load_model_recipe(name_or_path: str | Path) -> Recipe:
    """The recipe that a model was trained with.

    Raises:
        ModelFolderError: The folder or repository holds none.
    """
    file = cached_file(str(name_or_path), "recipe.yaml", _raise_exceptions_for_missing_entries=False)
    if file is None:
        raise ModelFolderError(f"{name_or_path} has no recipe.yaml, which says how its data was split")
    return load_recipe(file)


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").exists():
        raise ModelFolderError(f"{folder} has no config.json: not a model folder, or a run that is not finished")
    kind = _json_object(folder / "config.json").get("model_type")
    if kind not in list(MODELS):
        raise ModelFolderError(f"{folder} holds a model of type {kind!r}, not one of {', '.join(sorted(MODELS))}")
    if (folder / "preprocessor_config.json").exists():
        _json_object(folder / "preprocessor_config.json")
    if not any((folder / f"model.safetensors{end}").exists() for end in ("", ".index.json")):
        raise ModelFolderError(f"{folder} has no weights (model.safetensors)")
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise ModelFolderError(f"{file} is damaged or cut short: {_first_line(error)}") from error


def _json_object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFolderError(f"{file} is damaged: {_first_line(error)}") from error
    if not isinstance(content, dict):
        raise ModelFolderError(f"{file} is damaged: not a JSON object")
    return content


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
