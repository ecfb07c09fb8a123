"""Ranking metrics for a plain `transformers.Trainer`, without keeping any logits.

    Trainer(..., compute_metrics=RankingMetrics(ks=(10,)), preprocess_logits_for_metrics=target_ranks)

gives `eval_ndcg@10`, `eval_hr@10` and `eval_mrr@10`, with `batch_eval_metrics` on or off.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from .metrics import per_user_metrics
from .ranking import MISSED, rank_targets

__all__ = ["RankingMetrics", "target_ranks"]

IGNORED = -100  # the label of positions without a target, and the Trainer's own padding


def target_ranks(logits: Tensor | tuple[Tensor, ...], labels: Tensor) -> Tensor:
    """The rank of each row's target; for `Trainer(preprocess_logits_for_metrics=…)`.

    Args:
        logits: Scores of all items after the last item, float, (B, vocab_size), with -inf at items that are out of the
            ranking; or the Trainer's tuple of outputs that starts with them. A target with -inf is not recommended: its
            rank is `MISSED`.
        labels: int64 (B, L); the last label of a row that is not -100 is its target.

    Returns:
        int64 ranks, (B,), 1 is the best; 0 for a row without target, which `RankingMetrics` leaves out.
    """
    if isinstance(logits, (tuple, list)):
        logits = logits[0]
    present = labels != IGNORED
    positions = torch.arange(labels.shape[1], device=labels.device)
    last = (present * positions).amax(dim=1, keepdim=True)
    has_target = present.any(dim=1)
    targets = labels.gather(1, last).squeeze(1)
    targets = targets.where(has_target, 1).to(logits.device)  # item 1 stands in where there is none
    ranks = rank_targets(logits, targets)
    ranks = ranks.masked_fill(logits.gather(1, targets[:, None]).squeeze(1) == -torch.inf, MISSED)
    return ranks.where(has_target.to(ranks.device), 0)


class RankingMetrics:
    """NDCG, hit rate and MRR of the ranks that `target_ranks` gives; for `Trainer(compute_metrics=…)`.

    With `batch_eval_metrics=True` the Trainer calls it once a batch and it remembers ranks until `compute_result`;
    otherwise it is called once with all ranks.

    Args:
        ks: Cutoffs.
    """

    def __init__(self, ks: Sequence[int] = (10,)) -> None:
        self.ks = tuple(ks)
        self._ranks: list[np.ndarray] = []

    def reset(self) -> None:
        """Forget the batches of an evaluation that was interrupted."""
        self._ranks = []

    def __call__(self, prediction: Any, compute_result: bool = True) -> dict[str, float]:
        """Metrics of all ranks since the last result.

        Args:
            prediction: `transformers.EvalPrediction` whose `predictions` are ranks, (B,), array or tensor.
            compute_result: False: only remember the ranks of this batch.

        Returns:
            `{"ndcg@10": …, "hr@10": …, "mrr@10": …}`; empty while remembering.
        """
        ranks = prediction.predictions
        ranks = ranks.cpu().numpy() if isinstance(ranks, Tensor) else np.asarray(ranks)
        if ranks.ndim != 1:
            raise DataError(
                f"RankingMetrics wants one rank for each row, found predictions of shape {ranks.shape}; "
                "give the Trainer preprocess_logits_for_metrics=target_ranks"
            )
        self._ranks.append(ranks[ranks > 0])
        if not compute_result:
            return {}
        together = np.concatenate(self._ranks)
        self.reset()
        if together.size == 0:
            raise DataError("no evaluated row has a target: its labels are all -100")
        return {name: float(values.mean()) for name, values in per_user_metrics(together, self.ks).items()}
