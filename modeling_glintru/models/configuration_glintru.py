"""Configuration of GLINT-RU (arXiv 2406.10244, KDD 2025)."""

import hashlib
import json
import os
from collections.abc import Callable
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.utils import logging

__all__ = ["FORMAT_VERSION", "MANIFEST_FILE", "GlintRUConfig", "GlintRUError", "NextItemConfig"]

logger = logging.get_logger(__name__)

# Keys that transformers itself may hand to a config beside its declared fields.
_TRANSFORMERS_KEYS = frozenset(
    "architectures attn_implementation auto_map custom_pipelines experts_implementation model_type name_or_path "  # noqa: SIM905
    "num_labels output_attentions per_layer_config quantization_config tie_word_embeddings torch_dtype "
    "transformers_version use_cache".split()
)


FORMAT_VERSION = 1  # of model folders: raised when earlier versions of this code would read a new folder wrongly
MANIFEST_FILE = "manifest.json"
# What makes rows of new items of their features, where a model was trained with features.
ITEM_FILES = ("item_projection.safetensors", "item_encoder.json", "item_encoder.safetensors")
# What a model is loaded from, its code, and how it was made and measured; who has an endpoint may change handler.py.
DESCRIBED = (
    *("config.json", "preprocessor_config.json", "recipe.yaml", "metrics.json", "item_vocabulary.safetensors"),
    *("model.safetensors", "model-*.safetensors", "model.safetensors.index.json"),
    *ITEM_FILES,
    *("*_glintru.py", "modeling_*.py", "*_baselines.py"),
)

# What `pipeline(task, model=folder, trust_remote_code=True)` looks up in config.json.
_PIPELINE = {"impl": "pipeline_glintru.SequentialRecommendationPipeline", "pt": ["AutoModel"]}


class GlintRUError(ValueError):
    """Base of every error that this package raises on bad input."""


def from_package(module: str, required: bool = True) -> Any:
    """A module of `modeling_glintru.models` that does not travel to the Hub.

    Raises:
        GlintRUError: The package is not installed, and the module is required; otherwise the result is None then.
    """
    try:
        return import_module(f"modeling_glintru.models.{module}")
    except ImportError as error:
        if required:
            raise GlintRUError("this needs the package: pip install glintru") from error
        return None


def check_format(settings: dict[str, Any], name: str) -> None:
    """Refuses settings that a later version of this code has written.

    Raises:
        GlintRUError: `format_version` is above `FORMAT_VERSION`.
    """
    version = settings.get("format_version", 1)
    if version not in range(1, FORMAT_VERSION + 1):
        raise GlintRUError(
            f"{name} has the format {version}, of a newer version of glintru, and this one reads format "
            f"{FORMAT_VERSION}: pip install -U glintru"
        )


def size_and_digest(file: BinaryIO) -> dict[str, Any]:
    """What `manifest.json` says of one file: `{"size": bytes, "sha256": hexadecimal}`."""
    digest, size = hashlib.sha256(), 0
    while block := file.read(1 << 20):
        digest.update(block)
        size += len(block)
    return {"size": size, "sha256": digest.hexdigest()}


def is_described(name: str) -> bool:
    """Whether a file of this name has an entry in `manifest.json`."""
    return any(fnmatch(name, pattern) for pattern in DESCRIBED)


def write_manifest(folder: str | os.PathLike) -> None:
    """Writes `manifest.json`, by which a loader notices that a file of the model is damaged or was exchanged."""
    files = {}
    for path in sorted(Path(folder).iterdir()):
        if path.is_file() and is_described(path.name):
            with path.open("rb") as file:
                files[path.name] = size_and_digest(file)
    Path(folder, MANIFEST_FILE).write_text(json.dumps({"files": files}, indent=1) + "\n", encoding="utf-8")


UNKNOWN_GAP = -1.0  # the time to a request where it is not known


def check_knows_time(model: Any) -> None:
    """Refuses times that a model would not use.

    Raises:
        GlintRUError: The model was made without `use_time_gaps`.
    """
    if not getattr(getattr(model, "config", None), "use_time_gaps", False):
        raise GlintRUError("time gaps are for models with use_time_gaps=True, and this one was made without")


