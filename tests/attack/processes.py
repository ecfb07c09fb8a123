"""Processes that a test may kill, run as another user, or give too little disk.

`killed_at` forks the process of the tests itself. `Commands` starts a process that has imported what the command
`glintru` needs (the imports are paid for once, and no thread of a library is lost in a fork), and forks a child for
each command: `python -m tests.attack.processes`, one JSON object a line.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# What Python reports to an audit hook before it changes a file or a folder.
EVENTS = {
    *("os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate"),
    *("shutil.rmtree", "sqlite3.connect", "open"),
}


def die_at_write(number: int, below: str = "") -> list[int]:
    """Lets this process be killed before its n-th call that writes to a path below a folder, or to a relative one.

    Returns:
        A list of one number: how many of these calls are left.
    """
    left = [number]

    def hook(event: str, arguments: tuple) -> None:
        if event not in EVENTS or (event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)):
            return
        path = os.fsdecode(arguments[0]) if isinstance(arguments[0], (str, bytes, os.PathLike)) else ""
        if path.startswith(os.sep) and not path.startswith(below):
            return
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return left


def killed_at(number: int, work: Callable[[], object]) -> bool:
    """Whether a process that does `work` was killed before its n-th call that writes; it ended well otherwise."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            die_at_write(number)
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Args:
        code: Its exit code, or minus the number of the signal that ended it.
        out, err: What it wrote.
        seconds: How long it ran.
        writes: How many calls that write there were below the folder `below`, where it ended by itself.
    """

    code: int
    out: str
    err: str
    seconds: float
    writes: int

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    def sentence(self) -> str:
        """The one sentence of a refusal; fails where the command ended in any other way."""
        assert self.code == 2 and self.err.count("\n") == 1 and self.err.startswith("glintru: "), (self.code, self.err)
        return self.err


class Commands:
    """Runs `glintru` as processes: `commands("train", "--recipe", "demo", kill_after=0.3)`."""

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        self.answers = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.attack.processes"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n"

    def __call__(self, *words: object, **how: Any) -> Ended:
        """Runs one command.

        Args:
            words: Its arguments.
            how: `kill_after` (seconds), `kill_at` (the n-th call that writes below the folder `below`), `user` (the
                number of another user), `largest` (bytes that a file may have; `out` is then empty), `environment`,
                `cwd`.
        """
        order = {"words": [os.fspath(word) if isinstance(word, Path) else str(word) for word in words], **how}
        order |= {name: str(self.answers / name) for name in ("out", "err", "writes")}
        Path(order["writes"]).unlink(missing_ok=True)
        self.process.stdin.write(json.dumps(order, default=str) + "\n")
        self.process.stdin.flush()
        code, seconds = json.loads(self.process.stdout.readline())
        texts = {name: Path(order[name]).read_text(encoding="utf-8", errors="replace") for name in ("out", "err")}
        writes = Path(order["writes"])
        return Ended(code, seconds=seconds, writes=int(writes.read_text()) if writes.exists() else 0, **texts)

    def well(self, *words: object, **how: Any) -> Ended:
        """Runs one command, which must end well."""
        ended = self(*words, **how)
        assert ended.code == 0, (words, ended)
        return ended

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


# ---------------------------------------------------------------------- the process that forks


def _become_the_command(order: dict[str, Any]) -> None:
    from modeling_glintru.cli import main

    for number, name in ((1, "out"), (2, "err")):
        file = os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(file, number)
        os.close(file)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(order.get("environment", {}))
    os.chdir(order.get("cwd", order.get("below", ROOT)))
    if "largest" in order:
        import resource  # Windows has none

        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what it prints is no file of the user
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python has it
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest"], resource.RLIM_INFINITY))
    if "user" in order:
        os.setgroups([])
        os.setgid(order["user"])
        os.setuid(order["user"])
    sys.argv = ["glintru", *order["words"]]
    number = order.get("kill_at", 10**9)
    left = die_at_write(number, str(order.get("below", ROOT)))
    try:
        main()
    finally:
        done = number - left[0]
        if "below" in order and "user" not in order:
            Path(order["writes"]).write_text(str(done), encoding="utf-8")


def _run(order: dict[str, Any]) -> tuple[int, float]:
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _become_the_command(order)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    limit = order.get("kill_after", 300)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        seconds = time.monotonic() - started
        if ended:
            return os.waitstatus_to_exitcode(status), seconds
        if seconds > limit:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.001)


def _serve() -> None:
    import importlib
    import pkgutil

    import datasets  # noqa: F401
    import transformers  # noqa: F401

    import modeling_glintru
    from modeling_glintru.models import modeling_glintru as model  # noqa: F401

    for module in pkgutil.walk_packages(modeling_glintru.__path__, "modeling_glintru."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_run(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
