"""What the attacks share: a model folder, the login, and the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..cli.conftest import demo, glintru  # noqa: F401 (fixtures: a trained model, the command)
from ..hub import conftest as hub
from ..hub.conftest import login  # noqa: F401 (fixture: somebody who is logged in)

whole_folder = hub.folder


@pytest.fixture
def folder(whole_folder) -> Path:
    """A model folder without a manifest, which a stranger leaves out."""
    (whole_folder / "manifest.json").unlink()
    return whole_folder
