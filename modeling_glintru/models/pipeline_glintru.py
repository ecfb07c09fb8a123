"""`pipeline("sequential-recommendation")`: raw item ids in; raw ids, titles and scores out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from numbers import Real
from typing import Any

import numpy as np
import torch
from transformers import Pipeline
from transformers.utils import logging

from .configuration_glintru import UNKNOWN_GAP, GlintRUError, check_knows_time, from_package
from .processing_glintru import as_list, padded

__all__ = ["SequentialRecommendationPipeline", "checked_gaps", "leaves_out_seen"]

logger = logging.get_logger(__name__)

BATCH_SIZE = 128
KEYS = ("history", "state", "allowed", "exclude", "time_gap")


class SequentialRecommendationPipeline(Pipeline):
    """Recommends what comes after histories of raw item ids.

    Args:
        model: Any recommender of this package.
        feature_extractor: Its `GlintRUProcessor`.
        batch_size: Histories at once, 128 by default.
        top_k, exclude_seen, allowed, exclude, unknown_items, return_state: Defaults of the options of a call.

    Example:
        >>> pipe = pipeline("sequential-recommendation", model="outputs/ml-100k")
        >>> pipe({"history": [50, 172, 181]}, top_k=5)["items"]
    """

    model: Any
    feature_extractor: Any
    _load_feature_extractor: Any = True
    _load_tokenizer: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False
    _load_processor: Any = False

    def __init__(self, model: Any, feature_extractor: Any = None, **kwargs: Any) -> None:
        if feature_extractor is None:
            raise GlintRUError("the pipeline needs the model's vocabulary: pass feature_extractor=processor")
        kwargs.setdefault("batch_size", BATCH_SIZE)
        kwargs.pop("local_files_only", None)  # `pipeline()` hands it on
        super().__init__(model=model, feature_extractor=feature_extractor, **kwargs)
        if feature_extractor.vocab_size != model.config.vocab_size:
            raise GlintRUError(
                f"the vocabulary has {len(feature_extractor)} items, but the model is for "
                f"{model.config.vocab_size - 1}: are they of the same folder?"
            )
        model.eval()  # `pipeline()` does not

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The best next items.

        Args:
            inputs: One history as a dict, a list of histories, or a generator of them (answered one batch at a time).
                A history is a list of raw ids, oldest first, or a dict with

                - `history`: the raw ids; may be empty.
                - `state` (GLINT-RU only): bytes or a `GlintRUState` of one user that an earlier call returned;
                  `history` is then only what came after it.
                - `allowed`: raw ids, a mask or an `ItemSet`: nothing else is recommended.
                - `exclude`: the same: not recommended, whatever their score.
                - `time_gap` (models with `use_time_gaps` only): the time from the last item to now, in the unit of the
                  training data.
            top_k: Items each, 10 by default, at most the number of items. Filters may leave fewer.
            exclude_seen: Whether the items of `history` are left out; by default unless the processor says
                `recommend_seen`. A state does not hold the names of its items: name them in `exclude`.
            allowed, exclude: As the keys of a history, for all of them; where a history has its own, both hold. Ids
                that the model does not know are left out of both.
            unknown_items: `"drop"` or `"error"`, the processor's own policy by default.
            return_state: Whether to return the state after the history (GLINT-RU only). Without a state to go on from,
                the newest `max_length` items are read, with one all that `history` holds.
            batch_size: Histories at once.

        Returns:
            For each history `{"items": [{"item_id", "title", "score"}, ...], "num_unknown_items": int, "cold_start":
            bool}`, with `"title"` only where the model has titles, and with `"state"`, bytes, on request. Cold starts
            are histories of whose items none is known, without a state that holds some: they get the most popular
            items of the training data, each with the score 0.

        Raises:
            GlintRUError: An input in another form, an option out of range, no item of `allowed` is known, a state that
                is damaged or of other weights, or a model without states.
            UnknownItemError: An unknown item under the policy `"error"`.
        """
        if isinstance(inputs, (list, tuple)):
            if inputs and not any(isinstance(one, (Mapping, list, tuple, np.ndarray)) for one in inputs):
                raise GlintRUError(f'a list is a batch of histories, one history is {{"history": {_short(inputs)}}}')
            if not inputs:
                return []
            inputs = list(inputs)
        return super().__call__(inputs, *args, **kwargs)

    def item_set(self, item_ids: Any, unknown_items: str | None = None) -> Any:
        """Items for `allowed` or `exclude`, looked up once to be used again; needs the package, see `ItemSet` there."""
        return from_package("item_sets").ItemSet(self.feature_extractor, item_ids, unknown_items)

    def _sanitize_parameters(  # type: ignore[override]
        self,
        top_k: int | None = None,
        exclude_seen: bool | None = None,
        allowed: Any = None,
        exclude: Any = None,
        unknown_items: str | None = None,
        return_state: bool | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        most = len(self.feature_extractor)
        if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or not 1 <= top_k <= most):
            raise GlintRUError(f"top_k must be between 1 and the number of items ({most}), got {top_k!r}")
        if return_state:
            self._require_states()
        before: dict[str, Any] = {
            "exclude_seen": exclude_seen,
            "unknown_items": unknown_items,
            "return_state": return_state,
            "passing": self._passing(allowed, exclude),  # looked up once, not for each batch
        }
        return {key: value for key, value in before.items() if value is not None}, {}, {"top_k": top_k} if top_k else {}

    # ------------------------------------------------------------------ in batches of our own: states have no padding

    def get_iterator(
        self, inputs: Any, num_workers: int, batch_size: int, preprocess: dict, forward: dict, postprocess: dict
    ) -> Iterator[dict[str, Any]]:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise GlintRUError(f"batch_size must be a positive integer, got {batch_size!r}")
        return self._batches(iter(inputs), batch_size, preprocess, forward, postprocess)

    def _batches(self, inputs: Iterator[Any], batch_size: int, *parameters: dict) -> Iterator[dict[str, Any]]:
        preprocess, forward, postprocess = parameters
        while batch := list(islice(inputs, batch_size)):
            encoded = self.preprocess(batch, **preprocess)
            yield from self.postprocess(self.forward(encoded, **forward), **postprocess)

    def run_single(self, inputs: Any, preprocess: dict, forward: dict, postprocess: dict) -> dict[str, Any]:
        return next(self._batches(iter([inputs]), 1, preprocess, forward, postprocess))

    def preprocess(  # type: ignore[override]
        self,
        batch: list[Any],
        exclude_seen: bool | None = None,
        unknown_items: str | None = None,
        return_state: bool = False,
        passing: np.ndarray | None = None,
    ) -> dict[str, Any]:
        """A batch of histories as tensors; `state` is None where no state is read or wanted."""
        rows, processor = [_parsed(row) for row in batch], self.feature_extractor
        items, unknown = processor.encode_histories([row["history"] for row in rows], unknown_items)
        going_on = [row["state"] is not None for row in rows]
        state = self._merged([row["state"] for row in rows]) if return_state or any(going_on) else None
        read = [part if on else part[-processor.max_length :] for part, on in zip(items, going_on, strict=True)]
        seen = items if leaves_out_seen(exclude_seen, processor) else [items[0][:0]] * len(items)
        counts = torch.tensor([*map(len, items)]) + (0 if state is None else state.count)  # items known of each user
        inputs = {"input_ids": torch.from_numpy(padded(read)), "exclude_item_ids": torch.from_numpy(padded(seen))}
        gaps = [row["time_gap"] for row in rows]
        if any(gap is not None for gap in gaps):
            inputs["time_gaps"] = checked_gaps(gaps, len(rows), self.model)
        filters = []
        for row in rows:
            own = self._passing(row["allowed"], row["exclude"])
            filters.append(passing if own is None else own if passing is None else own & passing)
        answers = {"filters": filters, "cold": (counts == 0).tolist(), "num_unknown_items": unknown.tolist()}
        return {"inputs": inputs, "state": state, "return_state": return_state, **answers}

    def _passing(self, allowed: Any, exclude: Any) -> np.ndarray | None:
        """bool (vocab_size,), by index: what may be recommended; None where everything may.

        Raises:
            GlintRUError: The model knows no item of `allowed`; else as `item_indices`.
        """
        if allowed is None and exclude is None:
            return None
        passing = np.full(self.feature_extractor.vocab_size, allowed is None)
        if allowed is not None:
            passing[allowed_indices(self.feature_extractor, allowed, "drop")] = True
        if exclude is not None:
            passing[item_indices(self.feature_extractor, exclude, "drop")] = False
        return passing

    def _forward(self, model_inputs: dict[str, Any], **parameters: Any) -> Any:  # type: ignore[override]
        inputs, state = model_inputs.pop("inputs"), model_inputs.pop("state")
        options = {} if state is None else {"state": state.to(self.device)}
        outputs = self.model(**inputs, **options)
        return {**model_inputs, "logits": outputs.logits, "state": None if state is None else outputs.state}

    def postprocess(self, model_outputs: dict[str, Any], top_k: int = 10) -> list[dict[str, Any]]:  # type: ignore[override]
        processor, logits = self.feature_extractor, model_outputs["logits"]
        filters, cold, unknown = (model_outputs[key] for key in ("filters", "cold", "num_unknown_items"))
        with torch.inference_mode():
            for row, passing in zip(logits, filters, strict=True):
                if passing is not None:
                    row[torch.from_numpy(~passing)] = -torch.inf
        found = processor.decode_top_k(logits, min(top_k, len(processor)))
        for place in np.flatnonzero(cold):
            popular, passing = processor.popular_items, filters[place]
            popular = popular if passing is None else popular[passing[popular]]
            found[place] = [processor.listed(n, 0.0) for n in popular[:top_k].tolist()]
        keys = ("items", "num_unknown_items", "cold_start")
        answers = [dict(zip(keys, row, strict=True)) for row in zip(found, unknown, cold, strict=True)]
        if model_outputs["return_state"]:
            for answer, state in zip(answers, model_outputs["state"].to_bytes(), strict=True):
                answer["state"] = state
        return answers

    # ------------------------------------------------------------------ states

    def _require_states(self) -> None:
        if getattr(self.model, "state_class", None) is None:
            raise GlintRUError(f"states are for GLINT-RU, a {type(self.model).__name__} reads the whole history")

    def _merged(self, states: list[Any]) -> Any:
        """The states of a batch as one, empty ones where there is none."""
        self._require_states()
        empty = self.model.model.empty_state().to("cpu")
        merged = [empty if state is None else _checked_state(state, empty) for state in states]
        dtype = merged[0].dtype
        for state in merged:
            dtype = torch.promote_types(dtype, state.dtype)
        return type(empty).merge(state.to(dtype=dtype) for state in merged)


