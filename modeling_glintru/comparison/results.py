"""The files of a comparison: a line a trial, the ranks of measured runs, and locks.

FOLDER/ml-1m.jsonl            one JSON line a trial, in the order in which they ended
FOLDER/ranks/ml-1m/KEY.npz    test ranks of a measured run, one a target, in the order of the prepared test split
FOLDER/.work/                 locks and checkpoints, ignored by git
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError

__all__ = ["RANK_LIMIT", "USERS", "Claim", "Results", "main_column"]

USERS = "users"  # among the ranks: the user of each, where users have several targets
RANK_LIMIT = 1000  # ranks beyond it are stored as RANK_LIMIT + 1: no metric looks there, and the files stay small


def main_column(line: Mapping[str, Any]) -> str:
    """The column of the ranking that is served. Lines without it are older than the choice: past items are left out."""
    return line.get("main", "full")


class Claim:
    """A trial that this process, and no other one on this machine, runs. Ends with `release`, or with the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)

    def take(self) -> bool:
        """Takes the trial for this process and writes the process's id down; False where another process has it."""
        import fcntl

        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            return False
        os.truncate(self._file, 0)
        os.pwrite(self._file, str(os.getpid()).encode(), 0)
        return True

    def release(self) -> None:
        """Lets the trial go."""
        os.truncate(self._file, 0)
        os.close(self._file)


class Results:
    """The results of a comparison in a folder.

    Args:
        folder: Is made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def file(self, data: str) -> Path:
        """Where the trials of a data set are."""
        return self.folder / f"{data}.jsonl"

    def ranks_file(self, data: str, key: str) -> Path:
        """Where the ranks of a measured run are."""
        return self.folder / "ranks" / data / f"{key}.npz"

    @property
    def work(self) -> Path:
        """Locks and checkpoints; made here, with a file that tells git to leave it alone."""
        folder = self.folder / ".work"
        if not (folder / ".gitignore").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ".gitignore").write_text("*\n", encoding="utf-8")
        return folder

    def read(self, data: str) -> dict[str, dict[str, Any]]:
        """The trials of a data set by key, in the order in which they ended; the last line of a key counts.

        A line that a killed process did not finish is passed over.
        """
        try:
            text = self.file(data).read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        records: dict[str, dict[str, Any]] = {}
        for line in text.splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and "key" in record:
                records[record["key"]] = record
        return records

    def validation(self, data: str, metric: str) -> dict[str, float | None]:
        """Key to the validation metric of the ranking that is served, None where the trial failed: all that chooses."""
        return {
            key: record["validation"][main_column(record)][metric] if record["status"] == "done" else None
            for key, record in self.read(data).items()
        }

    def add(self, record: dict[str, Any], ranks: dict[str, np.ndarray] | None = None) -> None:
        """Writes a trial down, its ranks first: a line in the file means that all of it is there."""
        data, key = record["data"], record["key"]
        if ranks:
            path = self.ranks_file(data, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{key}.{os.getpid()}.npz")
            np.savez_compressed(
                partial,
                allow_pickle=False,
                **{name: _stored(name, value).astype(np.int32) for name, value in ranks.items()},
            )
            os.replace(partial, path)
        line = json.dumps(record, allow_nan=False, ensure_ascii=False) + "\n"
        with self._alone(), open(self.file(data), "ab+") as file:
            if file.tell() and not _ends_in_newline(file):
                line = "\n" + line
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def ranks(self, data: str, key: str) -> dict[str, np.ndarray]:
        """The ranks of a measured run by column (`full`, `full_with_history`), int32 (users,).

        Raises:
            DataError: The file is missing or damaged.
        """
        path = self.ranks_file(data, key)
        try:
            with np.load(path) as content:
                return {name: content[name] for name in content.files}
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path} is missing or damaged; remove the line of {key} and run it again") from error

    def forget_failures(self, data: str) -> int:
        """Removes the trials that failed, so that they run again; returns how many there were."""
        with self._alone():
            records = self.read(data)
            kept = [record for record in records.values() if record["status"] != "failed"]
            if len(kept) < len(records):
                partial = self.file(data).with_suffix(".partial")
                partial.write_text(
                    "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept), encoding="utf-8"
                )
                os.replace(partial, self.file(data))
        return len(records) - len(kept)

    def claim(self, key: str) -> Claim | None:
        """Takes a trial for this process; None where another one has it.

        The lock is the kernel's (`flock`) and goes with the process, however that ends: no lock outlives its owner.
        """
        locks = self.work / "locks"
        locks.mkdir(exist_ok=True)
        claim = Claim(locks / f"{key}.lock")
        return claim if claim.take() else None

    def claimed_by(self, pid: int) -> list[str]:
        """The keys that a process had when it ended without releasing them."""
        files = sorted((self.work / "locks").glob("*.lock"))
        return [file.stem for file in files if file.read_text(encoding="utf-8").strip() == str(pid)]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        import fcntl

        with open(self.work / "results.lock", "w", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _stored(name: str, values: np.ndarray) -> np.ndarray:
    return values if name == USERS else np.minimum(values, RANK_LIMIT + 1)


def _ends_in_newline(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
