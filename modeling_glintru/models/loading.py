"""From a folder or Hub repository to a model with its vocabulary, and what can go wrong with either."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    StrictDataclassError,
)
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel
from transformers.utils import logging

from .auto import MODELS, AutoModelForSequentialRecommendation, register_model_file
from .configuration_glintru import ITEM_FILES, MANIFEST_FILE, GlintRUError, size_and_digest
from .processing_glintru import VOCABULARY_FILE, GlintRUProcessor, VocabularyFileError
from .untrusted_text import check_integers, parse_json

__all__ = [
    "MODEL_FILES",
    "HubError",
    "ModelFolderError",
    "cannot_connect",
    "find_data_checksum",
    "find_metrics",
    "first_line",
    "hub_advice",
    "hub_errors",
    "load_local_folder",
    "load_model_folder",
    "local_folder",
    "register_code_of",
    "weights_that_are_not_finite",
    "without_bars",
]

# All that ever leaves a model folder; whatever else lies in it stays.
MODEL_FILES = (
    *("config.json", "model.safetensors", "model-*.safetensors", "model.safetensors.index.json"),
    *("preprocessor_config.json", "item_vocabulary.safetensors"),
    *ITEM_FILES,
    *("*_glintru.py", "modeling_*.py", "*_baselines.py", "handler.py"),
    *("metrics.json", "recipe.yaml", "learning_curves.png", "README.md", MANIFEST_FILE),
)
LOGIN = "log in with `hf auth login` or set HF_TOKEN"


class HubError(GlintRUError):
    """The Hub does not give or take what was asked for."""


class ModelFolderError(GlintRUError):
    """A model folder is incomplete, damaged, or in the way."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its name where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def hub_errors(name: str, revision: str | None = None, *, writing: bool = False) -> Iterator[None]:
    """Turns the client's errors into one line: what to do, and what the client said.

    Args:
        name: The repository, for the message.
        revision: The branch or commit that was asked for.
        writing: Whether the Hub was to be changed.

    Raises:
        HubError: In place of the client's own error, which is its cause.
    """
    try:
        yield
    except GlintRUError:
        raise
    except Exception as error:
        advice = hub_advice(error, name, revision, writing)
        if advice is None:
            raise
        raise HubError(f"{advice} ({first_line(error).rstrip('.')})") from error


def hub_advice(
    error: BaseException | None, name: str, revision: str | None = None, writing: bool = False
) -> str | None:
    """What to do about an error of the client, or of a library that had one from the client; None where unknown."""
    while error is not None:
        if (advice := _advice(error, name, revision, writing)) is not None:
            return advice
        error = error.__cause__ or error.__context__
    return None


def _advice(error: BaseException, name: str, revision: str | None, writing: bool) -> str | None:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, GatedRepoError):
        return f"{name} is gated: ask for access on its page, then {LOGIN}"
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{name} is not on the Hub, or it is private: check the name, and {LOGIN} with an account that may see it"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{name} has no revision {revision or 'main'!r}: give a branch or a commit that it has, or leave it out"
    if isinstance(error, LocalTokenNotFoundError) or status == 401:
        return f"the Hub does not know who asks for {name}: {LOGIN}"
    if status == 403:
        right = "write" if writing else "read"
        return f"this login may not {right} {name}: take a token with the right to {right}, or another repository"
    if status == 412:
        return f"{name} was changed by somebody else meanwhile: push again"
    if isinstance(error, HFValidationError):
        return f"{name!r} is no name of a repository, which is owner/name"
    if status is not None:
        return f"the Hub did not do what was asked for {name}: try again later"
    if cannot_connect(error) or isinstance(error, (OfflineModeIsEnabled, LocalEntryNotFoundError)):
        instead = "" if writing else f", or fetch it once with a connection: hf download {name}"
        return f"the Hub cannot be reached for {name}: check the network, HF_ENDPOINT and HF_HUB_OFFLINE{instead}"
    return None


def cannot_connect(error: BaseException) -> bool:
    """Whether the client found nobody to answer."""
    # httpx, whose name moved, is the client's HTTP library.
    return isinstance(error, ConnectionError) or type(error).__module__.partition(".")[0] in ("httpx", "httpx2")


REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
METRICS_FILE = "metrics.json"
WEIGHTS_INDEX = "model.safetensors.index.json"


def load_model_folder(
    name_or_path: str | Path, *, revision: str | None = None, trust_remote_code: bool = False
) -> tuple[PreTrainedModel, GlintRUProcessor]:
    """The model, in eval mode, and its processor.

    Args:
        name_or_path: A folder that `glintru train` wrote, or a Hub repository `owner/name`.
        revision: A branch or commit of the repository.
        trust_remote_code: Whether code of the folder may run, where it holds a model that is not of this package and
            was not registered before.

    Raises:
        ModelFolderError: No such folder, another kind of model, one of a newer version, no weights, damaged, missing or
            misshapen weights, no vocabulary, one that does not fit the weights, or a file that is not the one of which
            the folder's `manifest.json` has the checksum.
        HubError: The repository cannot be had; the message says what to do.
    """
    name = str(name_or_path)
    return load_local_folder(local_folder(name, revision, MODEL_FILES), name, trust_remote_code)


def load_local_folder(folder: Path, name: str, trust_remote_code: bool = False) -> tuple[PreTrainedModel, Any]:
    """As `load_model_folder`, from a folder on this machine that messages call `name`."""
    _check_manifest(folder, name)
    if trust_remote_code:
        register_code_of(folder)
    _check_folder(folder, name)
    try:
        # The processor first: it is small, and weights without vocabulary are not a model.
        processor = GlintRUProcessor.from_pretrained(folder)
        with without_bars():
            model, report = AutoModelForSequentialRecommendation.from_pretrained(
                folder,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # named below, in one line
            )
    except GlintRUError:
        raise
    except StrictDataclassError as error:
        raise ModelFolderError(f"{name}/config.json: {error.__cause__ or error}") from error
    except Exception as error:  # a config of a stranger fails anywhere in transformers, and in any way
        raise ModelFolderError(f"{name} cannot be loaded: {first_line(error)[:300]}") from error
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
    if broken := weights_that_are_not_finite(model):
        raise ModelFolderError(
            f"the weights of {name} are not finite numbers ({', '.join(broken[:3])}): its training went wrong, and "
            "nothing can be recommended from them"
        )
    return model.eval(), processor


def weights_that_are_not_finite(model: torch.nn.Module) -> list[str]:
    """Names of the weights and buffers in which a number is NaN or infinite."""
    names = []
    for name, tensor in model.state_dict().items():
        numbers = tensor.is_floating_point() and tensor.numel()
        # The least and the greatest number need no memory, and both are NaN where any number is.
        if numbers and not all(bound.isfinite() for bound in torch.aminmax(tensor.detach())):
            names.append(name)
    return names


