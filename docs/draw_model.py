"""Draws docs/model.png, the block of GLINT-RU. Run: python docs/draw_model.py"""

from __future__ import annotations

import itertools
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

INK, RECURRENT, ATTENTION, GATE, PLAIN = "#22313f", "#d8e8f7", "#fde3cf", "#dff0d8", "#f2f2f2"


def box(ax, x, y, text, color, width=2.3, height=0.56):
    """A rounded box centred at (x, y)."""
    ax.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0.02,rounding_size=0.1",
            fc=color,
            ec=INK,
        )
    )
    ax.text(x, y, text, ha="center", va="center", fontsize=9.5, color=INK)


def arrow(ax, *points):
    """A line through the points with a head at its end."""
    for (x0, y0), (x1, y1) in itertools.pairwise(points[:-1]):
        ax.plot([x0, x1], [y0, y1], color=INK, lw=1.1, solid_capstyle="round")
    ax.annotate("", points[-1], points[-2], arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.1})


def draw() -> Figure:
    figure = Figure(figsize=(9.4, 7.4))
    FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, 9.4), ylim=(0, 7.7))
    ax.axis("off")
    left, middle, right = 2.1, 4.75, 7.4

    box(ax, middle, 0.4, "item ids  →  embeddings X", PLAIN, 3.2)
    ax.add_patch(Rectangle((0.35, 0.98), 8.7, 5.62, fill=False, ec="#9aa5b1", ls=(0, (4, 3))))
    ax.text(0.45, 6.4, "block, num_hidden_layers times", fontsize=8.5, color="#5a6672", va="center")

    for x in (left, middle, right):
        arrow(ax, (middle, 0.7), (middle, 0.86), (x, 0.86), (x, 1.1))
    box(ax, left, 1.4, "linear, conv over 3 steps", RECURRENT)
    box(ax, left - 0.62, 2.3, "GRU", RECURRENT, 1.05)
    box(ax, left + 0.68, 2.3, "selective gate", GATE, 1.3)
    box(ax, left, 3.2, "product, conv over 3 steps", RECURRENT)
    for x in (left - 0.62, left + 0.68):
        arrow(ax, (x, 1.7), (x, 2.0))
        arrow(ax, (x, 2.6), (x, 2.9))
    ax.text(left + 0.1, 3.65, "recurrent expert", fontsize=8.5, color="#5a6672", va="center")

    box(ax, middle, 1.4, "queries, keys, values", ATTENTION)
    box(ax, middle, 2.3, "running sum of kᵀ v", ATTENTION)
    box(ax, middle, 3.2, "+ X, layer norm", ATTENTION)
    arrow(ax, (middle, 1.7), (middle, 2.0))
    arrow(ax, (middle, 2.6), (middle, 2.9))
    ax.text(middle + 0.1, 3.65, "attention expert", fontsize=8.5, color="#5a6672", va="center")

    box(ax, right, 1.4, "linear, GELU", GATE)
    box(ax, (left + middle) / 2, 4.1, "α₁ recurrent + α₂ attention,  (α₁, α₂) learned softmax", PLAIN, 4.6)
    arrow(ax, (left, 3.5), (left, 3.8))
    arrow(ax, (middle, 3.5), (middle, 3.8))
    box(ax, middle + 0.4, 5.0, "gate of the block ⊙, linear, + X, layer norm", GATE, 4.2)
    arrow(ax, (middle - 0.6, 4.4), (middle - 0.6, 4.7))
    arrow(ax, (right, 1.7), (right, 5.0), (middle + 2.52, 5.0))
    box(ax, middle + 0.4, 5.95, "gated MLP, + input, the same layer norm", GATE, 4.2)
    arrow(ax, (middle + 0.4, 5.3), (middle + 0.4, 5.65))
    arrow(ax, (middle + 0.4, 6.25), (middle + 0.4, 6.9))
    box(ax, middle + 0.4, 7.2, "last_hidden_state[t]  ·  embeddingsᵀ  =  scores of all items", PLAIN, 5.2)
    return figure


if __name__ == "__main__":
    draw().savefig(Path(__file__).with_name("model.png"), dpi=110)
