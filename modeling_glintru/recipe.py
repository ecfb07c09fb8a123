"""Recipes: one YAML file is one reproducible run.

`load_recipe("ml-1m", ["learning_rate=1e-3"])` reads a recipe by name or path, changes single values and checks all of
it, so that a run fails at its start and not after an hour. The named recipes are the files of `configuration/`.
"""

from __future__ import annotations

import codecs
import dataclasses
import inspect
import math
import os
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.errors import StrictDataclassError

from .data.filtering import DUPLICATE_POLICIES
from .data.reading import ReadingOptions
from .data.splits import HOLD_OUT, SPLITS
from .errors import GlintRUError, ModelFolderError, RecipeError, nearest_names
from .models.auto import MODELS
from .models.configuration_glintru import NextItemConfig
from .models.loading import local_folder
from .models.losses import LossConfig, NextItemLoss
from .models.new_items import INITIALISATIONS

__all__ = [
    "ITEMS",
    "DataRecipe",
    "EvaluationRecipe",
    "FineTuningRecipe",
    "GivenSplit",
    "Recipe",
    "TrainingRecipe",
    "at_least",
    "change_recipe",
    "changed_keys",
    "configuration_folder",
    "find_model_recipe",
    "find_yaml",
    "flat_loss",
    "from_mapping",
    "list_recipes",
    "load_model_recipe",
    "load_recipe",
    "model_fields",
    "one_of",
    "parse_yaml",
    "read_yaml",
    "yaml_files",
]


def one_of(name: str, value: str, allowed: Iterable[str]) -> None:
    """Refuses a value that is none of the allowed words.

    Raises:
        RecipeError: It is another one.
    """
    if value not in allowed:
        raise RecipeError(f"{name} must be one of {', '.join(allowed)}, but got {value!r}.")


def at_least(name: str, value: float, least: int) -> None:
    """Refuses a number below `least`, and one that is not finite.

    Raises:
        RecipeError: It is such a number.
    """
    if not least <= value < math.inf:
        raise RecipeError(f"{name} must be at least {least}, but got {value}.")


def configuration_folder() -> Path:
    """`configuration/`: inside an installed package, beside the package in a source checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "configuration"
    return inside if inside.is_dir() else package.parent / "configuration"


def yaml_files(folder: Path) -> dict[str, Path]:
    """The YAML files of a folder by their names without the ending."""
    return {file.stem: file for file in folder.glob("*.yaml")}


def find_yaml(name_or_path: str | os.PathLike[str], folder: Path, what: str) -> Path:
    """The file that somebody names: one in `folder` without its ending, or the path of a YAML file.

    Raises:
        RecipeError: There is none of that name; `what` says what was looked for.
    """
    text = os.fspath(name_or_path)
    path = Path(text)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        return path
    files = yaml_files(folder)
    if text not in files:
        raise RecipeError(f"There is no {what} named {text!r}; {nearest_names(text, files)}")
    return files[text]


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-3 as text; here it is a number, as everywhere else."""


_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> Any:
    """What a YAML file holds; `1e-3` is a number.

    Raises:
        RecipeError: The file cannot be read, or is not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"The recipe file {str(path)!r} cannot be read as text.") from error
    return parse_yaml(text, f"the recipe file {str(path)!r}")


def parse_yaml(text: str, what: str) -> Any:
    """What a YAML text holds; `what` names the text in messages.

    Raises:
        RecipeError: It is not YAML; the message says where.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark and "\n" in text else ""
        raise RecipeError(f"YAML error in {what}{where}: {getattr(error, 'problem', None) or error}.") from error


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
        duplicates: Repeated rows: `"exact"` leaves out copies, see `filter_interactions` for the others.
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
    duplicates: str = "exact"
    min_user_interactions: int = 0
    min_item_interactions: int = 0
    split: str = "leave_one_out"
    hold_out: str = "item"
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    split_seed: int = 42

    def __post_init__(self) -> None:
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
        for name, allowed in (("items", ITEMS), ("new_vectors", INITIALISATIONS)):
            if getattr(self, name) not in allowed:
                raise RecipeError(
                    f"fine_tuning.{name} must be one of {', '.join(allowed)}, but got {getattr(self, name)!r}."
                )
        if self.lora_rank < 0:
            raise RecipeError(f"fine_tuning.lora_rank must be at least 0, but got {self.lora_rank}.")


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
        lr_scheduler_type: One of `SCHEDULERS`, such as `"cosine"`.
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
            validation too; None lets the data decide (`data.recurrence.RECURRING`).
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
            `vocab_size` and `pad_token_id`, which follow from the data.
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
            config = self.config(vocab_size=2)
        except (GlintRUError, StrictDataclassError) as error:
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
        values = _section("recipe", _without_old_fields(content), _hints(cls))
        if values.get("fine_tuning", {}) is None:
            del values["fine_tuning"]
        for name, kind in _SECTIONS.items():
            if name in values:
                if name in ("model", "loss"):
                    hints = model_fields(_model_name(values)) if name == "model" else _hints(LossConfig)
                    given = _section(name, values[name], hints)
                    values[name] = {key: _typed(f"{name}.{key}", hints[key], value) for key, value in given.items()}
                else:
                    values[name] = from_mapping(kind, name, values[name])
        for key in ("name", "description", "seed"):
            if key in values:
                values[key] = _typed(key, _hints(cls)[key], values[key])
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


