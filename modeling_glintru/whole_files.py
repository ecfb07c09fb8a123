"""Files and folders that appear whole or not at all, and locks that end with their process.

What is being written stands beside its place under a name that begins with a dot and ends in `.unfinished`, locked by
the process that writes it. What a killed process left there is not locked any more, and the next one removes it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
import socket
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "NO_ROOM",
    "checksum",
    "exchange",
    "flush",
    "locked",
    "remove_unfinished",
    "replace_entries",
    "unfinished_folder",
    "whole_file",
]

BLOCK = 1 << 20
# What the system says where the disk is full, or a file may not grow.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What it says where a folder cannot be moved: another file system, in use, or a parent that is not writable.
CANNOT_MOVE = (errno.EXDEV, errno.EBUSY, errno.EACCES, errno.EPERM, errno.EROFS)
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of renameat2(2)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a file beside `path` to write into, which takes its place when all went well.

    A link at `path` stays, and what it leads to is replaced.

    Raises:
        OSError: There is something at `path` that is no regular file, or it cannot be written.
    """
    target = path.resolve()
    _refuse_other_kinds(path)
    remove_unfinished(target)
    with _begun(target, _new_file) as unfinished:
        try:
            yield unfinished
            flush(unfinished)
            _refuse_other_kinds(path)
            os.replace(unfinished, target)
            flush(target.parent)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise OSError(error.errno, f"cannot be written: {error.strerror}", str(path)) from error
        finally:
            unfinished.unlink(missing_ok=True)


@contextmanager
def unfinished_folder(path: Path) -> Iterator[Path]:
    """Gives a new folder beside `path` to write into, which is removed at the end unless the caller has moved it.

    Raises:
        OSError: It cannot be made.
    """
    target = path.resolve()
    remove_unfinished(target)
    with _begun(target, _new_folder) as unfinished:
        try:
            yield unfinished
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _new_name(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.unfinished")


def _refuse_other_kinds(path: Path) -> None:
    if path.exists() and not path.is_file():
        kind = errno.EISDIR if path.is_dir() else errno.EINVAL
        text = "is a folder, not a file" if path.is_dir() else "is no regular file, and only such a file is written"
        raise OSError(kind, text, str(path))


def _new_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)


def _new_folder(path: Path) -> int | None:
    path.mkdir(parents=True)
    return os.open(path, os.O_RDONLY) if fcntl else None  # Windows opens no folder


@contextmanager
def _begun(target: Path, make: Callable[[Path], int | None]) -> Iterator[Path]:
    """A new file or folder beside `target`, with the lock that says that somebody writes it."""
    descriptor = None
    try:
        while True:
            path = _new_name(target)
            try:
                descriptor = make(path)
            except OSError as error:
                if isinstance(error, FileNotFoundError) and target.parent.is_dir():
                    continue  # another process took it for a leftover before it was opened
                # About the place that the user named.
                raise OSError(error.errno, error.strerror, str(target)) from error
            if fcntl is None or descriptor is None:
                break
            with suppress(OSError):  # a file system without locks, where nobody removes it either
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if path.exists():
                break
            os.close(descriptor)  # another process took it for a leftover before it was locked
            descriptor = None
        yield path
    finally:
        if descriptor is not None:
            os.close(descriptor)


def remove_unfinished(target: Path) -> None:
    """Removes what killed processes left beside `target`."""
    if fcntl is None or not target.parent.is_dir():
        return
    for entry in target.parent.glob(f".{_escaped(target.name)}.????????.unfinished"):
        try:
            descriptor = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)
        except OSError:  # another process writes it
            continue
        finally:
            os.close(descriptor)


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def flush(path: Path) -> None:
    """Returns when the content of a file, or the names in a folder, are on the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # Windows opens no folder
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):  # a file system that cannot
            raise
    finally:
        os.close(descriptor)


def checksum(path: Path) -> list[int]:
    """Size in bytes and CRC-32 of the content of a file: it tells a damaged file, not a forged one."""
    size = value = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            size += len(block)
            value = zlib.crc32(block, value)
    return [size, value]


def replace_entries(folder: Path, source: Path, stays: Callable[[Path], bool]) -> None:
    """Puts what is in the folder `source` into `folder`, in the place of what does not stay there.

    At every moment `folder` holds either all that was there before, or all that is there afterwards. Only where it
    cannot be moved, such as where another file system begins, the files come one by one.

    Args:
        folder: It may hold `source` itself, at any depth, which does not stay.
        source: What is left of it is for the caller to remove.
        stays: Whether a file or folder in `folder` stays.

    Raises:
        OSError: It cannot be written.
    """
    for entry in source.iterdir():
        flush(entry)
    try:
        with unfinished_folder(folder) as new:
            new.chmod(folder.stat().st_mode & 0o7777)
            for entry in source.iterdir():
                _link(entry, new / entry.name, source)
            for entry in folder.iterdir():
                if entry != source and stays(entry):
                    _link(entry, new / entry.name, source)
            flush(new)
            exchange(folder.resolve(), new)  # what was there before is now `new`, which is removed
            flush(folder.resolve().parent)
    except OSError as error:
        if error.errno not in CANNOT_MOVE:
            raise
        for entry in folder.iterdir():
            if entry.is_file() and not stays(entry):
                entry.unlink()
        for entry in source.iterdir():
            entry.rename(folder / entry.name)
        flush(folder)


def _link(source: Path, target: Path, left_out: Path) -> None:
    """A second name of a file, or of all files of a folder; a copy where the file system has no such names."""

    def ignored(inside: str, names: Iterable[str]) -> list[str]:
        return [name for name in names if Path(inside, name) == left_out]

    def link(file: str, name: str) -> None:
        try:
            os.link(file, name, follow_symlinks=False)
        except OSError:
            shutil.copy2(file, name, follow_symlinks=False)

    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True, ignore=ignored, copy_function=link)
    else:
        link(str(source), str(target))


def exchange(first: Path, second: Path) -> None:
    """Exchanges the names of two folders: in one step on Linux, elsewhere in three.

    A process whose current folder is in `first` stays at the same path, which is then in the other folder.

    Raises:
        OSError: One of them cannot be moved, such as the place where another file system begins.
    """
    here = None
    with suppress(FileNotFoundError):  # the current folder was removed
        here = Path.cwd()
    _exchange(first, second)
    if here is not None and here.is_relative_to(first.resolve()):
        with suppress(OSError):  # there is no such path in the other folder
            os.chdir(here)


def _exchange(first: Path, second: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
    if hasattr(libc, "renameat2"):
        assert libc is not None
        names = (AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second))
        if libc.renameat2(*names, RENAME_EXCHANGE) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.ENOSYS, errno.EINVAL):  # not: a kernel or a file system that does not know it
            raise OSError(number, os.strerror(number), str(first))
    aside = _new_name(first.resolve())
    first.rename(aside)
    try:
        second.rename(first)
    except OSError:
        aside.rename(first)
        raise
    aside.rename(second)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock on the file `path`, which is made, for as long as this process lives or the block lasts.

    Raises:
        BlockingIOError: Another process holds it; the message names it.
    """
    if fcntl is None:
        yield
        return
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = " ".join(file.read(200).split()) or "another process"
            raise BlockingIOError(errno.EAGAIN, f"is in use by {owner}", str(path)) from None
        except OSError:  # a file system without locks
            yield
            return
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
