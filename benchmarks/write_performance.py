"""Writes docs/performance.md and its pictures from what the benchmarks left in benchmarks/results/.

    python benchmarks/write_performance.py

Every figure in the page comes from a file there; nothing is measured here.
"""

from __future__ import annotations

from typing import Any

import page_parts
from matplotlib.axes import Axes
from page_parts import COLOURS, log_axes, machine, paragraph, picture, ratio, read, table
from train_speed import PRODUCTS
from write_serving import clicks, everyone, kept

RATIO_ROWS = (
    ("per prefix / GLINT-RU fp32", "GLINT-RU against the paper's computation"),
    ("SASRec / GLINT-RU, step, {dtype}", "against SASRec, whole step, {dtype}"),
    ("SASRec / GLINT-RU, encoder, {dtype}", "against SASRec, encoder, {dtype}"),
    ("SASRec, attention dropout / GLINT-RU, step, {dtype}", "against SASRec with attention dropout, step, {dtype}"),
    ("SASRec, attention dropout / GLINT-RU, encoder, {dtype}", "the same, encoder, {dtype}"),
    ("SASRec 4d / GLINT-RU, step, {dtype}", "against SASRec with inner width 4 d, step, {dtype}"),
    ("SASRec 4d / GLINT-RU, encoder, {dtype}", "the same, encoder, {dtype}"),
    ("GRU4Rec / GLINT-RU, step, {dtype}", "against GRU4Rec, step, {dtype}"),
    ("GLINT-RU / floor, {dtype}", "GLINT-RU's step over the floor, {dtype} (lower is better)"),
)


# ---------------------------------------------------------------------- sections


def speed(report: dict[str, Any]) -> str:
    """The step of every side."""
    results = report["results"]
    head = ["", *(f"d = {r['width']}, {r['batch_size']} histories" for r in results)]
    sides = list(results[0]["targets_per_second"])

    def cell(result: dict[str, Any], name: str) -> str:
        memory = result["peak_megabytes"].get(name)
        return f"{result['targets_per_second'][name]:,.0f}" + ("" if memory is None else f" ({memory:,.0f} MB)")

    rows = [[name, *(cell(result, name) for result in results)] for name in sides]
    dtypes = ("fp32", "bf16")
    wanted = dict.fromkeys((k.format(dtype=t), v.format(dtype=t)) for k, v in RATIO_ROWS for t in dtypes)
    ratios = [[label, *(ratio(result["ratios"][key]) for result in results)] for key, label in wanted]
    shares = [
        [
            name,
            *(", ".join(f"{part} {value:.0%}" for part, value in result["shares"][name].items()) for result in results),
        ]
        for name in ("GLINT-RU fp32", "GLINT-RU bf16", "SASRec fp32", "SASRec bf16")
    ]

    def draw(*axes: Axes) -> None:
        for ax, result in zip(axes, [r for r in results if r["batch_size"] == 32], strict=True):
            for offset, dtype in ((-0.2, "fp32"), (0.2, "bf16")):
                names = list(COLOURS)
                values = [result["targets_per_second"][f"{name} {dtype}"] / 1e3 for name in names]
                bars = ax.bar(
                    [i + offset for i in range(len(names))],
                    values,
                    0.38,
                    color=[COLOURS[name] for name in names],
                    hatch="//" if dtype == "bf16" else None,
                    edgecolor="white",
                )
                ax.bar_label(bars, fmt="%.0f", fontsize=8)
                for i, name in enumerate(names):
                    if name == "GLINT-RU":
                        floor = result["targets_per_second"][f"floor {dtype}"] / 1e3
                        ax.plot([i + offset - 0.19, i + offset + 0.19], [floor, floor], color="black", linewidth=1.5)
            ax.set_xticks(range(len(COLOURS)), [name.replace(", ", ",\n") for name in COLOURS], fontsize=8)
            ax.set_title(f"d = {result['width']}, 32 histories a batch", fontsize=10)
            ax.set_ylabel("thousand targets a second")
            ax.set_ylim(top=1.25 * ax.get_ylim()[1])
        axes[0].text(
            0.98,
            0.97,
            "plain: float32, hatched: bf16\nblack line: the floor",
            transform=axes[0].transAxes,
            ha="right",
            va="top",
            fontsize=8,
        )

    intro = paragraph(
        f"""`python benchmarks/train_speed.py --data interactions.parquet` (MovieLens-1M; without `--data` generated
        histories of the same lengths). One process, the same batches, interleaved rounds; full cross-entropy over
        {report["items"]:,} items, histories up to 200, AdamW, gradient clipping. {machine(report)}"""
    )
    return f"""## A training step

{intro}
{picture("performance_step", draw, 11, 4.2, 2)}

Real targets a second (padding is not counted), and the most memory of a step beside weights and optimizer state:

{table(head, rows)}

"Per prefix" is the paper's computation as its authors train: one example for each prefix, padded to 200, `nn.GRU`.
"Floor" is the bare matrix products that GLINT-RU's step cannot avoid, in the same shapes, forward and backward, and
nothing else. SASRec has two blocks and no dropout on its attention weights: with it PyTorch has no fused attention
for CPUs; the published one has that dropout. Its inner width is d as published; "4d" is the wider one of RecBole.

Ratios of times within a round, median [lowest, highest]; above 1 GLINT-RU is faster, except in the lines on the floor:

{table(head, ratios)}

Where the time goes (the rest of a step is called loss: the head, the cross-entropy and what autograd adds):

{table(head, shares)}
"""


