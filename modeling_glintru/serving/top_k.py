"""Exact top-k: inner products with every item and a partial sort, in one pass and bounded memory."""

from __future__ import annotations

import ctypes
import functools
import warnings
from collections.abc import Callable, Sequence
from itertools import accumulate
from numbers import Integral
from typing import Any, TypeVar

import numpy as np

from ..errors import GlintRUError
from ..kernels import build
from ..kernels.step import panels, pointer

__all__ = ["Allowed", "ExactIndex", "check_top_k", "takes_k"]

BLOCK = 1 << 24  # scores at once where there is no kernel: 64 MB

Method = TypeVar("Method", bound=Callable[..., Any])
Allowed = np.ndarray | Sequence[int] | Sequence[np.ndarray]
IdLists = tuple[np.ndarray, np.ndarray] | None  # ids of all queries, and (n, 2): where each one's begin and end
Found = tuple[np.ndarray, np.ndarray, np.ndarray | None]  # ids, scores, allowed items of each query


def check_top_k(top_k: Any, num_items: int) -> int:
    """`top_k` as an int.

    Args:
        top_k: As given by a person.
        num_items: Items of the catalogue.

    Raises:
        GlintRUError: It is no integer between 1 and `num_items`.
    """
    if not isinstance(top_k, (int, np.integer)) or isinstance(top_k, bool) or not 1 <= top_k <= num_items:
        raise GlintRUError(f"top_k must be between 1 and the number of items ({num_items}), got {top_k!r}")
    return int(top_k)


def takes_k(method: Method) -> Method:
    """Lets a method take `k`, the name that `top_k` had in version 0.1, with a warning."""

    @functools.wraps(method)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        if "k" in options:
            warnings.warn("k is called top_k now; the next version will not take k", FutureWarning, stacklevel=2)
            options["top_k"] = options.pop("k")
        return method(*arguments, **options)

    return wrapped  # type: ignore[return-value]


def as_queries(queries: np.ndarray, size: int) -> np.ndarray:
    """The queries as the kernels take them.

    Raises:
        GlintRUError: They are not (n, size).
    """
    queries = np.ascontiguousarray(queries, np.float32)
    if queries.ndim != 2 or queries.shape[1] != size:
        raise GlintRUError(f"queries must have shape (n, {size}), got {queries.shape}")
    return queries


def id_lists(name: str, lists: Any, users: int, shared: bool = False) -> IdLists:
    """Lists of ids, one for each query or, with `shared`, one for all, as one array.

    Returns:
        Ids, int64, and where each query's begin and end in them, (users, 2) int64; `None` for no lists.

    Raises:
        GlintRUError: Ids that are no integers, or another number of lists than queries.
    """
    if lists is None:
        return None
    if shared and (isinstance(lists, np.ndarray) or not len(lists) or isinstance(lists[0], Integral)):
        ids = _ids(name, lists)
        return ids, np.array([[0, len(ids)]] * users, np.int64)
    if len(lists) != users:
        raise GlintRUError(f"{name} must have a list of ids for each of the {users} queries, got {len(lists)}")
    parts = [_ids(name, part) for part in lists]
    ends = list(accumulate(map(len, parts)))
    spans = np.array(list(zip([0, *ends], ends, strict=False)), np.int64)
    return parts[0] if users == 1 else np.concatenate([*parts, _ids(name, [])]), spans


def _ids(name: str, values: Any) -> np.ndarray:
    ids = np.asarray(values)
    if ids.size == 0:
        return np.empty(0, np.int64)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise GlintRUError(f"{name} must be integers, one list a query, got {ids.dtype} of shape {ids.shape}")
    return np.ascontiguousarray(ids, np.int64)


def check_ids(name: str, ids: np.ndarray, vocab_size: int) -> None:
    """Names the first id that is not in 0 ... vocab_size - 1.

    Raises:
        GlintRUError: There is one.
    """
    wrong = ids[(ids < 0) | (ids >= vocab_size)]
    if len(wrong):
        raise GlintRUError(f"{name} names item {wrong[0]}, but items are between 1 and {vocab_size - 1}")


