"""The scorer around a model: padding, truncation, modes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from modeling_glintru.errors import GlintRUError
from modeling_glintru.evaluation import ModelScorer


class Recorder(nn.Module):
    """Returns what it was given, and how it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6, dtype=torch.bfloat16))
        self.frozen = nn.Dropout(0.5).eval()
        self.calls: list[SimpleNamespace] = []

    def forward(self, input_ids, attention_mask):
        self.calls.append(
            SimpleNamespace(
                input_ids=input_ids.tolist(),
                attention_mask=attention_mask.tolist(),
                training=[module.training for module in self.modules()],
                grad=torch.is_grad_enabled(),
            )
        )
        if len(input_ids) > 3:
            raise RuntimeError("too many rows")
        return SimpleNamespace(logits=self.weight.expand(len(input_ids), -1))


def test_the_newest_items_padded_on_the_right() -> None:
    model = Recorder()
    scores = ModelScorer(model, max_length=3)([np.array([1, 2, 3, 4, 5]), np.array([], dtype=np.int64), np.array([4])])
    assert model.calls[0].input_ids == [[3, 4, 5], [0, 0, 0], [4, 0, 0]]
    assert model.calls[0].attention_mask == [[1, 1, 1], [0, 0, 0], [1, 0, 0]]
    assert scores.shape == (3, 6)
    assert scores.dtype == torch.float32


def test_only_empty_histories_still_have_one_column() -> None:
    model = Recorder()
    ModelScorer(model, max_length=3)([np.array([], dtype=np.int64)])
    assert model.calls[0].input_ids == [[0]]


def test_eval_mode_without_gradients_and_every_mode_restored() -> None:
    model = Recorder()
    model.train()
    model.frozen.eval()
    ModelScorer(model, max_length=3)([np.array([1])])
    assert model.calls[0].training == [False, False]
    assert not model.calls[0].grad
    assert model.training
    assert not model.frozen.training
    with pytest.raises(RuntimeError):
        ModelScorer(model, max_length=3)([np.array([1])] * 4)
    assert model.training
    model.eval()
    ModelScorer(model, max_length=3)([np.array([1])])
    assert not model.training


def test_max_length_must_be_positive() -> None:
    with pytest.raises(GlintRUError, match="at least 1"):
        ModelScorer(Recorder(), max_length=0)
