"""Freed memory stays with the process, so a step does not map its pages anew."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

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