def _checked_state(state: Any, empty: Any) -> Any:
    """A user's state in this model's own class, which is another one where the model is remote code."""
    if hasattr(state, "to_bytes") and hasattr(state, "count"):
        if len(state) != 1:
            raise GlintRUError(f"the state of a history must be of one user, got {len(state)} users")
        (state,) = state.to_bytes()
    if not isinstance(state, (bytes, bytearray, memoryview)):
        raise GlintRUError(f"the state of a history must be bytes or a GlintRUState, got {type(state).__name__}")
    state = type(empty).from_bytes(state)
    state.check(empty.layout, empty.fingerprint, 1, empty.device)
    return state


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _parsed(row: Any) -> dict[str, Any]:
    """A history in either form, with all keys."""
    if not isinstance(row, Mapping):
        row = {"history": row}
    unknown = [key for key in row if key not in KEYS]
    if unknown or "history" not in row:
        problem = f"has the unknown {unknown[0]!r}" if unknown else "has no 'history'"
        raise GlintRUError(f"a history given as a dict {problem}: its keys are {', '.join(KEYS)}")
    parsed = {key: row.get(key) for key in KEYS}
    for key in ("history", "allowed", "exclude"):
        if isinstance(parsed[key], Mapping):
            raise GlintRUError(f"{key} must be a list of raw item ids, got {_short(parsed[key])}")
    return {**parsed, "history": as_list(row["history"])}


