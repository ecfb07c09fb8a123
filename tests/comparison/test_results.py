"""The files: whole lines, small ranks, and trials that only one process runs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess

import numpy as np
import pytest

from modeling_glintru import GlintRUError
from modeling_glintru.comparison import Results
from modeling_glintru.comparison.queue import write_down_crash
from modeling_glintru.comparison.results import RANK_LIMIT

from .helpers import lines, tiny_job


def record(key, status="done", **fields):
    return {"key": key, "data": "toy", "status": status, "validation": {"full": {"ndcg@10": 0.5}}, **fields}


def hold(folder, key, ready):
    """In another process: takes a trial and keeps it."""
    assert Results(folder).claim(key) is not None
    ready.set()
    signal.pause()


@pytest.fixture
def holder():
    """Starts a process that holds a trial; gives the process."""
    context = multiprocessing.get_context("spawn")
    started = []

    def start(folder, key):
        ready = context.Event()
        process = context.Process(target=hold, args=(folder, key, ready))
        process.start()
        started.append(process)
        assert ready.wait(60)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


def test_what_is_added_is_read(tmp_path):
    results = Results(tmp_path / "results")
    assert results.read("toy") == {}
    results.add(record("a", note="é"))
    results.add(record("b", status="failed", error="no"))
    assert list(results.read("toy")) == ["a", "b"] and results.read("toy")["a"]["note"] == "é"
    assert results.validation("toy", "ndcg@10") == {"a": 0.5, "b": None}


def test_a_line_that_was_cut_off_is_no_trial_and_spoils_no_other(tmp_path):
    results = Results(tmp_path)
    results.add(record("a"))
    with open(results.file("toy"), "a", encoding="utf-8") as file:
        file.write('{"key": "b", "data"')
    assert list(results.read("toy")) == ["a"]
    results.add(record("c"))
    assert list(results.read("toy")) == ["a", "c"]


def test_ranks_are_kept_as_far_as_metrics_look(tmp_path):
    results = Results(tmp_path)
    results.add(record("a"), {"full": np.array([1, 20, RANK_LIMIT, RANK_LIMIT + 7, 12_000])})
    ranks = results.ranks("toy", "a")["full"]
    assert ranks.dtype == np.int32 and ranks.tolist() == [1, 20, RANK_LIMIT, RANK_LIMIT + 1, RANK_LIMIT + 1]
    assert [file.name for file in results.ranks_file("toy", "a").parent.iterdir()] == ["a.npz"]
    results.ranks_file("toy", "a").write_bytes(b"PK")
    for key in ("a", "b"):
        with pytest.raises(GlintRUError, match="missing or damaged"):
            results.ranks("toy", key)


def test_failures_run_again_on_request(tmp_path):
    results = Results(tmp_path)
    for key, status in (("a", "done"), ("b", "failed"), ("c", "done")):
        results.add(record(key, status))
    assert results.forget_failures("toy") == 1 and list(results.read("toy")) == ["a", "c"]
    assert results.forget_failures("toy") == 0 == results.forget_failures("none")


def test_git_leaves_the_locks_alone(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    results = Results(tmp_path / "results")
    results.add(record("a"))
    results.claim("b")
    status = subprocess.run(
        ["git", "status", "--porcelain", "-uall"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert status.stdout.split() == ["??", "results/toy.jsonl"]


def test_only_one_process_has_a_trial_and_its_end_frees_it(tmp_path, holder):
    results = Results(tmp_path)
    process = holder(tmp_path, "a")
    assert results.claim("a") is None
    assert results.claimed_by(process.pid) == ["a"]
    other = results.claim("b")
    assert other is not None and results.claimed_by(os.getpid()) == ["b"]
    other.release()
    assert results.claimed_by(os.getpid()) == []
    process.kill()
    process.join()
    assert results.claim("a") is not None


def test_a_trial_that_kills_its_process_is_written_down(tmp_path, holder):
    job = tiny_job(tmp_path)
    steps, _ = job.steps()
    trial = steps[0].trials[0]
    said = []
    process = holder(job.folder, trial.key)
    process.kill()
    process.join()
    assert write_down_crash(job, process, said.append)
    (line,) = lines(job)
    assert (line["key"], line["status"]) == (trial.key, "failed") and "SIGKILL" in line["error"]
    assert said == [f"failed {trial}: {line['error']}"]
    stopped = holder(job.folder, steps[1].trials[0].key)
    stopped.terminate()  # by hand: it runs again
    stopped.join()
    assert not write_down_crash(job, stopped, said.append) and len(lines(job)) == 1
