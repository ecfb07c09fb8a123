"""What leaves the repository: the wheel, its recipes, the pins and the citation."""

from __future__ import annotations

import importlib.util
import os
import platform
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
from modeling_glintru.kernels import build

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


needs_compiled_wheel = pytest.mark.skipif(
    build.find_compiler() is None or platform.system() != "Linux" or platform.machine() != "x86_64",
    reason="the wheel brings kernels where it is built on Linux on x86-64 with a C compiler",
)


@needs_compiled_wheel
def test_the_wheel_brings_the_kernels_for_each_level_of_processors(wheel):
    names = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")]
    assert sorted(names) == sorted(f"modeling_glintru/kernels/lib/{level}.so" for level in build.LEVELS)
    assert re.fullmatch(rf"glintru-{__version__}-py3-none-(manylinux_2_\d+|linux)_x86_64\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        about = message_from_bytes(archive.read(f"glintru-{__version__}.dist-info/WHEEL"))
    assert about["Root-Is-Purelib"] == "false"


def test_without_a_compiler_the_wheel_is_pure(tmp_path):
    command = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT))
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "A pure wheel without compiled kernels" in done.stderr
    (file,) = tmp_path.glob("*.whl")
    assert file.name == f"glintru-{__version__}-py3-none-any.whl"
    assert not [name for name in zipfile.ZipFile(file).namelist() if name.endswith(".so")]


def test_the_tag_claims_no_more_than_the_libraries_need(tmp_path):
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    library = tmp_path / "library.so"
    for content, tag in (
        (b"\0libm.so.6\0libc.so.6\0GLIBC_2.2.5\0GLIBC_2.14\0", "manylinux_2_17_x86_64"),
        (b"\0libm.so.6\0libc.so.6\0GLIBC_2.2.5\0GLIBC_2.38\0", "manylinux_2_38_x86_64"),
        (b"\0libgomp.so.1\0libc.so.6\0GLIBC_2.2.5\0", "linux_x86_64"),
        (b"\0libc.musl-x86_64.so.1\0", "linux_x86_64"),
    ):
        library.write_bytes(content)
        assert hook.platform_tag([library]) == tag


def test_the_source_archive_holds_no_tests(tmp_path):
    """They are worth nothing without their stored folders, which are larger than the package."""
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(tmp_path), str(ROOT), cwd=tmp_path)
    with tarfile.open(tmp_path / f"glintru-{__version__}.tar.gz") as archive:
        names = {name.split("/")[1] for name in archive.getnames()}
    files = {"README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "PKG-INFO", "pyproject.toml", ".gitignore"}
    files |= {"glintru.py", "hatch_build.py"}
    assert names == {"modeling_glintru", "configuration", "examples", *files}


@pytest.fixture(scope="module")
def target(wheel, tmp_path_factory) -> Path:
    """A folder into which the wheel is installed."""
    folder = tmp_path_factory.mktemp("elsewhere")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile")
    run(*pip, "--target", str(folder), str(wheel), cwd=folder)
    return folder


@needs_compiled_wheel
@pytest.mark.skipif(build.best_level(build._processor_flags().split()) is None, reason="below every level of the wheel")
def test_the_kernels_of_the_wheel_serve_where_there_is_no_compiler(target, tmp_path):
    """As in a slim image: an empty PATH, and nowhere to build."""
    code = (
        "import torch; from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation\n"
        "from modeling_glintru.kernels import build, block, step\n"
        "config = GlintRUConfig(vocab_size=50, hidden_size=32, num_attention_heads=2)\n"
        "model = GlintRUForSequentialRecommendation(config)\n"
        "ran = []; forward = block.AddNorm.forward\n"
        "block.AddNorm.forward = staticmethod(lambda *a: ran.append(1) or forward(*a))\n"
        "model(torch.arange(1, 41).view(4, 10))\n"
        "print(build.library()._name, len(ran) > 0, step.CompiledStep.serves(model))"
    )
    environment = {"PYTHONPATH": str(target), "PATH": str(tmp_path), "XDG_CACHE_HOME": "/dev/null"}
    file, ran, serves = run(sys.executable, "-c", code, cwd=tmp_path, **environment).split()
    assert Path(file).is_relative_to(target) and (ran, serves) == ("True", "True")


def test_an_installed_wheel_finds_its_recipes_by_name(target, tmp_path):
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
    assert set(content.get_all("Provides-Extra")) == {"ann", "dev", "export", "items", "peft", "plots", "serve", "text"}
    with zipfile.ZipFile(wheel) as archive:
        entry_points = archive.read(f"glintru-{__version__}.dist-info/entry_points.txt").decode()
    assert "glintru = modeling_glintru.cli:main" in entry_points


NEWER_PYTHON = {"python_version": "3.12", "python_full_version": "3.12.0", "sys_platform": "linux"}


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
        extras = ("dev", "ann", "export", "items", "peft", "plots")  # the first one asks for the others
        if requirement.name == "glintru" or not (
            requirement.marker is None or any(requirement.marker.evaluate({**here, "extra": one}) for one in extras)
        ):
            continue
        (pin,) = pinned.get(requirement.name.lower().replace("_", "-"), [None])
        assert pin is not None, f"{requirement.name} is not in constraints.txt"
        (version,) = pin.specifier
        assert requirement.specifier.contains(version.version), f"{pin} is outside {requirement}"


def test_the_lock_has_the_hashes_of_every_pin():
    """`.ci/lock` was run after the last change of constraints.txt."""
    text = (ROOT / ".ci" / "requirements.lock").read_text(encoding="utf-8")
    entries = [entry.replace("\\\n", " ").split(" --hash=sha256:") for entry in re.split(r"\n(?=\S)", text.strip())]
    locked = {
        Requirement(entry[0].strip()).name: (Requirement(entry[0].strip()).specifier, entry[1:]) for entry in entries
    }
    wanted = {pin.name: pin.specifier for pin in pins() if pin.marker is None or pin.marker.evaluate(NEWER_PYTHON)}
    assert {name: specifier for name, (specifier, _) in locked.items()} == wanted
    for name, (_, hashes) in locked.items():
        assert hashes and all(re.fullmatch("[0-9a-f]{64}", found.strip()) for found in hashes), name


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
