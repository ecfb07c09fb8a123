"""The section of a recipe that makes its run a fine-tuning, and the settings of such a run where none are given."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import RecipeError
from .models.head_glintru import INITIALISATIONS

__all__ = ["ITEMS", "FineTuningRecipe"]

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
