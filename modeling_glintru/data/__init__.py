"""Makes sequences, splits and batches of tables of interactions.

Names are imported when they are first used, because reading a table needs neither torch nor transformers. The function
`prepare` is imported from its own file, `modeling_glintru.data.prepare`, since both have the same name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batches import LengthBucketSampler, SequenceCollator, TargetBatchSampler
    from .example_data import load_movielens_100k, movielens_100k_titles, synthetic_interactions, synthetic_item_titles
    from .filtering import filter_interactions
    from .interactions import Interactions, read_interactions
    from .item_features import ItemEncoder, ItemFeatures
    from .items import ItemTable, read_items
    from .prepared import PreparedData, load_prepared
    from .sources import load_source, load_titles
    from .windows import TrainingPrefixes, TrainingWindows

__all__ = [
    "Interactions",
    "ItemEncoder",
    "ItemFeatures",
    "ItemTable",
    "LengthBucketSampler",
    "PreparedData",
    "SequenceCollator",
    "TargetBatchSampler",
    "TrainingPrefixes",
    "TrainingWindows",
    "filter_interactions",
    "load_movielens_100k",
    "load_prepared",
    "load_source",
    "load_titles",
    "movielens_100k_titles",
    "read_interactions",
    "read_items",
    "synthetic_interactions",
    "synthetic_item_titles",
]

_HOMES = {
    "Interactions": "interactions",
    "ItemEncoder": "item_features",
    "ItemFeatures": "item_features",
    "ItemTable": "items",
    "LengthBucketSampler": "batches",
    "PreparedData": "prepared",
    "SequenceCollator": "batches",
    "TargetBatchSampler": "batches",
    "TrainingPrefixes": "windows",
    "TrainingWindows": "windows",
    "filter_interactions": "filtering",
    "load_movielens_100k": "example_data",
    "load_prepared": "prepared",
    "load_source": "sources",
    "load_titles": "sources",
    "movielens_100k_titles": "example_data",
    "read_interactions": "interactions",
    "read_items": "items",
    "synthetic_interactions": "example_data",
    "synthetic_item_titles": "example_data",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
