"""The processor: raw item ids <-> item indices, and histories <-> model inputs.

A model without its item ids is of no use, so the ids are saved beside the weights: `preprocessor_config.json` holds the
settings, `item_vocabulary.safetensors` the ids, the titles and the training counts (both optional) as flat arrays.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain, pairwise, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from transformers.feature_extraction_utils import BatchFeature, FeatureExtractionMixin
from transformers.utils import cached_file, logging

from .configuration_glintru import FORMAT_VERSION, GlintRUError, check_format, from_package, write_manifest

logger = logging.get_logger(__name__)

__all__ = ["VOCABULARY_FILE", "GlintRUProcessor", "UnknownItemError", "VocabularyError", "VocabularyFileError"]

VOCABULARY_FILE = "item_vocabulary.safetensors"
UNKNOWN_POLICIES, PADDING_SIDES = ("drop", "error"), ("left", "right")
PADDINGS, TENSOR_TYPES = (True, False, "longest", "max_length"), ("pt", "np", None)
INT64 = np.iinfo(np.int64)
# What `cached_file` and the base class both take, so that settings and vocabulary come from the same revision.
HUB_ARGUMENTS = ("cache_dir", "force_download", "proxies", "subfolder", "token", "local_files_only", "revision")
# Written into the settings file for others to read, recomputed here.
BOOKKEEPING = {
    *("auto_map", "feature_extractor_type", "format_version", "id_type", "num_items", "padding_value"),
    "processor_class",
}


class VocabularyError(GlintRUError):
    """Item ids that cannot form a vocabulary, or that do not fit this one."""


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


def as_rows(histories: Any) -> list[list[Any]]:
    """A list of histories from one history or a batch."""
    values = as_list(histories)
    single = [value is None or isinstance(value, (str, bytes, int, float, np.generic)) for value in values]
    if any(single) and not all(single):
        raise VocabularyError("Give one history (a list of item ids) or a list of histories, not a mix of both.")
    return [values] if all(single) else [as_list(value) for value in values]


def checked_ids(values: list[Any]) -> list[Any]:
    """The ids as plain `str` or plain `int`, all of one type."""
    types = set(map(type, values))
    if types <= {str} or types <= {int}:
        return values
    for kind in types:
        if not issubclass(kind, (str, int, np.integer)) or issubclass(kind, bool):
            wrong = next(value for value in values if type(value) is kind)
            raise VocabularyError(f"An item id is a string or an integer, but got {wrong!r} ({kind.__name__}).")
    texts = [value for value in values if isinstance(value, str)]
    if not texts:
        return [operator.index(value) for value in values]
    if len(texts) < len(values):
        number = next(value for value in values if not isinstance(value, str))
        raise VocabularyError(f"Item ids are either all strings or all integers, but got {texts[0]!r} and {number!r}.")
    return [str.__str__(value) for value in values]


def checked_choice(name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    """The value, which must be one of the allowed ones."""
    if value not in allowed:
        raise GlintRUError(f"{name} must be one of {', '.join(map(repr, allowed))}, but got {value!r}.")
    return value


def checked_positive(name: str, value: Any) -> int:
    """The value as an `int` of at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise GlintRUError(f"{name} must be a positive integer, but got {value!r}.")
    return int(value)


def padded(rows: Sequence[np.ndarray], width: int = 0, side: str = "right") -> np.ndarray:
    """int64 (rows, width) with 0 on a side of each row; by default as wide as the longest row, at least one column."""
    width = width or max(1, *map(len, rows))
    table = np.zeros((len(rows), width), np.int64)
    for target, row in zip(table, rows, strict=True):
        start = 0 if side == "right" else width - len(row)
        target[start : start + len(row)] = row
    return table


