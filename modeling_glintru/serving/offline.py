"""Recommendations for every user of a table in one pass: rows of similar length together, exact top-k."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..data.ids import ids_of_type
from ..data.interactions import Interactions
from ..data.sources import load_source, options_for
from ..errors import DataError, GlintRUError
from ..kernels import build
from ..kernels.calls import in_parallel
from ..models.configuration_glintru import UNKNOWN_GAP, check_knows_time
from ..models.item_sets import ItemFilter
from ..models.pipeline_glintru import leaves_out_seen
from ..models.processing_glintru import GlintRUProcessor, UnknownItemError
from ..recipe import find_model_recipe
from .last_item import LastItemEncoder
from .recommendation_file import RecommendationRows
from .top_k import ExactIndex, check_top_k

__all__ = ["UserHistories", "load_like_the_training", "recommend_all", "recommend_table"]

BLOCK_USERS = 8192  # rows are sorted by length within a block, and handed out a block at a time
BATCH_ITEMS = 12_800  # of histories, padding counted, that the model reads at once
SCORES = 2**23  # numbers in one matrix of scores


@dataclass(frozen=True)
class UserHistories:
    """The histories of many users, four bytes an item.

    Args:
        user_ids: Raw ids, N.
        items: int32, all histories one after the other: indices of the items, oldest first.
        starts: int64, N + 1: where each user's history begins and ends in `items`.
        num_unknown_items: Interactions with items that the model does not know; they are left out.
        last_times: int64 or float64, N: when each user's newest item was, as in `Interactions.frame`.
        processor: The vocabulary that the indices are of.
    """

    user_ids: pl.Series
    items: np.ndarray
    starts: np.ndarray
    num_unknown_items: int
    last_times: np.ndarray
    processor: GlintRUProcessor

    def __len__(self) -> int:
        return len(self.user_ids)

    def histories(self, first: int, last: int) -> list[np.ndarray]:
        """Indices (int64) of the items of the users first ... last - 1."""
        starts = self.starts[first : last + 1] - self.starts[first]
        items = self.items[self.starts[first] : self.starts[last]].astype(np.int64)
        return [items[a:b] for a, b in itertools.pairwise(starts.tolist())]

    @classmethod
    def of(cls, frame: pl.DataFrame, processor: GlintRUProcessor, unknown_items: str | None = None) -> UserHistories:
        """From a table of interactions, in order of user ids and of time, file order within one time.

        Args:
            frame: Columns `user_id`, `item_id` and `timestamp`, as `Interactions.frame`.
            processor: The model's vocabulary. Integers are taken as text where its ids are strings; a text among its
                integers that is no integer is an unknown item.
            unknown_items: `"drop"` or `"error"`, the processor's own policy by default.

        Raises:
            UnknownItemError: The policy is `"error"` and there are unknown items.
        """
        distinct = frame["item_id"].unique()
        index = indices_of(distinct, processor, unknown_items)
        frame = frame.select(
            "user_id", "timestamp", index=pl.col("item_id").replace_strict(distinct, index, return_dtype=pl.Int32)
        )
        frame = frame.sort("user_id", "timestamp", maintain_order=True)
        is_known = pl.col("index").gt(0)
        users = frame.group_by("user_id", maintain_order=True).agg(
            is_known.sum().cast(pl.Int64), pl.col("timestamp").filter(is_known).last()
        )
        items = frame["index"].to_numpy()
        known = items[items > 0]
        starts = np.concatenate(([0], np.cumsum(users["index"].to_numpy()))).astype(np.int64)
        times = users["timestamp"].fill_null(0).to_numpy()
        return cls(users["user_id"], known, starts, len(items) - len(known), times, processor)

    @property
    def cold(self) -> np.ndarray:
        """bool, N: the users without an item that the model knows."""
        return self.starts[1:] == self.starts[:-1]

    def time_gaps(self, now: float, ticks: int) -> np.ndarray:
        """float32, N: the time from each user's newest item to `now`; `UNKNOWN_GAP` for a user without an item.

        Args:
            now: On the axis of the table, see `Interactions.read_time`.
            ticks: Steps of that axis in one unit of a time gap, see `Interactions.ticks`.

        Raises:
            GlintRUError: A user has an item after `now`.
        """
        gaps, some = now - self.last_times, np.diff(self.starts) > 0
        if late := int((gaps[some] < 0).sum()):
            raise GlintRUError(f"users with an item after the time of the request: {late:,}")
        return np.where(some, gaps / ticks, UNKNOWN_GAP).astype(np.float32)


def load_like_the_training(model: str | Path | None, source: Any, reading: Mapping[str, Any]) -> Interactions:
    """Interactions, read as those that a model was trained on as far as they can be, and as the options say.

    Args:
        model: Folder or repository; without a recipe of its own, or for None, only the options count.
        source: The table.
        reading: Options of `read_interactions`, which come before those of the training.

    Returns:
        The interactions. The rows of one time are in the order that the order column says, where there is one.
    """
    recipe = None if model is None else find_model_recipe(model)
    options = {} if recipe is None else options_for(source, recipe.data, recipe.data.source)
    interactions = load_source(source, **options | dict(reading))
    if "order" in interactions.frame.columns:  # all that follows sorts by time and keeps the order of the rows
        interactions = replace(interactions, frame=interactions.frame.sort("order", maintain_order=True))
    return interactions


def recommend_table(
    model: PreTrainedModel,
    processor: GlintRUProcessor,
    interactions: Interactions,
    top_k: int = 10,
    *,
    users: Iterable[Any] | None = None,
    unknown_items: str | None = None,
    now: Any = None,
    **filters: Any,
) -> pl.DataFrame:
    """See `Recommender.recommend_frame`, of which this is the work; `filters` are those of `recommend_all`."""
    frame = interactions.frame
    check_type(frame["item_id"], processor)
    if users is not None:
        frame = of_users(frame, users, interactions.source)
    everyone = UserHistories.of(frame, processor, unknown_items)
    gaps = None if now is None else everyone.time_gaps(interactions.read_time(str(now)), interactions.ticks)
    rows, parts, cold, done = RecommendationRows(processor), [], everyone.cold, 0
    for items, scores in recommend_all(model, everyone, processor.max_length, top_k, time_gaps=gaps, **filters):
        part = slice(done, done + len(items))
        parts.append(rows.rows(everyone.user_ids[part], items, scores, cold[part]))
        done += len(items)
    return pl.concat(parts)


def of_users(frame: pl.DataFrame, users: Iterable[Any], source: str) -> pl.DataFrame:
    """The rows of some users, named by their raw ids or by the text of these.

    Raises:
        DataError: A user is not in the table, or none is named.
    """
    if isinstance(users, (str, bytes)):
        raise DataError(f"users must be a list of raw user ids, got {users!r}")
    wanted = {str(user) for user in users}
    if not wanted:
        raise DataError("users names no user")
    names = frame["user_id"].cast(pl.String)
    if missing := wanted - set(names.unique().to_list()):
        raise DataError(f"{source} has no user {', '.join(sorted(missing))}")
    return frame.filter(names.is_in(list(wanted)))


def check_type(ids: pl.Series, processor: GlintRUProcessor) -> None:
    """Refuses the ids of a table of which none is of the vocabulary's type: that is another shop, not a stray id.

    Raises:
        VocabularyError: All ids are text, and the model's are integers.
    """
    if len(ids) and ids_of_type(ids, processor.id_type).is_null().all():
        processor.encode_ids(ids.head(1))


def indices_of(ids: pl.Series, processor: GlintRUProcessor, unknown_items: str | None = None) -> pl.Series:
    """Int32 indices of raw ids of either type, 0 for unknown ones; errors as `UserHistories.of`."""
    typed = ids_of_type(ids, processor.id_type)
    stray = typed.is_null()
    if stray.any():
        if (unknown_items or processor.unknown_items) == "error":
            names = ids.filter(stray).unique(maintain_order=True)
            raise UnknownItemError(
                f"{len(names)} item id(s) are text, but the model's are integers: {', '.join(map(repr, names[:5]))}"
                f"{', ...' if len(names) > 5 else ''} (unknown_items='drop' leaves them out)."
            )
        known = processor.encode_ids(typed.fill_null(0), unknown_items)
        return pl.Series(np.where(stray.to_numpy(), 0, known), dtype=pl.Int32)
    return pl.Series(processor.encode_ids(typed, unknown_items), dtype=pl.Int32)


@torch.inference_mode()
def recommend_all(
    model: PreTrainedModel,
    users: UserHistories,
    max_length: int,
    top_k: int = 10,
    *,
    exclude_seen: bool | None = None,
    allowed: Any = None,
    exclude: Any = None,
    time_gaps: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The best next items of every user, in the order of `users`, a block at a time.

    The users of `users.cold` get the most popular items of the training data, each with the score 0.

    Args:
        model: Any recommender of this package.
        users: Their histories.
        max_length: Newest items of a history that the model reads.
        top_k: Items each, between 1 and the number of items.
        exclude_seen: Whether the items of the history, all of it, are left out; by default unless the users' processor
            says `recommend_seen`.
        allowed: Raw ids, a mask or an `ItemSet` (see there): nothing else is recommended.
        exclude: The same: not recommended, whatever their score.
        time_gaps: For models with `use_time_gaps`: float32, one a user, see `UserHistories.time_gaps`.

    Yields:
        For up to `BLOCK_USERS` users indices (n, top_k) int64 and scores (n, top_k) float32, best first; index 0 and
        minus infinity where a user has no further item.

    Raises:
        GlintRUError: `top_k` is out of range, no item of `allowed` is known, or the model knows nothing of time.
    """
    if time_gaps is not None:
        check_knows_time(model)
    top_k = check_top_k(top_k, model.config.vocab_size - 1)
    leaves_out = leaves_out_seen(exclude_seen, users.processor)
    filters = ItemFilter.of(users.processor, allowed, exclude)
    popular = filters.most_popular(top_k) if users.cold.any() else np.zeros(0, np.int64)
    model.eval()
    encode = LastItemEncoder(model, min(len(users.items), len(users) * max_length))
    search = _compiled_search if _on_cpu(model) and build.library() is not None else _plain_search
    vectors, seen, kept = cast(Any, model).item_vectors(), users if leaves_out else None, None
    if filters:  # only these items are scored
        kept = np.append(0, np.flatnonzero(filters.passing))
        vectors = vectors[torch.from_numpy(kept).to(vectors.device)]
        seen = None if seen is None else _renumbered(seen, kept)
    best = search(model, vectors, seen, min(top_k, len(vectors) - 1)) if len(vectors) > 1 else _nothing
    at_once = max(1, SCORES // model.config.vocab_size)
    for start in range(0, len(users), BLOCK_USERS):
        starts = users.starts[start : start + BLOCK_USERS + 1]
        hidden = _representations(encode, users.items, starts, max_length, model)
        if time_gaps is not None:
            gaps = torch.from_numpy(time_gaps[start : start + BLOCK_USERS]).to(hidden.device)
            hidden = cast(Any, model).at_time(hidden, gaps)
        ids, scores = np.zeros((len(hidden), top_k), np.int64), np.full((len(hidden), top_k), -np.inf, np.float32)
        for row in range(0, len(hidden), at_once):
            part = slice(row, row + at_once)
            found, found_scores = best(hidden[part], start + row)
            ids[part, : found.shape[1]] = found if kept is None else kept[found]
            scores[part, : found.shape[1]] = found_scores
        cold = starts[1:] == starts[:-1]
        ids[cold], scores[cold] = 0, -np.inf
        ids[cold, : len(popular)], scores[cold, : len(popular)] = popular, 0
        yield ids, scores


Search = Callable[[Tensor, int], tuple[np.ndarray, np.ndarray]]  # of representations and their first user


def _nothing(hidden: Tensor, start: int) -> tuple[np.ndarray, np.ndarray]:
    """The search where the filters leave no item."""
    return np.zeros((len(hidden), 0), np.int64), np.zeros((len(hidden), 0), np.float32)


def _on_cpu(model: PreTrainedModel) -> bool:
    return model.device.type == "cpu" and model.dtype == torch.float32


def _renumbered(users: UserHistories, kept: np.ndarray) -> UserHistories:
    """The histories as places in `kept`, 0 for items that are not among them."""
    places = np.zeros(users.processor.vocab_size, np.int32)
    places[kept] = np.arange(len(kept), dtype=np.int32)
    return replace(users, items=places[users.items])


def _compiled_search(model: Any, vectors: Tensor, seen: UserHistories | None, top_k: int) -> Search:
    """By the kernel, which looks for the best while it computes the scores; a thread for each part of the users."""
    index, workers = ExactIndex(vectors.numpy()), torch.get_num_threads()

    def best(hidden: Tensor, start: int) -> tuple[np.ndarray, np.ndarray]:
        queries = model.query_vectors(hidden).numpy()
        exclude = None if seen is None else seen.histories(start, start + len(queries))
        cuts = [len(queries) * part // workers for part in range(workers + 1)]

        def part(number: int) -> tuple[np.ndarray, np.ndarray]:
            rows = slice(cuts[number], cuts[number + 1])
            return index.top_k(queries[rows], top_k, None if exclude is None else exclude[rows])

        ids, scores = zip(*in_parallel(part, workers), strict=True)
        return np.concatenate(ids), np.concatenate(scores)

    return best


def _plain_search(model: Any, vectors: Tensor, seen: UserHistories | None, top_k: int) -> Search:
    """By one product and PyTorch's top-k, wherever the model is."""
    vectors = vectors.T

    def best(hidden: Tensor, start: int) -> tuple[np.ndarray, np.ndarray]:
        scores = model.query_vectors(hidden) @ vectors
        scores[:, 0] = -torch.inf
        if seen is not None:
            part = seen.starts[start : start + len(scores) + 1]
            rows = np.repeat(np.arange(len(part) - 1), np.diff(part))
            scores[_index(rows, scores), _index(seen.items[part[0] : part[-1]], scores)] = -torch.inf
        best, items = scores.float().topk(top_k, dim=1)
        items = items.masked_fill(best == -torch.inf, 0)
        return items.cpu().numpy(), best.cpu().numpy()

    return best


def _representations(
    encode: LastItemEncoder, items: np.ndarray, starts: np.ndarray, max_length: int, model: PreTrainedModel
) -> Tensor:
    """(users, size), in their order; computed in order of their lengths, so that little is padding."""
    lengths = np.minimum(np.diff(starts), max_length)
    hidden = torch.zeros(len(lengths), model.config.hidden_size, dtype=model.dtype, device=model.device)
    order = np.argsort(-lengths, kind="stable")[: np.count_nonzero(lengths)]
    done = 0
    while done < len(order):
        longest = int(lengths[order[done]])
        rows = order[done : done + max(1, BATCH_ITEMS // longest)]
        places = np.arange(longest)
        inside = places < lengths[rows, None]
        source = (starts[rows + 1] - lengths[rows])[:, None] + places
        input_ids = np.where(inside, items[np.where(inside, source, 0)], 0).astype(np.int64)
        hidden[_index(rows, hidden)] = encode(torch.from_numpy(input_ids).to(model.device))
        done += len(rows)
    return hidden


def _index(values: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(values.astype(np.int64)).to(like.device)
