"""What a recipe says: the sections of a run, their keys with types, defaults and help, and what is allowed.

The `Args` of these classes are the help texts of `--set help`; a key's type and default are those of its field.
"""

from __future__ import annotations

import codecs
import dataclasses
import inspect
import math
import os
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.errors import StrictDataclassError
from transformers.utils import logging

from ..data.filtering import DUPLICATE_POLICIES
from ..data.reading import ReadingOptions
from ..data.splits import HOLD_OUT, SPLITS
from ..data.text_encoders import TFIDF, check_text_encoder
from ..errors import DataError, GlintRUError, RecipeError, nearest_names
from ..models.auto import MODELS
from ..models.configuration_glintru import NextItemConfig
from ..models.losses import LossConfig, NextItemLoss
from ..models.new_items import INITIALISATIONS
from ..models.untrusted_text import check_integers
from .reading import at_least, from_mapping, one_of, section, typed, typed_section

__all__ = ["ITEMS", "DataRecipe", "EvaluationRecipe", "FineTuningRecipe", "GivenSplit", "Recipe", "TrainingRecipe"]

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class _Source:
    source: str | None = None


def _file(help: str) -> Any:
    return field(default=None, metadata={"help": help, "metavar": "FILE"})


@dataclass(frozen=True)
class GivenSplit:
    """The files of a split that somebody else made; `train_data` takes the place of the source."""

    train_data: str | None = _file("Instead of --data: the training part of a split that is given.")
    validation_data: str | None = _file("With --train_data: what is validated on.")
    test_data: str | None = _file("With --train_data: what is tested on.")


@dataclass(frozen=True)
class DataRecipe(ReadingOptions, GivenSplit, _Source):
    """Where the interactions come from, and how they are read, filtered and split.

    Args:
        source: A file, a Hub data set name, `"ml-100k"` or `"demo"`; None when it is given on the command line.
        train_data, validation_data, test_data: Instead of `source`, the files of a split that is given.
        item_titles: A file with titles of items, or None.
        title_column: Name of its column of titles; None recognises the usual names.
        items: A table of what is known of the items: text, categories, numbers or vectors; None has none.
        item_features: The columns of `items` to use; None uses all that tell something.
        text_encoder: What makes vectors of the text of items: `"tfidf"`, `"wordllama"` or
            `"sentence-transformers/NAME"`.
        duplicates: What happens to repeated rows: `"exact"` leaves out copies; or `"keep"`, `"consecutive"`, `"first"`,
            `"last"`, see `filter_interactions`.
        min_user_interactions: Users with fewer interactions are left out (0: none).
        min_item_interactions: Items with fewer interactions are left out (0: none).
        split: `"leave_one_out"`, `"temporal"`, `"user"` or `"given"`.
        hold_out: What leave_one_out holds out: the last `"item"` of a user, or the last `"basket"`, all of its items.
        validation_fraction: Share of the validation part in the temporal and the user split.
        test_fraction: Share of the test part in the temporal and the user split.
        split_seed: Which users the user split holds out; apart from `seed`, so that runs share their test users.

    All options of `ReadingOptions` stand in between: `user_column`, `where`, `encoding` and the others.

    Raises:
        RecipeError: A value that is not allowed.
    """

    item_titles: str | None = None
    title_column: str | None = None
    items: str | None = None
    item_features: tuple[str, ...] | None = None
    text_encoder: str = TFIDF
    duplicates: str = "exact"
    min_user_interactions: int = 0
    min_item_interactions: int = 0
    split: str = "leave_one_out"
    hold_out: str = "item"
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    split_seed: int = 42

    def __post_init__(self) -> None:
        try:
            check_text_encoder(self.text_encoder)
        except DataError as error:
            raise RecipeError(f"data.text_encoder: {error}") from error
        if self.item_features is not None and (not self.item_features or "" in self.item_features):
            raise RecipeError("data.item_features must name columns; leave it out to use all of them.")
        one_of("data.duplicates", self.duplicates, DUPLICATE_POLICIES)
        one_of("data.split", self.split, SPLITS)
        one_of("data.hold_out", self.hold_out, HOLD_OUT)
        for name in ("split_seed", "min_user_interactions", "min_item_interactions"):
            at_least(f"data.{name}", getattr(self, name), 0)
        if not (self.validation_fraction > 0 and self.test_fraction > 0):
            raise RecipeError("data.validation_fraction and data.test_fraction must be above 0.")
        if not self.validation_fraction + self.test_fraction < 1:
            raise RecipeError("data.validation_fraction and data.test_fraction must leave something to train on.")
        if self.hold_out != "item" and self.split != "leave_one_out":
            raise RecipeError(f"data.hold_out {self.hold_out} is for split leave_one_out, not for {self.split}.")
        self._check_reading()

    def _check_reading(self) -> None:
        for name, value in self.reading.items():
            if "" in (value if isinstance(value, tuple) else (value,)):
                raise RecipeError(f"data.{name} must not be empty.")
        if len(set(self.columns)) < len(self.columns):
            raise RecipeError(f"data.columns names a column twice: {', '.join(self.columns)}.")
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except LookupError:
                raise RecipeError(
                    f"data.encoding must be an encoding such as utf-8, latin-1 or utf-16, but got {self.encoding!r}."
                ) from None

    @property
    def reading(self) -> dict[str, Any]:
        """The reading options that are not at their defaults, as `load_source` takes them."""
        return self.given()

    @property
    def split_files(self) -> dict[str, str]:
        """The files of a given split, by the names of the fields; empty where there is none."""
        return {item.name: file for item in fields(GivenSplit) if (file := getattr(self, item.name)) is not None}


