"""Freed memory stays with the process, so a step does not map its pages anew, and goes back before it piles up."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from modeling_glintru.training import GlintRUTrainer, ReturnFreedMemory
from modeling_glintru.training import trainer as memory_module

MIB = 2**20

CODE = """
import resource
import numpy as np
from modeling_glintru.machine import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(8_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

plain = [faults() for _ in range(3)][-1]
taken = keep_freed_memory()
kept = [faults() for _ in range(3)][-1]
print(taken, plain, kept)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc only")
def test_freed_memory_is_used_again():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    taken, plain, kept = done.stdout.split()
    assert taken == "True"
    assert int(kept) < int(plain) / 10


def test_elsewhere_it_does_nothing(monkeypatch):
    from modeling_glintru import machine as _memory

    monkeypatch.setattr(sys, "platform", "darwin")
    assert _memory.keep_freed_memory() is False
    assert _memory.give_back_memory() is False


GAPS = """
import numpy as np
from modeling_glintru.machine import give_back_memory, keep_freed_memory, own_bytes

keep_freed_memory()
before = own_bytes()
blocks = [np.ones(100_000) for _ in range(300)]  # 240 MB
last = np.ones(100)  # above them, so that the heap cannot shrink
del blocks
piled = own_bytes()
taken = give_back_memory()
print(taken, piled - before, own_bytes() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc only")
def test_gaps_between_blocks_in_use_go_back():
    done = subprocess.run([sys.executable, "-c", GAPS], capture_output=True, text=True, check=True)
    taken, piled, left = done.stdout.split()
    assert taken == "True"
    assert int(piled) > 200 * MIB
    assert int(left) < 50 * MIB


def given_back_at(monkeypatch, held: dict[int, int], steps: int, begin: tuple[int, ...] = (1,)) -> list[int]:
    """After which steps memory goes back; it holds so many MiB from a step on, and 1,000 again after that."""
    found: list[int] = []
    now = [1_000]
    monkeypatch.setattr(memory_module, "own_bytes", lambda: now[0] * MIB)
    callback = ReturnFreedMemory()
    for step in range(1, steps + 1):
        now[0] = held.get(step, now[0])

        def give_back(step: int = step) -> None:
            found.append(step)
            now[0] = 1_000

        monkeypatch.setattr(memory_module, "give_back_memory", give_back)
        if step in begin:
            callback.on_train_begin(None, None, None)
        callback.on_step_end(None, None, None)
    return found


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ({}, []),
        ({5: 1_190}, []),  # less than a fifth more
        ({15: 1_210}, [15]),
        ({5: 1_300}, [10]),  # not so soon
        ({1: 500, 2: 1_000, 12: 1_190}, []),  # what the first step makes stays
        ({15: 1_300, 17: 1_500}, [15, 25]),  # a step after it finds worse gaps, and needs no more for that
    ],
)
def test_memory_goes_back_when_a_fifth_more_is_held(monkeypatch, held, expected):
    assert given_back_at(monkeypatch, held, 40) == expected


def test_another_training_is_measured_anew(monkeypatch):
    assert given_back_at(monkeypatch, {20: 5_000}, 60, begin=(1, 20)) == []


def test_where_nothing_tells_the_memory_none_goes_back(monkeypatch):
    monkeypatch.setattr(memory_module, "own_bytes", lambda: None)
    monkeypatch.setattr(memory_module, "give_back_memory", lambda: pytest.fail("gave back"))
    callback = ReturnFreedMemory()
    for _ in range(30):
        callback.on_step_end(None, None, None)


def test_the_trainer_has_it(tmp_path):
    from transformers import TrainingArguments

    from tests.model.helpers import small_model

    trainer = GlintRUTrainer(small_model(), TrainingArguments(str(tmp_path), report_to="none", use_cpu=True))
    kinds = [type(callback) for callback in trainer.callback_handler.callbacks]
    assert kinds.count(ReturnFreedMemory) == 1