def span(values: list[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


def bounds(report: dict[str, Any]) -> str:
    """What the step is bound by, from the same figures."""
    results = report["results"]

    def ratios(name: str) -> str:
        return span([r["ratios"][name]["median"] for r in results])

    def at_the_floor(dtype: str) -> str:
        speeds = [r["targets_per_second"] for r in results]
        return span([s[f"floor {dtype}"] / s[f"SASRec {dtype}"] for s in speeds])

    def both(name: str) -> str:
        return f"{ratios(f'{name}, fp32')} in float32 and {ratios(f'{name}, bf16')} in bf16"

    cost = sum(times * width * out for times, width, out in PRODUCTS) + 3
    return "## What bounds a step\n\n" + paragraph(
        f"""The times of GLINT-RU's step over those of its floor are {both("GLINT-RU / floor")}: most of it is products
        that nothing can avoid. For one position the published block has {cost:g} d² of them, with the two values that
        every position needs, as an interior one and as the last of its prefix; SASRec's two blocks have 12 d² and
        their attention, about 6 d² at d = 64 and 200 items. The cross-entropy over the catalogue is the same for both,
        and about half of the step. Were there nothing but its floor, GLINT-RU would be {at_the_floor("fp32")} times as
        fast as this SASRec in float32 and {at_the_floor("bf16")} times in bf16. Measured are
        {both("SASRec / GLINT-RU, step")}; for the encoder alone {both("SASRec / GLINT-RU, encoder")}. Against SASRec
        with the dropout on attention weights that it was published with, the step is at
        {both("SASRec, attention dropout / GLINT-RU, step")}, the encoder at
        {both("SASRec, attention dropout / GLINT-RU, encoder")}; against the inner width of 4 d the step is at
        {both("SASRec 4d / GLINT-RU, step")}. So with histories of 200 GLINT-RU trains about as fast as SASRec, and with
        longer ones (below) faster. GRU4Rec, one layer without any of the rest, is faster than both."""
    )


def length(report: dict[str, Any]) -> str:
    """The cost of a history's length."""
    results = report["results"]
    names = ("GLINT-RU", "SASRec")
    rows = [
        [
            f"{r['length']:,}",
            *(f"{r['microseconds_per_position'][n]:.1f} us, {r['peak_megabytes'][n]:,.0f} MB" for n in names),
            ratio(r["SASRec / GLINT-RU"]),
        ]
        for r in results
    ]

    def draw(ax: Axes) -> None:
        for name in names:
            lengths = [r["length"] for r in results]
            ax.plot(
                lengths, [r["microseconds_per_position"][name] for r in results], "o-", color=COLOURS[name], label=name
            )
        log_axes(ax, "items in a history", "microseconds a position")

    intro = paragraph(
        f"""`python benchmarks/length_cost.py`: the encoders alone, forward and backward, d = {report["width"]},
        float32, about 10,000 positions a step at every length, so linear cost is a flat line. {machine(report)}"""
    )
    return f"""## Long histories

{intro}
{picture("performance_length", draw)}

{table(["length", *names, "SASRec / GLINT-RU"], rows)}

GLINT-RU's cost and memory are linear in the length; SASRec's fused attention is linear in memory but not in time.
"""


def catalogue(report: dict[str, Any]) -> str:
    """The cost of a catalogue's size."""
    results = report["results"]
    names = list(results[0]["milliseconds"])

    def cell(result: dict[str, Any], name: str) -> str:
        if name not in result["milliseconds"]:
            return "-"
        return f"{result['milliseconds'][name]:,.1f} ms, {result['peak_megabytes'][name]:,.0f} MB"

    rows = [[f"{r['items']:,}", *(cell(r, name) for name in names)] for r in results]
    small, large = report["full_cross_entropy"]
    losses = [[n, f"{v:.2f} s", f"{small['peak_megabytes'][n]:,.0f} MB"] for n, v in small["seconds"].items()]
    ratios = "; ".join(f"{name} {ratio(value)}" for name, value in small["ratios"].items())
    big = "; ".join(f"{n} {v:.1f} s, {large['peak_megabytes'][n]:,.0f} MB" for n, v in large["seconds"].items())

    last = paragraph(
        f"""Ratios: {ratios}. With {large["targets"]:,} targets and {large["items"]:,} items, where the logits matrix
        would take {large["targets"] * large["items"] * 4 / 1e9:.0f} GB: {big}."""
    )

    def draw(ax: Axes) -> None:
        for name in names:
            points = [(r["items"], r["milliseconds"][name]) for r in results if name in r["milliseconds"]]
            ax.plot(*zip(*points, strict=True), "o-", label=name)
        log_axes(ax, "items in the catalogue", "milliseconds a step")

    intro = paragraph(
        f"""`python benchmarks/catalogue_cost.py`: a whole training step, {report["histories"]} histories of
        {report["length"]}, d = {report["width"]}, {report["negatives"]} negatives, float32. {machine(report)}"""
    )
    return f"""## Large catalogues

{intro}
{picture("performance_catalogue", draw)}

Milliseconds a step, and the most memory of a step beside weights and optimizer state:

{table(["items", *names], rows)}

The full cross-entropy alone, {small["targets"]:,} targets and {small["items"]:,} items, forward and backward:

{table(["", "time", "memory"], losses)}

{last}"""


def preparation(report: dict[str, Any]) -> str:
    """The cost of preparing a table."""
    rows = [
        [
            f"{r['interactions'] / 1e6:.0f} million, {r['ids']} ids",
            f"{r['prepare']['seconds']:.1f} s",
            f"{r['prepare']['seconds'] / r['interactions'] * 1e6:.2f} s",
            f"{r['prepare']['peak_bytes'] / 2**30:.2f} GiB",
            f"{r['prepared_bytes'] / 1e6:,.0f} MB",
            f"{r['start']['until_first_step']:.2f} s",
        ]
        for r in report["results"]
    ]
    head = ["interactions", "prepare", "a million", "peak memory", "on disk", "until the first batch"]
    return f"""## Preparing data

`POLARS_MAX_THREADS=2 OMP_NUM_THREADS=1 python benchmarks/prepare_scale.py`: generated tables with a power law, one
process a size. {machine(report)}

{table(head, rows)}

Training starts from the memory-mapped result; the last column is the time from opening it to the first batch.
"""


def memory(report: dict[str, Any]) -> str:
    """What a training process holds, step by step."""
    results = report["results"]
    shown = [step for step in (1, 50, 100, 300) if any(str(step) in r["sides"]["now"]["after"] for r in results)]

    def cells(side: dict[str, Any]) -> list[str]:
        after = side["after"]
        held = [f"{after[str(step)]['resident'] / 2**20:,.0f} MiB" if str(step) in after else "-" for step in shown]
        last = max(after, key=int)
        return [*held, f"{after[last]['own'] / 2**20:,.0f} MiB", f"{side['peak'] / 2**20:,.0f} MiB"]

    names = {"now": "", "before": ", before"}
    rows = [
        [f"{r['precision']}, {r['steps']} steps{names[name]}", *cells(side)]
        for r in results
        for name, side in r["sides"].items()
    ]
    head = ["", *(f"after step {step}" for step in shown), "of it without mapped files, at the end", "peak"]
    first = results[0]
    intro = paragraph(
        f"""`python benchmarks/memory_growth.py`: `glintru train --data` by its own rule on a
        generated table of {first["rows"]:,} interactions with {first["items"]:,} items. {machine(report)}"""
    )
    why = paragraph(
        """Batches differ in shape, and for each new shape oneDNN stores a small piece of generated code. Such pieces
        cut the gaps that freed tensors leave in the memory of the C library, so that the next tensors of that size need
        new memory, and the process would grow with the number of steps. Therefore no step in float32 needs oneDNN where
        the kernels are compiled, and `ReturnFreedMemory` gives the gaps back to the system as soon as the process holds
        a fifth more than a step needs. It looks every ten steps at the soonest. Steps in bf16 do need oneDNN, and the
        process grows by about a fifth."""
    )
    return f"""## The memory of a training

{intro}
{table(head, rows)}

{why}"""


def epochs(report: dict[str, Any]) -> str:
    """The time of an epoch of MovieLens-1M before and after."""
    first = report["rows"][0]["seconds_per_epoch"]
    rows = [
        [r["what"], f"{r['seconds_per_epoch']:,.0f} s", f"{first / r['seconds_per_epoch']:,.1f}"]
        for r in report["rows"]
    ]
    intro = paragraph(
        f"""`python benchmarks/epoch_time.py --data interactions.parquet`: the recipe's model (d = 128, 32 windows a
        batch), each form timed on {report["measured_targets"]:,} of the epoch's {report["targets_per_epoch"]:,} targets
        and scaled. {machine(report)}"""
    )
    return f"""## An epoch of MovieLens-1M

{intro}
{table(["", "an epoch", "times faster"], rows)}
"""


def page() -> str:
    """The whole page; its pictures are drawn on the way."""
    sections = [
        speed(read("train_speed")),
        bounds(read("train_speed")),
        epochs(read("epoch_time")),
        length(read("length_cost")),
        catalogue(read("catalogue_cost")),
        preparation(read("prepare_scale")),
        memory(read("memory_growth")),
        clicks(read("inference")),
        everyone(read("inference")),
        kept(read("store")),
    ]
    title = "# Performance\n\nWritten by `benchmarks/write_performance.py` from `benchmarks/results/`. All on a CPU.\n"
    return "\n".join([title, *sections])


def main() -> None:
    file = page_parts.DOCS / "performance.md"
    file.write_text(page(), encoding="utf-8")
    print(f"written to {file}")


if __name__ == "__main__":
    main()