class ExactIndex:
    """The best items for queries, by inner product; equal scores in the order of the ids.

    A query's scores are the same bits whatever other queries are beside it.

    Args:
        vectors: (vocab_size, d) float32, `model.item_vectors()`; copied. Row 0 is padding and never returned.

    Raises:
        GlintRUError: The vectors are not a matrix of at least two rows.
    """

    def __init__(self, vectors: np.ndarray) -> None:
        vectors = np.asarray(vectors, np.float32)
        if vectors.ndim != 2 or len(vectors) < 2:
            raise GlintRUError(f"vectors must be (vocab_size, d) with at least one item, got shape {vectors.shape}")
        self.vocab_size, self.size = vectors.shape
        kernels = build.library()
        if kernels is None:
            self._vectors = vectors.copy()
            return
        bias = np.zeros(self.vocab_size, np.float32)
        bias[0] = -np.inf
        self._vectors = panels(vectors, bias, fill=-np.inf)
        self._top_k: Any = kernels.top_k
        self._fixed = (pointer(self._vectors), ctypes.c_long(self.vocab_size), self.size)

    @property
    def num_items(self) -> int:
        return self.vocab_size - 1

    @takes_k
    def top_k(
        self,
        queries: np.ndarray,
        top_k: int,
        exclude: Sequence[np.ndarray] | None = None,
        allowed: Allowed | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best items for each query.

        Args:
            queries: (n, d) float32.
            top_k: Between 1 and the number of items.
            exclude: For each query the ids that are left out; 0 among them means nothing.
            allowed: The only ids that may be returned, for all queries or a list for each.

        Returns:
            Ids, (n, k) int64, and scores, (n, k) float32, best first; k is `top_k` or, where fewer items are allowed,
            their number. Where fewer remain after the exclusion, the last ids are 0 and their scores -inf.

        Raises:
            GlintRUError: `top_k` is out of range, a list of allowed ids is empty, an id is no item, or a wrong shape.
        """
        k = check_top_k(top_k, self.num_items)
        queries = as_queries(queries, self.size)
        users = len(queries)
        only, without = id_lists("allowed", allowed, users, shared=True), id_lists("exclude", exclude, users)
        if self._vectors.ndim == 2:
            ids, scores, found = self._plain(queries, k, only, without)
        else:
            ids, scores, found = self._compiled(queries, k, only, without)
        if found is None or not users:
            return ids, scores
        if found.min() == 0:
            raise GlintRUError(
                f"the list of allowed items of query {int(found.argmin())} is empty: name an item, or give None to "
                "allow all"
            )
        most = min(k, int(found.max()))
        return ids[:, :most], scores[:, :most]

    def _compiled(self, queries: np.ndarray, k: int, only: IdLists, without: IdLists) -> Found:
        users = len(queries)
        ids, scores = np.empty((users, k), np.int64), np.empty((users, k), np.float32)
        found = None if only is None else np.empty(users, np.int64)
        lists = map(pointer, (*(only or (None, None)), *(without or (None, None)), ids, scores, found))
        code = self._top_k(*self._fixed, pointer(queries), users, k, *lists)
        if code < 0:
            raise MemoryError("no memory for the buffers of a kernel")
        if code:
            self.check_lists(only, without)
        return ids, scores, found

    def check_lists(self, only: IdLists, without: IdLists) -> None:
        """`check_ids` of both filters."""
        for name, lists in (("allowed", only), ("exclude", without)):
            if lists is not None:
                check_ids(name, lists[0], self.vocab_size)

    def _plain(self, queries: np.ndarray, k: int, only: IdLists, without: IdLists) -> Found:
        """The same by numpy, for machines without a compiler."""
        self.check_lists(only, without)
        users = len(queries)
        ids, scores = np.zeros((users, k), np.int64), np.full((users, k), -np.inf, np.float32)
        found = None if only is None else np.empty(users, np.int64)
        step = max(1, BLOCK // self.vocab_size)
        for start in range(0, users, step):
            for row, values in enumerate(queries[start : start + step] @ self._vectors.T, start):
                hidden = self._hidden(row, only, without)
                if found is not None and only is not None:
                    found[row] = len(np.setdiff1d(only[0][slice(*only[1][row])], [0]))
                values[hidden] = -np.inf
                least = np.partition(values, -k)[-k]
                best = np.flatnonzero(values >= least)
                best = best[np.argsort(-values[best], kind="stable")[:k]]
                best = best[values[best] > -np.inf]
                ids[row, : len(best)], scores[row, : len(best)] = best, values[best]
        return ids, scores, found

    def _hidden(self, row: int, only: IdLists, without: IdLists) -> np.ndarray:
        """(vocab_size,) bool: what a query may not get."""
        hidden = np.full(self.vocab_size, only is not None)
        if only is not None:
            hidden[only[0][slice(*only[1][row])]] = False
        if without is not None:
            hidden[without[0][slice(*without[1][row])]] = True
        hidden[0] = True
        return hidden