class GlintRUProcessor(FeatureExtractionMixin):
    """Turns histories of raw item ids into model inputs, and scores back into raw item ids and titles.

    Index 0 is padding; `item_ids[i]` has index `i + 1`, so a model for this processor has `vocab_size = len(self) + 1`.
    Ids are strings or integers (int64 range), all of one type, and come back exactly as they went in.

    Args:
        item_ids: The distinct raw ids in index order: any sequence, array or column of strings or of integers.
        item_titles: Titles for people to read: one per item in the order of `item_ids` (None where unknown), or a
            mapping from raw id to title, which may know more or fewer items than the vocabulary.
        max_length: How many of the newest items of a history are read.
        unknown_items: What happens to an item outside the vocabulary: `"drop"` leaves it out and counts it, `"error"`
            refuses the history.
        padding_side: `"right"` or `"left"`. The model's scores are the same either way.
        recommend_seen: Whether items of the history are recommended again, where a call does not say. `prepare` decides
            it from the data: yes where people take items again.
        item_counts: How often each item occurs in the training histories, integers in the order of `item_ids`, or a
            mapping from raw id to number (0 where it has none). Who has no history gets the most popular items. None
            where that is not known.

    Raises:
        VocabularyError: No ids, ids of mixed or wrong types, the same id twice, or counts that are not one for each
            item.
        GlintRUError: A setting outside what is allowed.

    Example:
        >>> processor = GlintRUProcessor(["apple", "bread", "cheese"])
        >>> processor([["bread", "apple"], ["cheese"]])["input_ids"]
        tensor([[2, 1],
                [3, 0]])
    """

    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012 (transformers' own form)
    padding_value = 0

    def __init__(
        self,
        item_ids: Any = None,
        item_titles: Mapping[Any, str | None] | Sequence[str | None] | None = None,
        max_length: int = 200,
        unknown_items: str = "drop",
        padding_side: str = "right",
        recommend_seen: bool = False,
        item_counts: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        unexpected = sorted(set(kwargs) - BOOKKEEPING)
        if unexpected:
            logger.warning(f"GlintRUProcessor does not know these settings and leaves them out: {unexpected}.")
        self.max_length = checked_positive("max_length", max_length)
        self.unknown_items = checked_choice("unknown_items", unknown_items, UNKNOWN_POLICIES)
        self.padding_side = checked_choice("padding_side", padding_side, PADDING_SIDES)
        self.recommend_seen = checked_choice("recommend_seen", recommend_seen, (True, False))
        ids = [] if item_ids is None else checked_ids(as_list(item_ids))
        if not ids:
            raise VocabularyError("A vocabulary needs at least one item id, but item_ids is empty.")
        self._item_ids: tuple[Any, ...] = tuple(ids)
        self._index: dict[Any, int] = dict(zip(ids, range(1, len(ids) + 1), strict=True))
        if len(self._index) < len(ids):
            # The dictionary holds the last place of an id: the first place that differs holds a duplicate.
            twice = next(raw for place, raw in enumerate(ids, start=1) if self._index[raw] != place)
            raise VocabularyError(f"Every item id may occur once in a vocabulary, but {twice!r} occurs more than once.")
        if self.id_type == "integer" and (min(ids) < INT64.min or max(ids) > INT64.max):
            raise VocabularyError("Integer item ids must fit in 64 bits (signed); use strings for larger ones.")
        self._item_titles = self._aligned_titles(item_titles)
        self.item_counts = item_counts

    # ------------------------------------------------------------------ the vocabulary

    def __len__(self) -> int:
        """Number of items (padding not counted)."""
        return len(self._item_ids)

    def __contains__(self, raw_id: object) -> bool:
        # True and 1.0 are equal to 1 in a dictionary, but they are not item ids.
        return isinstance(raw_id, (str, int, np.integer)) and not isinstance(raw_id, bool) and raw_id in self._index

    @property
    def item_ids(self) -> tuple[Any, ...]:
        """Raw ids in index order: `item_ids[i]` has index `i + 1`."""
        return self._item_ids

    @property
    def item_titles(self) -> tuple[str | None, ...] | None:
        """Titles in the order of `item_ids`, or None when there are no titles at all."""
        return self._item_titles

    @property
    def item_counts(self) -> np.ndarray | None:
        """int64 (n,) in the order of `item_ids`: occurrences in the training histories; None where not known."""
        return self._item_counts

    @item_counts.setter
    def item_counts(self, counts: Any) -> None:
        self.__dict__.pop("popular_items", None)
        if isinstance(counts, Mapping):
            counts = [counts.get(raw, 0) for raw in self._item_ids]
        array = None if counts is None else np.asarray(counts)
        if array is not None and (array.shape != (len(self),) or array.dtype.kind not in "iu" or array.min() < 0):
            raise VocabularyError(
                f"item_counts must be {len(self)} integers of 0 or more, one for each item, but got {array.dtype} of "
                f"shape {array.shape}."
            )
        self._item_counts = None if array is None else array.astype(np.int64)

    @cached_property
    def popular_items(self) -> np.ndarray:
        """int64 (n,): all indices, the most often counted first, ties in the order of the vocabulary."""
        if self._item_counts is None:
            logger.warning_once(
                "This model was saved without item counts, so users of whom no item is known get the items in the "
                "order of the vocabulary; set processor.item_counts and save it again, or train again."
            )
            return np.arange(1, self.vocab_size)
        return np.argsort(-self._item_counts, kind="stable") + 1

    @property
    def vocab_size(self) -> int:
        """Number of items plus one for padding: the model's `vocab_size`."""
        return len(self._item_ids) + 1

    @property
    def id_type(self) -> str:
        """`"string"` or `"integer"`."""
        return "string" if isinstance(self._item_ids[0], str) else "integer"

    def index_of(self, raw_id: Any) -> int:
        """The index (1 ... n) of a raw id.

        Raises:
            UnknownItemError: The vocabulary does not hold it.
            VocabularyError: It is not of the vocabulary's type.
        """
        return int(self.encode_ids([raw_id], "error")[0])

    def raw_id(self, index: int) -> Any:
        """The raw id at an index from 1 to n.

        Raises:
            VocabularyError: The index is padding or outside the vocabulary.
        """
        place = operator.index(index)
        if not 1 <= place <= len(self):
            raise VocabularyError(f"Item indices go from 1 to {len(self)} (0 is padding), but got {place}.")
        return self._item_ids[place - 1]

    def title(self, raw_id: Any) -> str | None:
        """The title of an item, or None where it has none.

        Raises:
            UnknownItemError: The vocabulary does not hold the item.
        """
        index = self.index_of(raw_id)
        return None if self._item_titles is None else self._item_titles[index - 1]

    def add_items(self, item_ids: Any, item_titles: Any = None) -> int:
        """Adds new items behind those that are there; needs the package, see `models/new_items.py`."""
        return from_package("new_items").add_ids(self, item_ids, item_titles)

    # ------------------------------------------------------------------ histories -> indices

    def encode_ids(self, raw_ids: Any, unknown_items: str | None = None) -> np.ndarray:
        """Indices of a whole column of raw ids.

        Args:
            raw_ids: A list, a NumPy array, a torch tensor, or a polars, pandas or pyarrow column. Where ids repeat
                much, encode the distinct ones: 1,000,000 ids take about a second.
            unknown_items: `"drop"` writes 0 in the place of an unknown item, so that the result stays aligned with
                the column; `"error"` refuses. The processor's own policy by default.

        Returns:
            int64 array as long as the column.

        Raises:
            UnknownItemError: The policy is `"error"` and there are unknown items; names up to five.
            VocabularyError: The column is not of the vocabulary's type.
        """
        policy = self.unknown_items if unknown_items is None else unknown_items
        checked_choice("unknown_items", policy, UNKNOWN_POLICIES)
        values = self._of_own_type(checked_ids(as_list(raw_ids)))
        indices = np.fromiter(map(self._index.get, values, repeat(0)), np.int64, count=len(values))
        if policy == "error" and not indices.all():
            names = list(dict.fromkeys(values[place] for place in np.flatnonzero(indices == 0)))
            shown = ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
            raise UnknownItemError(
                f"{len(names)} item id(s) are not among the model's {len(self)} items: {shown} "
                "(unknown_items='drop' leaves them out)."
            )
        return indices

    def encode_histories(
        self, histories: Sequence[list[Any]], unknown_items: str | None = None
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """The indices of the known items of each history, and how many items of each are unknown, (histories,) int64.

        Raises:
            UnknownItemError, VocabularyError: As `encode_ids`.
        """
        lengths = np.array([len(history) for history in histories], np.int64)
        indices = self.encode_ids(list(chain.from_iterable(histories)), unknown_items)
        known = [part[part > 0] for part in np.split(indices, np.cumsum(lengths)[:-1])]
        return known, lengths - [len(part) for part in known]

    def __call__(
        self,
        histories: Any,
        return_tensors: str | None = "pt",
        max_length: int | None = None,
        unknown_items: str | None = None,
        padding: bool | str = True,
        return_num_unknown_items: bool = False,
    ) -> BatchFeature:
        """Encodes one history or a batch of histories, oldest item first.

        Unknown items are left out before the newest `max_length` items are taken.

        Args:
            histories: One history (a sequence of raw ids) or a list of histories. A history may be empty.
            return_tensors: `"pt"`, `"np"`, or None for lists.
            max_length: Newest items taken, the processor's own by default.
            unknown_items: `"drop"` or `"error"`, the processor's own by default.
            padding: True (or `"longest"`) pads to the longest history of the batch, at least one column; `"max_length"`
                to `max_length`; False leaves the rows as they are, as lists.
            return_num_unknown_items: Adds the key `num_unknown_items`. It is not a model input, hence off by default.

        Returns:
            `input_ids` (B, L) int64 with 0 at padding, `attention_mask` (B, L) int64 with 1 at items, and on request
            `num_unknown_items` (B,) int64.

        Raises:
            UnknownItemError, VocabularyError: As `encode_ids`; or histories in another shape.
        """
        limit = self.max_length if max_length is None else checked_positive("max_length", max_length)
        checked_choice("padding", padding, PADDINGS)
        checked_choice("return_tensors", return_tensors, TENSOR_TYPES)
        encoded, num_unknown = self.encode_histories(as_rows(histories), unknown_items)
        encoded = [known[-limit:] for known in encoded]
        if padding is False:
            ids = [known.tolist() for known in encoded]
            data: dict[str, Any] = {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}
            return_tensors = None
        else:
            input_ids = padded(encoded, limit if padding == "max_length" else 0, self.padding_side)
            data = {"input_ids": input_ids, "attention_mask": (input_ids > 0).astype(np.int64)}
        if return_num_unknown_items:
            data["num_unknown_items"] = num_unknown
        elif num_unknown.any():
            logger.warning(f"{num_unknown.sum()} items of the histories are unknown to the model and were left out.")
        if return_tensors is None:
            data = {key: value if isinstance(value, list) else value.tolist() for key, value in data.items()}
        return BatchFeature(data, tensor_type=return_tensors)

    def _of_own_type(self, values: list[Any]) -> list[Any]:
        if values and isinstance(values[0], str) != (self.id_type == "string"):
            raise VocabularyError(
                f"The item ids of this model are {self.id_type}s, but got {values[0]!r} ({type(values[0]).__name__})."
            )
        return values

    # ------------------------------------------------------------------ indices -> items

    def decode(self, indices: Any) -> Any:
        """Raw ids of indices; padding (0) is left out.

        Args:
            indices: Integers in a sequence, array or tensor, of any depth.

        Returns:
            A list of raw ids, nested like `indices`.

        Raises:
            VocabularyError: An index outside the vocabulary.
        """
        values = as_list(indices)
        if values and not isinstance(values[0], (int, np.integer)):
            return [self.decode(row) for row in values]
        return [self.raw_id(index) for index in values if index != 0]

    def decode_top_k(self, logits: Any, top_k: int = 10) -> list[list[dict[str, Any]]]:
        """The best items of each row of scores, best first.

        Padding and items with a score of minus infinity or NaN never appear, so a row may be shorter than `top_k`.

        Args:
            logits: (B, vocab_size) scores, or (vocab_size,) for one row; tensor or array of floats.
            top_k: Items per row.

        Returns:
            Per row a list of `{"item_id", "title", "score"}`; `title` only where the processor has titles.

        Raises:
            GlintRUError: Scores of another vocabulary, or a `top_k` below 1.
        """
        top_k = checked_positive("top_k", top_k)
        scores = torch.atleast_2d(torch.as_tensor(logits).detach()).float()
        if scores.ndim != 2 or scores.shape[-1] != self.vocab_size:
            raise GlintRUError(
                f"The vocabulary has {len(self)} items, so scores need the shape (batch, {self.vocab_size}), but got "
                f"{tuple(scores.shape)}: are this model and this processor of the same folder?"
            )
        scores = scores[:, 1:].masked_fill(scores[:, 1:].isnan(), -torch.inf)
        best, places = scores.topk(min(top_k, len(self)), dim=-1)
        return [
            [self.listed(place + 1, score) for place, score in zip(*row, strict=True) if score > -torch.inf]
            for row in zip(places.tolist(), best.tolist(), strict=True)
        ]

    def listed(self, index: int, score: float) -> dict[str, Any]:
        """`{"item_id", "title", "score"}` of the item at an index from 1 to n; `title` only where there are titles."""
        item = {"item_id": self._item_ids[index - 1]}
        if self._item_titles is not None:
            item["title"] = self._item_titles[index - 1]
        return {**item, "score": score}

    # ------------------------------------------------------------------ files

    def to_dict(self) -> dict[str, Any]:
        """The settings, without the vocabulary (which has its own file)."""
        names = ("id_type", "max_length", "padding_side", "padding_value", "recommend_seen", "unknown_items")
        own = type(self).__name__
        # AutoProcessor finds the local class by `processor_class`, even in a folder without a model.
        settings = {"feature_extractor_type": own, "processor_class": own, "num_items": len(self)}
        settings["format_version"] = FORMAT_VERSION
        settings |= {name: getattr(self, name) for name in names}
        if self._auto_class is not None:
            name = f"{type(self).__module__.split('.')[-1]}.{own}"
            settings["auto_map"] = {"AutoFeatureExtractor": name, "AutoProcessor": name}
        return settings

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """Writes `preprocessor_config.json`, `item_vocabulary.safetensors` and `manifest.json` into a folder.

        Args:
            save_directory: The folder, made where it is missing.
            push_to_hub: Also uploads both to the Hub; `kwargs` go to `push_to_hub` (`repo_id`, `token`, ...).

        Returns:
            The paths of the first two files.
        """
        folder = Path(save_directory)
        if folder.is_file():
            raise VocabularyFileError(f"{folder} is a file, but a processor is saved into a folder.")
        folder.mkdir(parents=True, exist_ok=True)
        vocabulary = folder / VOCABULARY_FILE
        # Written aside and renamed: a process that reads the folder never sees half a vocabulary. The name is always
        # the same, so that the next save takes the place of what a killed process has left.
        unfinished = vocabulary.with_suffix(".tmp")
        try:
            unfinished.write_bytes(vocabulary_bytes(self._item_ids, self._item_titles, self._item_counts))
            unfinished.replace(vocabulary)
        finally:
            unfinished.unlink(missing_ok=True)
        files = super().save_pretrained(folder)
        write_manifest(folder)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", folder.name), **kwargs)
        return [*files, str(vocabulary)]

    @classmethod
    def get_feature_extractor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Settings and vocabulary of a folder or Hub repository, for the base class's `from_pretrained`.

        Raises:
            VocabularyFileError: One of the two files is missing or damaged, or they do not belong together.
        """
        name = os.fspath(pretrained_model_name_or_path)
        hub = {key: kwargs[key] for key in HUB_ARGUMENTS if key in kwargs}
        try:
            settings, rest = super().get_feature_extractor_dict(name, **kwargs)
        except OSError as error:
            raise VocabularyFileError(
                f"There is no readable processor in {name!r}: preprocessor_config.json is missing, damaged or out of "
                "reach; give a folder that save_pretrained wrote."
            ) from error
        # The settings file itself may be named: its vocabulary lies beside it.
        source = str(Path(name).parent) if os.path.isfile(name) else name
        try:
            file = cached_file(source, VOCABULARY_FILE, **hub)
        except OSError as error:
            raise VocabularyFileError(
                f"The item vocabulary ({VOCABULARY_FILE}) of {name!r} is missing; weights are of no use without it."
            ) from error
        found = read_vocabulary(str(file))
        check_format(settings, f"preprocessor_config.json of {name!r}")
        number = len(found["item_ids"])
        if settings.get("num_items", number) != number:
            raise VocabularyFileError(
                f"The settings of {name!r} speak of {settings['num_items']} items, but its {VOCABULARY_FILE} holds "
                f"{number}: the two files are not from the same save."
            )
        return {**settings, **found}, rest

    def _aligned_titles(self, titles: Any) -> tuple[str | None, ...] | None:
        if titles is None:
            return None
        if isinstance(titles, Mapping):
            self._of_own_type(checked_ids(list(titles)))
            titles = [titles.get(raw) for raw in self._item_ids]
        aligned = as_list(titles)
        if len(aligned) != len(self):
            raise VocabularyError(
                f"There are {len(self)} items but {len(aligned)} titles; give one (or None) for each."
            )
        for title in aligned:
            if title is not None and not isinstance(title, str):
                raise VocabularyError(f"A title is a string or None, but got {title!r} ({type(title).__name__}).")
        return tuple(aligned) if any(title is not None for title in aligned) else None


# ---------------------------------------------------------------------- the vocabulary as a file


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
    # One entry: the order of several differs from process to process, and the same vocabulary is to be the same bytes.
    return save(tensors, metadata={"version": "1"})


def _packed(name: str, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Texts as one run of UTF-8 bytes and the n + 1 places where they begin and end."""
    # surrogatepass: Python strings may hold half a surrogate pair, and an id is never changed.
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return {f"{name}.bytes": np.frombuffer(b"".join(encoded), np.uint8), f"{name}.offsets": offsets}


def _unpacked(tensors: dict[str, np.ndarray], name: str) -> list[str]:
    text, offsets = tensors[f"{name}.bytes"].tobytes(), tensors[f"{name}.offsets"]
    if len(offsets) < 1 or offsets[0] != 0 or offsets[-1] != len(text) or (np.diff(offsets) < 0).any():
        raise ValueError("offsets do not fit to the bytes")
    return [text[a:b].decode("utf-8", "surrogatepass") for a, b in pairwise(offsets.tolist())]


def read_vocabulary(file: str) -> dict[str, Any]:
    """`item_ids`, `item_titles` and `item_counts` (None without any) of a file that `vocabulary_bytes` made.

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
        titles: list[str | None] | None = None
        if "titles.bytes" in tensors:
            present = tensors["titles.present"].tolist()
            titles = [t if here else None for t, here in zip(_unpacked(tensors, "titles"), present, strict=True)]
        return {"item_ids": item_ids, "item_titles": titles, "item_counts": counts}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise VocabularyFileError(
            f"The item vocabulary {file!r} is damaged or of another kind; save it again."
        ) from error
