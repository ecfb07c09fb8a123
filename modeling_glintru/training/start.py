"""The model that a fine-tuning starts from, fitted to the items of new data, and its adapters (LoRA through `peft`)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel

from ..data import ItemEncoder, PreparedData
from ..errors import ModelFolderError, RecipeError
from ..models.auto import MODELS
from ..models.item_projection import ItemProjection
from ..models.loading import MODEL_FILES, load_local_folder, local_folder
from ..models.processing_glintru import GlintRUProcessor
from ..recipe import FineTuningRecipe, Recipe, model_section

__all__ = ["Start", "add_adapters", "merge_adapters", "open_start", "weights_checksum"]


@dataclass(frozen=True)
class Start:
    """A model to start from; it is never changed.

    Args:
        model: In eval mode.
        processor: Its vocabulary.
        settings: What to do with it, with the checksum of its weights.
        encoder, projection: What makes rows of new items of their features; None where it was trained without.
    """

    model: PreTrainedModel
    processor: GlintRUProcessor
    settings: FineTuningRecipe
    encoder: ItemEncoder | None = None
    projection: ItemProjection | None = None

    def fitted(self, recipe: Recipe) -> Recipe:
        """The recipe with the model's own sizes and checksum.

        Raises:
            RecipeError: The recipe asks for other sizes.
        """
        own = model_section(self.model)
        given = {"name": recipe.model_name, **recipe.model}
        for key, value in given.items():
            if key in own and value != own[key] and not is_changeable(key):
                raise RecipeError(
                    f"fine-tuning keeps what the weights depend on: model.{key} is {own[key]!r} in "
                    f"{self.settings.from_model}, but {value!r} in the recipe"
                )
        return replace(recipe, model=own | given, fine_tuning=self.settings)

    def model_for(self, recipe: Recipe, data: PreparedData) -> PreTrainedModel:
        """A new model with the weights of this one and the vocabulary of the data; new embeddings are drawn anew."""
        settings, old = self.settings, self.model.state_dict()
        kind = MODELS[recipe.model_name]
        if settings.items == "new":
            model = kind(recipe.config(data.processor.vocab_size))
            table = model.get_input_embeddings().weight
            own = {name for name, parameter in model.named_parameters() if parameter is table}
            model.load_state_dict({name: tensor for name, tensor in old.items() if name not in own}, strict=False)
            return model
        model = kind(recipe.config(self.processor.vocab_size))
        model.load_state_dict(old)
        old_size, num_new = self.processor.vocab_size, data.processor.vocab_size - self.processor.vocab_size
        model.add_items(num_new, settings.new_vectors, histories(data.dataset["train"]))
        if data.item_features is not None and self.projection is not None:
            new = torch.from_numpy(np.flatnonzero(data.item_features.known[old_size:]) + old_size)
            with torch.no_grad():
                rows = self.projection.rows(torch.from_numpy(data.item_features.matrix)[new])
                model.get_input_embeddings().weight[new] = rows
        return model


def open_start(settings: FineTuningRecipe) -> Start:
    """Loads the model that a recipe starts from.

    Raises:
        ModelFolderError: See `load_model_folder`.
        RecipeError: It has other weights than the recipe wants, or LoRA is asked for where it is not to be had.
    """
    name = settings.from_model
    if "/" not in name and not Path(name).exists():  # a recipe keeps the name of a folder alone
        raise ModelFolderError(f"there is no model folder {name}; say with --from where the model to start from lies")
    folder = local_folder(name, None, MODEL_FILES)
    model, processor = load_local_folder(folder, name)
    projection = ItemProjection.load(folder)
    encoder = None if projection is None else ItemEncoder.load(folder)
    if settings.lora_rank:
        check_adapters(model)
    found = weights_checksum(model)
    if settings.from_weights not in (None, found):
        raise RecipeError(
            f"the recipe starts from weights {settings.from_weights}, but {settings.from_model} holds {found}; give "
            "the right ones with --from, or take these with --set from_weights=null"
        )
    return Start(model, processor, replace(settings, from_weights=found), encoder, projection)


def is_changeable(field: str) -> bool:
    """Whether a field of a config may be changed without making the weights useless: those of dropout alone."""
    return field.endswith("_dropout")


def histories(split: Dataset) -> Iterator[np.ndarray]:
    """The item indices of each row, without making Python lists of them."""
    for chunk in split.data.column("item_ids").chunks:
        values, offsets = chunk.values.to_numpy(), chunk.offsets.to_numpy()
        for begin, end in pairwise(offsets.tolist()):
            yield values[begin:end]


def weights_checksum(model: nn.Module) -> str:
    """16 hexadecimal digits that name the weights, exactly as they are."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{name}{tuple(array.shape)}{array.dtype}".encode())
        digest.update(array.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


# ---------------------------------------------------------------------- adapters


def check_adapters(model: PreTrainedModel) -> None:
    """Makes sure that `model` can have adapters.

    Raises:
        RecipeError: `peft` is not installed, or it is another model than GLINT-RU.
    """
    if find_spec("peft") is None:
        raise RecipeError("fine_tuning.lora_rank needs peft: pip install 'glintru[peft]', or train all weights with 0")
    if model.config.model_type != "glintru":
        raise RecipeError(f"fine_tuning.lora_rank is for glintru, not for {model.config.model_type}; leave it 0")


def linear_layers(model: nn.Module) -> list[str]:
    """The names of all linear layers of the blocks."""
    return [name for name, module in model.named_modules() if type(module) is nn.Linear]


def add_adapters(model: PreTrainedModel, rank: int, train_embeddings: bool) -> Any:
    """Puts an adapter around every linear layer of `model`, in place; all other weights are frozen.

    Args:
        model: A GLINT-RU.
        rank: Of the adapters.
        train_embeddings: Whether the item embeddings are trained too, as new items need it.

    Returns:
        What `merge_adapters` takes.

    Raises:
        RecipeError: See `check_adapters`.
    """
    check_adapters(model)
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=linear_layers(model)))
    model.get_input_embeddings().requires_grad_(train_embeddings)
    return adapted


def merge_adapters(adapted: Any) -> PreTrainedModel:
    """The model with its adapters added to the weights: an ordinary one again, all of it trainable."""
    model = adapted.merge_and_unload()
    if hasattr(model, "peft_config"):
        del model.peft_config
    return model.requires_grad_(True)
