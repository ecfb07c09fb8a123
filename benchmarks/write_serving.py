"""The sections of docs/performance.md on recommending: a click, all users, and the store."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from page_parts import COLOURS, log_axes, paragraph, picture, ratio, table

SIDES = {  # of a click: name in the report, label
    "click": "a click: state advanced, ten best items",
    "advance alone": "of it, the state alone",
    "top 10 alone": "of it, the ten best alone",
    "click, plain PyTorch": "the same click, plain PyTorch",
    "full pass": "GLINT-RU, full pass over the history",
    "per prefix": "GLINT-RU, the paper's computation",
    "SASRec, full pass": "SASRec, full pass",
    "SASRec, model(ids) and torch.topk": "SASRec, `model(ids)` and `torch.topk`",
    "SASRec, key/value cache": "SASRec, key/value cache",
}
STYLES = {"GLINT-RU": "o-", "SASRec, full pass": "s-", "SASRec, key/value cache": "^--"}
COMMAND = "python benchmarks/inference.py --data interactions.parquet"


def origin(report: dict[str, Any]) -> str:
    """One line on where a report comes from, threads left out: the tables name them."""
    about, versions = report["machine"], report["versions"]
    return f"{about['processor']}, {about['cores']} cores; torch {versions['torch']}; commit {report['commit']}."


def microseconds(values: dict[str, float]) -> str:
    return f"{values['p50']:,.0f} ({values['p99']:,.0f})"


def threads(number: int) -> str:
    return f"{number} thread" + "s" * (number > 1)


def clicks(report: dict[str, Any]) -> str:
    """One click by all ways, by the length of the history, with filters and by the size of the catalogue."""
    found = report["results"]
    one = found["one_click"]
    head = ["", *(f"d = {r['width']}, {threads(r['threads'])}" for r in one)]
    times = [[label, *(microseconds(r["microseconds"][name]) for r in one)] for name, label in SIDES.items()]
    ratios = [[label, *(ratio(r["ratios"][f"{name} / click"]) for r in one)] for name, label in list(SIDES.items())[3:]]
    by_length = found["by_length"]
    intro = paragraph(
        f"""`{COMMAND}`, one process, the sides in turns; {report["weights"]} weights, {one[0]["items"]:,} items,
        histories of {report["length"]}. A click is one item more and the {report["top_k"]} best items after it, without
        the store (below). {origin(report)}"""
    )
    lengths = paragraph(
        f"""A click after a history of 10,000 items takes
        {
            ", ".join(
                f"{r['ratios']['history of 10,000 / history of 50']['median']:.2f} (d = {r['width']})"
                for r in found["long_history"]
            )
        } times one after 50. SASRec is given as many positions as the history
        has items; its cache serves only until the history fills them, afterwards every click is a full pass."""
    )

    def draw(ax: Axes) -> None:
        for name, style in STYLES.items():
            points = [(r["length"], r["microseconds"][name]["p50"]) for r in by_length]
            ax.plot(*zip(*points, strict=True), style, color=COLOURS[name.split(",")[0]], label=name)
        log_axes(ax, "items in the history", "microseconds a click")

    rows = [[f"{r['length']:,}", *(microseconds(r["microseconds"][name]) for name in STYLES)] for r in by_length]
    return f"""## A click

{intro}
Microseconds, median (99th percentile):

{table(head, times)}

Ratios to the click of medians within a round, median [lowest, highest]:

{table(head, ratios)}

"The paper's computation" is one prefix padded and read in both directions by `nn.GRU`.

{bound(one)}
{picture("performance_click", draw)}

{table([f"history, d = {by_length[0]['width']}", *STYLES], rows)}

{lengths}
{filters(found["filters"])}
{catalogues(found["catalogues"])}"""


def bound(one: list[dict[str, Any]]) -> str:
    """What a click reads at least, and how fast it does."""
    read = []
    for r in one:
        if r["threads"] == one[0]["threads"]:
            # 22 d² numbers: one block, whose first convolution is multiplied with what is before it; the item vectors
            megabytes = 4 * (22 * r["width"] ** 2 + r["items"] * r["width"]) / 1e6
            click = r["microseconds"]["click"]["p50"]
            read.append(f"{megabytes:.1f} MB at d = {r['width']}, {megabytes / click * 1e3:.0f} GB a second")
    return paragraph(
        f"""What bounds a click is memory: it reads every weight and every item vector once, {" and ".join(read)}, more
        than the nearest caches hold. About ten microseconds of it are Python. One call of C for both halves would save
        some of them, but nothing would use it: `observe` writes a state, and `recommend` reads one later."""
    )


def filters(found: list[dict[str, Any]]) -> str:
    names = list(found[0]["microseconds"])
    rows = [[f"d = {r['width']}", *(microseconds(r["microseconds"][name]) for name in names)] for r in found]
    return f"""Filters, microseconds of a click:

