"""One comparison that has run, for all tests."""

from __future__ import annotations

import pytest

from modeling_glintru.comparison.queue import Job, work

from .helpers import tiny_job


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> tuple[Job, list[str]]:
    """The tiny comparison, run in this process, and what it said. Not to be changed by a test."""
    job = tiny_job(tmp_path_factory.mktemp("comparison"))
    said: list[str] = []
    work(job, said.append)
    return job, said
