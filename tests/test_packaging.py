"""What leaves the repository: the wheel, its recipes, the pins and the citation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from modeling_glintru import __version__

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((file.name for file in (ROOT / "configuration").glob("*.yaml")), key=lambda name: name[:-5])
CONFIGURATION = sorted(
    str(file.relative_to(ROOT / "configuration")) for file in (ROOT / "configuration").rglob("*.yaml")
)


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built with the hatchling of this environment and without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT), cwd=folder)
    (file,) = folder.glob("*.whl")
    return file


def metadata(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        return message_from_bytes(archive.read(f"glintru-{__version__}.dist-info/METADATA"))


def test_the_wheel_holds_the_package_the_recipes_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    inside = "modeling_glintru/configuration/"
    assert sorted(name.removeprefix(inside) for name in names if name.startswith(inside)) == CONFIGURATION
    modules = {str(file.relative_to(ROOT)) for file in (ROOT / "modeling_glintru").rglob("*.py")}
    assert modules <= set(names)
    assert {name.split("/")[0] for name in names} == {
        "modeling_glintru",
        "glintru.py",
        f"glintru-{__version__}.dist-info",
    }
    assert f"glintru-{__version__}.dist-info/licenses/LICENSE" in names


def test_the_source_archive_holds_no_tests(tmp_path):
    """They are worth nothing without their stored folders, which are larger than the package."""
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(tmp_path), str(ROOT), cwd=tmp_path)
    with tarfile.open(tmp_path / f"glintru-{__version__}.tar.gz") as archive:
        names = {name.split("/")[1] for name in archive.getnames()}
    files = {"README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "PKG-INFO", "pyproject.toml", ".gitignore"}
    assert names == {"modeling_glintru", "glintru.py", "configuration", "examples", *files}


def test_an_installed_wheel_finds_its_recipes_by_name(wheel, tmp_path):
    target = tmp_path / "elsewhere"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile")
    run(*pip, "--target", str(target), str(wheel), cwd=tmp_path)
    code = (
        "import modeling_glintru.recipe as r; print(r.__file__); print(*r.list_recipes());"
        "print(r.load_recipe('ml-1m', ['learning_rate=1e-3']).training.learning_rate)"
    )
    file, names, rate = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(target)).splitlines()
    assert Path(file).is_relative_to(target)
    assert names.split() == [name.removesuffix(".yaml") for name in RECIPES]
    assert rate == "0.001"
    code = (
        "import glintru, modeling_glintru; from glintru import Recommender, train; print(glintru.__file__);"
        "print(glintru.Recommender is Recommender is modeling_glintru.Recommender, train is modeling_glintru.train);"
        "print(glintru.__version__, 'fit' in dir(Recommender), 'Recommender' in dir(glintru))"
    )
    file, same, told = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(target)).splitlines()
    assert Path(file) == target / "glintru.py" and same == "True True" and told == f"{__version__} True True"


def test_the_metadata_of_the_wheel(wheel):
    content = metadata(wheel)
    assert content["Version"] == __version__
    assert content["Requires-Python"] == ">=3.10"
    assert set(content.get_all("Provides-Extra")) == {"ann", "dev", "export", "peft", "plots", "serve"}
    with zipfile.ZipFile(wheel) as archive:
        entry_points = archive.read(f"glintru-{__version__}.dist-info/entry_points.txt").decode()
    assert "glintru = modeling_glintru.cli:main" in entry_points


def pins() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_the_pins_are_names_and_versions_only():
    for pin in pins():
        assert pin.url is None
        assert re.fullmatch(r"==[0-9][0-9a-z.]*", str(pin.specifier)), pin


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_everything_that_make_installs_is_pinned_within_its_range(wheel, python):
    """For each Python, exactly one pin of each dependency, inside the public range."""
    here = {"python_version": python, "python_full_version": f"{python}.0", "extra": "dev"}
    pinned: dict[str, list[Requirement]] = {}
    for pin in pins():
        if pin.marker is None or pin.marker.evaluate(here):
            pinned.setdefault(pin.name, []).append(pin)
    assert [name for name, found in pinned.items() if len(found) > 1] == []
    for text in metadata(wheel).get_all("Requires-Dist"):
        requirement = Requirement(text)
        extras = ("dev", "ann", "export", "peft", "plots")  # the first one asks for the others
        if requirement.name == "glintru" or not (
            requirement.marker is None or any(requirement.marker.evaluate({**here, "extra": one}) for one in extras)
        ):
            continue
        (pin,) = pinned.get(requirement.name.lower().replace("_", "-"), [None])
        assert pin is not None, f"{requirement.name} is not in constraints.txt"
        (version,) = pin.specifier
        assert requirement.specifier.contains(version.version), f"{pin} is outside {requirement}"


def test_the_citation_names_this_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    paper = citation["preferred-citation"]
    assert paper["doi"] == "10.1145/3690624.3709304"
    names = " ".join(author["family-names"] for author in paper["authors"])
    assert names == "Zhang Wang Wang Gao Zhao Yang Wei Liu Xu"
    assert paper["identifiers"][0]["value"] == "arXiv:2406.10244"


def test_the_changelog_speaks_of_this_version():
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
