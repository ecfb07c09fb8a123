"""How long a recommendation takes after a click: the state advanced by one item, and the ten best of all items.

All sides run in one process, in turns; each call is timed alone, ratios are of the medians within a round.

    python benchmarks/inference.py --data interactions.parquet
    python benchmarks/inference.py --widths 64 --threads 1 --clicks 200 --rounds 2 --catalogues 10000   # quick

Weights are random, which changes no time; `--model` takes those of a folder that `glintru train` wrote. Prints tables
and writes benchmarks/results/inference.json. A row more is a function more in `MEASURES`.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cached_sasrec import CachedSASRec
from measuring import latencies, official, report_header, spread, write_report
from train_speed import generated, without_kernel

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation, GlintRUProcessor
from modeling_glintru.data import read_interactions
from modeling_glintru.models.head_glintru import last_item
from modeling_glintru.models.loading import load_model_folder
from modeling_glintru.models.modeling_sasrec import SASRecConfig, SASRecForSequentialRecommendation
from modeling_glintru.serving.ann import ApproximateIndex
from modeling_glintru.serving.offline import UserHistories, recommend_all
from modeling_glintru.serving.step import PlainStep, Step, make_step
from modeling_glintru.serving.top_k import ExactIndex

RESULTS = Path(__file__).parent / "results" / "inference.json"
LENGTH = 200
ITEMS = 3416  # ML-1M's
TOP_K = 10
USERS = 1000  # whose states take turns, so that a state is not always in the nearest cache
SHORT, LONG = 50, 10_000
LENGTHS = (10, 50, 200, 1000, 10_000)  # of the history, where the sides are compared by it
PADDED_BATCH = 64  # histories at once where all are padded alike: measured, larger ones are no faster
FULL_PASSES = 50  # clicks for each full pass over a history: those take so much longer


def glint_model(arguments: argparse.Namespace, size: int, items: int = ITEMS) -> Any:
    """The given weights where they have this width, or random ones."""
    if arguments.model is not None:
        model = load_model_folder(arguments.model)[0].eval()
        if model.config.hidden_size == size:
            return model
    torch.manual_seed(0)
    config = GlintRUConfig(vocab_size=items + 1, hidden_size=size, num_attention_heads=size // 16)
    return GlintRUForSequentialRecommendation(config).eval()


def item_vectors(model: Any) -> np.ndarray:
    return model.item_vectors().detach().numpy()


class Clicks:
    """Clicks of many users, one after the other.

    Args:
        step: Advances a state.
        index: Finds the items, `top_k(queries, k)`.
        history: Items that each user's state holds at the beginning.
        exclude, allowed: Filters of each search.
    """

    def __init__(self, step: Step, index: Any, history: int, exclude: Any = None, allowed: Any = None) -> None:
        rng = np.random.default_rng(0)
        self.step, self.index, self.filters = step, index, (exclude, allowed)
        # One history for all: what a state holds changes no time.
        self.history, rows = rng.integers(1, ITEMS + 1, history), step.empty(1)
        for t, item in enumerate(self.history):
            rows = step.advance(rows, np.array([t]), np.array([item]))
        self.end = rows
        self.rows, self.counts = rows.repeat(USERS, axis=0), np.full(USERS, history)
        self.items = rng.integers(1, ITEMS + 1, (USERS, 1))
        self.user = 0

    def __call__(self) -> None:
        user = self.user = (self.user + 1) % USERS
        rows = self.step.advance(self.rows[user : user + 1], self.counts[user : user + 1], self.items[user])
        self.rows[user] = rows[0]
        self.counts[user] += 1
        self.index.top_k(self.step.queries(rows), TOP_K, *self.filters)

    def advance_one(self) -> None:
        self.step.advance(self.rows[:1], self.counts[:1], self.items[0])

    def search_one(self) -> None:
        self.index.top_k(self.step.queries(self.rows[:1]), TOP_K, *self.filters)


def full_pass(model: Any, index: ExactIndex, ids: torch.Tensor) -> Callable[[], np.ndarray]:
    """A forward pass over the whole history and the same search; gives the last representation."""

    @torch.inference_mode()
    def run() -> np.ndarray:
        hidden = model.model(ids).last_hidden_state[:, -1]
        index.top_k(model.query_vectors(hidden).numpy(), TOP_K)
        return hidden.numpy()

    return run


def logits(model: Any, ids: torch.Tensor) -> Callable[[], Any]:
    """As people call a model: all scores, and the best of them."""
    return torch.inference_mode()(lambda: model(ids).logits.topk(TOP_K))


def per_prefix(model: Any, index: ExactIndex, ids: torch.Tensor) -> Callable[[], np.ndarray]:
    """The paper's computation of one prefix: `nn.GRU`, plain operations, both directions."""
    run = full_pass(official(copy.deepcopy(model)), index, ids)

    def plain() -> np.ndarray:
        with without_kernel():
            return run()

    return plain


