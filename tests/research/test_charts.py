"""Charts that a person can read."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

from modeling_glintru.comparison.page import new_figure
from research import charts


@pytest.mark.parametrize("distance", [0.0, 1.0, 30.0])
def test_labels_of_near_points_do_not_lie_on_each_other(distance):
    pytest.importorskip("matplotlib")
    from matplotlib.text import Text

    rows = [
        SimpleNamespace(
            label=f"GLINT-RU (row {number})",
            model="glintru",
            stage="final",
            machine="a",
            device="cpu" if number < 4 else "cuda",
            seconds=100 + distance * number,
            mark="",
            mean=lambda *names, number=number: 0.1 + 0.0003 * number,
        )
        for number in range(9)
    ]
    report = SimpleNamespace(
        rows=rows,
        machine_marks={"a": " (a)"},
        name="shop",
        metric="ndcg@10",
        interval=lambda row: (row.mean() - 0.01, row.mean() + 0.01),
    )
    figure, (panel, _) = new_figure([report] * 2, [charts.PANEL_HEIGHT] * 2)
    assert charts.scatter(panel, report, lambda row: row.seconds) == "cpu"
    canvas = figure.canvas
    canvas.draw()
    boxes = [Text.get_window_extent(text, canvas.get_renderer()) for text in panel.texts]  # without the lines to points
    assert [text.arrow_patch is not None for text in panel.texts] == [text.xyann[1] != 4 for text in panel.texts]
    assert [text.get_text() for text in panel.texts] == [f"GLINT-RU (row {number}) (a)" for number in range(4)]
    for one, other in itertools.combinations(boxes, 2):
        width = min(one.x1, other.x1) - max(one.x0, other.x0)
        height = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert width <= 0 or height <= 2, (one, other)
