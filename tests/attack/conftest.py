"""What the attacks share: a model folder, the login, and the command."""

from __future__ import annotations

from ..cli.conftest import demo, glintru  # noqa: F401 (fixtures: a trained model, the command)
from ..hub.conftest import folder, login  # noqa: F401 (fixtures: a model folder to push, somebody who is logged in)
