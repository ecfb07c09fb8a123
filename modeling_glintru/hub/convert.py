"""From the authors' RecBole checkpoint and RecBole's item tokens to a model folder; RecBole is not needed."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError, ModelFolderError
from ..models.modeling_glintru import GlintRUForSequentialRecommendation
from ..models.processing_glintru import GlintRUProcessor
from ..models.untrusted_text import parse_json
from .official import from_official_state_dict

__all__ = ["OfficialCheckpoint", "convert", "read_checkpoint", "read_tokens"]

PAGE = "docs/converting.md"
PADDING_TOKEN = "[PAD]"
LENGTH = 200  # of the histories, where neither the file nor the call says it


@dataclass(frozen=True)
class OfficialCheckpoint:
    """What a checkpoint holds of the model.

    Args:
        state_dict: Tensors under the authors' names.
        settings: RecBole's settings, as far as the file has them as plain values: `n_heads`,
            `MAX_ITEM_LIST_LENGTH`.
    """

    state_dict: dict[str, Tensor]
    settings: dict[str, Any]


def read_checkpoint(file: str | Path) -> OfficialCheckpoint:
    """Reads a checkpoint without running any code from it (`torch.load(weights_only=True)`).

    Args:
        file: A state dict, or a dict with one as `state_dict` and settings beside it or as a plain `config`.

    Raises:
        ModelFolderError: There is no such file, it is no PyTorch file, it holds more than tensors and plain values (the
            name of the first such thing is given), or no state dict.
    """
    file = Path(file)
    if not file.is_file():
        raise ModelFolderError(f"there is no checkpoint {file}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the pickle protocol: an error says it below
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = _reason(str(error))
        if reason is None:
            raise ModelFolderError(f"{file} is damaged or not a PyTorch file") from error
        raise ModelFolderError(
            f"{file} {reason}, and reading that could run code from the file; where RecBole is installed, save weights "
            f"and settings alone with the lines in {PAGE}"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ModelFolderError(f"{file} is damaged or not a PyTorch file") from error
    if not isinstance(content, Mapping):
        raise ModelFolderError(f"{file} holds no state dict, but a {type(content).__name__}")
    state = content.get("state_dict", content)
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ModelFolderError(f"{file} holds no state dict: names with tensors, by themselves or as 'state_dict'")
    config = content.get("config")
    settings = {**(config if isinstance(config, Mapping) else {}), **content}
    known = {key: settings[key] for key in ("n_heads", "MAX_ITEM_LIST_LENGTH") if key in settings}
    return OfficialCheckpoint({name.removeprefix("module."): tensor for name, tensor in state.items()}, known)


def _reason(error: str) -> str | None:
    """Why PyTorch does not read a file without running code, from its error; None where that is not the reason."""
    found = re.search(r"GLOBAL ([\w.]+)", error)
    if found is not None:
        return f"holds {found[1]} beside the weights"
    if re.search(r"Unsupported operand (149|147|140|148)\b", error):  # opcodes that protocol 4 brought
        return "is a pickle of protocol 4, as RecBole writes it with its Config object inside"
    return None


def read_tokens(file: str | Path) -> list[str]:
    """RecBole's item tokens in the order of their indices, without the padding token.

    Args:
        file: JSON: a list (`field2id_token`), or a mapping from token to index (`field2token_id`), either alone or as
            the only entry, or the entry `item_id`, of a mapping by field. Any other file is text with one token a line.

    Raises:
        DataError: There is no such file, it cannot be read, or the indices of a mapping are not 0, 1, 2, …
    """
    file = Path(file)
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix.lower() != ".json":
            return _without_padding(text.splitlines())
        content = parse_json(text)
    except (OSError, ValueError) as error:
        raise DataError(f"the item tokens {file} cannot be read: {str(error).splitlines()[0]}") from error
    if isinstance(content, dict) and "item_id" in content and not isinstance(content["item_id"], int):
        content = content["item_id"]
    elif isinstance(content, dict) and len(content) == 1 and isinstance(next(iter(content.values())), (list, dict)):
        content = next(iter(content.values()))
    if isinstance(content, dict):
        indices = list(content.values())
        if not all(type(index) is int for index in indices):
            raise DataError(f"{file} must map each item token to its index, or be a list of tokens")
        first = min(indices, default=0)
        if first not in (0, 1) or sorted(indices) != list(range(first, first + len(indices))):
            raise DataError(f"the indices of the tokens in {file} must be 0, 1, 2, … without gaps")
        content = sorted(content, key=content.__getitem__)
    if not isinstance(content, list) or not all(isinstance(token, (str, int)) for token in content):
        raise DataError(f"{file} must be a list of item tokens, or map each to its index")
    return _without_padding([str(token) for token in content])


def _without_padding(tokens: list[str]) -> list[str]:
    return tokens[1:] if tokens[:1] == [PADDING_TOKEN] else tokens


def convert(
    checkpoint: str | Path,
    tokens: str | Path,
    output_dir: str | Path,
    *,
    num_attention_heads: int | None = None,
    max_length: int | None = None,
) -> GlintRUForSequentialRecommendation:
    """Writes a model folder with vocabulary from the authors' checkpoint.

    Args:
        checkpoint: See `read_checkpoint`.
        tokens: See `read_tokens`.
        output_dir: A new or empty folder.
        num_attention_heads: Their `n_heads`, where the file does not say it.
        max_length: Their `MAX_ITEM_LIST_LENGTH`, where the file does not say it; 200 where nobody does.

    Returns:
        The model, in eval mode.

    Raises:
        ModelFolderError: See `read_checkpoint`; or the folder is not empty, or the heads are unknown.
        DataError: See `read_tokens`; or there is not one token for each row of the item embedding.
        GlintRUError: The state dict is not that of GLINT-RU; the tensors are named.
    """
    folder = Path(output_dir)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ModelFolderError(f"{folder} is not an empty folder; choose another --output_dir")
    found = read_checkpoint(checkpoint)
    heads = num_attention_heads or found.settings.get("n_heads")
    if heads is None:
        raise ModelFolderError(f"{checkpoint} does not say its n_heads, and no tensor does: give --num_attention_heads")
    model = from_official_state_dict(found.state_dict, int(heads)).eval()
    names = read_tokens(tokens)
    if len(names) != model.config.vocab_size - 1:
        raise DataError(
            f"{tokens} has {len(names)} item tokens, but the checkpoint has {model.config.vocab_size - 1} items (and "
            f"{PADDING_TOKEN}); RecBole orders tokens by first occurrence: take them from its dataset, see {PAGE}"
        )
    length = max_length or found.settings.get("MAX_ITEM_LIST_LENGTH") or LENGTH
    processor = GlintRUProcessor(names, max_length=int(length))
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model
