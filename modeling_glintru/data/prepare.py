"""`prepare` makes data sets for any Trainer and the item vocabulary out of interactions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from ..errors import DataError
from .filtering import exact_copies, filter_interactions
from .interactions import Interactions, ids_of_type
from .item_features import ItemEncoder, ItemFeatures, TextEncoder
from .items import ItemTable
from .prepared import (
    GAPS,
    LISTS,
    ROWS_PER_CHUNK,
    PreparedData,
    check_output_folder,
    item_counts,
    load_prepared,
    whole_folder,
    write_summary,
)
from .sequences import Sequences, build_sequences
from .splits import PARTS, WHOLE, Rows, Splits, cut_users, split_sequences
from .summary import (
    ITEMS,
    RECURRING,
    note_on_repeated_rows,
    notes_on_given_split,
    recurring_targets,
    recurring_training_targets,
    summarise,
)
from .text_encoders import TFIDF

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from ..models.processing_glintru import GlintRUProcessor

__all__ = ["PreparedData", "load_prepared", "prepare", "with_item_features"]

ANOTHER_SHOP = (
    "is it the right model? Another shop's items are learned anew with glintru train --from MODEL --items new"
)


def prepare(
    interactions: Interactions,
    output_dir: str | Path | None = None,
    *,
    split: str = "leave_one_out",
    hold_out: str = "item",
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    duplicates: str = "exact",
    min_user_interactions: int = 0,
    min_item_interactions: int = 0,
    min_history_length: int = 0,
    max_length: int = 200,
    item_titles: Mapping[Any, str | None] | None = None,
    items: ItemTable | None = None,
    encoder: ItemEncoder | None = None,
    text_encoder: TextEncoder = TFIDF,
    processor: GlintRUProcessor | None = None,
    add_items: bool = False,
    time_gaps: bool = False,
    recommend_seen: bool | None = None,
    seed: int = 42,
    reading: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> PreparedData:
    """Filters, orders, splits and indexes interactions.

    Args:
        interactions: From `read_interactions`, `load_source` or `read_given_split`.
        output_dir: The folder to write, from which the result is then memory-mapped. An error leaves nothing behind.
            With None the result stays in memory.
        split: `"leave_one_out"`, `"temporal"`, `"user"`, or `"given"` for what `read_given_split` read (see `splits`).
        hold_out: What `leave_one_out` holds out of a history: `"item"` or `"basket"`.
        validation_fraction: Share of the interactions (`temporal`) or users (`user`) for validation.
        test_fraction: The same for the test.
        duplicates: What happens to repeated rows; this and the next three options are those of `filter_interactions`.
        min_user_interactions: The fewest interactions of a user in the k-core.
        min_item_interactions: The fewest interactions of an item in the k-core.
        min_history_length: The fewest interactions of a user at the end.
        max_length: How many of the newest items of a history the processor gives to the model; the data has all items.
        item_titles: By raw item id the titles for the processor; None takes those of `items`.
        items: A table of what is known of the items, from `read_items`. Its features are kept beside the data, as
            `item_features`; it may lack items of the interactions and have others.
        encoder: What makes features of `items`; without one, an encoder is fitted to those that the vocabulary has.
        text_encoder: How an encoder that is fitted here makes vectors of text, see `ItemEncoder.fit`.
        processor: The vocabulary of an existing model to use instead of a new one. Interactions with items that it does
            not know are left out, and the summary counts them as `unknown_to_model`.
        add_items: Whether such items are added to a copy of `processor` instead, and counted as `new_to_model`.
        time_gaps: Whether the data has the times between items, for models with `use_time_gaps`; they need 4 more bytes
            for each interaction.
        recommend_seen: Whether past items are recommended again. With None a given `processor` stays as it is; a new
            one recommends them where at least the share `RECURRING` of the training targets stood in the history
            before.
        seed: Seed of the split `user`.
        reading: How the table was read (`ReadingOptions`), for the summary.
        overwrite: Whether prepared data in `output_dir` is replaced; anything else there is refused in any case.

    Raises:
        DataError: There is only one user or item, filtering leaves nothing, the split leaves nobody to evaluate or
            nothing to learn from, an option is out of range, or the output folder cannot be used; or as
            `ItemFeatures.of`.
    """
    from ..models.processing_glintru import GlintRUProcessor

    if item_titles is None and items is not None:
        item_titles = items.titles
    folder = None if output_dir is None else Path(output_dir)
    if folder is not None:
        check_output_folder(folder, overwrite)
    limits = {
        "min_user_interactions": min_user_interactions,
        "min_item_interactions": min_item_interactions,
        "min_history_length": min_history_length,
    }
    if split == "given":
        _check_nothing_filtered(duplicates, limits)
    _check_several(interactions, "")
    kept = filter_interactions(interactions, duplicates=duplicates)
    copies = int(exact_copies(kept.frame).sum()) if duplicates == "keep" else len(interactions) - len(kept)
    kept = filter_interactions(kept, duplicates="keep", **limits)
    unknown = {}
    is_new = processor is None
    if processor is not None:
        processor = copy(processor)  # The processor of the model stays as it is.
        typed, known = _known_items(kept, processor)
        left = typed if add_items else known
        if len(left) < len(kept):
            unknown["unknown_to_model"] = _difference(kept, left)
        if add_items:
            unknown["new_to_model"] = _difference(typed, known)
            new = typed.frame["item_id"].unique().sort().to_list()
            processor.add_items(new, _fitting_titles(item_titles, new))
        else:
            unknown.setdefault("unknown_to_model", {"interactions": 0, "items": 0})
        kept = left
    _check_several(kept, " after filtering")
    sequences = build_sequences(kept)
    if processor is None:
        item_ids = sequences.items.to_list()
        processor = GlintRUProcessor(item_ids, _fitting_titles(item_titles, item_ids), max_length=max_length)
    else:
        index = np.concatenate([[0], processor.encode_ids(sequences.items)]).astype(np.int32)
        vocabulary = pl.Series("item_id", processor.item_ids)
        sequences = replace(sequences, items=vocabulary, item_indices=index[sequences.item_indices])
    splits = split_sequences(
        sequences,
        split,
        hold_out=hold_out,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        seed=seed,
    )
    options: dict[str, Any] = {"duplicates": duplicates, **limits, "seed": seed, "max_length": max_length}
    if time_gaps:
        options[GAPS] = True
    if hold_out != "item":
        options["hold_out"] = hold_out
    if split in ("temporal", "user"):
        options |= {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    notes = [*interactions.notes, *note_on_repeated_rows(duplicates, copies, len(interactions))]
    if split == "given":
        notes += notes_on_given_split(kept, sequences, splits)
    summary = summarise(interactions, kept, sequences, splits)
    summary |= {"repeated_rows": copies, "notes": notes, "split": split, "options": options} | unknown
    if reading is not None:
        summary["reading"] = {
            name: list(value) if isinstance(value, tuple) else value for name, value in reading.items()
        }
    dataset = _datasets(sequences, splits, time_gaps)
    shares = {"train": recurring_training_targets(dataset["train"])}
    summary["recurring_targets"] = shares | {part: recurring_targets(dataset[part]) for part in PARTS[1:]}
    if recommend_seen is not None:
        processor.recommend_seen = recommend_seen
    elif is_new:
        processor.recommend_seen = shares["train"] >= RECURRING
    processor.item_counts = item_counts(dataset["train"], processor.vocab_size)[1:]
    data = PreparedData(dataset, processor, summary)
    if items is not None:
        data = with_item_features(data, items, encoder, text_encoder)
    if folder is None:
        return data
    _write(folder, overwrite, data)
    return load_prepared(folder)


def with_item_features(
    data: PreparedData, items: ItemTable, encoder: ItemEncoder | None = None, text_encoder: TextEncoder = TFIDF
) -> PreparedData:
    """The same data with the features of a table of items; arguments and errors are those of `prepare`."""
    if encoder is not None:
        items = items.read_as(encoder.columns)
    item_ids = data.processor.item_ids
    features = ItemFeatures.of(items, item_ids, encoder, text_encoder)
    return replace(data, item_features=features, summary=data.summary | {ITEMS: features.summary(items, item_ids)})


def _write(folder: Path, overwrite: bool, data: PreparedData) -> None:
    with whole_folder(folder, overwrite) as unfinished:
        with _without_progress_bars():
            data.dataset.save_to_disk(str(unfinished / "dataset"))
        data.processor.save_pretrained(unfinished)
        if data.item_features is not None:
            data.item_features.save(unfinished)
        write_summary(unfinished, data.summary)


def _datasets(sequences: Sequences, splits: Splits, time_gaps: bool) -> DatasetDict:
    from datasets import DatasetDict

    parts = {part: _dataset(sequences, getattr(splits, part), time_gaps) for part in PARTS}
    cut = cut_users(sequences, splits)
    return DatasetDict(parts | ({WHOLE: _dataset(sequences, cut, time_gaps)} if len(cut) else {}))


def _dataset(sequences: Sequences, rows: Rows, time_gaps: bool) -> Dataset:
    from datasets import Dataset

    users = sequences.users.to_arrow().cast(pa.int64() if sequences.users.dtype.is_integer() else pa.string())
    kinds = {"user_id": users.type, "item_ids": LISTS["item_ids"]}
    if rows.targets is not None:
        kinds["target"] = pa.int32()
    if time_gaps:
        kinds[GAPS] = LISTS[GAPS]
    batches = []
    # The rows are written in chunks, so that the 32-bit offsets of a list column never overflow.
    for begin in range(0, max(len(rows), 1), ROWS_PER_CHUNK):
        part = slice(begin, begin + ROWS_PER_CHUNK)
        lengths = rows.stops[part] - rows.starts[part]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        # The positions of all rows, one row after the other; position k of a row is its start + k.
        positions = np.arange(offsets[-1]) + np.repeat(rows.starts[part] - offsets[:-1], lengths)
        items = pa.array(sequences.item_indices[positions], pa.int32())
        columns = [
            users.take(pa.array(rows.users[part])),
            pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items),
        ]
        if rows.targets is not None:
            columns.append(pa.array(sequences.item_indices[rows.targets[part]], pa.int32()))
        if time_gaps:
            gaps = _gaps(sequences, positions, offsets, None if rows.targets is None else rows.targets[part])
            columns.append(pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(gaps, pa.float32())))
        batches.append(pa.record_batch(columns, schema=pa.schema(kinds)))
    return Dataset(pa.Table.from_batches(batches))


def _gaps(sequences: Sequences, positions: np.ndarray, offsets: np.ndarray, targets: np.ndarray | None) -> np.ndarray:
    """The time from each item to the next one or to the target, float32; -1 where there is neither."""
    times = sequences.timestamps
    gaps = (times[np.minimum(positions + 1, len(times) - 1)] - times[positions]) / sequences.ticks
    last = offsets[1:][np.diff(offsets) > 0] - 1
    gaps[last] = -1 if targets is None else (times[targets] - times[positions[last]]) / sequences.ticks
    return gaps.astype(np.float32)


def _check_several(interactions: Interactions, when: str) -> None:
    for what, count in (("user", interactions.num_users), ("item", interactions.num_items)):
        if count < 2:
            raise DataError(
                f"{interactions.source} has a single {what}{when} ({interactions.frame[f'{what}_id'][0]!r}), but at "
                f"least two are needed; is --{what}_column right?"
            )


def _check_nothing_filtered(duplicates: str, limits: Mapping[str, int]) -> None:
    """Refuses filters for a given split, whose figures could not be compared with those of other people."""
    if duplicates not in ("keep", "exact"):
        raise DataError(f"duplicates={duplicates} is not for a split that is given, only keep and exact are.")
    for name, value in limits.items():
        if value:
            raise DataError(f"{name}={value} is not for a split that is given, which is taken as it is: leave it out.")


def _known_items(interactions: Interactions, processor: GlintRUProcessor) -> tuple[Interactions, Interactions]:
    """The interactions with ids of the vocabulary's type, and those of them whose items are in the vocabulary.

    Raises:
        DataError: All ids are text but the vocabulary's are integers, or no item is known.
    """
    ids = interactions.frame["item_id"]
    frame = interactions.frame.with_columns(item_id=ids_of_type(ids, processor.id_type))
    if frame["item_id"].null_count() == len(ids):
        raise DataError(
            f"The item ids of {interactions.source} are text such as {ids[0]!r}, "
            f"but the model's are integers; {ANOTHER_SHOP}."
        )
    frame = frame.drop_nulls("item_id")
    distinct = frame["item_id"].unique()
    known = distinct.filter(pl.Series(processor.encode_ids(distinct, "drop") > 0))
    if known.is_empty():
        raise DataError(f"The model knows none of the items of {interactions.source}; {ANOTHER_SHOP}.")
    interactions = replace(interactions, frame=frame)
    return interactions, replace(interactions, frame=frame.filter(pl.col("item_id").is_in(known.implode())))


def _difference(all_of_them: Interactions, left: Interactions) -> dict[str, int]:
    return {"interactions": len(all_of_them) - len(left), "items": all_of_them.num_items - left.num_items}


def _fitting_titles(titles: Mapping[Any, str | None] | None, item_ids: list[Any]) -> dict[Any, str | None] | None:
    """The titles of these items; a table of titles may hold as integers the ids that are text here."""
    if titles and isinstance(item_ids[0], str):
        titles = {str(raw): title for raw, title in titles.items()}
    return {raw: titles[raw] for raw in item_ids if raw in titles} or None if titles else None


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    before = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()
