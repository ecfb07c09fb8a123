"""What the features of items cost: seconds and peak memory of reading a table, fitting an encoder and encoding.

The table is synthetic: titles of 9 words and descriptions of 90 on average, whose words follow a power law over 200,000
words, with a brand, three categories, a price and a date. Goal: 100,000 items in a minute and 2 GB on one core.

    OMP_NUM_THREADS=1 POLARS_MAX_THREADS=1 python benchmarks/item_features_cost.py
    python benchmarks/item_features_cost.py --items 10000                # quick

Prints a line for each step.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

WORDS = 200_000


def write_catalogue(file: Path, items: int) -> None:
    """Writes the table of items."""
    rng = np.random.default_rng(0)
    words = np.array([f"{number:x}w" for number in rng.permutation(WORDS)])

    def texts(mean: float) -> list[str]:
        lengths = np.maximum(rng.lognormal(np.log(mean), 0.6, items).astype(np.int64), 2)
        drawn = words[np.minimum(20 * rng.pareto(0.8, lengths.sum()), WORDS - 1).astype(np.int64)]
        ends = np.cumsum(lengths)
        return [" ".join(drawn[end - length : end]) for end, length in zip(ends, lengths, strict=True)]

    paths = rng.integers(0, [20, 200, 2000], (items, 3))
    pl.DataFrame(
        {
            "item_id": [f"B{number:09}" for number in rng.permutation(items)],
            "title": texts(8),
            "description": texts(77),
            "brand": [f"Maker {number}" for number in np.minimum(rng.pareto(1, items) * 5, 20_000).astype(int)],
            "categories": [[f"A{a}", f"B{b}", f"C{c}"] for a, b, c in paths],
            "price": rng.lognormal(3, 1, items),
            "released": pl.Series(rng.integers(0, 1_700_000_000, items)).cast(pl.Datetime("ms")),
        }
    ).write_parquet(file)


def measure(file: Path) -> None:
    """Reads, fits and encodes, and prints what each step took."""
    from modeling_glintru.data.item_features import ItemEncoder
    from modeling_glintru.data.items import read_items

    def step(name: str, function: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        result = function()
        seconds = time.perf_counter() - begin
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        print(f"{name:28}{seconds:8.1f} s{peak:10.2f} GB at most so far")
        return result

    begin = time.perf_counter()
    table = step("read", lambda: read_items(file))
    encoder, vectors, _ = step("fit and encode all", lambda: ItemEncoder.fit_encode(table))
    print(f"{'together':28}{time.perf_counter() - begin:8.1f} s")
    new = table.take(np.arange(min(10_000, len(table))))
    step(f"encode {len(new):,} new items", lambda: encoder.encode(new))
    with tempfile.TemporaryDirectory() as folder:
        encoder.save(folder)
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
    print(f"{len(vectors):,} vectors of {encoder.width} numbers; the encoder's files have {size / 1e6:.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)  # the table, in the process that is measured
    arguments = parser.parse_args()
    if arguments.file is not None:
        measure(arguments.file)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "items.parquet"
        write_catalogue(file, arguments.items)
        # Another process, so that the peak of memory is not that of making the table.
        subprocess.run([sys.executable, __file__, "--file", str(file)], check=True)


if __name__ == "__main__":
    main()
