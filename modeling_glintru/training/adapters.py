"""LoRA through `peft`, on the linear layers of GLINT-RU's blocks."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from ..errors import RecipeError

__all__ = ["add_adapters", "check_adapters", "merge_adapters"]


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
