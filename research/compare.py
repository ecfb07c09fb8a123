"""Runs this repository's comparison: the same search for each model, final runs with several seeds.

python -m research.compare --data ml-100k --data ml-1m=interactions.parquet --workers 2 --dry_run

It may be stopped at any time; the same command goes on, and several of them share the work. `python -m
research.results` writes the pages from what has run.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from modeling_glintru.comparison.compare import check_options
from modeling_glintru.comparison.queue import Job, run_queue
from modeling_glintru.errors import GlintRUError

from .protocol import RECORDS, load_protocol, select


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", default=[], metavar="NAME[=FILE]", help="a data set of the protocol")
    parser.add_argument("--protocol", type=Path, help="YAML file, instead of research/protocol.yaml")
    parser.add_argument("--models", default="", help="only these rows, separated by commas, in this order")
    parser.add_argument(
        "--preset", action="append", default=[], metavar="NAME=RECIPE", help="a row with fixed settings"
    )
    parser.add_argument("--ablate", action="append", default=[], metavar="ROW", help="take this row apart")
    parser.add_argument(
        "--first_look", action="store_true", help="one run with the best setting so far instead of a search"
    )
    parser.add_argument("--workers", type=int, default=1, help="trials at the same time, one core each")
    parser.add_argument("--max_minutes", type=float, help="stop after so many minutes, with a checkpoint")
    parser.add_argument("--results", type=Path, default=RECORDS, help="what is in this folder does not run again")
    parser.add_argument("--retry_failed", action="store_true", help="run again what failed")
    parser.add_argument("--dry_run", action="store_true", help="only print the queue and its estimated time")
    options = parser.parse_args(arguments)
    try:
        check_options(options.workers, options.max_minutes)
        protocol = load_protocol(*([options.protocol] if options.protocol else []))
        rows = [row.strip() for row in options.models.split(",") if row.strip()]
        comparison = select(protocol, options.data, rows, options.preset, options.ablate, options.first_look)
        deadline = None if options.max_minutes is None else time.monotonic() + 60 * options.max_minutes
        job = Job(comparison, options.results, deadline, options.workers)
        if options.dry_run:
            print(job.describe())
            return 0
        for name in comparison.data if options.retry_failed else ():
            job.results.forget_failures(name)
        run_queue(job)
    except (GlintRUError, OSError) as error:
        print(f"research.compare: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
