"""Real processes on one store: killed in the middle of a stream, and side by side."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modeling_glintru import GlintRUProcessor
from modeling_glintru.serving import SQLiteStateStore, StreamingRecommender

from ..model.helpers import small_model
from .streaming_worker import ITEMS

ROOT = Path(__file__).resolve().parents[2]


class Workers:
    """`streaming_worker.py`, started once; `start` gives it clicks, `line` is what its children say."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "tests.serving.streaming_worker"]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.early: list[str] = []  # what children said while another one was started
        assert self.line() == "ready"

    def start(self, store: Path, streams: list) -> int:
        self.process.stdin.write(json.dumps({"store": str(store), "streams": streams}) + "\n")
        self.process.stdin.flush()
        while not (line := self._read()).startswith("pid "):
            self.early.append(line)
        return int(line.split()[1])

    def line(self) -> str:
        return self.early.pop(0) if self.early else self._read()

    def _read(self) -> str:
        line = self.process.stdout.readline().strip()
        assert line and not line.startswith("error"), line
        return line


@pytest.fixture(scope="module")
def workers():
    workers = Workers()
    yield workers
    workers.process.stdin.close()
    workers.process.wait()


def clicks(user: str, count: int, seed: int) -> list:
    draw = random.Random(seed)
    return [[user, draw.choice(ITEMS), f"{user}-{n}"] for n in range(count)]


def open_store(path) -> StreamingRecommender:
    return StreamingRecommender(small_model(), GlintRUProcessor(ITEMS), path)


def answers(recommender, users):
    found = recommender.recommend_many(users, top_k=10, exclude_seen=False)
    return [{item["item_id"]: item["score"] for item in each.items} for each in found]


def kill_writers(workers, folder: Path, kills: int) -> None:
    """Kills a process that writes; each round delivers again what was not acknowledged, and some that was."""
    file, draw, length = folder / "users.db", random.Random(0), 20 * kills
    streams = {f"user-{n}": clicks(f"user-{n}", length, n) for n in range(3)}
    acknowledged: set[str] = set()

    def rest() -> list:
        done = {user: sum(event[2] in acknowledged for event in stream) for user, stream in streams.items()}
        return [stream[max(0, done[user] - draw.randint(0, 3)) :] for user, stream in streams.items()]

    killed = 0
    while killed < kills:
        worker = workers.start(file, rest())
        for _ in range(draw.randint(1, 40)):
            acknowledged.add(workers.line().removeprefix("ack "))
        time.sleep(draw.uniform(0, 0.005))
        os.kill(worker, signal.SIGKILL)
        killed += 1
        assert "done" not in acknowledged, "the streams are too short to be killed in the middle"
        with SQLiteStateStore(file) as store:
            stored = {user: [event.event_id for event in store.events(user)] for user in streams}
            for user, stream in streams.items():
                assert stored[user] == [event[2] for event in stream[: len(stored[user])]]  # in order, none twice
            assert acknowledged <= {event_id for ids in stored.values() for event_id in ids}

    worker = workers.start(file, rest())
    while (line := workers.line()) != "done":  # what killed ones had still said is among the lines
        acknowledged.add(line.removeprefix("ack "))
    with open_store(file) as interrupted, open_store(None) as whole:
        for stream in streams.values():
            whole.observe_many(map(tuple, stream))
        records = interrupted.store.read(list(streams), interrupted.step.fingerprint)
        assert [(record.last, record.position) for record in records] == [(length, length)] * 3
        for ours, theirs in zip(answers(interrupted, list(streams)), answers(whole, list(streams)), strict=True):
            assert list(ours) == list(theirs)
            assert list(ours.values()) == pytest.approx(list(theirs.values()), abs=1e-4)


def test_killed_twenty_times(workers, tmp_path):
    kill_writers(workers, tmp_path, 20)


def test_two_processes_lose_no_update(workers, tmp_path):
    """Both write the same two users at the same time, with one event that both deliver."""
    file = tmp_path / "users.db"
    streams = [[clicks(user, 60, seed) for user in ("a", "b")] for seed in (1, 2)]
    for number, process in enumerate(streams):
        for stream in process:
            for event in stream[1:]:
                event[2] += f"-process-{number}"
    open_store(file).close()
    for process in streams:
        workers.start(file, process)
    left = 2
    while left:
        left -= workers.line() == "done"
    with open_store(file) as recommender:
        for place, user in enumerate(("a", "b")):
            events = recommender.store.events(user)
            ids = [event.event_id for event in events]
            assert len(ids) == 119 and set(ids) == {event[2] for process in streams for event in process[place]}
            for process in streams:  # each process's own events are in its order
                own = [event[2] for event in process[place][1:]]
                assert [event_id for event_id in ids if event_id in own] == own
            before = answers(recommender, [user])[0]
            recommender.rebuild(user)  # the same from the raw events in one pass
            assert answers(recommender, [user])[0] == pytest.approx(before, abs=1e-4)
