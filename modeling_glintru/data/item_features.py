"""Makes vectors of numbers of what is known of items, and by the same rule of new items later.

`ItemEncoder.fit` learns from the items of a table how text, categories, numbers and vectors become numbers. Terms are
weighted by TF-IDF and projected by a truncated singular value decomposition (latent semantic analysis, Deerwester et
al. 1990). The encoder is a file of JSON and one of arrays, by which another process encodes new items with the same
bits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..errors import DataError
from ..machine import one_thread
from ..models.untrusted_text import parse_json
from .items import KINDS, ItemColumn, ItemTable, read_items
from .text_encoders import TFIDF, TextEncoder, TextVectors

__all__ = ["FEATURES_FILE", "ItemEncoder", "ItemFeatures", "TextEncoder"]

FEATURES_FILE = "item_features.safetensors"
SETTINGS_FILE, ARRAYS_FILE = "item_encoder.json", "item_encoder.safetensors"
FORMAT, FORMAT_VERSION = "glintru-item-encoder", 1
TERMS, TERM_WIDTH, VECTOR_WIDTH = 30_000, 256, 512
MANY_ITEMS = 100  # from so many items on, a term must stand in two of them
# A category is one term: a mark, the name of its column and its value, up to the next mark.
MARK = "\x1f"
TERM_PATTERN = rf"{MARK}[^{MARK}]+|\b\w\w+\b"
NUMBERS_SHARE = 0.1  # squared length of the numbers of an item, on average, where that of its text is 1
MOST_DEVIATIONS = 4.0  # where standardised numbers are cut off
COVARIANCE_ROWS = 20_000  # vectors of which a projection is learned, at most
BLOCK = 1536  # rows that are projected at a time, always as many, so that the bits of a row depend on it alone


@dataclass(frozen=True)
class ItemFeatures:
    """The features of the items of a vocabulary.

    Args:
        matrix: float32 (num_items + 1, width) in the order of the vocabulary's indices. Row 0, the padding, and the
            rows of items without features are zeros.
        known: bool (num_items + 1,): which items have any feature.
        encoder: What made them, for new items.
    """

    matrix: np.ndarray
    known: np.ndarray
    encoder: ItemEncoder

    def summary(self, table: ItemTable, item_ids: Sequence[Any]) -> dict[str, Any]:
        """What was read, and how it fits to the vocabulary; arguments as of `of`; JSON can hold it."""
        known = int(self.known.sum())
        return table.summary | {
            "known": known,
            "unknown": len(self.known) - 1 - known,
            "not_in_vocabulary": len(table) - int((table.rows_of(item_ids) >= 0).sum()),
            "width": self.encoder.width,
            "text_encoder": self.encoder.texts.name,
            "text_version": self.encoder.texts.version,
        }

    @classmethod
    def of(
        cls,
        table: ItemTable,
        item_ids: Sequence[Any],
        encoder: ItemEncoder | None = None,
        text_encoder: TextEncoder = TFIDF,
    ) -> ItemFeatures:
        """The features of a vocabulary's items.

        Args:
            table: From `read_items`; it may lack some of the items and have others.
            item_ids: The vocabulary's raw ids, in the order of its indices.
            encoder: How features are made; without one, an encoder is fitted to those of `item_ids` that the table has.
            text_encoder: See `ItemEncoder.fit`.

        Raises:
            DataError: As `ItemTable.rows_of`, `ItemEncoder.fit` and `ItemEncoder.encode`.
        """
        rows = table.rows_of(item_ids)
        found = np.flatnonzero(rows >= 0)
        if encoder is None:
            encoder, vectors, has_any = ItemEncoder.fit_encode(table.take(np.sort(rows[found])), text_encoder)
        else:
            vectors, has_any = encoder.encode(table.read_as(encoder.columns).take(np.sort(rows[found])))
        found = found[np.argsort(rows[found])]
        matrix = np.zeros((len(item_ids) + 1, encoder.width), np.float32)
        known = np.zeros(len(item_ids) + 1, bool)
        matrix[found + 1], known[found + 1] = vectors, has_any
        return cls(matrix, known, encoder)

    def save(self, folder: Path) -> None:
        """Writes the matrix and the files of the encoder into a folder."""
        save_file({"matrix": self.matrix, "known": self.known}, folder / FEATURES_FILE)
        self.encoder.save(folder)

    @classmethod
    def load(cls, folder: Path, num_items: int) -> ItemFeatures:
        """Reads what `save` wrote.

        Raises:
            DataError: A file is missing or damaged, or of another number of items.
        """
        encoder = ItemEncoder.load(folder)
        arrays = _read_arrays(folder / FEATURES_FILE)
        shapes = {name: (array.shape, array.dtype) for name, array in arrays.items()}
        number = num_items + 1
        if shapes != {"matrix": ((number, encoder.width), np.float32), "known": ((number,), np.bool_)}:
            raise _damaged(folder / FEATURES_FILE)
        return cls(arrays["matrix"], arrays["known"], encoder)


class ItemEncoder:
    """How the columns of a table of items become vectors of `width` numbers.

    The vector of an item is the row of these blocks, each of which is zeros where the item lacks what it is made of:

    - `terms`: the words of its text (with the text encoder `"tfidf"`) and its categories, by TF-IDF with 1 + log(tf),
      projected to at most 256 numbers, of length 1.
    - `text`: the vector that another text encoder makes of its text, treated like a ready-made vector.
    - `vector:NAME`: a ready-made vector less the mean of all, of length 1, projected to 512 numbers where it has more.
    - `numbers`: of each number sign(x) log(1 + |x|), of each date its seconds, both standardised; then for each of them
      a 1 where it is missing. All of them are scaled so that they do not drown the text.

    Attributes:
        columns: The columns that it reads, in the order of the table that it was fitted to.
        blocks: Widths of the blocks by name, in their order.
        texts: The text encoder with its name and version.
    """

    def __init__(
        self,
        columns: Sequence[ItemColumn],
        texts: TextVectors,
        blocks: Mapping[str, int],
        arrays: Mapping[str, np.ndarray],
    ) -> None:
        self.columns = tuple(columns)
        self.texts = texts
        self.blocks = dict(blocks)
        self._arrays = dict(arrays)

    @property
    def width(self) -> int:
        """How many numbers a vector has."""
        return sum(self.blocks.values())

    @classmethod
    def fit(cls, table: ItemTable, text_encoder: TextEncoder = TFIDF) -> ItemEncoder:
        """Learns from the items of a table.

        Args:
            table: From `read_items`.
            text_encoder: `"tfidf"`, which needs scikit-learn (`glintru[items]`); `"wordllama"`, which needs that
                library; `"sentence-transformers/NAME"` or another model of that library (`glintru[text]`); or a
                callable that makes of a list of n texts an array (n, w).

        Raises:
            DataError: A library is missing, the text encoder is unknown or does not give such an array of finite
                numbers, or no item has anything to learn from.
        """
        return cls._fitted(table, text_encoder)[0]

    @classmethod
    def fit_encode(
        cls, table: ItemTable, text_encoder: TextEncoder = TFIDF
    ) -> tuple[ItemEncoder, np.ndarray, np.ndarray]:
        """The encoder of `fit` and what its `encode` gives for the same table, for which no text is encoded twice."""
        encoder, inputs = cls._fitted(table, text_encoder)
        return encoder, *encoder._encoded(inputs, len(table))

    @classmethod
    def _fitted(cls, table: ItemTable, text_encoder: TextEncoder) -> tuple[ItemEncoder, dict[str, Any]]:
        encoder = cls(table.columns, TextVectors(text_encoder), {}, {})
        inputs = encoder._inputs(table.frame)
        for name, values in inputs.items():
            fit, _ = BLOCKS.get(name, VECTORS)
            learned, encoder.blocks[name] = fit(values)
            encoder._arrays |= {f"{name}/{key}": array for key, array in learned.items()}
        if not encoder.width:
            raise DataError(f"{table.source} has nothing to learn features from: no item has a value in its columns.")
        return encoder, inputs

    def encode(self, table: Any) -> tuple[np.ndarray, np.ndarray]:
        """Vectors of the items of a table, old or new ones.

        Args:
            table: An `ItemTable`, or what `read_items` takes. It may lack some of the columns.

        Returns:
            float32 (n, width) in the order of `ItemTable.frame`, and bool (n,): which items have any feature. The
            vector of an item without any is zeros.

        Raises:
            DataError: As `read_items` and `ItemTable.read_as`; vectors have another width than at the fit; or the text
                encoder is missing or of another version.
        """
        read = table if isinstance(table, ItemTable) else read_items(table)
        read = read.read_as(self.columns)
        if not len(read):
            return np.zeros((0, self.width), np.float32), np.zeros(0, bool)
        return self._encoded(self._inputs(read.frame), len(read))

    def _encoded(self, inputs: Mapping[str, Any], number: int) -> tuple[np.ndarray, np.ndarray]:
        vectors, known = np.zeros((number, self.width), np.float32), np.zeros(number, bool)
        begin = 0
        for name, width in self.blocks.items():
            if name in inputs and width:
                _, encode = BLOCKS.get(name, VECTORS)
                vectors[:, begin : begin + width], there = encode(inputs[name], self._learned(name))
                known |= there
            begin += width
        vectors[~known] = 0
        return vectors, known

    def _learned(self, block: str) -> dict[str, np.ndarray]:
        arrays = ((name.rpartition("/"), array) for name, array in self._arrays.items())
        return {key: array for (of, _, key), array in arrays if of == block}

    def _inputs(self, frame: pl.DataFrame) -> dict[str, Any]:
        """By block what it is made of: texts, vectors (rows of NaN where there is none), or columns of numbers."""
        there: dict[str, list[str]] = {kind: [] for kind in KINDS}
        for column in self.columns:
            if column.name in frame.columns:
                there[column.kind].append(column.name)
        with_terms = there["text"] if self.texts.name == TFIDF else []
        inputs: dict[str, Any] = {}
        if with_terms or there["categories"]:
            inputs["terms"] = _documents(frame, with_terms, there["categories"])
        if there["text"] and not with_terms:
            inputs["text"] = self._checked(self.texts.encode(_joined(frame, there["text"], ". ")), "text")
        for name in there["vector"]:
            inputs[f"vector:{name}"] = self._checked(_filled(frame[name]), f"vector:{name}")
        numbers = [column for column in self.columns if column.kind in ("number", "date")]
        if numbers:
            inputs["numbers"] = np.stack([_number(frame, column) for column in numbers], axis=1)
        return inputs

    def _checked(self, vectors: np.ndarray, block: str) -> np.ndarray:
        mean = self._arrays.get(f"{block}/mean")
        if mean is not None and vectors.shape[1] != len(mean):
            what = f"The text encoder {self.texts.name!r}" if block == "text" else f"Column {block[7:]!r}"
            raise DataError(
                f"{what} gives vectors of {vectors.shape[1]} numbers, but gave {len(mean)} when the features were made."
            )
        return vectors

    # ------------------------------------------------------------------ files

    def save(self, folder: str | Path) -> None:
        """Writes `item_encoder.json` and `item_encoder.safetensors` into a folder, made where it is missing."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "text_encoder": self.texts.name,
            "text_version": self.texts.version,
            "width": self.width,
            "blocks": self.blocks,
            "columns": [asdict(column) for column in self.columns],
        }
        text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
        (folder / SETTINGS_FILE).write_text(text, encoding="utf-8")
        save_file(self._arrays, folder / ARRAYS_FILE)

    @classmethod
    def load(cls, folder: str | Path, text_encoder: Callable[[list[str]], Any] | None = None) -> ItemEncoder:
        """Reads what `save` wrote.

        Args:
            folder: The folder.
            text_encoder: The callable of an encoder that was fitted with one; needed before texts are encoded.

        Raises:
            DataError: A file is missing, damaged or of a newer version.
        """
        file = Path(folder) / SETTINGS_FILE
        try:
            settings = parse_json(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(f"{folder} has no {SETTINGS_FILE}: no features of items were made there.") from None
        except (OSError, ValueError) as error:
            raise _damaged(file) from error
        arrays = _read_arrays(Path(folder) / ARRAYS_FILE)
        if not isinstance(settings, dict) or settings.get("format") != FORMAT:
            raise _damaged(file)
        if settings.get("format_version") != FORMAT_VERSION:
            raise DataError(
                f"{file} has the format {settings.get('format_version')}, but this version reads {FORMAT_VERSION}."
            )
        try:
            columns = [ItemColumn(**column) for column in settings["columns"]]
            blocks, name, version = settings["blocks"], settings["text_encoder"], settings["text_version"]
            encoder = cls(columns, TextVectors(TFIDF), blocks, arrays)
            for block, width in encoder.blocks.items():
                if width and width != _width_of(block, encoder._learned(block)):
                    raise ValueError(f"the arrays of {block} do not fit")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _damaged(file) from error
        encoder.texts = TextVectors.saved(name, version, text_encoder)
        return encoder


def _damaged(file: Path) -> DataError:
    return DataError(f"{file} is damaged or does not belong to the files beside it; make the features again.")


def _read_arrays(file: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(file)
    except FileNotFoundError:
        raise DataError(f"{file} is missing; make the features again.") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(file) from error


def _width_of(block: str, arrays: Mapping[str, np.ndarray]) -> int:
    """The width of a block by what was learned for it.

    Raises:
        KeyError, ValueError: Something is missing or does not fit.
    """
    if block == "terms":
        terms = _unpacked(arrays["bytes"], arrays["offsets"])
        if not len(terms) == len(set(terms)) == len(arrays["idf"]) == len(arrays["components"]):
            raise ValueError("the terms do not fit to their weights")
    if block == "numbers":
        if arrays["mean"].shape != arrays["deviation"].shape:
            raise ValueError("the means do not fit to the deviations")
        return 2 * len(arrays["mean"])
    if "components" not in arrays:
        return len(arrays["mean"])
    if block != "terms" and len(arrays["components"]) != len(arrays["mean"]):
        raise ValueError("the projection does not fit to the mean")
    return arrays["components"].shape[1]


# ---------------------------------------------------------------------- columns -> what blocks are made of


def _joined(frame: pl.DataFrame, columns: Sequence[str], between: str) -> pl.Series:
    """The texts of each item as one; null where it has none."""
    texts = pl.concat_str(columns, separator=between, ignore_nulls=True)
    return frame.select(pl.when(texts != "").then(texts)).to_series()


def _documents(frame: pl.DataFrame, texts: Sequence[str], categories: Sequence[str]) -> list[str]:
    """Of each item its texts and then its categories, with a mark before each of them."""

    def plain(text: pl.Expr) -> pl.Expr:
        return text.str.replace_all(MARK, " ", literal=True)

    text = pl.concat_str([pl.lit(""), *(plain(pl.col(name)) for name in texts)], separator=" ", ignore_nulls=True)
    marked = (
        pl.col(name).list.eval(pl.lit(f"{MARK}{name}:") + plain(pl.element())).list.join("") for name in categories
    )
    return frame.select(pl.concat_str([text, *marked], ignore_nulls=True)).to_series().to_list()


def _filled(column: pl.Series) -> np.ndarray:
    """float32 (n, width) of a column of vectors, with rows of NaN where there is none."""
    width = column.dtype.size  # type: ignore[attr-defined]
    vectors = np.full((len(column), width), np.nan, np.float32)
    there = column.is_not_null().to_numpy()
    vectors[there] = column.drop_nulls().to_numpy().reshape(-1, width)
    return vectors


def _number(frame: pl.DataFrame, column: ItemColumn) -> np.ndarray:
    """float64 (n,) with NaN where the number is missing."""
    if column.name not in frame.columns:
        return np.full(frame.height, np.nan)
    values = frame[column.name].to_numpy().astype(np.float64)
    return values if column.kind == "date" else np.sign(values) * np.log1p(np.abs(values))


# ---------------------------------------------------------------------- terms


def _fit_terms(documents: list[str]) -> tuple[dict[str, np.ndarray], int]:
    vectorizer = _vectorizer(min_df=2 if len(documents) >= MANY_ITEMS else 1, max_features=TERMS)
    from sklearn.utils.extmath import randomized_svd
    from threadpoolctl import threadpool_limits

    try:
        weights = vectorizer.fit_transform(documents)
    except ValueError:  # no word at all, or none that two items have
        return {}, 0
    with threadpool_limits(1):
        _, sizes, components = randomized_svd(weights, min(TERM_WIDTH, *weights.shape), n_iter=4, random_state=0)
    components = components[sizes > 1e-5 * sizes[0]]
    return _packed(vectorizer.get_feature_names_out()) | {
        "idf": vectorizer.idf_.astype(np.float32),
        "components": np.ascontiguousarray(components.T, np.float16),
    }, len(components)


def _encode_terms(documents: list[str], learned: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    vectorizer = _vectorizer(vocabulary=_unpacked(learned["bytes"], learned["offsets"]))
    vectorizer.idf_ = learned["idf"]
    weights = vectorizer.transform(documents)
    # A product of a sparse matrix adds the terms of a row in their order, whatever other rows there are.
    return _of_length_one(weights @ learned["components"].astype(np.float32)), np.diff(weights.indptr) > 0


def _vectorizer(**settings: Any) -> Any:
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as error:
        raise DataError('Features of text and categories need scikit-learn: pip install "glintru[items]".') from error
    return TfidfVectorizer(token_pattern=TERM_PATTERN, sublinear_tf=True, dtype=np.float32, **settings)


def _packed(terms: Sequence[str]) -> dict[str, np.ndarray]:
    """Terms as one run of UTF-8 bytes and the n + 1 places where they begin and end."""
    encoded = [term.encode("utf-8", "surrogatepass") for term in terms]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return {"bytes": np.frombuffer(b"".join(encoded), np.uint8), "offsets": offsets}


def _unpacked(text: np.ndarray, offsets: np.ndarray) -> list[str]:
    whole = text.tobytes()
    return [whole[begin:end].decode("utf-8", "surrogatepass") for begin, end in pairwise(offsets.tolist())]


# ---------------------------------------------------------------------- vectors


def _fit_vectors(vectors: np.ndarray) -> tuple[dict[str, np.ndarray], int]:
    there = vectors[~np.isnan(vectors[:, 0])]
    if not len(there):
        return {}, 0
    mean = there.mean(axis=0, dtype=np.float64).astype(np.float32)
    if len(mean) <= VECTOR_WIDTH:
        return {"mean": mean}, len(mean)
    import torch

    sample = _of_length_one(there[:: math.ceil(len(there) / COVARIANCE_ROWS)] - mean)
    with one_thread():
        rows = torch.from_numpy(sample).double()
        components = torch.linalg.eigh(rows.T @ rows).eigenvectors.flip(1)[:, : min(VECTOR_WIDTH, len(rows))].numpy()
    largest = np.abs(components).argmax(axis=0)  # the sign of an eigenvector is free: its largest number is positive
    components *= np.sign(components[largest, np.arange(components.shape[1])])
    return {"mean": mean, "components": np.ascontiguousarray(components, np.float16)}, components.shape[1]


def _encode_vectors(vectors: np.ndarray, learned: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    there = ~np.isnan(vectors[:, 0])
    units = np.where(there[:, None], _of_length_one(vectors - learned["mean"]), 0)
    return _projected(units, learned["components"]) if "components" in learned else units, there


def _projected(units: np.ndarray, components: np.ndarray) -> np.ndarray:
    import torch

    result = np.empty((len(units), components.shape[1]), np.float32)
    factor = torch.from_numpy(components).double()
    block = torch.zeros(BLOCK, units.shape[1], dtype=torch.float64)
    with one_thread():
        for begin in range(0, len(units), BLOCK):
            part = units[begin : begin + BLOCK]
            block[: len(part)] = torch.from_numpy(part)
            result[begin : begin + BLOCK] = (block @ factor)[: len(part)].float().numpy()
    return result


def _of_length_one(vectors: np.ndarray) -> np.ndarray:
    """The vectors divided by their lengths; zeros stay."""
    lengths = np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
    return vectors / np.where(lengths > 0, lengths, 1)


# ---------------------------------------------------------------------- numbers


def _fit_numbers(values: np.ndarray) -> tuple[dict[str, np.ndarray], int]:
    known = ~np.isnan(values)
    counts = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, values, 0).sum(axis=0) / counts
    deviation = np.sqrt(np.where(known, (values - mean) ** 2, 0).sum(axis=0) / counts)
    return {"mean": mean, "deviation": np.where(deviation > 0, deviation, 1)}, 2 * values.shape[1] * bool(known.any())


def _encode_numbers(values: np.ndarray, learned: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    missing = np.isnan(values)
    standardised = np.clip((values - learned["mean"]) / learned["deviation"], -MOST_DEVIATIONS, MOST_DEVIATIONS)
    scale = math.sqrt(NUMBERS_SHARE / values.shape[1])
    return scale * np.concatenate([np.where(missing, 0, standardised), missing], axis=1), ~missing.all(axis=1)


VECTORS = _fit_vectors, _encode_vectors
BLOCKS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "terms": (_fit_terms, _encode_terms),
    "numbers": (_fit_numbers, _encode_numbers),
}