{table(["", *names], rows)}
"""


def catalogues(found: list[dict[str, Any]]) -> str:
    """By the size of the catalogue."""
    names = list(found[0]["microseconds"])
    rows = [
        [
            f"{r['items']:,}, {r['vectors']}",
            *(microseconds(r["microseconds"][name]) for name in names),
            *(f"{r['recall'][name]:.3f}" for name in names[1:]),
            *(f"{r['build_seconds'][name]:.1f} s" for name in names),
        ]
        for r in found
    ]
    head = ["items, vectors", *names, *(f"recall, {n}" for n in names[1:]), *(f"building, {n}" for n in names)]
    width = found[0]["width"]
    return f"""Larger catalogues, d = {width}: microseconds of a click with the exact and with the approximate index
(`pip install glintru[ann]`), the share of the ten best that it finds, and the time of building:

{table(head, rows)}

"Random" vectors are independent numbers, where no index can save much; "clustered" ones are a thousand groups, which
learned vectors resemble more.
"""


def everyone(report: dict[str, Any]) -> str:
    """All users offline."""
    found = report["results"]["all_users"]
    sides = found["sides"]
    head = ["", *(f"d = {r['width']}, {threads(r['threads'])}" for r in sides)]
    rows = [[name, *(f"{r['users_per_second'][name]:,.0f}" for r in sides)] for name in sides[0]["users_per_second"]]
    labels = {"per prefix / GLINT-RU": "against the paper's computation", "SASRec / GLINT-RU": "against SASRec"}
    ratios = [[label, *(ratio(r["ratios"][name]) for r in sides)] for name, label in labels.items()]
    intro = paragraph(
        f"""The same command: the {report["top_k"]} best items that a user has not seen, for {found["users"]:,} users of
        {found["data"]} with {found["mean_length"]:.0f} items on average (the newest {report["length"]} are read) and
        {found["items"]:,} items; what `glintru recommend --all` computes, without reading and writing files."""
    )
    why = paragraph(
        f"""GLINT-RU and SASRec go the same way: histories of similar length together, exact top-k by the kernel.
        GLINT-RU computes the last position alone: what an item gives to the gates, keys and values of its neighbours is
        multiplied once for all users, and then looked up, so that the recurrence's own product, 3 d² for each item of a
        history, is most of what is left. "Per prefix" is the paper's computation, each history padded to
        {report["length"]}, on {found["padded_users"]} of the users."""
    )
    return f"""## All users

{intro}
Users a second:

{table(head, rows)}

Ratios of times within a round, median [lowest, highest]:

{table(head, ratios)}

{why}"""


def kept(report: dict[str, Any]) -> str:
    """The store on disk."""
    sides = report["clicks"]
    head = ["", *(f"d = {r['hidden_size']}" for r in sides)]

    def cell(values: dict[str, float]) -> str:
        speed = "" if "clicks_per_second" not in values else f"{values['clicks_per_second']:,.0f} a second, "
        return f"{speed}{values['p50_ms']:.2f} ms ({values['p99_ms']:.2f})"

    rows = [[name, *(cell(r["medians"][name]) for r in sides)] for name in sides[0]["medians"]]
    shared = "; ".join(f"d = {r['hidden_size']}: {ratio(r['ratios']['8 callers / a transaction each'])}" for r in sides)
    rooms = [
        [
            f"d = {r['hidden_size']}, {r['dtype']}",
            f"{r['bytes_by_state']:,.0f}",
            f"{r['bytes_by_event']:.1f}",
            f"{r['million_states_gb_extrapolated']:.1f} GB",
            f"{r['open_and_first_answer_ms']:.0f} ms",
            f"{r['rebuilt_users_per_second']:,.0f}",
        ]
        for r in report["room"]
    ]
    intro = paragraph(
        f"""`OMP_NUM_THREADS=1 python benchmarks/store.py`: clicks through `StreamingRecommender` with a store on disk.
        `observe` returns when the click and the state after it are written and synced. {origin(report)}"""
    )
    users, events = report["room"][0]["users"], report["room"][0]["events_by_user"]
    return f"""## The store

{intro}
Clicks a second (of the rows named recommend: answers), and for each call the median (99th percentile):

{table(head, rows)}

"fsync" is one bare wait for this disk, for comparison. Callers who come at the same time share a transaction; against a
transaction each the clicks a second are, median [lowest, highest]: {shared}.

Room on disk, opening a store up to the first answer, and users a second that other weights rebuild; {users:,} users
with {events} events each, a million extrapolated:

{table(["", "bytes a state", "bytes an event", "a million states", "open", "rebuilt a second"], rooms)}

A new process needs {report["import_seconds"]:.1f} s for its imports before that.
"""