def one_click(arguments: argparse.Namespace) -> list[dict]:
    """A click against the same answer by other ways, at each width and number of threads."""
    results = []
    for size in arguments.widths:
        model = glint_model(arguments, size)
        index, step = ExactIndex(item_vectors(model)), make_step(model)
        click, plain = Clicks(step, index, LENGTH), Clicks(PlainStep(model), index, LENGTH)
        ids = torch.from_numpy(click.history)[None]
        forward, prefix = full_pass(model, index, ids), per_prefix(model, index, ids)
        for hidden in (forward(), prefix()):
            np.testing.assert_allclose(click.end[:, -size:], hidden, rtol=1e-3, atol=1e-3)
        sasrec = SASRecForSequentialRecommendation(
            SASRecConfig(vocab_size=ITEMS + 1, hidden_size=size, max_position_embeddings=LENGTH)
        ).eval()
        others = ExactIndex(item_vectors(sasrec))
        cached, sasrec_forward = CachedSASRec(sasrec, click.history), full_pass(sasrec, others, ids)
        np.testing.assert_allclose(cached.last[None], sasrec_forward(), rtol=1e-3, atol=1e-3)
        once = max(3, arguments.clicks // FULL_PASSES)
        runs: dict[str, tuple[Callable[[], Any], int]] = {
            "click": (click, arguments.clicks),
            "advance alone": (
                lambda c=click, s=step: s.advance(c.rows[:1], c.counts[:1], c.items[0]),
                arguments.clicks,
            ),
            "top 10 alone": (lambda i=index, s=step, c=click: i.top_k(s.queries(c.rows[:1]), TOP_K), arguments.clicks),
            "click, plain PyTorch": (plain, once),
            "full pass": (forward, once),
            "per prefix": (prefix, once),
            "SASRec, full pass": (sasrec_forward, once),
            "SASRec, model(ids) and torch.topk": (logits(sasrec, ids), once),
            "SASRec, key/value cache": (lambda c=cached, i=others: i.top_k(c.again(), TOP_K), arguments.clicks),
        }
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            result = compared(runs, "click", arguments.rounds)
            results.append({"width": size, "threads": threads, "items": index.num_items, **result})
            show(f"one click, d = {size}, {threads} thread(s), {index.num_items:,} items, length {LENGTH}", result)
    return results


def long_history(arguments: argparse.Namespace) -> list[dict]:
    """A click after ten thousand items against one after fifty."""
    torch.set_num_threads(arguments.threads[0])
    results = []
    for size in arguments.widths:
        model = glint_model(arguments, size)
        step, index = make_step(model), ExactIndex(item_vectors(model))
        runs = {f"history of {n:,}": (Clicks(step, index, n), arguments.clicks) for n in (SHORT, LONG)}
        result = compared(runs, f"history of {SHORT}", arguments.rounds)
        results.append({"width": size, **result})
        show(f"length of the history, d = {size}", result)
    return results


def by_length(arguments: argparse.Namespace) -> list[dict]:
    """A click by the length of the history before it, against SASRec with that many positions."""
    torch.set_num_threads(arguments.threads[0])
    size, results = arguments.widths[0], []
    model = glint_model(arguments, size)
    step, index = make_step(model), ExactIndex(item_vectors(model))
    for length in LENGTHS:
        click = Clicks(step, index, length)
        sasrec = SASRecForSequentialRecommendation(
            SASRecConfig(vocab_size=ITEMS + 1, hidden_size=size, max_position_embeddings=length)
        ).eval()
        others, cached = ExactIndex(item_vectors(sasrec)), CachedSASRec(sasrec, click.history)
        runs: dict[str, tuple[Callable[[], Any], int]] = {
            "GLINT-RU": (click, arguments.clicks),
            "SASRec, key/value cache": (lambda c=cached, i=others: i.top_k(c.again(), TOP_K), arguments.clicks // 4),
            "SASRec, full pass": (
                full_pass(sasrec, others, torch.from_numpy(click.history)[None]),
                max(3, min(arguments.clicks // FULL_PASSES, 4000 // length)),
            ),
        }
        result = compared(runs, "GLINT-RU", arguments.rounds)
        results.append({"width": size, "length": length, **result})
        show(f"a click after {length:,} items, d = {size}", result)
    return results


def filters(arguments: argparse.Namespace) -> list[dict]:
    """A click with a thousand excluded ids, or with a tenth of the items allowed, against one without filters."""
    torch.set_num_threads(arguments.threads[0])
    rng, results = np.random.default_rng(1), []
    for size in arguments.widths:
        model = glint_model(arguments, size)
        step, index = make_step(model), ExactIndex(item_vectors(model))
        ids = rng.permutation(np.arange(1, index.vocab_size))
        kinds: dict[str, dict[str, Any]] = {
            "no filter": {},
            "1,000 excluded": {"exclude": [ids[:1000]]},
            "a tenth allowed": {"allowed": ids[: len(ids) // 10]},
        }
        runs = {name: (Clicks(step, index, LENGTH, **kind), arguments.clicks) for name, kind in kinds.items()}
        result = compared(runs, "no filter", arguments.rounds)
        results.append({"width": size, **result})
        show(f"filters, d = {size}, {index.num_items:,} items", result)
    return results


def vectors_of(kind: str, items: int, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Item vectors, row 0 for padding, and a hundred queries.

    Args:
        kind: `"random"`, independent numbers, where no index can save much, or `"clustered"`, a thousand groups of
            items and queries, which learned vectors resemble more.
    """
    vectors, queries = (rng.standard_normal((n, size), dtype=np.float32) for n in (items + 1, 100))
    if kind == "clustered":
        centres = rng.standard_normal((1000, size), dtype=np.float32)
        for x in (vectors, queries):
            x *= 0.7
            x += centres[rng.integers(0, len(centres), len(x))]
    return vectors, queries


def catalogues(arguments: argparse.Namespace) -> list[dict]:
    """A click by the size of the catalogue: exact, and approximate with its recall among the ten best."""
    torch.set_num_threads(arguments.threads[0])
    size, results = arguments.widths[0], []
    step = make_step(glint_model(arguments, size))
    kinds: dict[str, Any] = {"exact": ExactIndex, "approximate": ApproximateIndex}
    if not faiss_is_here():
        del kinds["approximate"]
    for items in arguments.catalogues:
        for kind in ("random", "clustered"):
            vectors, queries = vectors_of(kind, items, size, np.random.default_rng(2))
            built, seconds = {}, {}
            for name, make in kinds.items():
                start = time.perf_counter()
                built[name] = make(vectors)
                seconds[name] = time.perf_counter() - start
            calls = max(20, min(arguments.clicks, 20_000_000 // items))
            runs = {name: (Clicks(step, index, SHORT), calls) for name, index in built.items()}
            result = compared(runs, "exact", arguments.rounds)
            best = built["exact"].top_k(queries, TOP_K)[0]
            recall = {
                name: statistics.mean(len({*a} & {*b}) / TOP_K for a, b in zip(best.tolist(), found, strict=True))
                for name, index in built.items()
                for found in [index.top_k(queries, TOP_K)[0].tolist()]
            }
            facts = {"width": size, "items": items, "vectors": kind, "build_seconds": seconds, "recall": recall}
            results.append({**facts, **result})
            show(f"catalogue of {items:,} items, {kind} vectors, d = {size}", result)
            print("  recall " + ", ".join(f"{name} {value:.3f}" for name, value in recall.items()))
    return results


def padded_users(model: Any, users: UserHistories) -> Callable[[], np.ndarray]:
    """The paper's computation for all users: each history padded to the full length, `nn.GRU`, one product of scores.

    The call gives the users' best items, (users, TOP_K).
    """
    twin = official(copy.deepcopy(model))
    lists = users.histories(0, len(users))
    ids = torch.zeros(len(users), LENGTH, dtype=torch.long)
    for row, history in zip(ids, lists, strict=True):
        row[: len(history)] = torch.from_numpy(history[-LENGTH:])

    @torch.inference_mode()
    def run() -> np.ndarray:
        found = []
        with without_kernel():
            for start in range(0, len(ids), PADDED_BATCH):
                part = ids[start : start + PADDED_BATCH]
                hidden = last_item(twin.model(part).last_hidden_state, part != 0)
                scores = twin.query_vectors(hidden) @ twin.item_vectors().T
                scores[:, 0] = -torch.inf
                for row, seen in zip(scores, lists[start : start + PADDED_BATCH], strict=True):
                    row[torch.from_numpy(seen)] = -torch.inf
                found.append(scores.topk(TOP_K).indices.numpy())
        return np.concatenate(found)

    return run


def first_users(users: UserHistories, number: int) -> UserHistories:
    number = min(number, len(users))
    starts, times = users.starts[: number + 1], users.last_times[:number]
    return replace(users, user_ids=users.user_ids[:number], starts=starts, num_unknown_items=0, last_times=times)


def all_users(arguments: argparse.Namespace) -> dict:
    """The ten best unseen items for every user of a table: users a second."""
    interactions = read_interactions(arguments.data) if arguments.data else generated()
    processor = GlintRUProcessor(interactions.frame["item_id"].unique().sort().to_list())
    users = first_users(UserHistories.of(interactions.frame, processor), arguments.users)
    few = first_users(users, arguments.padded_users)
    lengths = np.minimum(np.diff(users.starts), LENGTH)
    results = []
    for size in arguments.widths:
        model = glint_model(arguments, size, len(processor))
        sasrec = SASRecForSequentialRecommendation(
            SASRecConfig(vocab_size=processor.vocab_size, hidden_size=size, max_position_embeddings=LENGTH)
        ).eval()
        padded = padded_users(model, few)
        same = next(recommend_all(model, few, LENGTH, TOP_K))[0] == padded()
        assert same.mean() > 0.99, "the sides recommend other items"
        sides: dict[str, tuple[Callable[[], Any], int]] = {
            "GLINT-RU": (lambda m=model: list(recommend_all(m, users, LENGTH, TOP_K)), len(users)),
            "SASRec": (lambda m=sasrec: list(recommend_all(m, users, LENGTH, TOP_K)), len(users)),
            "per prefix": (padded, len(few)),
        }
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            found = latencies({name: (run, 1) for name, (run, _) in sides.items()}, arguments.rounds)
            each = {name: [part[0] / number for part in found[name].seconds] for name, (_, number) in sides.items()}
            result = {
                "users_per_second": {name: 1 / statistics.median(values) for name, values in each.items()},
                "users_per_cpu_second": {name: n / found[name].cpu_seconds for name, (_, n) in sides.items()},
                "ratios": {f"{name} / GLINT-RU": spread(each[name], each["GLINT-RU"]) for name in list(sides)[1:]},
            }
            results.append({"width": size, "threads": threads, **result})
            print(f"\nall users, d = {size}, {threads} thread(s), {len(processor):,} items")
            for name, value in result["users_per_second"].items():
                cpu = result["users_per_cpu_second"][name]
                print(f"  {name:<28}{value:>10,.0f} users a second{cpu:>10,.0f} a second of CPU")
            show_ratios(result["ratios"])
    return {
        "data": interactions.source,
        "users": len(users),
        "padded_users": len(few),
        "items": len(processor),
        "mean_length": float(lengths.mean()),
        "sides": results,
    }


def faiss_is_here() -> bool:
    try:
        import faiss  # noqa: F401
    except ImportError:
        print("\nfaiss is not installed (pip install glintru[ann]): no approximate index")
        return False
    return True


def compared(runs: dict[str, tuple[Callable[[], Any], int]], base: str, rounds: int) -> dict[str, Any]:
    """Microseconds of each run, and ratios of its median to that of `base` within rounds."""
    found = latencies(runs, rounds)
    medians = {name: [statistics.median(part) for part in result.seconds] for name, result in found.items()}
    return {
        "microseconds": {
            name: {
                "p50": float(np.percentile(np.concatenate(result.seconds), 50) * 1e6),
                "p99": float(np.percentile(np.concatenate(result.seconds), 99) * 1e6),
                "cpu": result.cpu_seconds * 1e6,
            }
            for name, result in found.items()
        },
        "ratios": {f"{name} / {base}": spread(medians[name], medians[base]) for name in runs if name != base},
    }


def show(title: str, result: dict[str, Any]) -> None:
    print(f"\n{title}\n  {'microseconds':<28}{'p50':>12}{'p99':>12}{'CPU, mean':>12}")
    for name, values in result["microseconds"].items():
        print(f"  {name:<28}{values['p50']:>12,.1f}{values['p99']:>12,.1f}{values['cpu']:>12,.1f}")
    show_ratios(result["ratios"])


def show_ratios(ratios: dict[str, dict[str, float]]) -> None:
    for name, ratio in ratios.items():
        print(f"  {name:<52}{ratio['median']:>8.2f}x   [{ratio['low']:.2f}, {ratio['high']:.2f}]")


# What is measured, in this order; each takes the arguments and gives what the report holds under its name.
MEASURES: list[Callable[[argparse.Namespace], Any]] = [
    one_click,
    long_history,
    by_length,
    filters,
    all_users,
    catalogues,
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder that `glintru train` wrote, for its width; random weights elsewhere")
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--clicks", type=int, default=2000, help="calls of a fast side in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--catalogues", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--data", help="ML-1M's interactions, for all users; generated histories where missing")
    parser.add_argument("--users", type=int, default=10_000, help="at most, for all users")
    parser.add_argument("--padded_users", type=int, default=320, help="of them, for the side that pads them all alike")
    parser.add_argument("--only", nargs="+", choices=[measure.__name__ for measure in MEASURES], help="some rows")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    chosen = [m for m in MEASURES if arguments.only is None or m.__name__ in arguments.only]
    results = {measure.__name__: measure(arguments) for measure in chosen}
    facts = {"weights": arguments.model or "random", "length": LENGTH, "top_k": TOP_K}
    machine = report_header(cores=os.cpu_count(), load=os.getloadavg())
    write_report(arguments.output, {**machine, **facts, "results": results})


if __name__ == "__main__":
    main()
