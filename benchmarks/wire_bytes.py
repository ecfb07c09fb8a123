"""How many bytes a training step sends between two processes: replicated item table, or one split by rows.

Two gloo processes take steps on one machine; the kernel's counters of the network interfaces say what was sent (Linux).
The split table is here only its exchange: each process owns every second row, asks the other for the rows of its
batch, gets them, and sends their gradients back; the other weights are not in it.

    OMP_NUM_THREADS=1 python benchmarks/wire_bytes.py

Prints a table and writes benchmarks/results/wire_bytes.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from measuring import report_header, write_report
from torch.nn.parallel import DistributedDataParallel

from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation

RESULTS = Path(__file__).parent / "results" / "wire_bytes.json"
SIZE, WINDOWS, LENGTH = 64, 32, 50


def sent_bytes() -> int:
    """What all interfaces of this machine have sent so far, packet headers included."""
    lines = Path("/proc/net/dev").read_text(encoding="utf-8").splitlines()[2:]
    return sum(int(line.split(":")[1].split()[8]) for line in lines)


def counted(step: Callable[[], None], rounds: int) -> float:
    """Median of the bytes that both processes send in a step."""
    found = []
    for _ in range(rounds):
        dist.barrier()
        before = sent_bytes()
        dist.barrier()
        step()
        dist.barrier()
        found.append(sent_bytes() - before)
        dist.barrier()
    return statistics.median(found[1:])


def exchange(table: torch.Tensor, rows: torch.Tensor, rank: int) -> None:
    """One step of a table split by rows: ids out, rows back, gradients out."""
    processes = dist.get_world_size()
    wanted = [rows[rows % processes == owner] for owner in range(processes)]
    wanted[rank] = wanted[rank][:0]  # own rows need no wire
    asked_for = torch.empty(processes, dtype=torch.long)
    dist.all_to_all_single(asked_for, torch.tensor([len(part) for part in wanted]))
    sizes, asked = [len(part) for part in wanted], asked_for.tolist()
    ids = torch.empty(sum(asked), dtype=torch.long)
    dist.all_to_all_single(ids, torch.cat(wanted), asked, sizes)
    found = torch.empty(sum(sizes), table.shape[1])
    dist.all_to_all_single(found, table[ids // processes], sizes, asked)
    gradients = torch.empty(sum(asked), table.shape[1])
    dist.all_to_all_single(gradients, torch.ones_like(found), asked, sizes)


def work(rank: int, place: str, items: list[int], rounds: int) -> None:
    """One of two processes."""
    dist.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=2)
    torch.manual_seed(rank)
    results = []
    for count in items:
        config = GlintRUConfig(vocab_size=count + 1, hidden_size=SIZE)
        model = DistributedDataParallel(GlintRUForSequentialRecommendation(config))
        ids = torch.randint(1, count + 1, (WINDOWS, LENGTH + 1))

        def replicated(model: torch.nn.Module = model, ids: torch.Tensor = ids) -> None:
            model(input_ids=ids[:, :-1], labels=ids[:, 1:]).loss.backward()

        rows, table = ids.unique(), torch.zeros(count // 2 + 1, SIZE)
        remote = torch.tensor(int((rows % 2 != rank).sum()))
        dist.all_reduce(remote)
        encoder = sum(p.numel() for name, p in model.named_parameters() if p.shape[0] != count + 1)
        parameters = sum(p.numel() for p in model.parameters())
        results.append(
            {
                "items": count,
                "parameters": parameters,
                "encoder_parameters": encoder,
                "replicated_bytes": counted(replicated, rounds),
                "replicated_computed": 2 * 4 * parameters,  # ring over P: 2 (P - 1) / P of the gradient each
                "remote_rows": int(remote),
                "split_bytes": counted(lambda table=table, rows=rows: exchange(table, rows, rank), rounds),
                "split_computed": int(remote) * (8 + 2 * 4 * SIZE),
            }
        )
    if rank == 0:
        Path(place, "results.json").write_text(json.dumps(results), encoding="utf-8")
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 50_000, 100_000])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        torch.multiprocessing.spawn(work, (place, args.items, args.rounds), nprocs=2)
        results = json.loads(Path(place, "results.json").read_text(encoding="utf-8"))
    for result in results:
        shown = ", ".join(
            f"{kind} {result[f'{kind}_bytes'] / 1e6:.2f} MB (computed {result[f'{kind}_computed'] / 1e6:.2f})"
            for kind in ("replicated", "split")
        )
        print(f"{result['items']:>9,} items, bytes of both processes a step: table {shown}")
    shape = {"backend": "gloo", "processes": 2, "windows": WINDOWS, "length": LENGTH, "hidden_size": SIZE}
    write_report(args.output, {**report_header(**shape), "results": results})


if __name__ == "__main__":
    main()
