"""Approximate top-k for a million items and more: faiss scans short codes, the best of them get exact scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import GlintRUError
from .top_k import Allowed, ExactIndex, IdLists, as_queries, check_top_k, id_lists, takes_k

__all__ = ["ApproximateIndex"]

OVERSAMPLE = 50  # candidates for each wanted item; 20 loses up to 4 % of the best ten on vectors without structure
DEEPER = 5  # further candidates that are scored for each good one that a filter takes
TRAINING_ROWS = 100_000
MOST_CANDIDATES = 1 / 32  # of the items; a search for more takes longer than exact products with all of them


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise GlintRUError(
            "the approximate index needs faiss, which is not here: pip install glintru[ann], or use the exact index"
        ) from error
    return faiss


class ApproximateIndex:
    """As `ExactIndex`, but an item among the best may be missing; the scores that it gives are exact.

    The codes are product-quantised to 2 bits a number and scanned as a whole (no clusters, so recall does not depend on
    how queries fall between them): 16 times less memory to read than the vectors. Their best candidates are scored
    exactly. Recall falls where many of the very best items are excluded; `oversample` helps.

    Args:
        vectors: (vocab_size, d) float32, `model.item_vectors()`; copied. Row 0 is padding and never returned.
        oversample: Candidates for each wanted item: more is slower and finds more.

    Raises:
        GlintRUError: faiss is not installed, the vectors are no matrix, or `oversample` is below 1.
    """

    def __init__(self, vectors: np.ndarray, oversample: int = OVERSAMPLE) -> None:
        faiss = _faiss()
        if oversample < 1:
            raise GlintRUError(f"oversample must be at least 1, got {oversample}")
        self.oversample = oversample
        vectors = np.ascontiguousarray(vectors, np.float32)
        self.exact = ExactIndex(vectors)
        size = self.exact.size
        if self.num_items * MOST_CANDIDATES < oversample:
            return  # so few items that every answer is the exact one
        parts = size // 2 if size % 2 == 0 else size
        self._codes = faiss.IndexPQFastScan(size, parts, 4, faiss.METRIC_INNER_PRODUCT)
        rows = np.random.default_rng(0).integers(1, len(vectors), TRAINING_ROWS)
        self._codes.train(vectors[1:] if self.num_items <= TRAINING_ROWS else vectors[rows])
        self._codes.add(vectors[1:])

    @property
    def num_items(self) -> int:
        return self.exact.num_items

    @takes_k
    def top_k(
        self,
        queries: np.ndarray,
        top_k: int,
        exclude: Sequence[np.ndarray] | None = None,
        allowed: Allowed | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `ExactIndex.top_k`.

        Candidates are taken for what the filters will remove; where that makes them too many, or where fewer than
        `top_k` are left of them, the answer is the exact one.
        """
        k, queries = check_top_k(top_k, self.num_items), as_queries(queries, self.exact.size)
        users = len(queries)
        only, without = id_lists("allowed", allowed, users, shared=True), id_lists("exclude", exclude, users)
        wanted, most = self.oversample * k, self._candidates(k, only, without)
        if not users or most > self.num_items * MOST_CANDIDATES:
            return self.exact.top_k(queries, k, exclude, allowed)
        found = self._codes.search(queries, most)[1] + 1
        kept = [self._kept(row, is_open, wanted) for row, is_open in self._filtered(found, only, without)]
        if min(map(len, kept)) < k:
            return self.exact.top_k(queries, k, exclude, allowed)
        return self.exact.top_k(queries, k, None, kept)

    def _candidates(self, k: int, only: IdLists, without: IdLists) -> int:
        """How many the codes have to give so that about `oversample * k` are left."""
        wanted = self.oversample * k
        if only is not None and len(only[1]):
            wanted = wanted * self.num_items // max(1, int(np.diff(only[1]).min()))
        return wanted + (int(np.diff(without[1]).max()) if without is not None and len(without[1]) else 0)

    @staticmethod
    def _kept(row: np.ndarray, is_open: np.ndarray, wanted: int) -> np.ndarray:
        """The candidates that get exact scores: more of them where the filters took some of the first `wanted`."""
        lost = wanted - np.count_nonzero(is_open[:wanted])
        row, is_open = row[: wanted + DEEPER * lost], is_open[: wanted + DEEPER * lost]
        return row[is_open & (row > 0)]

    def _filtered(self, found: np.ndarray, only: IdLists, without: IdLists) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The candidates of each query, and which of them its filters leave."""
        self.exact.check_lists(only, without)
        shared = only is not None and not np.diff(only[1], axis=0).any()  # the same list for all
        is_open = np.ones(self.exact.vocab_size, bool)
        for number, row in enumerate(found):
            if only is not None and not (shared and number):
                is_open[:] = False
                is_open[only[0][slice(*only[1][number])]] = True
            if without is None:
                yield row, is_open[row]
                continue
            seen = without[0][slice(*without[1][number])]
            before = is_open[seen]
            is_open[seen] = False
            yield row, is_open[row]
            is_open[seen] = before
