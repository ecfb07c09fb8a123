"""Scores, loss and padding: what every model of this package shares, whatever encodes the history."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils import ModelOutput, can_return_tuple

from .configuration_glintru import UNKNOWN_GAP, GlintRUError, check_knows_time, from_package, write_manifest
from .ops_glintru import at, cross_entropy, full_precision, unit
from .pipeline_glintru import SequentialRecommendationPipeline  # noqa: F401 (its file is saved with the model)
from .state_glintru import GlintRUState

__all__ = ["EncoderOutput", "NextItemHead", "PrefixEncoder", "SequentialRecommendationOutput"]

HIDDEN_SHARE = 0.1  # of the gaps, in training
NUM_GAPS = 64  # no gap, less than one unit, and a doubling each: enough for microseconds in 64 bits


@dataclass
class EncoderOutput(ModelOutput):
    """
    Args:
        last_hidden_state: (batch, length, hidden_size); at t, the representation of the prefix that ends at t, zeros
            at padding.
        hidden_states: On request, the embeddings and the output of every block, num_hidden_layers + 1 tensors.
        state: With `use_cache=True` or `state=`, a `GlintRUState` from which the next call can go on.
    """

    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    state: GlintRUState | None = None


@dataclass
class SequentialRecommendationOutput(ModelOutput):
    """
    Args:
        loss: Scalar, when `labels` is given.
        logits: (batch, vocab_size) scores after the last real item of each row, or (batch, length, vocab_size) with
            `return_all_logits`. Index 0 (padding) and excluded items are -inf; a row without items scores 0 everywhere.
            `None` in a training step (`model.train()` and `labels`) that does not set `return_all_logits`: the loss
            does not need them, and with millions of items they would cost more than all the rest.
        last_hidden_state, hidden_states, state: See `EncoderOutput`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    state: GlintRUState | None = None


@torch.compiler.disable
def check_indices(name: str, indices: Tensor, vocab_size: int, lowest: int = 0) -> None:
    """Names the first index outside [lowest, vocab_size); without this a GPU only reports an assert, later.

    Raises:
        GlintRUError: An index is out of range, or `indices` is not an integer tensor.
    """
    if indices.dtype not in (torch.int64, torch.int32):
        raise GlintRUError(f"{name} must be an int64 or int32 tensor, got {indices.dtype}")
    if indices.numel() == 0 or indices.is_meta:
        return
    low, high = torch.stack(torch.aminmax(indices)).tolist()
    if low < lowest or high >= vocab_size:
        wrong = (indices < lowest) | (indices >= vocab_size)
        position = tuple(wrong.nonzero()[0].tolist())
        raise GlintRUError(
            f"{name}{list(position)} is {int(indices[position])}, but indices must be between {lowest} and "
            f"{vocab_size - 1} (vocab_size - 1)"
        )


@torch.compiler.disable
def padding_layout(mask: Tensor, items_first: bool) -> tuple[bool, bool]:
    """Whether a (batch, length) boolean mask has padding at all, and whether it has to move for `encode`.

    It has to where items stand on both sides of it, and with `items_first` where it stands before an item.
    """
    if mask.is_meta or bool(mask.all()):
        return False, False
    starts = mask[:, 1:] & ~mask[:, :-1]
    if items_first:
        return True, bool(starts.any())
    return True, bool((starts.sum(1) + mask[:, 0] > 1).any())


def item_mask(input_ids: Tensor | None, attention_mask: Tensor | None, embeds: Tensor) -> Tensor:
    """Where the items are: (batch, length) bool. Index 0 is padding even where the mask says otherwise."""
    batch, length = embeds.shape[:2]
    mask = input_ids != 0 if input_ids is not None else embeds.new_ones((batch, length), dtype=torch.bool)
    if attention_mask is None:
        return mask
    if attention_mask.shape != (batch, length):
        raise GlintRUError(f"attention_mask must have shape {(batch, length)}, got {tuple(attention_mask.shape)}")
    return mask & attention_mask.bool()