def item_indices(processor: Any, items: Any, unknown_items: str | None = None) -> np.ndarray:
    """Indices of the items of `allowed` or `exclude`, int64, 0 for those that the model does not know.

    Args:
        processor: The vocabulary.
        items: Raw ids, in a list, array, set or column; or a mask, booleans of shape (num_items,) in the order of
            `processor.item_ids`, True for the items that are meant; or an `ItemSet`.
        unknown_items: `"drop"` or `"error"`, the processor's own policy by default.

    Raises:
        UnknownItemError: The policy is `"error"` and there are unknown items.
        GlintRUError: Ids of another type than the vocabulary's, a mask of another shape, or a set of another processor.
    """
    if hasattr(items, "num_unknown_items"):  # an ItemSet
        if items.processor is not processor:
            raise GlintRUError("an ItemSet belongs to the recommender whose item_set made it: make it again")
        return items.indices
    is_list = isinstance(items, (list, tuple)) and isinstance(next(iter(items), None), (bool, np.bool_))
    mask = np.asarray(items) if is_list or hasattr(items, "__array__") else None
    if mask is None or mask.dtype != bool:
        return processor.encode_ids(items, unknown_items)
    if mask.shape != (len(processor),):
        raise GlintRUError(
            f"a mask of items has the shape ({len(processor)},), one boolean for each of processor.item_ids, but "
            f"got {mask.shape}"
        )
    return np.flatnonzero(mask) + 1


