"""MovieLens-100K with a tiny wheel in the place of the download; the demo run uses the real one."""

from __future__ import annotations

import hashlib
import logging
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from modeling_glintru.data import example_data
from modeling_glintru.errors import DataError

FILES = {
    "ml-100k.inter": (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t242\t3\t881250949\n186\t302\t3\t5\n"
    ),
    "ml-100k.item": (
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        '242\tKolya "a film"\t1996\tComedy\n302\tUntold\t\tDrama\n'
    ),
}


def write_wheel(folder: Path, files: dict[str, str] = FILES) -> Path:
    wheel = folder / "recbole-1.2.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(f"recbole/dataset_example/ml-100k/{name}", text)
    return wheel


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders that were downloaded into."""
    calls: list[Path] = []

    def download(folder: Path) -> Path:
        calls.append(folder)
        return write_wheel(folder)

    checksums = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in FILES.items()}
    monkeypatch.setattr(example_data, "CHECKSUMS", checksums)
    monkeypatch.setattr(example_data, "_download_wheel", download)
    example_data._show_licence.cache_clear()
    return calls


def test_extracted_once_then_cached(downloads: list[Path], tmp_path: Path) -> None:
    for _ in range(2):
        read = example_data.load_movielens_100k(tmp_path)
        assert read.frame.rows() == [(196, 242, 881250949), (186, 302, 5)]
        assert read.source == "ml-100k"
        assert example_data.movielens_100k_titles(tmp_path) == {242: 'Kolya "a film" (1996)', 302: "Untold"}
    assert len(downloads) == 1
    assert sorted(path.name for path in (tmp_path / "ml-100k").iterdir()) == ["ml-100k.inter", "ml-100k.item"]


def test_damaged_cache_is_fetched_again(downloads: list[Path], tmp_path: Path) -> None:
    example_data.load_movielens_100k(tmp_path)
    (tmp_path / "ml-100k" / "ml-100k.inter").write_text("damaged")
    assert len(example_data.load_movielens_100k(tmp_path)) == 2
    assert len(downloads) == 2


def test_the_user_cache_is_the_default(downloads: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    example_data.load_movielens_100k()
    assert (tmp_path / "glintru" / "ml-100k" / "ml-100k.inter").is_file()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    example_data.load_movielens_100k()
    assert (tmp_path / ".cache" / "glintru" / "ml-100k" / "ml-100k.inter").is_file()


def test_licence_is_shown_once(downloads: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        example_data.load_movielens_100k(tmp_path)
        example_data.load_movielens_100k(tmp_path)
    assert caplog.messages == [example_data.LICENCE_NOTICE]
    for word in ("GroupLens", "research", "acknowledged", "redistributed", "commercial", "permission"):
        assert word in example_data.LICENCE_NOTICE


def refused(match: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=match) as caught:
        example_data.load_movielens_100k(tmp_path)
    assert "\n" not in str(caught.value)
    assert "--recipe demo" in str(caught.value)
    folder = tmp_path / "ml-100k"
    assert not folder.is_dir() or not list(folder.iterdir())


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({**FILES, "ml-100k.inter": "tampered"}, "ml-100k.inter in .* has another checksum"),
        ({"other": "x"}, "does not hold ml-100k.inter"),
    ],
)
def test_wrong_wheel(
    files: dict[str, str], match: str, downloads: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example_data, "_download_wheel", lambda folder: write_wheel(folder, files))
    refused(match, tmp_path)


def test_damaged_wheel(downloads: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(folder: Path) -> Path:
        wheel = folder / "recbole.whl"
        wheel.write_bytes(b"PK no zip")
        return wheel

    monkeypatch.setattr(example_data, "_download_wheel", download)
    refused("recbole.whl is damaged", tmp_path)


def test_pip_is_asked_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess:
        commands.append(command)
        write_wheel(Path(command[command.index("--dest") + 1]))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    assert example_data._download_wheel(tmp_path).name == "recbole-1.2.1-py3-none-any.whl"
    (command,) = commands
    assert command[1:4] == ["-m", "pip", "download"]
    assert command[-1] == "recbole==1.2.1"
    assert not any("://" in part for part in command)


def test_pip_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess:
        return subprocess.CompletedProcess(command, 1, "", "ERROR: first\nERROR: No matching distribution\n")

    monkeypatch.setattr(subprocess, "run", run)
    refused("pip could not download recbole==1.2.1: ERROR: No matching distribution", tmp_path)


def test_pip_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: Any) -> None:
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", run)
    refused("pip took longer than 300 seconds", tmp_path)


def test_cache_that_cannot_be_written(downloads: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused("cannot be written", tmp_path / "file")
