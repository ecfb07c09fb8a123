"""Item ids as a list and as a file: what may be an id, and how ids and titles lie on the disk.

Used by the processor, with which it travels to the Hub as remote code.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from .configuration_glintru import GlintRUError

VOCABULARY_FILE = "item_vocabulary.safetensors"
FORMAT_VERSION = "1"


class VocabularyError(GlintRUError):
    """Item ids that cannot form a vocabulary, or that do not fit to this one."""


class UnknownItemError(VocabularyError):
    """An item id that the vocabulary does not hold."""


class VocabularyFileError(VocabularyError):
    """A folder or repository whose processor files are missing or damaged."""


def as_list(values: Any) -> list[Any]:
    """A list of Python values from a list, array, tensor or column of any library."""
    if isinstance(values, (str, bytes)):
        raise VocabularyError(f"Item ids come in a list, but got the single text {values!r}.")
    for method in ("tolist", "to_list", "to_pylist"):
        if hasattr(values, method):
            values = getattr(values, method)()
            return values if isinstance(values, list) else [values]
    if not isinstance(values, Iterable):
        raise VocabularyError(f"Item ids come in a list, but got {values!r} ({type(values).__name__}).")
    return list(values)


def checked_ids(values: list[Any]) -> list[Any]:
    """The ids as plain `str` or plain `int`, all of one type."""
    types = set(map(type, values))
    if types <= {str} or types <= {int}:
        return values
    for kind in types:
        if not issubclass(kind, (str, int, np.integer)) or issubclass(kind, bool):
            wrong = next(value for value in values if type(value) is kind)
            raise VocabularyError(f"An item id is a string or an integer, but got {wrong!r} ({kind.__name__}).")
    if all(issubclass(kind, str) for kind in types):
        return [str.__str__(value) for value in values]
    if any(issubclass(kind, str) for kind in types):
        text = next(value for value in values if isinstance(value, str))
        number = next(value for value in values if not isinstance(value, str))
        raise VocabularyError(f"Item ids are either all strings or all integers, but got {text!r} and {number!r}.")
    return [operator.index(value) for value in values]


def checked_choice(name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    """The value, which must be one of the allowed ones."""
    if value not in allowed:
        raise GlintRUError(f"{name} must be one of {', '.join(map(repr, allowed))}, but got {value!r}.")
    return value


def checked_max_length(value: Any) -> int:
    """The value as a positive `int`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise GlintRUError(f"max_length must be a positive integer, but got {value!r}.")
    return int(value)


def as_rows(histories: Any) -> list[list[Any]]:
    """A list of histories from one history or a batch."""
    values = as_list(histories)
    single = [value is None or isinstance(value, (str, bytes, int, float, np.generic)) for value in values]
    if all(single):
        return [values]
    if any(single):
        raise VocabularyError("Give one history (a list of item ids) or a list of histories, not a mix of both.")
    return [as_list(value) for value in values]


def vocabulary_bytes(
    item_ids: Sequence[Any], item_titles: Sequence[str | None] | None, item_counts: np.ndarray | None = None
) -> bytes:
    """The safetensors file of a vocabulary.

    Integer ids are one int64 array `integer_ids`; strings are `string_ids.bytes` (UTF-8, end to end) with the n + 1
    `string_ids.offsets`; titles are packed like strings, with `titles.present` (0 where there is none).
    Training counts are one int64 array `item_counts`.
    """
    if isinstance(item_ids[0], str):
        tensors = _packed("string_ids", item_ids)
    else:
        tensors = {"integer_ids": np.array(item_ids, np.int64)}
    if item_titles is not None:
        tensors |= _packed("titles", [title or "" for title in item_titles])
        tensors["titles.present"] = np.array([title is not None for title in item_titles], np.uint8)
    if item_counts is not None:
        tensors["item_counts"] = item_counts
    return save(tensors, metadata={"format": "np", "version": FORMAT_VERSION})


def _packed(name: str, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Texts as one run of UTF-8 bytes and the n + 1 places where they begin and end."""
    # surrogatepass: Python strings may hold half a surrogate pair, and an id is never changed.
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    return {f"{name}.bytes": np.frombuffer(b"".join(encoded), np.uint8), f"{name}.offsets": offsets}


def _unpacked(tensors: dict[str, np.ndarray], name: str) -> list[str]:
    text, offsets = tensors[f"{name}.bytes"].tobytes(), tensors[f"{name}.offsets"]
    if len(offsets) < 1 or offsets[0] != 0 or offsets[-1] != len(text) or (np.diff(offsets) < 0).any():
        raise ValueError("offsets do not fit to the bytes")
    places = offsets.tolist()
    return [text[a:b].decode("utf-8", "surrogatepass") for a, b in pairwise(places)]


def read_vocabulary(file: str) -> tuple[list[Any], list[str | None] | None, np.ndarray | None]:
    """Ids, titles and training counts (None without any) of a file that `vocabulary_bytes` made.

    Raises:
        VocabularyFileError: The file is damaged or of another kind.
    """
    try:
        with safe_open(file, framework="np") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
        item_ids = tensors["integer_ids"].tolist() if "integer_ids" in tensors else _unpacked(tensors, "string_ids")
        counts = tensors.get("item_counts")
        if counts is not None and (counts.shape != (len(item_ids),) or counts.dtype != np.int64 or counts.min() < 0):
            raise ValueError("counts do not fit to the ids")
        if "titles.bytes" not in tensors:
            return item_ids, None, counts
        titles = _unpacked(tensors, "titles")
        present = tensors["titles.present"].tolist()
        return item_ids, [title if here else None for title, here in zip(titles, present, strict=True)], counts
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise VocabularyFileError(
            f"The item vocabulary {file!r} is damaged or of another kind; save it again."
        ) from error
