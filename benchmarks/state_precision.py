"""What a half-precision streaming state costs in ranking quality: every user's history, absorbed click by click.

After each click the state is rounded to the dtype in which it would be stored; at the end the held-out item is ranked
among all items (the user's past ones excluded) and the ten best are compared with those of the full pass in float32.

    glintru train --recipe ml-100k --output_dir outputs/ml-100k
    python benchmarks/state_precision.py outputs/ml-100k

The same for histories of ten thousand clicks, joined from many users' and without a target.

Prints a table and writes benchmarks/results/state_precision.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from measuring import report_header, write_report
from torch.nn.utils.rnn import pad_sequence

from modeling_glintru.data import load_source
from modeling_glintru.data.prepare import prepare
from modeling_glintru.evaluation.ranking import rank_targets
from modeling_glintru.models.loading import load_model_folder

RESULTS = Path(__file__).parent / "results" / "state_precision.json"
LONG = 10_000  # clicks of a joined history
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder that `glintru train` wrote")
    parser.add_argument("--data", default="ml-100k", help="the source it was trained on")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    model = load_model_folder(arguments.model)[0].eval()
    rows = prepare(load_source(arguments.data), split="leave_one_out").dataset["test"]
    ids = pad_sequence([torch.tensor(items) for items in rows["item_ids"]], batch_first=True)
    targets = torch.tensor(rows["target"])
    joined = ids[ids != 0]
    long = joined[: len(joined) // LONG * LONG].view(-1, LONG)  # as if one person had watched what many did
    with torch.inference_mode():
        results = by_dtype(model, ids, targets)
        long_results = by_dtype(model, long, None)
    facts = {"data": arguments.data, "users": len(ids), "longest_history": ids.shape[1], "results": results}
    facts |= {"joined_histories": list(long.shape), "joined_results": long_results}
    write_report(arguments.output, {**report_header(), **facts})


def by_dtype(model: torch.nn.Module, ids: torch.Tensor, targets: torch.Tensor | None) -> dict[str, dict[str, float]]:
    """The full pass, and the same histories click by click with a state of each dtype."""
    full = model(ids).logits
    results = {"full pass, float32": compare(full, full, targets, ids)}
    for dtype in DTYPES:
        state = model.model.empty_state(len(ids)).to(dtype)
        for t in range(ids.shape[1]):
            state = model.model(ids[:, t : t + 1], state=state).state
        logits = model(ids.new_zeros(len(ids), 0), state=state).logits
        name = f"clicks, {str(dtype).removeprefix('torch.')}"
        results[name] = {"bytes_per_user": state.nbytes // len(state), **compare(logits, full, targets, ids)}
    for name, row in results.items():
        print(f"{name:20}", "  ".join(f"{key} {value:.4f}" for key, value in row.items()))
    return results


def compare(
    logits: torch.Tensor, full: torch.Tensor, targets: torch.Tensor | None, seen: torch.Tensor
) -> dict[str, float]:
    """How far the scores are from the full pass's, how much of its ten best is kept, and the targets' metrics."""
    ours, theirs = (x.scatter(1, seen, float("-inf")).topk(10).indices for x in (logits, full))
    found = {
        "score_difference": (logits - full)[:, 1:].abs().max().item(),
        "top_10_in_common": (ours[:, :, None] == theirs[:, None]).any(2).double().mean().item(),
        "top_1_equal": (ours[:, 0] == theirs[:, 0]).double().mean().item(),
    }
    if targets is None:
        return found
    ranks = rank_targets(logits, targets, seen).double()
    hit = ranks <= 10
    return {
        "ndcg@10": ((ranks + 1).log2().reciprocal() * hit).mean().item(),
        "hr@10": hit.double().mean().item(),
        **found,
    }


if __name__ == "__main__":
    main()
