"""The whole flow on a toy set: search, final runs, and everything that can go wrong on the way."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import datasets
import pytest
import torch

from modeling_glintru import GlintRUError
from modeling_glintru.comparison import queue, run_trial
from modeling_glintru.comparison.compare import check_options
from modeling_glintru.comparison.queue import open_data, work
from modeling_glintru.comparison.run_trial import TrialProgress
from modeling_glintru.data import synthetic_interactions
from modeling_glintru.evaluation import per_user_metrics
from modeling_glintru.machine import processor_name
from modeling_glintru.training.checkpoint import replace_json
from modeling_glintru.training.stopping import RunStopped

from .helpers import lines, tiny_data, tiny_job, tiny_recipe

NOT_THE_SAME = ("time", "seconds", "cpu_seconds", "latency_ms", "commit")


def comparable(job):
    """What has to be the same in every run, by key."""
    return {line["key"]: {key: value for key, value in line.items() if key not in NOT_THE_SAME} for line in lines(job)}


def test_everything_has_run(finished):
    job, said = finished
    steps, done = job.steps()
    assert not queue.ready(steps, done) and not any(step.undecided for step in steps)
    found = Counter((line["row"], line["stage"]) for line in lines(job))
    assert found == {
        ("popularity", "reference"): 1,
        ("item_knn", "reference"): 1,
        ("glintru", "tune"): 3,
        ("gru4rec", "tune"): 3,
        ("glintru", "final"): 2,
        ("gru4rec", "final"): 2,
        ("paper", "preset"): 2,
        ("paper: no GRU", "ablation"): 1,
    }
    assert len(said) == 2 * len(lines(job)) and said[0] == "start  toy popularity (reference)"
    assert not list((job.results.work / "runs").iterdir())  # no checkpoint stays


def test_a_line_says_everything(finished):
    job, _ = finished
    for line in lines(job):
        assert line["status"] == "done" and line["data_counts"]["test_users"] == 60
        assert {"ndcg@10", "hr@10", "mrr@10", "ndcg@20"} <= set(line["test"]["full"]) & set(line["validation"]["full"])
        assert line["main"] == "full_with_history"  # items recur in this set
        assert "full_with_history" in line["test"] and line["versions"]["torch"] == torch.__version__
        assert line["recipe"]["data"]["source"] is None and str(job.folder.parent) not in str(line)
        if line["stage"] == "reference":
            continue
        assert (
            line["threads"] == torch.get_num_threads()
            and line["processor"] == processor_name()
            and line["parameters"] > 300
            and line["seconds"] > 0
        )
        assert len(line["curve"]) == line["epochs_run"] == line["epochs"] and line["steps"] > 0
        best = max(line["curve"], key=lambda point: point["ndcg@10"])
        assert line["best_epoch"] == best["epoch"]
        if not line["bf16"]:
            assert line["validation"][line["main"]]["ndcg@10"] == pytest.approx(best["ndcg@10"], abs=1e-6)
        assert ("pop100" in line["test"]) == ("latency_ms" in line) == (line["stage"] != "tune")


def test_the_ranks_of_measured_runs_give_their_metrics(finished):
    job, _ = finished
    for line in lines(job):
        file = job.results.ranks_file("toy", line["key"])
        assert file.exists() == (line["stage"] != "tune")
        if file.exists():
            for column, ranks in job.results.ranks("toy", line["key"]).items():
                values = per_user_metrics(ranks, (10, 20))
                assert {name: value.mean() for name, value in values.items()} == pytest.approx(line["test"][column])


def test_the_setting_is_the_one_that_validation_chooses(finished):
    job, _ = finished
    for model in ("glintru", "gru4rec"):
        tuned = [line for line in lines(job) if (line["row"], line["stage"]) == (model, "tune")]
        best = max(tuned, key=lambda line: line["validation"][line["main"]]["ndcg@10"])
        finals = [line for line in lines(job) if (line["row"], line["stage"]) == (model, "final")]
        assert [line["setting"] for line in finals] == [best["setting"]] * 2
        assert sorted(line["seed"] for line in finals) == [1, 2] and finals[0]["test"] != finals[1]["test"]


def test_the_test_split_decides_nothing(finished, tmp_path, monkeypatch):
    """Other targets in the test split: the same trials run, to the same epochs and validation metrics."""

    def poisoned(job, name):
        data = open_data(job, name)
        test = data.dataset["test"]
        others = [1 + target % 5 for target in test["target"]]
        test = test.remove_columns("target").add_column("target", others, feature=test.features["target"])
        return replace(data, dataset=datasets.DatasetDict({**data.dataset, "test": test}))

    monkeypatch.setattr(queue, "open_data", poisoned)
    job = tiny_job(tmp_path)
    work(job, lambda text: None)
    clean, poison = comparable(finished[0]), comparable(job)
    assert list(poison) == list(clean)
    for key, line in poison.items():
        assert line.pop("test") != clean[key].pop("test")
        assert line == clean[key]


def test_a_trial_that_fails_stops_nothing(tmp_path, monkeypatch):
    def sometimes(recipe, *args, **kwargs):
        if recipe.model["name"] == "gru4rec" and recipe.training.learning_rate < 1e-2:
            raise RuntimeError("the loss is\nnot a number")
        return train(recipe, *args, **kwargs)

    train = run_trial.train
    monkeypatch.setattr(run_trial, "train", sometimes)
    job = tiny_job(tmp_path)
    rows = {"toy": {"gru4rec": job.comparison.rows["toy"]["gru4rec"]}}
    job = replace(job, comparison=replace(job.comparison, rows=rows, ablate=()))
    work(job, lambda text: None)
    failed = [line for line in lines(job) if line["status"] == "failed"]
    assert [line["error"] for line in failed] == ["RuntimeError: the loss is not a number"] * 2
    finals = [line for line in lines(job) if line["stage"] == "final"]
    assert [line["status"] for line in finals] == ["done"] * 2
    assert all(line["setting"]["learning_rate"] == 2e-2 for line in finals)
    before = len(lines(job))
    work(job, lambda text: None)
    assert len(lines(job)) == before  # nor does it run again by itself


def test_a_trial_that_was_told_to_stop_goes_on(finished, tmp_path, monkeypatch):
    """Stopped at every checkpoint, it comes to the same numbers."""
    job = tiny_job(tmp_path)
    rows = {"toy": {"paper": job.comparison.rows["toy"]["paper"]}}
    job = replace(job, comparison=replace(job.comparison, rows=rows, references={}, ablate=()), deadline=0.0)
    monkeypatch.setattr(run_trial, "commit", lambda: "abc")
    parts = 0
    while not job.results.read("toy"):
        with contextlib.suppress(RunStopped):
            queue.attempt(job, queue.ready(*job.steps())[0], {}, lambda text: None)
        parts += 1
    (line,) = lines(job)
    assert parts > 1 and line["status"] == "done" and not list((job.results.work / "runs").iterdir())
    assert comparable(job)[line["key"]] == comparable(finished[0])[line["key"]]


def test_a_trial_goes_on_with_the_same_code_only(tmp_path):
    folder = tmp_path / "trial"
    assert not TrialProgress(folder, "abc").goes_on
    file = folder / "progress.json"
    replace_json(file, {"cpu_seconds": 100.0, "commit": "abc"})
    same = TrialProgress(folder, "abc")
    assert same.goes_on and same.cpu_seconds >= 100
    for commit in ("def", None, "abc-dirty"):
        folder.mkdir(exist_ok=True)
        replace_json(file, {"cpu_seconds": 100.0, "commit": commit if commit == "abc-dirty" else "abc"})
        other = TrialProgress(folder, commit)
        assert not other.goes_on and other.cpu_seconds < 50 and list(folder.iterdir()) == []


def test_the_commit_is_the_last_one_of_the_package(tmp_path, monkeypatch):
    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *who, *words], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def write(name, text, commit=True):
        (tmp_path / name).write_text(text, encoding="utf-8")
        if commit:
            git("add", "-A")
            git("commit", "-m", name)
        return git("rev-parse", "--short", "HEAD")

    (tmp_path / "package" / "comparison").mkdir(parents=True)
    monkeypatch.setattr(run_trial, "__file__", str(tmp_path / "package" / "comparison" / "run_trial.py"))
    found = run_trial.commit.__wrapped__
    git("init", "-q")
    code = write("package/code.py", "1")
    write("README.md", "a page")
    assert found() == code
    write("README.md", "another page", commit=False)
    assert found() == code
    write("package/code.py", "2", commit=False)
    assert found() == f"{code}-dirty"
    changed = write("package/code.py", "3")
    assert found() == changed != code


def test_a_worker_waits_for_trials_that_another_one_has(tmp_path, monkeypatch):
    job = tiny_job(tmp_path)
    job = replace(job, comparison=replace(job.comparison, rows={"toy": {}}, ablate=()))
    steps, _ = job.steps()
    first, second = (step.trials[0] for step in steps)
    claim = job.results.claim(first.key)
    waits = []

    def wait(job):
        waits.append(sorted(job.results.read("toy")))
        claim.release()

    monkeypatch.setattr(queue, "wait_for_others", wait)
    work(job, lambda text: None)
    assert waits == [[second.key]]  # it did the other trial first
    assert [line["key"] for line in lines(job)] == [second.key, first.key]


def test_waiting_ends_with_the_next_line(tmp_path, monkeypatch):
    job = tiny_job(tmp_path)
    monkeypatch.setattr(queue.time, "sleep", lambda seconds: job.results.add({"key": "a", "data": "toy"}))
    queue.wait_for_others(job)
    assert list(job.results.read("toy")) == ["a"]


def test_no_trial_starts_when_time_is_up(tmp_path):
    job = replace(tiny_job(tmp_path), deadline=time.monotonic())
    work(job, lambda text: None)
    assert not job.results.read("toy")


def test_results_of_other_data_are_refused(finished, tmp_path):
    job, _ = finished
    other = tmp_path / "other.csv"
    synthetic_interactions(num_users=50, num_items=40).frame.write_csv(other)
    recipe = job.comparison.data["toy"]
    data = {"toy": replace(recipe, data=replace(recipe.data, source=str(other)))}
    with pytest.raises(GlintRUError, match="about other data"):
        open_data(replace(job, comparison=replace(job.comparison, data=data)), "toy")
    again = {"toy": replace(recipe, evaluation=replace(recipe.evaluation, recommend_seen=False))}
    with pytest.raises(GlintRUError, match="with another recommend_seen"):
        open_data(replace(job, comparison=replace(job.comparison, data=again)), "toy")


def test_options_out_of_range():
    for options in ((0, None), (1, 0)):
        with pytest.raises(GlintRUError, match="--workers must be at least 1"):
            check_options(*options)


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on(finished, tmp_path):
    """Two workers, killed without a chance to clean up, and started again: every trial once, the same numbers."""
    job = tiny_job(tmp_path)
    command = [
        *(sys.executable, "-m", "research.compare", "--protocol", str(tmp_path / "tiny.yaml")),
        *("--data", f"toy={tiny_data(tmp_path)}", "--preset", f"paper={tiny_recipe(tmp_path)}", "--ablate", "paper"),
        *("--results", str(job.folder), "--workers", "2"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 300
    while len(job.results.read("toy")) < 4:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()  # its workers see that and end; what they were running is free then
    process.wait()
    before = lines(job)
    with open(job.results.file("toy"), "a", encoding="utf-8") as file:
        file.write('{"key": "half a li')
    work(job, lambda text: None)
    text = job.results.file("toy").read_text(encoding="utf-8")
    job.results.file("toy").write_text(text.replace('{"key": "half a li\n', ""), encoding="utf-8")
    after = lines(job)
    assert after[: len(before)] == before
    assert len({line["key"] for line in after}) == len(after)
    assert {line["workers"] for line in before} == {2} and {line["workers"] for line in after} == {1, 2}
    alike = {"threads": 1, "workers": 1}
    assert {key: line | alike for key, line in comparable(job).items()} == {
        key: line | alike for key, line in comparable(finished[0]).items()
    }