ITEMS = ("add", "known", "new")


@dataclass(frozen=True)
class FineTuningRecipe:
    """What a run starts from instead of new weights.

    Args:
        from_model: Folder or Hub repository of the model.
        from_weights: Checksum of its weights, written by the run; None takes any.
        items: Items of the data that the model does not know: `"add"` them to its vocabulary, leave all but the
            `"known"` ones out, or `"new"`: keep its other weights and learn the items of the data anew.
        new_vectors: Where embeddings of added items begin: `"neighbours"` or `"mean"`, see `add_items` of the models.
        lora_rank: Rank of the LoRA adapters that are trained instead of the block's weights; 0 trains the weights.
    """

    from_model: str = ""
    from_weights: str | None = None
    items: str = "add"
    new_vectors: str = "neighbours"
    lora_rank: int = 0

    def __post_init__(self) -> None:
        if not self.from_model:
            raise RecipeError("fine_tuning.from_model must name the model to start from: --from MODEL.")
        one_of("fine_tuning.items", self.items, ITEMS)
        one_of("fine_tuning.new_vectors", self.new_vectors, INITIALISATIONS)
        at_least("fine_tuning.lora_rank", self.lora_rank, 0)


PROTOCOLS = ("full", "pop100", "uni100")
DEFAULT_MODEL = "glintru"
REFERENCE_MODELS = ("popularity", "item_knn", "own_newest", "own_frequent")
PRECISIONS = ("auto", "fp32", "bf16")
NEW_WEIGHTS = ("cooccurrence_start", "cooccurrence_smoothing")  # training settings that are not for fine-tuning
# Those of transformers that need nothing but warm-up steps.
SCHEDULERS = tuple(
    "linear cosine cosine_with_restarts polynomial constant constant_with_warmup inverse_sqrt".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class TrainingRecipe:
    """How the weights are found.

    Args:
        max_length: Newest items of a history that the model reads.
        num_train_epochs: Passes over all targets, at most.
        train_batch_size: Windows a step, or prefixes; those of all processes together.
        train_batch_targets: Targets a step, about, instead of `train_batch_size` windows; at least `max_length`.
        eval_batch_size: Users a step in evaluation.
        learning_rate: Peak learning rate of AdamW.
        lr_scheduler_type: How the learning rate changes: `"linear"`, `"cosine"`, `"cosine_with_restarts"`,
            `"polynomial"`, `"constant"`, `"constant_with_warmup"` or `"inverse_sqrt"`.
        warmup_steps: Steps until the peak learning rate.
        weight_decay: AdamW's decoupled weight decay.
        max_grad_norm: Gradients are clipped to this norm.
        early_stopping_patience: Epochs without a better validation metric after which training stops; None never.
        metric: The validation metric that decides, such as `"ndcg@10"`.
        precision: `"auto"` (bf16 where the machine is fast at it), `"fp32"` or `"bf16"`.
        prefix_share: Models of whole histories learn from one prefix an example, not from windows; this share of all
            prefixes is drawn for each epoch.
        cooccurrence_start: Share of the variance of the first item embeddings that comes from which items stand near
            each other in the training histories, 0 (all random) to 1.
        cooccurrence_smoothing: Weight of the items near it in the embedding of an item, all through training; 0 is off.
        random_window_shift: Whether the borders of the training windows move from epoch to epoch.
        refit: Whether to train anew on everything, held-out items and users included, for as many epochs as were kept;
            the figures stay those of the model that was measured.
        dataloader_num_workers: Processes that make batches; 0 makes them in the training process.
        logging_steps: Steps between two log lines.
    """

    max_length: int = 200
    num_train_epochs: int = 20
    train_batch_size: int = 32
    train_batch_targets: int | None = None
    eval_batch_size: int = 128
    learning_rate: float = 1e-3
    lr_scheduler_type: str = "cosine"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    early_stopping_patience: int | None = 5
    metric: str = "ndcg@10"
    precision: str = "auto"
    prefix_share: float = 1.0
    cooccurrence_start: float = 0.0
    cooccurrence_smoothing: float = 0.0
    random_window_shift: bool = False
    refit: bool = False
    dataloader_num_workers: int = 0
    logging_steps: int = 50

    def __post_init__(self) -> None:
        for name in ("max_length", "num_train_epochs", "train_batch_size", "eval_batch_size", "logging_steps"):
            at_least(f"training.{name}", getattr(self, name), 1)
        for name in ("warmup_steps", "weight_decay", "dataloader_num_workers", "cooccurrence_smoothing"):
            at_least(f"training.{name}", getattr(self, name), 0)
        for name in ("learning_rate", "max_grad_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise RecipeError(f"training.{name} must be above 0, but got {getattr(self, name)}.")
        if not 0 < self.prefix_share <= 1:
            raise RecipeError(f"training.prefix_share must be above 0 and at most 1, but got {self.prefix_share}.")
        if not 0 <= self.cooccurrence_start <= 1:
            raise RecipeError(f"training.cooccurrence_start must be between 0 and 1, got {self.cooccurrence_start}.")
        if self.train_batch_targets is not None:
            at_least("training.train_batch_targets", self.train_batch_targets, self.max_length)
        if self.early_stopping_patience is not None:
            at_least("training.early_stopping_patience", self.early_stopping_patience, 1)
        one_of("training.lr_scheduler_type", self.lr_scheduler_type, SCHEDULERS)
        one_of("training.precision", self.precision, PRECISIONS)
        if not re.fullmatch(r"(ndcg|hr|recall|mrr)@[1-9][0-9]*", self.metric):
            raise RecipeError(f"training.metric must be ndcg@K, hr@K, recall@K or mrr@K, but got {self.metric!r}.")


@dataclass(frozen=True)
class EvaluationRecipe:
    """How the trained model is measured.

    Args:
        top_k: The cut-offs k of the metrics.
        protocols: Which items a target is ranked among: `"full"` (all), `"pop100"`, `"uni100"` (100 sampled ones).
        num_bootstrap: Bootstrap samples for the 95 % intervals.
        reference_models: What the model is compared with: `"popularity"`, `"item_knn"`, `"own_newest"` and
            `"own_frequent"` (the user's own items, the newest or the most frequent first). Where items recur, the last
            two are added to whatever is named.
        recommend_seen: Whether past items are recommended again, which also makes their ranking the main one, in
            validation too; None lets the data decide (`data.summary.RECURRING`).
    """

    top_k: tuple[int, ...] = (10, 20)
    protocols: tuple[str, ...] = ("full",)
    num_bootstrap: int = 1000
    reference_models: tuple[str, ...] = ("popularity", "item_knn")
    recommend_seen: bool | None = None

    def __post_init__(self) -> None:
        if not self.top_k or min(self.top_k) < 1:
            raise RecipeError(f"evaluation.top_k must be positive integers, but got {list(self.top_k)}.")
        for protocol in self.protocols:
            one_of("evaluation.protocols", protocol, PROTOCOLS)
        if "full" not in self.protocols:
            raise RecipeError("evaluation.protocols must contain 'full': the sampled protocols are an addition to it.")
        for model in self.reference_models:
            one_of("evaluation.reference_models", model, REFERENCE_MODELS)
        at_least("evaluation.num_bootstrap", self.num_bootstrap, 1)


@dataclass(frozen=True)
class Recipe:
    """Everything that a run depends on beside the interactions themselves.

    Args:
        name: Short name of the recipe.
        description: One sentence for people.
        seed: Seed of every random number of the run.
        data: See `DataRecipe`.
        model: `name`, one of `auto.MODELS` (`"glintru"` when not given), and fields of that model's config, without
            those that follow from the data (`OF_THE_DATA`).
        loss: Fields of `LossConfig`; the cross-entropy over all items when empty.
        training: See `TrainingRecipe`.
        evaluation: See `EvaluationRecipe`.
        fine_tuning: See `FineTuningRecipe`; None starts with new weights.

    Raises:
        RecipeError: A value that is not allowed.
    """

    name: str
    description: str = ""
    seed: int = 42
    data: DataRecipe = field(default_factory=DataRecipe)
    model: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    training: TrainingRecipe = field(default_factory=TrainingRecipe)
    evaluation: EvaluationRecipe = field(default_factory=EvaluationRecipe)
    fine_tuning: FineTuningRecipe | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise RecipeError(f"seed must be between 0 and 2^32 - 1, but got {self.seed}.")
        try:
            check_integers(self.model)
            config = self.config(vocab_size=2)
        except (ValueError, GlintRUError, StrictDataclassError) as error:
            # The strict dataclass wraps the sentence of the config in lines of its own.
            raise RecipeError(f"model: {error.__cause__ or error}.") from error
        try:
            LossConfig(**self.loss)
        except GlintRUError as error:
            raise RecipeError(f"{error}.") from error
        longest = getattr(config, "max_position_embeddings", self.training.max_length)
        if longest < self.training.max_length:
            raise RecipeError(
                f"model.max_position_embeddings is {longest}, but training.max_length {self.training.max_length} "
                "gives longer histories."
            )

    @property
    def model_name(self) -> str:
        """The model's name in `auto.MODELS`."""
        return self.model.get("name", DEFAULT_MODEL)

    def config(self, vocab_size: int) -> NextItemConfig:
        """The config of the recipe's model; a model with positions has as many as `training.max_length`."""
        fields = {key: value for key, value in self.model.items() if key != "name"}
        if "max_position_embeddings" in model_fields(self.model_name):
            fields.setdefault("max_position_embeddings", self.training.max_length)
        return MODELS[self.model_name].config_class(vocab_size=vocab_size, **fields)

    def training_loss(self, item_counts: Any) -> NextItemLoss:
        """The loss of a model that this recipe trains; `item_counts` (vocab_size,) are those of the training part."""
        return NextItemLoss(item_counts=item_counts, **self.loss)

    @classmethod
    def from_dict(cls, content: Any) -> Recipe:
        """A checked recipe from nested mappings, as YAML gives them.

        Raises:
            RecipeError: An unknown key (the nearest are named), a wrong type, or a value that is not allowed.
        """
        values = section("recipe", _without_old_keys(content), typing.get_type_hints(cls))
        if values.get("fine_tuning", {}) is None:
            del values["fine_tuning"]
        for name, kind in SECTIONS.items():
            if name in values:
                if kind is dict:
                    hints = section_hints(name, model_name(values))
                    values[name] = typed_section(name, values[name], hints)
                else:
                    values[name] = from_mapping(kind, name, values[name])
        for key in ("name", "description", "seed"):
            if key in values:
                values[key] = typed(key, typing.get_type_hints(cls)[key], values[key])
        if not values.get("name"):
            raise RecipeError("A recipe needs a name, as in 'name: my-run'.")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dictionaries and lists, ready for YAML or JSON."""
        content = _plain(dataclasses.asdict(self))
        if self.fine_tuning is None:
            del content["fine_tuning"]
        return content

    def to_yaml(self) -> str:
        """The recipe as YAML text that `load_recipe` reads back to an equal recipe."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=120)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the recipe as a YAML file."""
        Path(path).write_text(self.to_yaml(), encoding="utf-8")


SECTIONS: dict[str, Any] = {
    "data": DataRecipe,
    "model": dict,
    "loss": dict,
    "training": TrainingRecipe,
    "evaluation": EvaluationRecipe,
    "fine_tuning": FineTuningRecipe,
}


# How the keys of the loss were called when they stood in the section of the model.
OLD_KEYS = {"loss": "loss.name", "model.loss": "loss.name", "items": "fine_tuning.items"} | {
    f"model.{name}": f"loss.{name}" for name in LossConfig.__dataclass_fields__ if name != "name"
}
# Keys of the model that older versions had, with the only values that are still possible.
GONE = {
    "popularity_exponent": 1.0,
    "in_batch_share": 0.5,
    "time_gap_masking": 0.1,
    "padding_in_softmax": False,
    "padding_mode": "masked",
}


def _without_old_keys(content: Any) -> Any:
    """A recipe's content with what older versions had in its `model` section where it is now.

    Raises:
        RecipeError: It asks for the authors' padding leak, with which no model runs any more.
    """
    if not isinstance(content, Mapping) or not isinstance(content.get("model"), Mapping):
        return content
    model, loss = dict(content["model"]), content.get("loss") or {}
    gone = {name: model.pop(name) for name in GONE if name in model}
    if gone.get("padding_mode", "masked") != "masked":
        raise RecipeError(
            "model.padding_mode 'official', the authors' padding leak, is not a way to run a model any more: leave the "
            "key out, or write masked."
        )
    if lost := {name: value for name, value in gone.items() if value != GONE[name]}:
        logger.warning_once(f"The recipe sets what is not a setting any more; it runs without {lost}.")
    moved = {OLD_KEYS[f"model.{name}"].partition(".")[2]: model.pop(name) for name in list(model)
             if f"model.{name}" in OLD_KEYS}  # fmt: skip
    return {**content, "model": model, **({"loss": {**moved, **loss}} if moved and isinstance(loss, Mapping) else {})}


def section_hints(name: str, model: str) -> dict[str, Any]:
    """The keys of a section with their types, in a recipe of this model; `""` is the top of a recipe."""
    if name == "model":
        return model_fields(model)
    kind = {"": Recipe, "loss": LossConfig}.get(name) or SECTIONS[name]
    hints = typing.get_type_hints(kind)
    return hints if name else {key: hint for key, hint in hints.items() if key not in SECTIONS}


def model_fields(model: str) -> dict[str, Any]:
    """The keys of a recipe's `model` section, with their types, where its `name` is `model`."""
    return {"name": str} | declared_fields(MODELS[model].config_class)


def model_section(model: Any) -> dict[str, Any]:
    """The `model` section of a recipe for models like this one."""
    name = model.config.model_type
    fields = (field for field in model_fields(name) if field != "name")
    return {"name": name} | {field: getattr(model.config, field) for field in fields}


OF_THE_DATA = ("vocab_size", "pad_token_id", "states_vocab_size")


def declared_fields(kind: type) -> dict[str, Any]:
    """The fields that our configs themselves declare, without those that follow from the data."""
    kinds = [base for base in reversed(kind.__mro__) if issubclass(base, NextItemConfig)]
    hints = {name: hint for base in kinds for name, hint in inspect.get_annotations(base, eval_str=True).items()}
    return {name: hint for name, hint in hints.items() if name not in OF_THE_DATA}


def model_name(content: Mapping[str, Any]) -> str:
    """The name of the model that a recipe's content asks for.

    Raises:
        RecipeError: There is no such model.
    """
    part = content.get("model")
    name = part.get("name", DEFAULT_MODEL) if isinstance(part, Mapping) else DEFAULT_MODEL
    if name in REFERENCE_MODELS:
        raise RecipeError(f"{name} is not trained: it stands beside every result, see evaluation.reference_models.")
    if not isinstance(name, str) or name not in MODELS:
        raise RecipeError(f"There is no model {name!r}; {nearest_names(str(name), MODELS)}")
    return name


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(element) for key, element in value.items()}
    return [_plain(element) for element in value] if isinstance(value, (list, tuple)) else value