@contextmanager
def without_bars() -> Iterator[None]:
    """Keeps transformers from showing bars for reading and writing weights, which take no time here."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def register_code_of(name_or_path: str | Path, *, revision: str | None = None) -> None:
    """Runs the code of a model folder and registers its model; does nothing where the model is known already.

    Raises:
        ModelFolderError: The folder does not say which of its files holds the model.
        ModelFileError: See `register_model_file`.
        HubError: The repository cannot be had.
    """
    folder = local_folder(str(name_or_path), revision, MODEL_FILES)
    config = _json_object(folder, str(name_or_path), "config.json") if (folder / "config.json").exists() else {}
    if not config or config.get("model_type") in list(MODELS):
        return
    file, _, name = str(_auto_map(config).get("AutoModel", "")).rpartition("--")[2].rpartition(".")
    if not (file.isidentifier() and name.isidentifier() and (folder / f"{file}.py").is_file()):
        raise ModelFolderError(f"{name_or_path} holds no code of its model ({config.get('model_type')!r})")
    register_model_file(folder / f"{file}.py", name)


def find_data_checksum(name_or_path: str | Path, *, revision: str | None = None) -> str | None:
    """The checksum of the data that a model was trained and measured on, or None where its folder does not tell.

    Raises:
        ModelFolderError: There is no such folder, or its `metrics.json` is damaged.
        HubError: The repository cannot be had.
    """
    return find_metrics(name_or_path, revision=revision).get("data_checksum")


def find_metrics(name_or_path: str | Path, *, revision: str | None = None) -> dict[str, Any]:
    """What `metrics.json` of a model folder holds, or nothing where there is no such file; errors as above."""
    folder = local_folder(str(name_or_path), revision, (METRICS_FILE,))
    return _json_object(folder, str(name_or_path), METRICS_FILE) if (folder / METRICS_FILE).is_file() else {}


def local_folder(name: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
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
        try:
            return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
        except Exception as error:
            advice = hub_advice(error, name, revision)
            if advice and folder.parent.is_dir():  # rather a folder whose name is wrong than a repository
                raise ModelFolderError(f"there is no folder {name}; as a repository, {advice}") from error
            raise


def _check_manifest(folder: Path, name: str) -> None:
    """Compares each file with the size and the SHA-256 that were written with it; earlier versions wrote none."""
    if not (folder / MANIFEST_FILE).is_file():
        return
    described = _json_object(folder, name, MANIFEST_FILE).get("files")
    if not isinstance(described, dict):
        raise ModelFolderError(f"{name}/{MANIFEST_FILE} is damaged: it describes no files")
    for path in sorted(folder.iterdir()):
        if path.name in described and path.is_file():
            with path.open("rb") as file:
                found = size_and_digest(file)
            if found != described[path.name]:
                raise ModelFolderError(
                    f"{name}/{path.name} is not the file that was saved with this model ({MANIFEST_FILE}): it is "
                    f"damaged, or somebody changed it. Copy or download the folder again; if the change is wanted, "
                    f"delete {MANIFEST_FILE}"
                )


def _check_folder(folder: Path, name: str) -> None:
    if not (folder / "config.json").exists():
        raise ModelFolderError(f"{name} has no config.json: not a model folder, or a run that is not finished")
    config = _json_object(folder, name, "config.json")
    kind = config.get("model_type")
    if kind not in list(MODELS):
        if "AutoModel" in _auto_map(config):
            raise ModelFolderError(
                f"{name} holds a model of type {kind!r} and its code: look at the code, then allow it to run with "
                "trust_remote_code=True (--trust_remote_code), or register the class first with register_model"
            )
        raise ModelFolderError(f"{name} holds a model of type {kind!r}, not one of {', '.join(sorted(MODELS))}")
    for file in ("preprocessor_config.json", VOCABULARY_FILE):
        if not (folder / file).exists():
            raise VocabularyFileError(
                f"{name} has no item vocabulary, {file} is missing; weights are of no use without it"
            )
    _json_object(folder, name, "preprocessor_config.json")
    _check_table(config, folder, name)
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


def _auto_map(config: dict[str, Any]) -> dict[str, Any]:
    """Which classes of the folder's own code stand for which of transformers, where the config says so."""
    found = config.get("auto_map")
    return found if isinstance(found, dict) else {}


def _check_table(config: dict[str, Any], folder: Path, name: str) -> None:
    """Refuses a table of items that the weights cannot hold, before it is built."""
    rows, columns = config.get("vocab_size"), config.get("hidden_size")
    if isinstance(rows, int) and isinstance(columns, int):
        there = sum(file.stat().st_size for file in folder.glob("model*.safetensors"))
        if there and rows * columns > there:  # a number takes at least a byte
            raise ModelFolderError(
                f"the weights of {name} do not fit its config.json: {there:,} bytes cannot hold {rows:,} items of "
                f"{columns:,} numbers"
            )


def _json_object(folder: Path, name: str, file: str) -> dict[str, Any]:
    try:
        content = parse_json((folder / file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFolderError(f"{name}/{file} is damaged: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise ModelFolderError(f"{name}/{file} is damaged: not a JSON object")
    if file != METRICS_FILE:
        try:
            check_integers(content)
        except ValueError as error:
            raise ModelFolderError(f"{name}/{file}: {error}") from error
    return content
