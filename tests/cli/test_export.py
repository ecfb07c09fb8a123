"""`glintru export`; what it writes is tested in tests/serving/test_onnx.py."""

from __future__ import annotations

import sys

import pytest


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--to", "tflite", "--output", "x"), "--to must be onnx, but got 'tflite'"),
        (("--output", "x"), "needs the package onnx"),
    ],
)
def test_bad_input(demo, glintru, words, message, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.chdir(tmp_path)
    result = glintru("export", demo[0], *words)
    assert result.exit_code == 2
    assert message in result.stderr and result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_folder_must_be_named(demo, glintru):
    result = glintru("export", demo[0])
    assert result.exit_code == 2 and "--output" in result.stderr
