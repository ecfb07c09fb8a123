"""Batches to weights: the Trainer with length-bucketed batches, and one run of a recipe."""

from .folder import check_run_folder
from .optimizer import LazyAdamW
from .run import TrainingResult, save_model_folder, train
from .trainer import GlintRUTrainer, ReturnFreedMemory

__all__ = [
    "GlintRUTrainer",
    "LazyAdamW",
    "ReturnFreedMemory",
    "TrainingResult",
    "check_run_folder",
    "save_model_folder",
    "train",
]
