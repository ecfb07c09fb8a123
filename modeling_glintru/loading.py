"""Opens a model folder or Hub repository and says in one sentence what is wrong with it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from .errors import GlintRUError, ModelFolderError
from .hub_errors import first_line, hub_errors
from .models.auto import MODELS, AutoModelForSequentialRecommendation
from .models.processing_glintru import VOCABULARY_FILE, GlintRUProcessor, VocabularyFileError
from .recipes import Recipe, load_recipe
from .repository import MODEL_FILES

__all__ = ["find_data_checksum", "find_model_recipe", "load_model_folder", "load_model_recipe"]

REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
METRICS_FILE = "metrics.json"
WEIGHTS_INDEX = "model.safetensors.index.json"


def load_model_folder(
    name_or_path: str | Path, *, revision: str | None = None
) -> tuple[PreTrainedModel, GlintRUProcessor]:
    """The model, in eval mode, and its processor.

    Args:
        name_or_path: A folder that `glintru train` wrote, or a Hub repository `owner/name`.
        revision: A branch or commit of the repository.

    Raises:
        ModelFolderError: No such folder, another kind of model, no weights, damaged, missing or misshapen weights, no
            vocabulary, or one that does not fit the weights.
        HubError: The repository cannot be had; the message says what to do.
    """
    name = str(name_or_path)
    folder = _local_folder(name, revision, MODEL_FILES)
    _check_folder(folder, name)
    try:
        # The processor first: it is small, and weights without vocabulary are not a model.
        processor = GlintRUProcessor.from_pretrained(folder)
        model, report = AutoModelForSequentialRecommendation.from_pretrained(
            folder,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # named below, in one line
        )
    except GlintRUError:
        raise
    except StrictDataclassError as error:
        raise ModelFolderError(f"{name}/config.json: {error.__cause__ or error}") from error
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelFolderError(f"{name} cannot be loaded: {first_line(error)}") from error
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


def find_model_recipe(name_or_path: str | Path, *, revision: str | None = None) -> Recipe | None:
    """The recipe that a model was trained with, or None where its folder or repository holds none.

    Raises:
        ModelFolderError: There is no such folder.
        HubError: The repository cannot be had.
    """
    file = _local_folder(str(name_or_path), revision, ("recipe.yaml",)) / "recipe.yaml"
    return load_recipe(file) if file.is_file() else None


def find_data_checksum(name_or_path: str | Path, *, revision: str | None = None) -> str | None:
    """The checksum of the data that a model was trained and measured on, or None where its folder does not tell.

    Raises:
        ModelFolderError: There is no such folder, or its `metrics.json` is damaged.
        HubError: The repository cannot be had.
    """
    folder = _local_folder(str(name_or_path), revision, (METRICS_FILE,))
    metrics = _json_object(folder, str(name_or_path), METRICS_FILE) if (folder / METRICS_FILE).is_file() else {}
    return metrics.get("data_checksum")


def load_model_recipe(name_or_path: str | Path, *, revision: str | None = None) -> Recipe:
    """The recipe that a model was trained with.

    Raises:
        ModelFolderError: The folder or repository holds none.
        HubError: The repository cannot be had.
    """
    recipe = find_model_recipe(name_or_path, revision=revision)
    if recipe is None:
        raise ModelFolderError(f"{name_or_path} has no recipe.yaml, which says how its data was split")
    return recipe


def _local_folder(name: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    """The folder itself, or that of a repository's files, all of one commit and each of them whole."""
    folder = Path(name)
    if folder.is_dir():
        if revision is not None:
            raise ModelFolderError(f"{name} is a folder on this machine, which has no revision {revision!r}")
        return folder
    if folder.exists():
        raise ModelFolderError(f"{name} is a file, not a model folder")
    if not REPOSITORY.fullmatch(name):
        raise ModelFolderError(f"there is no model folder {name}")
    with hub_errors(name, revision):
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))


def _check_folder(folder: Path, name: str) -> None:
    if not (folder / "config.json").exists():
        raise ModelFolderError(f"{name} has no config.json: not a model folder, or a run that is not finished")
    kind = _json_object(folder, name, "config.json").get("model_type")
    if kind not in list(MODELS):
        raise ModelFolderError(f"{name} holds a model of type {kind!r}, not one of {', '.join(sorted(MODELS))}")
    for file in ("preprocessor_config.json", VOCABULARY_FILE):
        if not (folder / file).exists():
            raise VocabularyFileError(
                f"{name} has no item vocabulary, {file} is missing; weights are of no use without it"
            )
    _json_object(folder, name, "preprocessor_config.json")
    weights = ["model.safetensors"]
    if (folder / WEIGHTS_INDEX).exists():
        weights = sorted(set(map(str, _json_object(folder, name, WEIGHTS_INDEX).get("weight_map", {}).values())))
    elif not (folder / weights[0]).exists():
        raise ModelFolderError(f"{name} has no weights (model.safetensors)")
    for file in [*weights, VOCABULARY_FILE]:
        try:
            with safe_open(folder / file, "pt"):
                pass
        except FileNotFoundError as error:
            raise ModelFolderError(f"{name} lacks {file}, a part of its weights") from error
        except (OSError, SafetensorError) as error:
            raise ModelFolderError(f"{name}/{file} is damaged or cut short: {first_line(error)}") from error


def _json_object(folder: Path, name: str, file: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFolderError(f"{name}/{file} is damaged: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise ModelFolderError(f"{name}/{file} is damaged: not a JSON object")
    return content
