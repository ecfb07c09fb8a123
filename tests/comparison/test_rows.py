"""The hierarchical paired bootstrap beside a plain transcription of it."""

from __future__ import annotations

import numpy as np
import pytest

from modeling_glintru import GlintRUError
from modeling_glintru.comparison.rows import interval, resampled_rows


def plain(rows: dict[str, list[np.ndarray]], num_bootstrap: int, seed: int) -> dict[str, list[float]]:
    """One user, one seed at a time; users are drawn for all resamples first, then each row's seeds."""
    generator = np.random.default_rng(seed)
    users = len(next(iter(rows.values()))[0])
    drawn_users = [generator.integers(0, users, users) for _ in range(num_bootstrap)]
    drawn_seeds = {name: generator.integers(0, len(row), (num_bootstrap, len(row))) for name, row in rows.items()}
    found: dict[str, list[float]] = {name: [] for name in rows}
    for resample in range(num_bootstrap):
        for name, row in rows.items():
            values = [row[s][u] for s in drawn_seeds[name][resample] for u in drawn_users[resample]]
            found[name].append(sum(values) / len(values))
    return found


@pytest.fixture
def rows():
    generator = np.random.default_rng(0)
    shared = generator.random(40)
    noisy = lambda scale: shared + scale * generator.standard_normal(40)  # noqa: E731
    return {"a": [noisy(0.1), noisy(0.1), noisy(0.1)], "b": [noisy(0.1), noisy(0.1)], "c": [shared]}


def test_the_plain_computation_gives_the_same(rows):
    samples = resampled_rows(rows, 50, seed=4)
    expected = plain(rows, 50, seed=4)
    for name in rows:
        np.testing.assert_allclose(samples[name], expected[name], rtol=1e-12)
    low, high = interval(samples["a"] - samples["b"])
    ordered = np.sort(np.subtract(expected["a"], expected["b"]))
    assert ordered[1] <= low <= ordered[2] and ordered[47] <= high <= ordered[48]


def test_differences_are_paired(rows):
    """Users that are hard for both rows do not widen the interval of the difference."""
    samples = resampled_rows({"c": rows["c"], "d": [rows["c"][0] + 0.05]}, 200)
    np.testing.assert_allclose(samples["d"] - samples["c"], 0.05, rtol=1e-9)
    low, high = interval(samples["c"])
    assert high - low > 0.1


def test_seeds_widen_the_interval():
    users = np.random.default_rng(0).random(400)
    alike, apart = [users, users, users], [users - 0.3, users, users + 0.3]
    samples = resampled_rows({"alike": alike, "apart": apart}, 500)
    widths = {name: np.subtract(*interval(values)[::-1]) for name, values in samples.items()}
    assert widths["apart"] > 4 * widths["alike"]
    # Three seeds at -0.3, 0, 0.3: the mean of three draws has the deviation 0.3 sqrt(2 / 9).
    assert samples["apart"].std() == pytest.approx(0.3 * (2 / 9) ** 0.5, rel=0.1)


def test_rows_of_other_users_are_refused():
    with pytest.raises(GlintRUError, match="same users"):
        resampled_rows({"a": [np.zeros(3)], "b": [np.zeros(4)]})