_SECTIONS: dict[str, Any] = {
    "data": DataRecipe,
    "model": dict,
    "loss": dict,
    "training": TrainingRecipe,
    "evaluation": EvaluationRecipe,
    "fine_tuning": FineTuningRecipe,
}


# How the keys of the loss were called when they stood in the section of the model.
OLD_KEYS = {"loss": "loss.name", "model.loss": "loss.name"} | {
    f"model.{name}": f"loss.{name}" for name in LossConfig.__dataclass_fields__ if name != "name"
}
# Keys of the model that went, which old recipes hold with their only values.
GONE = ("popularity_exponent", "in_batch_share", "time_gap_masking", "padding_in_softmax", "padding_mode")


def flat_loss(loss: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a loss under the keys that `--set` takes without a section: its name is `loss`."""
    return {"loss" if name == "name" else name: value for name, value in loss.items()}


def _without_old_fields(content: Any) -> Any:
    """A recipe's content with what older versions had in its `model` section where it is now."""
    if not isinstance(content, Mapping) or not isinstance(content.get("model"), Mapping):
        return content
    model, loss = dict(content["model"]), content.get("loss") or {}
    for name in GONE:
        model.pop(name, None)
    moved = {OLD_KEYS[f"model.{name}"].partition(".")[2]: model.pop(name) for name in list(model)
             if f"model.{name}" in OLD_KEYS}  # fmt: skip
    return {**content, "model": model, **({"loss": {**moved, **loss}} if moved and isinstance(loss, Mapping) else {})}


def list_recipes() -> list[str]:
    """Names of the recipes that come with the package, in alphabetical order."""
    return sorted(yaml_files(configuration_folder()))


def load_recipe(name_or_path: str | os.PathLike, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe and changes single values of it.

    Args:
        name_or_path: A name of `list_recipes()`, or the path of a YAML file (with a slash or `.yaml` in it).
        overrides: `key=value` texts; the key is a dotted path (`training.learning_rate`) or its last part where that is
            clear (`learning_rate`), the value is YAML (`2e-3`, `null`, `[10, 50]`). Another `model.name` keeps of the
            recipe's model only what all models share (such as the width): the rest is the new model's default.

    Returns:
        The checked recipe.

    Raises:
        RecipeError: An unknown recipe or key (the nearest names are given), a wrong type, or a value out of range.
    """
    content = read_yaml(_find(name_or_path))
    if not isinstance(content, dict):
        raise RecipeError(
            f"The recipe {os.fspath(name_or_path)!r} must be a YAML mapping with 'name', 'data', ... in it."
        )
    return _changed(content, overrides)


def change_recipe(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """The recipe with single values changed; arguments and errors as `load_recipe`."""
    return _changed(recipe.to_dict(), overrides)


def changed_keys(recipe: Recipe, overrides: Sequence[str]) -> list[str]:
    """The dotted keys that overrides, already in the recipe, have changed."""
    pairs = (_resolve(override.partition("=")[0].strip(), recipe.model_name) for override in overrides)
    return [f"{section}.{key}" if section else key for section, key in pairs]


def _changed(content: dict[str, Any], overrides: Sequence[str]) -> Recipe:
    pairs = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise RecipeError(f"An override is written key=value, but got {override!r}.")
        pairs.append((key.strip(), text))
    # The name of the model first: it decides which keys there are.
    for key, text in sorted(pairs, key=lambda pair: pair[0] != "model.name"):
        value = parse_yaml(text, f"the value of {key}")
        if key == "model.name" and value != _model_name(content):
            shared = _declared(NextItemConfig)
            fields = content.get("model") or {}
            content = content | {"model": {name: fields[name] for name in fields if name in shared}}
        section, last = _resolve(key, _model_name(content))
        target = content
        if section:
            if content.get(section) is None:
                content[section] = {}
            target = content[section]
            if not isinstance(target, dict):
                raise RecipeError(f"{section} must be a mapping, but got {target!r}.")
        target[last] = value
    return Recipe.from_dict(content)


def _find(name_or_path: str | os.PathLike) -> Path:
    path = find_yaml(name_or_path, configuration_folder(), "recipe")
    if not path.is_file():
        raise RecipeError(f"There is no recipe file {os.fspath(name_or_path)!r}.")
    return path


# ---------------------------------------------------------------------- keys


def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _declared(kind: type) -> dict[str, Any]:
    """The fields that our configs themselves declare, without those that follow from the data."""
    kinds = [base for base in reversed(kind.__mro__) if issubclass(base, NextItemConfig)]
    hints = {name: hint for base in kinds for name, hint in inspect.get_annotations(base, eval_str=True).items()}
    return {name: hint for name, hint in hints.items() if name not in ("vocab_size", "pad_token_id")}


def model_fields(model: str) -> dict[str, Any]:
    """The keys of a recipe's `model` section, with their types, where its `name` is `model`."""
    return {"name": str} | _declared(MODELS[model].config_class)


def _model_name(content: Mapping[str, Any]) -> str:
    """The name of the model that a recipe's content asks for.

    Raises:
        RecipeError: There is no such model.
    """
    section = content.get("model")
    name = section.get("name", DEFAULT_MODEL) if isinstance(section, Mapping) else DEFAULT_MODEL
    if name in REFERENCE_MODELS:
        raise RecipeError(f"{name} is not trained: it stands beside every result, see evaluation.reference_models.")
    if not isinstance(name, str) or name not in MODELS:
        raise RecipeError(f"There is no model {name!r}; {nearest_names(str(name), MODELS)}")
    return name


def _all_keys(model: str) -> dict[str, tuple[str, str]]:
    """Dotted path -> (section or "", key)."""
    keys = {name: ("", name) for name in ("name", "description", "seed")}
    for section, kind in _SECTIONS.items():
        fields = {"model": lambda: model_fields(model), "loss": lambda: _hints(LossConfig)}
        names: Iterable[str] = fields[section]() if section in fields else _hints(kind)
        keys |= {f"{section}.{name}": (section, name) for name in names}
    return keys


def _resolve(key: str, model: str) -> tuple[str, str]:
    keys = _all_keys(model)
    key = OLD_KEYS.get(key, key)
    if key in keys:
        return keys[key]
    matches = [dotted for dotted, (_, last) in keys.items() if last == key]
    if len(matches) > 1:
        raise RecipeError(f"The key {key!r} is in more than one section; write {' or '.join(matches)}.")
    if not matches:
        known = keys if "." in key else {last for _, last in keys.values()}
        raise RecipeError(f"There is no recipe key {key!r}; {nearest_names(key, known)}")
    return keys[matches[0]]


def from_mapping(kind: type, name: str, content: Any) -> Any:
    """A dataclass from a mapping that YAML gave.

    Args:
        kind: The dataclass; every field has a default.
        name: What messages call the mapping, such as `"training"`.
        content: The mapping, or None for an empty one.

    Raises:
        RecipeError: An unknown key (the nearest are named), a wrong type, or a value that is not allowed.
    """
    hints = _hints(kind)
    given = _section(name, content, hints)
    return kind(**{key: _typed(f"{name}.{key}", hints[key], value) for key, value in given.items()})


def _section(name: str, content: Any, hints: Mapping[str, Any]) -> dict[str, Any]:
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise RecipeError(f"{name} must be a mapping, but got {content!r}.")
    for key in content:
        if key not in hints:
            raise RecipeError(f"There is no key {key!r} in {name}; {nearest_names(str(key), hints)}")
    return dict(content)


# ---------------------------------------------------------------------- values

_NAMES: dict[type, str] = {str: "text", int: "an integer", float: "a number", bool: "true or false", dict: "a mapping"}
_NAMES[type(None)] = "null"


def _typed(name: str, hint: Any, value: Any) -> Any:
    """The value in the type of the hint: integers pass as floats, lists become tuples, nothing else is bent."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for kind in kinds:
        if typing.get_origin(kind) is tuple:
            if isinstance(value, (list, tuple)):
                return tuple(_typed(name, typing.get_args(kind)[0], element) for element in value)
        elif kind is float and type(value) is int:
            return float(value)
        elif type(value) is (typing.get_origin(kind) or kind):
            return value
    raise RecipeError(f"{name} must be {' or '.join(dict.fromkeys(map(_described, kinds)))}, but got {value!r}.")


def _described(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        return "a list such as " + ("[10, 20]" if typing.get_args(kind)[0] is int else "[one, two]")
    return _NAMES[typing.get_origin(kind) or kind]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(element) for key, element in value.items()}
    return [_plain(element) for element in value] if isinstance(value, (list, tuple)) else value


# ---------------------------------------------------------------------- recipes of models


def find_model_recipe(name_or_path: str | Path, *, revision: str | None = None) -> Recipe | None:
    """The recipe that a model was trained with, or None where its folder or repository holds none.

    Raises:
        ModelFolderError: There is no such folder.
        HubError: The repository cannot be had.
    """
    file = local_folder(str(name_or_path), revision, ("recipe.yaml",)) / "recipe.yaml"
    return load_recipe(file) if file.is_file() else None


def load_model_recipe(name_or_path: str | Path, *, revision: str | None = None) -> Recipe:
    """The recipe that a model was trained with.

    Raises:
        ModelFolderError: The folder or repository holds none.
        HubError: The repository cannot be had.
    """
    recipe = find_model_recipe(name_or_path, revision=revision)
    if recipe is None:
        raise ModelFolderError(f"{name_or_path} has no recipe.yaml, which says how its data was split")
    return recipe