def allowed_indices(processor: Any, items: Any, unknown_items: str | None = None) -> np.ndarray:
    """`item_indices` of `allowed`, known ones alone; a `GlintRUError` where the model knows none of them."""
    found = item_indices(processor, items, unknown_items)
    if not found.any():
        raise GlintRUError("allowed has no item that the model knows, so there is nothing to recommend")
    return found[found > 0]


def leaves_out_seen(exclude_seen: bool | None, processor: Any) -> bool:
    """Whether items of the history are not recommended again; warns where their scores may mean nothing.

    Args:
        exclude_seen: What the call says; None for what was decided in training, the processor's `recommend_seen`.
        processor: The vocabulary.
    """
    if exclude_seen is None:
        return not processor.recommend_seen
    if not exclude_seen and not processor.recommend_seen:
        logger.warning_once(
            "This model was trained and measured with past items left out: it may never have learned to score them, "
            "so leave them out (exclude_seen), or train with recommend_seen=true."
        )
    return exclude_seen


def checked_gaps(gaps: Sequence[float | None], count: int, model: Any) -> torch.Tensor:
    """The times from users' last items to now, as a model takes them: float32 (count,), `UNKNOWN_GAP` for None.

    Args:
        gaps: One a user, in the unit of the training data; None where not known.
        count: Users.
        model: The recommender.

    Raises:
        GlintRUError: The model knows nothing of time, or there is not one number of at least 0 a user.
    """
    check_knows_time(model)
    if isinstance(gaps, (str, bytes)) or not isinstance(gaps, Iterable):
        raise GlintRUError(f"time gaps must be a list of numbers, one a user, got {gaps!r}")
    values = []
    for gap in gaps:
        if gap is not None and (isinstance(gap, bool) or not isinstance(gap, Real) or not 0 <= gap < float("inf")):
            raise GlintRUError(f"a time gap must be a number of at least 0, or None where not known, got {gap!r}")
        values.append(UNKNOWN_GAP if gap is None else float(gap))
    if len(values) != count:
        raise GlintRUError(f"there must be one time gap a user, got {len(values)} for {count} users")
    return torch.tensor(values, dtype=torch.float32)
