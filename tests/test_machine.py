"""The device to compute on."""

from __future__ import annotations

import pytest
import torch

from modeling_glintru import GlintRUError
from modeling_glintru.machine import pick_device


def test_a_gpu_is_taken_where_there_is_one(monkeypatch):
    for there, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert pick_device() == pick_device("auto") == torch.device(expected)


def test_a_device_by_name():
    assert pick_device("cpu") == pick_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta", "", "cpu:x"])
def test_what_cannot_be_computed_on(name):
    with pytest.raises(GlintRUError, match=f"there is no device '{name}' to compute on") as caught:
        pick_device(name)
    assert "give auto, cpu, or a device of this machine" in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250
