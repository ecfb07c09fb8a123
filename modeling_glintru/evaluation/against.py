"""Whether a model is better than what needs no training: paired differences over the users."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import DataError
from .evaluate import Evaluation
from .metrics import bootstrap_interval, per_user_metrics

__all__ = ["REFERENCE_TITLES", "against", "no_better_than"]

# What people read for the names of the reference models.
REFERENCE_TITLES = {
    "popularity": "popularity",
    "item_knn": "item-kNN",
    "own_newest": "own items, newest first",
    "own_frequent": "own items, most often first",
}


def against(model: Evaluation, references: Mapping[str, Evaluation]) -> dict[str, dict[str, float]]:
    """The model's NDCG minus that of each reference, in the ranking that is served, with paired 95 % intervals.

    Args:
        model: Of the model.
        references: Of other scorers by name, over the same targets in the same order.

    Returns:
        For each name `{"value": ..., "low": ..., "high": ...}`: the mean difference, and its interval over users.

    Raises:
        DataError: A reference was measured over another number of targets.
    """
    k = min(model.ks)
    found = {}
    for name, reference in references.items():
        if reference.num_targets != model.num_targets:
            raise DataError(
                f"{name} was measured over {reference.num_targets} targets, the model over {model.num_targets}"
            )
        ours, theirs = (per_user_metrics(each.ranks[model.main], [k])[f"ndcg@{k}"] for each in (model, reference))
        low, high = bootstrap_interval(ours - theirs, model.num_bootstrap, seed=model.seed, users=model.users)
        found[name] = {"value": float(np.mean(ours - theirs)), "low": low, "high": high}
    return found


def no_better_than(differences: Mapping[str, Mapping[str, float]], k: int) -> str | None:
    """A sentence that names each reference which the model does not surely beat; None where it beats all.

    Args:
        differences: From `against`, or the entry `against` of a `metrics.json`.
        k: Cutoff of the NDCG in them.
    """
    worst = {name: entry for name, entry in differences.items() if name in REFERENCE_TITLES and entry["low"] <= 0}
    if not worst:
        return None
    said = "; ".join(
        f"{REFERENCE_TITLES[name]} (difference of NDCG@{k} {entry['value']:+.4f} [{entry['low']:+.4f}, "
        f"{entry['high']:+.4f}])"
        for name, entry in worst.items()
    )
    return f"This model is not better than {said}: the 95 % interval of the paired difference is not above zero."
