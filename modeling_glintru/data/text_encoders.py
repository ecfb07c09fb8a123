"""Opens what makes vectors of texts: wordllama, sentence-transformers or a callable, each with its version."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ..errors import DataError, nearest_names
from ..whole_files import checksum
from .table import first_line

__all__ = ["TFIDF", "TextEncoder", "TextVectors", "check_text_encoder"]

TextFunction = Callable[[list[str]], Any]
TextEncoder = str | TextFunction

TFIDF, WORDLLAMA, SENTENCE_TRANSFORMERS = "tfidf", "wordllama", "sentence-transformers/NAME"
TFIDF_VERSION = "1"  # of the way in which `item_features` weights and projects terms


def check_text_encoder(name: str) -> None:
    """Refuses a name that is not `"tfidf"`, `"wordllama"` or a model of sentence-transformers.

    Raises:
        DataError: It is another one.
    """
    if name not in (TFIDF, WORDLLAMA) and "/" not in name:
        raise DataError(
            f"There is no text encoder {name!r}; {nearest_names(name, (TFIDF, WORDLLAMA, SENTENCE_TRANSFORMERS))}"
        )


class TextVectors:
    """A text encoder, which is opened when it is first used.

    Args:
        encoder: `"tfidf"`, `"wordllama"`, a model of sentence-transformers (`owner/name` or a folder), or a callable.

    Attributes:
        name: The name that was given, or module and name of the callable.
        version: Version of the library, revision of the model, or the attribute `version` of the callable; None where
            there is none, or where the encoder was not opened yet.

    Raises:
        DataError: There is no text encoder of that name.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self._function: TextFunction | None = None
        self._wanted: str | None = None
        self.version: str | None = None
        if isinstance(encoder, str):
            check_text_encoder(encoder)
            self.name = encoder
            self.version = TFIDF_VERSION if encoder == TFIDF else None
        else:
            self.name = f"{encoder.__module__}:{getattr(encoder, '__qualname__', type(encoder).__qualname__)}"
            version = getattr(encoder, "version", None)
            self.version = None if version is None else str(version)
            self._function = encoder

    @classmethod
    def saved(cls, name: str, version: str | None, function: TextFunction | None) -> TextVectors:
        """The text encoder that a file names; `function` is the callable, where it was one.

        Raises:
            DataError: The callable has another name or version, or a newer version of this package made the file.
        """
        texts = cls.__new__(cls)
        texts.name, texts.version, texts._wanted, texts._function = name, version, version, None
        found = cls(function) if function is not None else cls(TFIDF) if name == TFIDF else None
        if found is not None:
            if found.name != name:
                raise DataError(f"The features were made with the text encoder {name!r}, not with {found.name!r}.")
            texts._check(found.version)
            texts._function = function
        return texts

    def encode(self, texts: pl.Series) -> np.ndarray:
        """float32 (n, w): the vector of each text, a row of NaN where the text is null.

        Raises:
            DataError: The text encoder is missing, has another version than the saved one, or does not give an array of
                n rows of finite numbers.
        """
        known = texts.drop_nulls().to_list() or [""]  # the width is needed even where nobody has a text
        vectors = np.asarray(self._opened()(known), np.float32)
        if vectors.ndim != 2 or len(vectors) != len(known) or not vectors.shape[1]:
            raise DataError(
                f"The text encoder {self.name!r} made an array of shape {vectors.shape} of {len(known):,} texts, but "
                "it must have one row for each text."
            )
        if not np.isfinite(vectors).all():
            raise DataError(f"The text encoder {self.name!r} gave numbers that are not finite.")
        there = texts.is_not_null().to_numpy()
        result = np.full((len(texts), vectors.shape[1]), np.nan, np.float32)
        result[there] = vectors[: int(there.sum())]
        return result

    def _opened(self) -> TextFunction:
        if self._function is None:
            function: TextFunction
            version: str | None
            if self.name == WORDLLAMA:
                function, version = _wordllama()
            elif "/" in self.name:
                function, version = _sentence_transformer(self.name, self._wanted)
            else:
                raise DataError(
                    f"The features were made with the text encoder {self.name!r}, a function of Python, which is not "
                    "saved: give it to ItemEncoder.load as text_encoder."
                )
            self._check(version)
            self._function, self.version = function, version
        return self._function

    def _check(self, version: str | None) -> None:
        if self._wanted is not None and version != self._wanted:
            raise DataError(
                f"The features were made with version {self._wanted} of the text encoder {self.name!r}, but this is "
                f"version {version}; vectors of different versions do not fit together."
            )


def _wordllama() -> tuple[TextFunction, str]:
    try:
        import wordllama
    except ImportError as error:
        raise DataError('The text encoder "wordllama" needs that library: pip install wordllama.') from error
    # Its wheel has the weights and the tokenizer, but looks for the tokenizer in a cache alone.
    model = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
    return model.embed, metadata.version("wordllama")


def _sentence_transformer(name: str, revision: str | None) -> tuple[TextFunction, str | None]:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise DataError(
            f'The text encoder {name!r} needs sentence-transformers: pip install "glintru[text]".'
        ) from error
    folder = Path(name)
    try:
        model = SentenceTransformer(name, revision=None if folder.is_dir() else revision)
        version = _checksum_of(folder) if folder.is_dir() else _cached_revision(name, revision)
    except Exception as error:  # the Hub, the files and torch have errors of their own
        raise DataError(f"The text encoder {name!r} cannot be loaded ({first_line(error)}).") from error
    return lambda texts: model.encode(texts, convert_to_numpy=True, show_progress_bar=False), version


def _checksum_of(folder: Path) -> str:
    """Sizes and CRC-32 of the weights in a folder, in the place of a revision."""
    weights = sorted(file for file in folder.rglob("*") if file.suffix in (".safetensors", ".bin"))
    return "-".join(f"{size}.{value:08x}" for size, value in map(checksum, weights))


def _cached_revision(name: str, revision: str | None) -> str | None:
    """The commit of a model of the Hub that was just loaded."""
    from huggingface_hub import try_to_load_from_cache

    for file in ("modules.json", "config.json"):
        path = try_to_load_from_cache(name, file, revision=revision)
        if isinstance(path, str):
            return Path(path).parent.name
    return revision