def check_fields(config: Any, names: tuple[str, ...], said: str, allowed: Callable[[Any], bool]) -> None:
    """Refuses a config in which the value of one of these fields is not allowed; `said` tells what is."""
    for name in names:
        if not allowed(getattr(config, name)):
            raise GlintRUError(f"{name} must be {said}, got {getattr(config, name)}")


def at_least_one(config: Any, *names: str) -> None:
    """Each named field is 1 or more."""
    check_fields(config, names, "at least 1", lambda value: value >= 1)


def rates(config: Any, *names: str) -> None:
    """Each named field is in [0, 1)."""
    check_fields(config, names, "at least 0 and below 1", lambda value: 0 <= value < 1)


def above_zero(config: Any, *names: str) -> None:
    """Each named field is positive and finite."""
    check_fields(config, names, "above 0 and finite", lambda value: 0 < value < float("inf"))


def heads_divide(config: Any) -> None:
    """The width is a multiple of the number of heads."""
    if config.hidden_size % config.num_attention_heads:
        raise GlintRUError(
            f"hidden_size must be a multiple of num_attention_heads, got {config.hidden_size} and "
            f"{config.num_attention_heads}"
        )


@strict
class NextItemConfig(PreTrainedConfig):
    """What every model of this package is configured with: sizes and scores. See `GlintRUConfig`."""

    keys_to_ignore_at_inference = ["last_hidden_state", "hidden_states"]  # noqa: RUF012

    vocab_size: int = 3417
    hidden_size: int = 128
    pad_token_id: int = 0
    temperature: float | int = 1.0
    normalize_scores: bool = False
    use_time_gaps: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        check_format(kwargs, "config.json")
        kwargs.pop("format_version", None)
        unknown = {key for key in kwargs if key not in _TRANSFORMERS_KEYS and not key.startswith("_")}
        if unknown and (old_configs := from_package("old_configs", required=False)):
            unknown -= old_configs.take_out_old_fields(kwargs)
        if unknown:
            names = ", ".join(map(repr, sorted(unknown)))
            logger.warning(f"{type(self).__name__} does not know {names}: set as attributes, but not used.")
        super().__post_init__(**kwargs)

    def to_dict(self) -> dict[str, Any]:
        """All fields, the format of the folder, and where the code of the pipeline is."""
        own = {"format_version": FORMAT_VERSION, "custom_pipelines": {"sequential-recommendation": dict(_PIPELINE)}}
        return super().to_dict() | own

    @property
    def custom_pipelines(self) -> dict[str, Any]:
        """Pipelines that come as remote code; none where the package is, which registers its own."""
        return {"sequential-recommendation": dict(_PIPELINE)} if "transformers_modules" in __name__ else {}

    @custom_pipelines.setter
    def custom_pipelines(self, value: Any) -> None:
        """What a file or `pipe.save_pretrained` says is known here."""

    def validate_head(self) -> None:
        """What all models share is in its range."""
        if self.vocab_size < 2:
            raise GlintRUError(f"vocab_size must be at least 2 (one item and the padding index), got {self.vocab_size}")
        if self.pad_token_id != 0:
            raise GlintRUError(f"pad_token_id must be 0, got {self.pad_token_id}")
        at_least_one(self, "hidden_size")
        above_zero(self, "temperature")


