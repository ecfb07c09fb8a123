"""Two data sets for examples: MovieLens-100K, which is downloaded in a package of PyPI, and a synthetic one."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl

from ..errors import DataError
from ..machine import expanded
from .interactions import Interactions, read_interactions

__all__ = [
    "LICENCE_NOTICE",
    "load_movielens_100k",
    "movielens_100k_titles",
    "synthetic_interactions",
    "synthetic_item_titles",
]

logger = logging.getLogger(__name__)

PACKAGE = "recbole==1.2.1"
FOLDER_IN_WHEEL = "recbole/dataset_example/ml-100k/"
# SHA-256 of the files in the wheel.
CHECKSUMS = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
}
TIMEOUT_SECONDS = 300
LICENCE_NOTICE = (
    "MovieLens-100K is by GroupLens Research, University of Minnesota: for research use, to be acknowledged in "
    "publications (Harper and Konstan 2015, doi:10.1145/2827872), not to be redistributed and not for commercial use "
    "without permission."
)
VOLUMES = 8
MIN_LENGTH, MAX_LENGTH = 6, 40
GO_ON, NEW_SAGA = 0.75, 0.15  # With the remaining probability of 0.10 the next item is drawn from all items.
HOUR = 3600
START = 1_700_000_000  # seconds since 1970


def load_movielens_100k(cache_dir: str | Path | None = None) -> Interactions:
    """MovieLens-100K: 100,000 ratings of 943 users for 1,682 films, times in seconds; each rating is an interaction.

    The first call downloads about 2 MB into `cache_dir` (`$XDG_CACHE_HOME/glintru` or `~/.cache/glintru` by default).

    Raises:
        DataError: The data is not in the cache and cannot be downloaded with pip, or has another checksum.
    """
    file = _file("ml-100k.inter", cache_dir)
    _show_licence()
    return replace(read_interactions(file), source="ml-100k")


def movielens_100k_titles(cache_dir: str | Path | None = None) -> dict[int, str]:
    """The titles of the films with their years by raw item id, such as `{1: "Toy Story (1995)"}`.

    Raises:
        DataError: As in `load_movielens_100k`.
    """
    frame = pl.read_csv(_file("ml-100k.item", cache_dir), separator="\t", infer_schema=False, quote_char=None)
    rows = zip(frame["item_id:token"], frame["movie_title:token_seq"], frame["release_year:token"], strict=True)
    return {int(raw): f"{title} ({year})" if year else title for raw, title, year in rows if title}


def _file(name: str, cache_dir: str | Path | None) -> Path:
    cache_home = os.environ.get("XDG_CACHE_HOME") or expanded("~/.cache")
    folder = Path(cache_dir if cache_dir is not None else Path(cache_home) / "glintru") / "ml-100k"
    file = folder / name
    if _is_sound(file):
        return file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The temporary folder is inside this one, so that the last step is a rename within one file system.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
            wheel = _download_wheel(Path(temporary))
            _extract(wheel, folder, Path(temporary))
    except OSError as error:
        raise _not_available(f"{folder} cannot be written: {error.strerror or error}") from error
    return file


def _is_sound(file: Path) -> bool:
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == CHECKSUMS[file.name]


def _download_wheel(folder: Path) -> Path:
    """Downloads the wheel into a folder with pip."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), PACKAGE]
    logger.info("Downloading MovieLens-100K (about 2 MB, out of the PyPI package %s).", PACKAGE)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise _not_available(f"pip took longer than {TIMEOUT_SECONDS} seconds") from error
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        raise _not_available(f"pip could not download {PACKAGE}: {lines[-1] if lines else 'no reason given'}")
    return wheels[0]


def _extract(wheel: Path, folder: Path, temporary: Path) -> None:
    """Extracts the files of the wheel, checks them, and moves them into the folder."""
    for name in CHECKSUMS:
        extracted = temporary / name
        try:
            with zipfile.ZipFile(wheel) as archive:
                extracted.write_bytes(archive.read(FOLDER_IN_WHEEL + name))
        except (zipfile.BadZipFile, KeyError) as error:
            raise _not_available(f"{wheel.name} is damaged or does not hold {name}") from error
        if not _is_sound(extracted):
            raise _not_available(f"{name} in {wheel.name} has another checksum than expected")
        extracted.replace(folder / name)


@cache
def _show_licence() -> None:
    logger.warning(LICENCE_NOTICE)


def _not_available(reason: str) -> DataError:
    return DataError(f"MovieLens-100K cannot be had ({reason}); try the synthetic data instead: --recipe demo.")


def synthetic_interactions(num_users: int = 800, num_items: int = 240, seed: int = 42) -> Interactions:
    """Draws histories of 6 to 40 items in which the next item can be predicted, in the order of time.

    The items are sagas of eight volumes. After volume k a user mostly reads volume k + 1, sometimes begins another
    saga, and rarely takes any item. No item is popular, so that popularity predicts almost nothing. Ids are text
    (`"user-0001"`, `"saga-03-volume-5"`) and times are in seconds; the same seed gives the same table.

    Raises:
        DataError: There are fewer than 2 users or 16 items.
    """
    if num_users < 2 or num_items < 2 * VOLUMES:
        raise DataError(
            f"The synthetic set needs at least 2 users and {2 * VOLUMES} items, but got {num_users} and {num_items}."
        )
    rng = np.random.default_rng(seed)
    shape = (num_users, MAX_LENGTH)
    chance, anything = rng.random(shape), rng.integers(0, num_items, shape)
    opening = rng.integers(0, -(-num_items // VOLUMES), shape) * VOLUMES
    items = np.empty(shape, np.int64)
    items[:, 0] = anything[:, 0]
    for step in range(1, MAX_LENGTH):  # for all users together
        following = items[:, step - 1] + 1
        # The last volume is followed by the first one of some other saga.
        following = np.where((following % VOLUMES == 0) | (following >= num_items), opening[:, step], following)
        items[:, step] = np.select(
            [chance[:, step] < GO_ON, chance[:, step] < GO_ON + NEW_SAGA],
            [following, opening[:, step]],
            anything[:, step],
        )
    times = START + rng.integers(0, 365 * 24, (num_users, 1)) * HOUR
    times = times + np.cumsum(rng.integers(1, 72 * HOUR, shape), axis=1)
    taken = np.arange(MAX_LENGTH) < rng.integers(MIN_LENGTH, MAX_LENGTH + 1, (num_users, 1))
    users = np.broadcast_to(np.arange(num_users)[:, None], shape)
    user_names = pl.Series([f"user-{user + 1:04d}" for user in range(num_users)])
    item_names = pl.Series(_item_ids(num_items))
    frame = pl.DataFrame(
        {
            "user_id": user_names.gather(users[taken]),
            "item_id": item_names.gather(items[taken]),
            "timestamp": times[taken],
        }
    ).sort("timestamp", maintain_order=True)
    return Interactions(frame, {"user": "user_id", "item": "item_id", "time": "timestamp"}, "demo")


def synthetic_item_titles(num_items: int = 240) -> dict[str, str]:
    """The titles by raw item id, such as `{"saga-03-volume-5": "Saga 3, volume 5"}`."""
    titles = (f"Saga {item // VOLUMES + 1}, volume {item % VOLUMES + 1}" for item in range(num_items))
    return dict(zip(_item_ids(num_items), titles, strict=True))


def _item_ids(num_items: int) -> list[str]:
    return [f"saga-{item // VOLUMES + 1:02d}-volume-{item % VOLUMES + 1}" for item in range(num_items)]