def is_last_item(mask: Tensor) -> Tensor:
    """(batch, length) bool, true at the last item of each row."""
    return mask & (mask.flip(1).cumsum(1).flip(1) == 1)


def last_item(hidden: Tensor, mask: Tensor) -> Tensor:
    """The representation at the last item of each row, zeros where there is none. (batch, hidden_size)."""
    places = mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return at(hidden, F.pad(places, (1, 0)).amax(1) - 1)


def gaps_of_positions(time_gaps: Tensor, mask: Tensor) -> Tensor:
    """`time_gaps` at every position: (batch,) ones belong to the last item of each row. (batch, length)."""
    if time_gaps.dim() == 2:
        return time_gaps
    return torch.where(is_last_item(mask), time_gaps[:, None], UNKNOWN_GAP)


def gaps_of_requests(time_gaps: Tensor, mask: Tensor) -> Tensor:
    """`time_gaps` at the last item of each row, unknown where (batch, length) ones have no item. (batch,)."""
    if time_gaps.dim() == 1:
        return time_gaps
    return torch.where(mask.any(1), last_item(time_gaps[..., None], mask)[:, 0], UNKNOWN_GAP)


class PrefixEncoder:
    """Checks and embeds a batch, hides padding from `encode`, and gives the representation of every prefix."""

    items_first = False  # whether `encode` wants the items of each row before its padding
    config: Any
    embed_items: nn.Embedding

    def get_input_embeddings(self) -> nn.Module:
        return self.embed_items

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embed_items = cast(nn.Embedding, value)

    def encode(self, embeds: Tensor, mask: Tensor | None) -> list[Tensor]:
        """The hidden states, from the embeddings to the last layer, each (batch, length, hidden_size).

        Args:
            embeds: (batch, length, hidden_size), length at least 1; padding is at the ends of a row.
            mask: (batch, length, 1) in the dtype of `embeds`, 0 at padding; `None` where there is none.
        """
        raise NotImplementedError

    def advance(
        self, embeds: Tensor, mask: Tensor | None, state: GlintRUState | None
    ) -> tuple[list[Tensor], GlintRUState]:
        """The hidden states, as `encode` gives them, of rows that go on from a state, and the state after the rows.

        Args:
            embeds, mask: As of `encode`; every row has its items before its padding, and may have none.
            state: `None` where the rows begin here.
        """
        raise GlintRUError(f"{type(self).__name__} has no streaming state: state= and use_cache= are for GLINT-RU")

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        state: GlintRUState | None = None,
        use_cache: bool | None = None,
    ) -> EncoderOutput:
        """
        Args:
            input_ids: (batch, length) int64 item indices in time order; 0 is padding, anywhere in the row.
            attention_mask: (batch, length), 1 at items. Optional: index 0 is padding.
            inputs_embeds: (batch, length, hidden_size) instead of `input_ids`.
            output_hidden_states: Whether to return the output of every block.
            state: A `GlintRUState` of `batch` users: the rows are what follows their histories, and a row without
                items leaves its user as is. Gradients stop where a state begins.
            use_cache: Whether to return the state after the rows; yes by default where `state` is given.

        Raises:
            GlintRUError: Neither or both inputs, an index out of range, a mask of another shape, or a state of another
                number of users, other sizes or (unless training) other weights.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise GlintRUError("give either input_ids or inputs_embeds")
        if input_ids is not None:
            if input_ids.dim() != 2:
                raise GlintRUError(f"input_ids must have shape (batch, length), got {tuple(input_ids.shape)}")
            check_indices("input_ids", input_ids, self.config.vocab_size)
            inputs_embeds = self.embed_items(input_ids)
        assert inputs_embeds is not None
        mask = item_mask(input_ids, attention_mask, inputs_embeds)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states

        carries = state is not None or bool(use_cache)
        has_padding, movable = padding_layout(mask, self.items_first or carries)
        order = None
        if movable:
            order = mask.argsort(dim=1, descending=True, stable=True)
            mask = mask.gather(1, order)
            inputs_embeds = inputs_embeds.gather(1, order[..., None].expand_as(inputs_embeds))
        weights = mask.unsqueeze(-1).to(inputs_embeds.dtype) if has_padding else None
        if carries:
            states, state = self.advance(inputs_embeds, weights, state)
        else:
            states = self.encode(inputs_embeds, weights) if mask.shape[1] else [inputs_embeds]
        if weights is not None:
            states = [state * weights.to(state.dtype) for state in states]
        if order is not None:
            states = [torch.zeros_like(s).scatter(1, order[..., None].expand_as(s), s) for s in states]
        return EncoderOutput(
            last_hidden_state=states[-1],
            hidden_states=tuple(states) if output_hidden_states else None,
            state=None if use_cache is False else state,
        )


class NextItemHead:
    """Makes a recommender of a `PreTrainedModel` whose `self.model` encodes histories.

    `self.model(input_ids, attention_mask, inputs_embeds, output_hidden_states)` gives `last_hidden_state`, at each
    position the representation of the prefix that ends there, and has `embed_items`; scores are inner products.
    """

    # The loss is divided by `num_items_in_batch` when it is given, so gradient accumulation is exact.
    accepts_loss_kwargs = True
    # What one training row is: "windows" have a target at every position, "prefixes" one, after the last item.
    training_examples = "windows"
    # A `NextItemLoss`; None is the cross-entropy over all items (paper section 3.6). Not saved with the model.
    training_loss: Any = None
    takes_time_gaps = True
    training: bool
    config: Any
    model: Any

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        if config.use_time_gaps and not self.takes_time_gaps:
            raise GlintRUError(f"use_time_gaps is not for {type(self).__name__}: it does not learn from what follows")
        self.time_gaps = TimeGaps(config) if config.use_time_gaps else None

    def get_input_embeddings(self) -> nn.Embedding:
        return cast(nn.Embedding, self.model.embed_items)

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.embed_items = cast(nn.Embedding, value)

    def save_pretrained(
        self, save_directory: str | os.PathLike, is_main_process: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        """As of `PreTrainedModel`, and writes `manifest.json`, see `write_manifest`."""
        super().save_pretrained(save_directory, is_main_process, *args, **kwargs)  # type: ignore[misc]
        if is_main_process:
            write_manifest(save_directory)

    def _upload_modified_files(self, working_dir: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        write_manifest(working_dir)  # or that of the files which these replace would stay on the Hub
        return super()._upload_modified_files(working_dir, *args, **kwargs)  # type: ignore[misc]

    def add_items(
        self, num_new: int, init: str | Tensor = "mean", histories: Iterable[Sequence[int]] | None = None
    ) -> None:
        """Makes room for new items, behind those that are there; needs the package, see `models/new_items.py`."""
        from_package("new_items").add_items(self, num_new, init, histories)

    @property
    def num_passes(self) -> int:
        """How often a step passes its batch, with other dropout each time; more than once in training alone."""
        return self.training_loss.passes if self.training and self.training_loss is not None else 1

    def check_labels(self, chosen: Tensor, mask: Tensor) -> None:
        """A model that cannot train on some positions refuses them here; `chosen` and `mask` are (batch, length)."""

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        exclude_item_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_all_logits: bool = False,
        num_items_in_batch: Tensor | int | None = None,
        state: GlintRUState | None = None,
        use_cache: bool | None = None,
        time_gaps: Tensor | None = None,
    ) -> SequentialRecommendationOutput:
        """
        Args:
            input_ids, attention_mask, inputs_embeds, output_hidden_states: As of `PrefixEncoder.forward`.
            labels: (batch, length) int64; `labels[:, t]` is the item that follows position t. -100 is ignored, nothing
                is shifted inside.
            exclude_item_ids: (batch, any) int64 items whose `logits` become -inf, padded with 0.
            return_all_logits: Whether `logits` is for all positions instead of the last real item.
            num_items_in_batch: Divisor of the summed loss; the number of labels when not given.
            state, use_cache: GLINT-RU only: as of `PrefixEncoder.forward`. A row without items is scored as its state.
            time_gaps: With `use_time_gaps`: times in the unit of the training data, from each item to what follows it,
                the next item or the request, (batch, length); or from each row's last item to the request, (batch,).
                Negative where not known.

        Raises:
            GlintRUError: An index is out of range, a shape does not fit, the model cannot go on from the state, or it
                knows nothing of time.
        """
        carried: dict[str, Any] = {} if state is None and not use_cache else {"state": state, "use_cache": True}
        inputs = (input_ids, attention_mask, inputs_embeds, output_hidden_states)
        options: dict[str, Any] = {**carried, "return_dict": True}
        outputs = self.model(*inputs, **options)
        hidden = outputs.last_hidden_state
        mask = item_mask(input_ids, attention_mask, hidden)

        def with_gaps(hidden: Tensor) -> Tensor:
            return hidden if time_gaps is None else self.at_time(hidden, gaps_of_positions(time_gaps, mask))

        loss = logits = None
        everywhere = with_gaps(hidden) if return_all_logits or labels is not None else hidden
        if labels is not None:
            passes = [everywhere, *(with_gaps(self.model(*inputs, **options)[0]) for _ in range(1, self.num_passes))]
            loss = self._loss(passes, labels, mask, num_items_in_batch, input_ids)
        if return_all_logits:
            logits = self._logits(everywhere, exclude_item_ids)
        elif labels is None or not self.training:
            last = last_item(hidden, mask)
            if carried:
                last = torch.where(mask.any(1, keepdim=True), last, outputs.state.representation.to(last.dtype))
            if time_gaps is not None:
                last = self.at_time(last, gaps_of_requests(time_gaps, mask))
            logits = self._logits(last, exclude_item_ids)
        return SequentialRecommendationOutput(
            loss=loss,
            logits=logits,
            last_hidden_state=hidden,
            hidden_states=outputs.hidden_states,
            state=outputs.state if carried and use_cache is not False else None,
        )

    def at_time(self, hidden: Tensor, time_gaps: Tensor) -> Tensor:
        """(..., hidden_size) representations of histories whose last items are (...) `time_gaps` ago."""
        check_knows_time(self)
        return cast(TimeGaps, self.time_gaps)(hidden, time_gaps)

    def item_vectors(self) -> Tensor:
        """(vocab_size, hidden_size) vectors whose inner products with `query_vectors` are the scores of the items."""
        weight = self.model.embed_items.weight
        return unit(weight).to(weight.dtype) if self.config.normalize_scores else weight

    def query_vectors(self, hidden: Tensor) -> Tensor:
        """(..., hidden_size) vectors of representations, see `item_vectors`."""
        hidden = hidden.to(self.model.embed_items.weight.dtype)
        if self.config.normalize_scores:
            hidden = unit(hidden).to(hidden.dtype)
        return hidden / self.config.temperature

    def _logits(self, hidden: Tensor, exclude_item_ids: Tensor | None) -> Tensor:
        with full_precision(hidden):  # scores in bfloat16 would tie
            logits = self.query_vectors(hidden) @ self.item_vectors().T
        hidden_items = torch.zeros_like(logits, dtype=torch.bool)
        hidden_items[..., 0] = True
        if exclude_item_ids is not None:
            check_indices("exclude_item_ids", exclude_item_ids, self.config.vocab_size)
            index = exclude_item_ids.long()
            if logits.dim() == 3:
                index = index[:, None].expand(-1, logits.shape[1], -1)
            hidden_items.scatter_(-1, index, True)
        return logits.masked_fill(hidden_items, float("-inf"))

    def _loss(
        self,
        passes: list[Tensor],
        labels: Tensor,
        mask: Tensor,
        num_items_in_batch: Tensor | int | None,
        input_ids: Tensor | None,
    ) -> Tensor:
        if labels.shape != mask.shape:
            raise GlintRUError(f"labels must have shape {tuple(mask.shape)} like input_ids, got {tuple(labels.shape)}")
        chosen = labels != -100
        check_indices("labels", labels.masked_fill(~chosen, 1), self.config.vocab_size, lowest=1)
        targets = labels[chosen].long()
        self.check_labels(chosen, mask)
        seen = None
        if self.training_loss is not None and self.training_loss.wants_seen_items:
            if input_ids is None:
                raise GlintRUError("seen_items_in_softmax=False needs input_ids: from inputs_embeds no item is known")
            row, position = chosen.nonzero(as_tuple=True)
            before = torch.arange(mask.shape[1], device=mask.device) <= position[:, None]
            seen = torch.where(mask[row] & before, input_ids[row].long(), targets[:, None])
        loss = self._summed_loss([hidden[chosen] for hidden in passes], targets, seen)
        if num_items_in_batch is None:
            num_items_in_batch = max(1, targets.numel())
        elif isinstance(num_items_in_batch, Tensor):
            num_items_in_batch = num_items_in_batch.to(loss.device)
        return loss / num_items_in_batch

    def _summed_loss(self, passes: list[Tensor], targets: Tensor, seen: Tensor | None = None) -> Tensor:
        """The loss of (targets, hidden_size) representations and (targets,) int64 items, see `NextItemLoss`."""
        if self.training_loss is not None:
            return self.training_loss(self, passes, targets, seen)
        hidden, weight = passes[0], self.get_input_embeddings().weight
        if self.config.normalize_scores:
            hidden, weight = unit(hidden), unit(weight)
        return cross_entropy(hidden, weight, targets, float(self.config.temperature), 0.0, None)


# ---------------------------------------------------------------------- the time of the request


def gap_classes(gaps: Tensor) -> Tensor:
    """The class of each gap: 0 unknown (negative or NaN), 1 none, 2 below one unit, then one for each doubling.

    Args:
        gaps: Times of any shape: seconds where interactions have dates or Unix times, else in the unit of their column.

    Returns:
        int64 of the same shape, 0 to `NUM_GAPS`.
    """
    # Exponents are exact, where a logarithm may round a power of two down.
    exponents = torch.frexp(gaps.float().nan_to_num(UNKNOWN_GAP, posinf=2.0**62)).exponent.long()
    return (exponents + 2).clamp(2, NUM_GAPS).where(gaps > 0, (gaps == 0).long())


class TimeGaps(nn.Module):
    """What the time from the last item to the request adds to the representation of a history.

    `h + out_proj(silu(in_proj(h)) * gate[gap]) + shift[gap]`: a gated MLP whose gate is the gap. Where the gap is not
    known, `h` stays as it is, so that everything that knows no times goes on as without this.

    Args:
        config: Its `hidden_size`.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        size = config.hidden_size
        self.in_proj = nn.Linear(size, size)
        self.out_proj = nn.Linear(size, size, bias=False)
        self.gap_proj = nn.Linear(NUM_GAPS, 2 * size, bias=False)  # of the class, one-hot: gate and shift

    def forward(self, hidden: Tensor, gaps: Tensor) -> Tensor:
        """
        Args:
            hidden: (..., hidden_size) representations.
            gaps: (...) times, `UNKNOWN_GAP` where not known.

        Raises:
            GlintRUError: The shapes do not fit.
        """
        if gaps.shape != hidden.shape[:-1]:
            raise GlintRUError(f"time_gaps must have shape {tuple(hidden.shape[:-1])}, got {tuple(gaps.shape)}")
        classes = gap_classes(gaps.to(hidden.device))
        if self.training:  # so that the model also knows how to do without
            classes = classes * (torch.rand(classes.shape, device=classes.device) >= HIDDEN_SHARE)
        rows = F.embedding((classes - 1).clamp_min(0), self.gap_proj.weight.T)
        gate, shift = (rows * (classes > 0)[..., None]).to(hidden.dtype).chunk(2, dim=-1)
        return hidden + self.out_proj(F.silu(self.in_proj(hidden)) * gate) + shift