@strict
class GlintRUConfig(NextItemConfig):
    r"""Sizes and options of a GLINT-RU model. Symbols in brackets are the paper's.

    Args:
        vocab_size (`int`, defaults to 3417): Number of items plus one [`|V| + 1`]; index 0 is padding.
        hidden_size (`int`, defaults to 128): Width of embeddings and of every layer [d].
        num_attention_heads (`int`, defaults to 8): Heads of the linear-attention expert [H]; divides `hidden_size`.
        num_hidden_layers (`int`, defaults to 1): Number of blocks; the paper has one. Block n + 1 reads the prefix
            representations of block n.
        pad_token_id (`int`, defaults to 0): The padding index; only 0 is allowed.
        embedding_dropout (`float`, defaults to 0.2): Dropout on the item embeddings, the input X of the first block.
        attention_dropout (`float`, defaults to 0.2): Dropout on the output of the linear attention, before LayerNorm 1.
        hidden_dropout (`float`, defaults to 0.3): Dropout in the selective gate, after the mixing and after the MLP.
        layer_norm_eps (`float`, defaults to 1e-12): Epsilon of both layer normalisations.
        use_linear_attention (`bool`, defaults to `True`): The linear-attention expert (section 3.4); at least one of
            the two experts must be on.
        use_gru (`bool`, defaults to `True`): The dense selective GRU expert (section 3.3).
        use_temporal_convolutions (`bool`, defaults to `True`): The two 3-tap convolutions around the GRU.
        use_selective_gate (`bool`, defaults to `True`): The dense selective gate on the GRU's output.
        use_expert_mixing (`bool`, defaults to `True`): Learned softmax weights of the experts [alpha]; off: 1/2 each.
        use_block_gate (`bool`, defaults to `True`): The GELU gate on the mixed experts.
        use_gated_mlp (`bool`, defaults to `True`): The gated MLP at the end of the block (section 3.5).
        average_share (`float`, defaults to 0.0): Share of a moving average of the block's input in what the MLP reads,
            the rest being that of the experts; 0 (off, as published) to below 1. Helps on small or sparse data.
        average_decay (`float`, defaults to 0.9): What an item's weight in that average is multiplied by for each item
            after it; 0 to below 1.
        state_space_share (`float`, defaults to 0.0): Share of a selective state space (Mamba's) over the block's input
            in what the MLP reads; 0 is off, as published. Helps where histories are long.
        use_embedding_norm (`bool`, defaults to `False`): A layer normalisation between the embeddings' dropout and the
            first block; not in the paper. A state space wants it.
        states_vocab_size (`int`, *optional*): The `vocab_size` before items were added without training, which leaves
            stored states valid; `add_items` sets it, and training removes it. `None` where it is `vocab_size`.
        temperature (`float`, defaults to 1.0): Scores are divided by it in the loss and in `logits`; above 0.
        normalize_scores (`bool`, defaults to `False`): Scores are cosines instead of inner products of representation
            and item embedding. Needs a small temperature, 0.05 to 0.1.
        use_time_gaps (`bool`, defaults to `False`): Whether the scores also depend on the time from the last item to
            the request, where `time_gaps` gives it. See `TimeGaps`.

    Raises:
        huggingface_hub.errors.StrictDataclassError: A field has a wrong type or a value that is not allowed; the
            message says what is.

    Example:
        >>> from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation
        >>> model = GlintRUForSequentialRecommendation(GlintRUConfig(vocab_size=101, hidden_size=32))
    """

    model_type = "glintru"

    num_attention_heads: int = 8
    num_hidden_layers: int = 1
    embedding_dropout: float | int = 0.2
    attention_dropout: float | int = 0.2
    hidden_dropout: float | int = 0.3
    layer_norm_eps: float | int = 1e-12
    use_linear_attention: bool = True
    use_gru: bool = True
    use_temporal_convolutions: bool = True
    use_selective_gate: bool = True
    use_expert_mixing: bool = True
    use_block_gate: bool = True
    use_gated_mlp: bool = True
    average_share: float | int = 0.0
    average_decay: float | int = 0.9
    state_space_share: float | int = 0.0
    use_embedding_norm: bool = False
    states_vocab_size: int | None = None

    def validate_block(self) -> None:
        """Sizes fit each other, and the parts that are on make a model."""
        at_least_one(self, "num_attention_heads", "num_hidden_layers")
        heads_divide(self)
        if self.hidden_size < 2:
            raise GlintRUError(
                f"hidden_size must be at least 2 (the gate's bottleneck is half of it), got {self.hidden_size}"
            )
        rates(self, "embedding_dropout", "attention_dropout", "hidden_dropout", "average_share", "average_decay")
        rates(self, "state_space_share")
        if self.average_share + self.state_space_share >= 1:
            raise GlintRUError(
                "average_share and state_space_share must leave something to the experts, got "
                f"{self.average_share} and {self.state_space_share}"
            )
        above_zero(self, "layer_norm_eps")
        if self.states_vocab_size not in (None, *range(2, self.vocab_size + 1)):
            raise GlintRUError(
                f"states_vocab_size must be between 2 and vocab_size ({self.vocab_size}), got {self.states_vocab_size}"
            )
        if not (self.use_linear_attention or self.use_gru):
            raise GlintRUError("use_linear_attention and use_gru cannot both be off: the block needs an expert")
