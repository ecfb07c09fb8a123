"""Measures models: ranks of held-out items, their metrics with intervals, and reports."""

from __future__ import annotations

from .evaluate import Evaluation, evaluate
from .metrics import RankingMetrics, bootstrap_interval, per_user_metrics
from .plots import plot_learning_curves
from .ranking import rank_among, rank_targets, target_ranks
from .report import (
    REFERENCE_TITLES,
    against,
    collect_metrics,
    format_table,
    library_versions,
    no_better_than,
    write_metrics_json,
)
from .scorers import ItemKNNScorer, ModelScorer, OwnItemsScorer, PopularityScorer, Scorer

__all__ = [
    "REFERENCE_TITLES",
    "Evaluation",
    "ItemKNNScorer",
    "ModelScorer",
    "OwnItemsScorer",
    "PopularityScorer",
    "RankingMetrics",
    "Scorer",
    "against",
    "bootstrap_interval",
    "collect_metrics",
    "evaluate",
    "format_table",
    "library_versions",
    "no_better_than",
    "per_user_metrics",
    "plot_learning_curves",
    "rank_among",
    "rank_targets",
    "target_ranks",
    "write_metrics_json",
]
