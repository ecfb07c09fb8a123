"""Fixtures that every folder of tests shares."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .hub_server import LoopbackHub, start_for_session

HUB = start_for_session()  # before anything imports huggingface_hub, which reads the address once

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real interactions, or a skip where it is missing."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the real interactions (shared/data) are not on this machine")
    return folder


@pytest.fixture(scope="session")
def official_golden() -> Path:
    """Numbers that the authors' code computed, see `tests/golden/README.md`."""
    return Path(__file__).parent / "golden" / "official.safetensors"


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    """The Hub that this process and its children talk to, and the client's cache, both empty; see hub_server/."""
    from huggingface_hub import constants

    assert HUB.url == constants.ENDPOINT, "huggingface_hub was imported before tests/conftest.py"
    assert constants.HF_HUB_CACHE.startswith(os.environ["HF_HOME"])  # the one of the tests, which may be removed
    HUB.reset()
    shutil.rmtree(constants.HF_HUB_CACHE, ignore_errors=True)
    yield HUB
    HUB.reset()
