"""`Recommender`: interactions or a model folder in, the best next items out; and `ClickSession`, with undo."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from ..errors import GlintRUError
from ..machine import pick_device
from ..models.configuration_glintru import write_manifest
from ..models.item_projection import BOOST, ItemProjection
from ..models.item_sets import ItemFilter, ItemSet
from ..models.loading import MODEL_FILES, find_metrics, load_local_folder, local_folder, without_bars
from ..models.pipeline_glintru import checked_gaps, leaves_out_seen
from ..models.processing_glintru import GlintRUProcessor
from .top_k import ExactIndex, check_top_k

__all__ = ["AddedItems", "ClickSession", "Recommendation", "Recommender"]


@dataclass(frozen=True)
class Recommendation:
    """What to recommend after one history.

    Args:
        items: Best first, `{"item_id": raw id, "score": float}`, with `"title"` where the model knows titles.
        num_unknown_items: Items of the history that the model does not know; they were left out.
        cold_start: Whether no item of the history is known: these are the most popular items then, and their score is
            0, since the model has nothing to say of this user.
    """

    items: list[dict[str, Any]]
    num_unknown_items: int
    cold_start: bool = False


@dataclass(frozen=True)
class AddedItems:
    """What `Recommender.add_items` did.

    Args:
        num_new: Items that were added.
        num_with_features: Those of them that have any feature; the others begin as the mean of all items.
        num_known: Items of the table that the model had already.
    """

    num_new: int
    num_with_features: int
    num_known: int

    def describe(self) -> str:
        """One line of text."""
        return (
            f"{self.num_with_features:,} of them have features, the others begin as the mean of all items; "
            f"{self.num_known:,} items of the table were there already."
        )


class Recommender:
    """A model and its vocabulary.

    Args:
        model: Scores all items after a history.
        processor: Its vocabulary.
        batch_size: Histories at once.

    Attributes:
        folder: The model folder on this machine that the model comes from; None for a model that was never saved.

    Example:
        >>> recommender = Recommender.fit(frame)  # columns of users, items and times
        >>> recommender.recommend([[50, 172, 181]], top_k=10)
        >>> recommender.save_pretrained("outputs/mine")
    """

    def __init__(self, model: PreTrainedModel, processor: GlintRUProcessor, batch_size: int = 128) -> None:
        self.model = model
        self.processor = processor
        self.batch_size = batch_size
        self.folder: Path | None = None
        self._temporary: Any = None  # removes a temporary folder together with this object

    # ------------------------------------------------------------------ from interactions or a folder

    @classmethod
    def fit(
        cls,
        interactions: Any,
        *,
        output_dir: str | PathLike[str] | None = None,
        recipe: str | PathLike[str] | None = None,
        model: str | None = None,
        settings: Mapping[str, Any] | None = None,
        items: Any = None,
        titles: Any = None,
        seed: int | None = None,
        verbose: bool = True,
        device: str | torch.device | None = None,
        **options: Any,
    ) -> Recommender:
        """Trains a recommender on interactions, with settings chosen from the data, as `glintru train` does.

        The newest item of each user is held out for the test, the one before it decides when training stops; `metrics`
        has the figures of the test.

        Args:
            interactions: A pandas or polars frame, a pyarrow table, a `datasets.Dataset`, or a path or list of paths
                (CSV, Parquet, JSON lines and others), with a column of users, of items and of times.
            output_dir: Where the model folder goes; a temporary folder where it is left out.
            recipe: Name or YAML file of a recipe, instead of settings from the data.
            model: Another model, such as `"sasrec"`, or `"file.py:Class"` for one of your own.
            settings: Values of the recipe by key: `{"num_train_epochs": 5}`.
            items: What is known of the items: a table of ids and columns of text, categories, numbers or vectors.
                It helps with rare items, and `add_items` needs it.
            titles: Titles of items: a mapping from raw id to title, or a table with both columns.
            seed: Seed of every random number.
            verbose: Whether to print what was recognised and chosen, and a line for each epoch.
            device: Where to compute recommendations, see `pick_device`.
            options: What else `modeling_glintru.train` takes: `user_column`, `item_column` and `time_column` where
                they have unusual names, `overwrite`, `max_minutes`, ...

        Raises:
            DataError: The interactions cannot be used.
            RecipeError: A setting that does not exist, or a value out of range.
            ModelFolderError: `output_dir` holds something that must not be replaced.
        """
        from ..jobs import train

        known: dict[str, Any] = {"recipe": recipe, "model": model, "settings": settings, "seed": seed}
        known |= {"items": items, "titles": titles}
        trained = train(interactions, output_dir, verbose=verbose, **known, **options)
        recommender = cls.from_pretrained(trained.output_dir, device=device)
        recommender._temporary = trained.temporary
        return recommender

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        batch_size: int = 128,
        *,
        revision: str | None = None,
        device: str | torch.device | None = None,
        trust_remote_code: bool = False,
    ) -> Recommender:
        """From a model folder, or a Hub repository at a branch or commit.

        Args:
            name_or_path, revision, trust_remote_code: See `load_model_folder`, whose errors this has too.
            batch_size: Histories at once.
            device: Where to compute: a GPU where there is one by default, see `pick_device`.
        """
        where: Any = pick_device(device)  # one that is not there is known before anything is read
        folder = local_folder(str(name_or_path), revision, MODEL_FILES)
        model, processor = load_local_folder(folder, str(name_or_path), trust_remote_code)
        recommender = cls(model.to(where), processor, batch_size=batch_size)
        recommender.folder = folder
        return recommender

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Writes a model folder: weights, vocabulary and code, with card, metrics and recipe where the model has them.

        `from_pretrained`, `AutoModel` and `glintru` take it. A card in the folder that somebody wrote stays.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        with without_bars():
            self.model.save_pretrained(target)
        self.processor.save_pretrained(target)
        if self.folder is not None and not self.folder.samefile(target):
            from ..hub.push import copy_results

            copy_results(self.folder, target)
            write_manifest(target)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        message: str = "Upload the model",
        token: str | None = None,
    ) -> Any:
        """Uploads what `save_pretrained` writes, in one commit, as `glintru push` does; options as `hub.push_folder`.

        Returns:
            A `PushResult`: the page of the repository (`url`), its `commit`, and what was `changed`.

        Raises:
            HubError: The Hub cannot be reached, or refuses; the message says what to do.
        """
        from ..hub import push_folder

        with tempfile.TemporaryDirectory(prefix="glintru-") as temporary:
            folder = Path(temporary) / (repo_id.rpartition("/")[2] or "model")
            self.save_pretrained(folder)
            return push_folder(folder, repo_id, private=private, revision=revision, message=message, token=token)

    @property
    def metrics(self) -> dict[str, float]:
        """The figures of the test split that were measured after the training, by names such as `ndcg@10`.

        They are those of the ranking that is served; empty where the model folder has none.
        """
        measured = {} if self.folder is None else find_metrics(self.folder)
        table = measured.get(measured.get("main", "test"), {})
        return {name: entry["value"] for name, entry in table.items()}

    # ------------------------------------------------------------------ new items

    def add_items(self, items: Any, *, titles: Mapping[Any, str] | None = None, boost: float = BOOST) -> AddedItems:
        """Adds items that nobody has taken yet, by what is known of them; nothing is trained.

        Scores of the items that are there, and states of users, stay as they are.

        Args:
            items: A frame, another table or a file with a column of item ids and the columns of features that the model
                was trained with (`items=` or `--items`); see `read_items`. Items that the model knows are left alone.
                An item without any feature begins as the mean of all items.
            titles: Raw id to title, in the place of those in the table.
            boost: Between 0 and 1: how much new items are favoured. More of them are recommended then, and fewer of
                the known ones; see `ItemProjection.rows` and `docs/items.md` for what it costs.

        Returns:
            What was added.

        Raises:
            GlintRUError: The model was trained without features of items, or `boost` is out of range.
            DataError: The table cannot be read, has other columns, or its vectors another width; or the text encoder is
                missing or of another version.
            VocabularyError: Ids of another type than the model's.
        """
        from ..data import ItemEncoder, read_items

        projection = None if self.folder is None else ItemProjection.load(self.folder)
        if projection is None or self.folder is None:
            raise GlintRUError(
                "this model was trained without features of items, so that it knows nothing of new ones: train it with "
                "items=TABLE (--items TABLE)"
            )
        encoder = ItemEncoder.load(self.folder)
        table = read_items(items).read_as(encoder.columns)
        ids = table.frame["item_id"].to_list()
        new = [place for place, item in enumerate(ids) if item not in self.processor]
        vectors, known = encoder.encode(table.take(np.array(new, np.int64)))
        rows = projection.rows(torch.from_numpy(vectors), boost)
        trained: Any = self.model.get_input_embeddings().weight
        rows[~torch.from_numpy(known)] = trained[1:].detach().cpu().float().mean(0)
        added = self.processor.add_items([ids[place] for place in new], titles or table.titles)
        self.model.add_items(added, rows)  # type: ignore[operator]
        return AddedItems(added, int(known.sum()), len(ids) - added)

    # ------------------------------------------------------------------ recommendations

    def item_set(self, item_ids: Any, unknown_items: str | None = None) -> ItemSet:
        """Items for `allowed` or `exclude`, looked up once to be used again and again; see `ItemSet`."""
        return ItemSet(self.processor, item_ids, unknown_items)

    def recommend(
        self,
        histories: Sequence[Sequence[Any]],
        top_k: int = 10,
        *,
        exclude_seen: bool | None = None,
        allowed: Any = None,
        exclude: Any = None,
        unknown_items: str | None = None,
        time_gaps: Sequence[float | None] | None = None,
    ) -> list[Recommendation]:
        """The best next items after each history.

        A history without an item that the model knows gets the most popular items of the training data, each with the
        score 0, and `cold_start` is true.

        Args:
            histories: Raw item ids, oldest first; a history may be empty.
            top_k: Items each, between 1 and the number of items. Filters may leave fewer.
            exclude_seen: Whether the items of the history, all of it, are left out; by default unless the processor
                says `recommend_seen`.
            allowed: For all histories, raw ids, a mask or an `ItemSet` (see there): nothing else is recommended.
            exclude: The same: not recommended, whatever their score.
            unknown_items: `"drop"` or `"error"`, the processor's own policy by default.
            time_gaps: For models with `use_time_gaps`: the time from each history's last item to now, in the unit of
                the training data; None where not known.

        Raises:
            GlintRUError: `top_k` out of range, a single history instead of a list of them, ids of a wrong type, no
                item of `allowed` is known, an `ItemSet` is of another recommender, or `time_gaps` that are not one a
                history, negative, or not for this model.
            UnknownItemError: An unknown item under the policy `"error"`.
        """
        filters: dict[str, Any] = {"exclude_seen": exclude_seen, "allowed": allowed, "exclude": exclude}
        return list(self.stream(histories, top_k, unknown_items=unknown_items, time_gaps=time_gaps, **filters))

    def stream(
        self,
        histories: Sequence[Sequence[Any]],
        top_k: int = 10,
        *,
        exclude_seen: bool | None = None,
        allowed: Any = None,
        exclude: Any = None,
        unknown_items: str | None = None,
        time_gaps: Sequence[float | None] | None = None,
    ) -> Iterator[Recommendation]:
        """As `recommend`, a batch at a time, so that any number of users fits."""
        if isinstance(histories, (str, bytes)) or not hasattr(histories, "__len__"):
            raise GlintRUError(f"each history must be a list of raw item ids, as in [[1, 2], [3]], got {histories!r}")
        top_k = check_top_k(top_k, len(self.processor))
        leaves_out = leaves_out_seen(exclude_seen, self.processor)
        filters = ItemFilter.of(self.processor, allowed, exclude)
        gaps = None if time_gaps is None else checked_gaps(time_gaps, len(histories), self.model)
        for start in range(0, len(histories), self.batch_size):
            part = slice(start, start + self.batch_size)
            given = None if gaps is None else gaps[part]
            yield from self._batch(histories[part], top_k, leaves_out, filters, unknown_items, given)

    @torch.inference_mode()
    def _batch(
        self,
        histories: Sequence[Sequence[Any]],
        top_k: int,
        exclude_seen: bool,
        filters: ItemFilter,
        unknown_items: str | None,
        time_gaps: torch.Tensor | None,
    ) -> list[Recommendation]:
        for history in histories:
            # A text is a sequence too, of letters that no vocabulary knows: refused, not answered at random.
            if isinstance(history, (str, bytes)) or not isinstance(history, Iterable):
                raise GlintRUError(f"each history must be a list of raw item ids, as in [[1, 2], [3]], got {history!r}")
        options: dict[str, Any] = {"unknown_items": unknown_items, "return_num_unknown_items": True}
        inputs = self.processor(list(map(list, histories)), **options)
        unknown = inputs.pop("num_unknown_items").tolist()
        cold = (~inputs["input_ids"].bool().any(1)).tolist()
        exclude = None
        if exclude_seen:  # the whole history, not just the newest part that the model reads
            longest = max(1, *map(len, histories))
            exclude = self.processor(list(map(list, histories)), max_length=longest, **options)["input_ids"]
            exclude = exclude.to(self.model.device)
        self.model.eval()
        timed = {} if time_gaps is None else {"time_gaps": time_gaps.to(self.model.device)}
        logits = self.model(**inputs.to(self.model.device), exclude_item_ids=exclude, **timed).logits
        if filters:
            logits[:, torch.from_numpy(~filters.passing).to(logits.device)] = -torch.inf
        items = self.processor.decode_top_k(logits, top_k)
        if any(cold):
            popular = filters.most_popular(top_k).tolist()
            for place in np.flatnonzero(cold):
                items[place] = [self.processor.listed(index, 0.0) for index in popular]
        return [Recommendation(*answer) for answer in zip(items, unknown, cold, strict=True)]

    def recommend_frame(
        self,
        interactions: Any,
        top_k: int = 10,
        *,
        users: Iterable[Any] | None = None,
        exclude_seen: bool | None = None,
        allowed: Any = None,
        exclude: Any = None,
        unknown_items: str | None = None,
        now: Any = None,
        **reading: Any,
    ) -> Any:
        """The best next items for every user of a table, as a table; any number of users, fast.

        Args:
            interactions: What the users took, in any form that `fit` takes. The history of a user is in order of time.
                The table is read as the one that the model was trained on, as far as it can be.
            users: Only these users, by raw id.
            top_k, exclude_seen, allowed, exclude, unknown_items: As `recommend`.
            now: For models with `use_time_gaps`: the time of the requests, a date or a number as in the time column.
            reading: How the table is read: `user_column`, `item_column`, `time_column` and all other fields of
                `ReadingOptions`.

        Returns:
            A frame of the library that `interactions` is of, polars for a file: `user_id`, `rank` (1 is the best),
            `item_id`, `title` where the model knows titles, `score`, `cold_start`; sorted by user and rank.

        Raises:
            DataError: The table cannot be read, or has no such user.
            GlintRUError: As `recommend`.
            VocabularyError: All item ids are text, and the model's are integers.
        """
        from .offline import load_like_the_training, recommend_table

        table = load_like_the_training(self.folder, interactions, reading)
        filters: dict[str, Any] = {"exclude_seen": exclude_seen, "allowed": allowed, "exclude": exclude}
        found = recommend_table(
            self.model, self.processor, table, top_k, users=users, unknown_items=unknown_items, now=now, **filters
        )
        return in_the_kind_of(interactions, found)

    def similar_items(
        self, item_ids: Sequence[Any], top_k: int = 10, *, allowed: Any = None, exclude: Any = None
    ) -> list[list[dict[str, Any]]]:
        """The nearest items of each item, by the cosine of their vectors; the item itself is left out.

        Args:
            item_ids: Raw ids.
            top_k: Items each, between 1 and the number of items.
            allowed, exclude: As `recommend`.

        Returns:
            For each item `{"item_id": raw id, "score": cosine}`, nearest first, with `"title"` where the model knows
            titles.

        Raises:
            UnknownItemError: The model does not know an item.
            GlintRUError: `top_k` out of range, or a single id instead of a list of them.
        """
        if isinstance(item_ids, (str, bytes)) or not isinstance(item_ids, Iterable):
            raise GlintRUError(f"item_ids must be a list of raw item ids, as in [50, 172], got {item_ids!r}")
        indices = [self.processor.index_of(item) for item in item_ids]
        filters = ItemFilter.of(self.processor, allowed, exclude)
        vectors = np.concatenate((np.zeros((1, self.model.config.hidden_size), np.float32), self.item_vectors()[1]))
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        left_out = [np.append(filters.never, index) for index in indices]
        ids, scores = ExactIndex(vectors).top_k(vectors[indices], top_k, left_out, filters.only)
        return [
            [self.processor.listed(index, score) for index, score in zip(*row, strict=True) if index]
            for row in zip(ids.tolist(), scores.tolist(), strict=True)
        ]

    def item_vectors(self) -> tuple[list[Any], np.ndarray]:
        """The vectors of all items, of which scores are computed: the inner product with that of a history.

        Returns:
            Raw ids, and float32 (num_items, hidden_size): one row for each id.
        """
        vectors = self.model.item_vectors().detach()  # type: ignore[operator]
        return list(self.processor.item_ids), vectors.float().cpu().numpy()[1:].copy()


def in_the_kind_of(source: Any, frame: Any) -> Any:
    """A polars frame as what `source` is: a pandas frame, a pyarrow table, a `datasets.Dataset`, or else as it is."""
    kind = type(source).__module__.partition(".")[0]
    if kind == "pandas":
        return frame.to_pandas()
    if kind == "pyarrow":
        return frame.to_arrow()
    if kind == "datasets":
        import datasets

        return datasets.Dataset(frame.to_arrow())
    return frame


class ClickSession:
    """Recommends after each click: GLINT-RU from its state, other models from the whole history.

    Args:
        model: Any recommender of this package, in eval mode.
        processor: Its vocabulary.
        top_k: Items to recommend, between 1 and the number of items.
        exclude_seen: Whether what was clicked is left out; by default unless the processor says `recommend_seen`.
        allowed: Raw ids, a mask or an `ItemSet`: nothing else is recommended.
        exclude: The same: not recommended, whatever their score.

    Raises:
        GlintRUError: `top_k` is out of range, or the model knows no item of `allowed`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: GlintRUProcessor,
        top_k: int = 10,
        exclude_seen: bool | None = None,
        *,
        allowed: Any = None,
        exclude: Any = None,
    ) -> None:
        self.model: Any = model
        self.processor = processor
        self.top_k = check_top_k(top_k, len(processor))
        self.exclude_seen = leaves_out_seen(exclude_seen, processor)
        self.filters = ItemFilter.of(processor, allowed, exclude)
        self.clicks: list[int] = []
        streams = hasattr(model, "state_class")
        # One state for each length of the history, so that a click can be taken back; empty for other models.
        self.states: list[Any] = [self.model.model.empty_state()] if streams else []

    def click(self, raw_id: Any) -> list[dict[str, Any]]:
        """The best next items, as `GlintRUProcessor.decode_top_k` gives them, after one more item.

        Raises:
            UnknownItemError: The model does not know the item; the session is as before.
        """
        clicks = [*self.clicks, self.processor.index_of(raw_id)]
        device = self.model.device
        exclude = torch.tensor([clicks], device=device) if self.exclude_seen else None
        with torch.inference_mode():
            if self.states:
                newest = torch.tensor([clicks[-1:]], device=device)
                output = self.model(newest, state=self.states[-1], exclude_item_ids=exclude)
                self.states.append(output.state)
            else:
                newest = torch.tensor([clicks[-self.processor.max_length :]], device=device)
                output = self.model(newest, exclude_item_ids=exclude)
            logits = output.logits
            if self.filters:
                logits[:, torch.from_numpy(~self.filters.passing).to(device)] = -torch.inf
        self.clicks = clicks
        return self.processor.decode_top_k(logits, self.top_k)[0]

    def undo(self) -> Any:
        """Takes the newest click back, and says which item it was.

        Raises:
            GlintRUError: There is none.
        """
        if not self.clicks:
            raise GlintRUError("there is nothing to undo")
        if self.states:
            self.states.pop()
        return self.processor.raw_id(self.clicks.pop())
