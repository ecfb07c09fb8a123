"""What the attacks share: a model folder, the login, the command, and the number of tries."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ..cli.conftest import demo, glintru  # noqa: F401 (fixtures: a trained model, the command)
from ..hub import conftest as hub
from ..hub.conftest import login  # noqa: F401 (fixture: somebody who is logged in)
from ..serving.test_processes import workers  # noqa: F401 (fixture: processes that write into a store)
from .processes import Commands
from .shop import WORKS, Result, copy_shop, make_shop, result

HERE = Path(__file__).parent

whole_folder = hub.folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == HERE:
            item.add_marker("attack")


def tries(few: int, share: float = 1.0) -> int:
    """How often an attack is tried: `few` times, or a share of GLINTRU_ATTACK_TRIES where that is set."""
    wanted = os.environ.get("GLINTRU_ATTACK_TRIES")
    return few if wanted is None else max(1, round(share * int(wanted)))


@pytest.fixture
def folder(whole_folder) -> Path:
    """A model folder without a manifest, which a stranger leaves out."""
    (whole_folder / "manifest.json").unlink()
    return whole_folder


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    """Runs `glintru` as processes of their own."""
    commands = Commands(tmp_path_factory.mktemp("commands"))
    yield commands
    commands.close()


@pytest.fixture(scope="session")
def shop(commands, tmp_path_factory) -> Path:
    """A shop with what its commands have written earlier. Not to be changed by a test."""
    folder = tmp_path_factory.mktemp("shop")
    make_shop(folder, commands)
    return folder


@pytest.fixture(scope="session")
def unbroken(commands, shop, tmp_path_factory) -> Callable[[str], Result]:
    """What a command of `WORKS` leaves when nothing disturbs it."""

    @functools.cache
    def run(name: str) -> Result:
        folder = copy_shop(shop, tmp_path_factory.mktemp("unbroken") / "shop")
        ended = commands.well(*WORKS[name].words, *WORKS[name].again, below=folder)
        return result(folder, WORKS[name], ended)

    return run
