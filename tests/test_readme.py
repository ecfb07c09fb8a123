"""Every code block of the README and of the how-to pages runs, top to bottom, in one folder."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from modeling_glintru.cli import app
from modeling_glintru.data import synthetic_interactions

from .hub_server import ANN

if sys.version_info >= (3, 11):
    import tomllib

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Pages that begin with `interactions.csv` and a model of it in `outputs/shop`.
PAGES = ("items", "recommend", "settings", "sharing", "streaming", "trainer", "training")
ONE_EPOCH = {
    "num_train_epochs=3": "num_train_epochs=1",
    '"num_train_epochs": 3': '"num_train_epochs": 1',
    "fit(frame, ": 'fit(frame, settings={"num_train_epochs": 1}, ',
}


def code_blocks(page: str) -> list[tuple[str, str]]:
    """Language and content of each block that has a language; the others show output."""
    return re.findall(r"^```(bash|python)\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)


def glintru(command: str) -> None:
    """Runs a `glintru` line; trainings are cut to one epoch."""
    words = shlex.split(command)[1:]
    if words[0] == "train":
        words += ["--set", "num_train_epochs=1", "--quiet"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, f"{command}\n{result.output}"


def run_page(page: Path) -> dict[str, Any]:
    """Runs the blocks of a page in the present folder and returns the names that its Python leaves."""
    names: dict[str, Any] = {"__name__": page.stem}
    for language, code in code_blocks(page.read_text(encoding="utf-8")):
        if language == "python":
            for long, short in ONE_EPOCH.items():
                code = code.replace(long, short)
            exec(compile(code, page.name, "exec"), names)
        else:
            for line in code.strip().splitlines():
                if not line.startswith("pip install "):
                    assert line.startswith("glintru "), line
                    glintru(line)
    return names


@pytest.fixture
def alone(tmp_path, monkeypatch) -> Path:
    """An empty folder, and a token for the Hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", ANN)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a table of interactions and a model of it."""
    folder = tmp_path_factory.mktemp("shop")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        synthetic_interactions().frame.write_csv("interactions.csv")
        glintru("glintru train --recipe demo --data interactions.csv --output_dir outputs/shop")
    return folder


@pytest.fixture
def shop(alone, trained) -> Path:
    """A copy of that folder, and a token for the Hub."""
    shutil.copytree(trained, alone, dirs_exist_ok=True)
    return alone


@pytest.mark.slow
def test_the_readme(alone, hub):
    run_page(ROOT / "README.md")
    assert (alone / "recommendations.parquet").is_file() and (alone / "users.db").is_file()


@pytest.mark.slow
def test_the_tutorial(alone, hub):
    run_page(ROOT / "docs" / "tutorial.md")
    assert (alone / "recommendations.parquet").is_file() and len(hub.repo("ann/shop").branches["main"]) == 3


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_page(shop, hub, page):
    names = run_page(ROOT / "docs" / f"{page}.md")
    if page == "recommend":
        assert names["new"].cold_start and len(names["new"].items) == 3
        assert "saga-01-volume-3" not in (shop / "recommendations.csv").read_text(encoding="utf-8")


def test_the_readme_is_short_and_names_targets_that_exist():
    assert len(README.splitlines()) <= 150 and len(README.split()) <= 1_200
    for target in re.findall(r"`make (\w+)`", README):
        subprocess.run(["make", target, "-n"], cwd=ROOT, check=True, capture_output=True)


def test_linked_files_exist():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (page.parent / target).exists() or target == "commands.md", (page.name, target)
        for file in re.findall(r"`((?:examples|benchmarks|research|docs)/[\w./-]+\.\w+)`", text):
            assert (ROOT / file).exists(), (page.name, file)


def test_each_page_is_linked_from_the_first_page_of_the_docs():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8").splitlines()
    missing = {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index", "commands"} - set(index)
    assert not missing


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_the_address_of_the_project_is_that_of_its_metadata():
    with (ROOT / "pyproject.toml").open("rb") as file:
        address = tomllib.load(file)["project"]["urls"]["Repository"]
    assert f"git+{address}" in README
