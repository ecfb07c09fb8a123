"""What a half-precision streaming state costs in ranking quality: every user's history, absorbed click by click.

After each click the state is rounded to the dtype in which it would be stored; at the end the held-out item is ranked
among all items (the user's past ones excluded) and the ten best are compared with those of the full pass in float32.

    glintru train --recipe ml-100k --output_dir outputs/ml-100k
    python benchmarks/state_precision.py outputs/ml-100k

Prints a table and writes benchmarks/results/state_precision.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence
from train_speed import report_header, write_report

from modeling_glintru.data import load_source
from modeling_glintru.data.prepare import prepare
from modeling_glintru.evaluation.ranking import rank_targets
from modeling_glintru.loading import load_model_folder

RESULTS = Path(__file__).parent / "results" / "state_precision.json"
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
    with torch.inference_mode():
        full = model(ids).logits
        results = {"full pass, float32": quality(full, full, targets, ids)}
        for dtype in DTYPES:
            state = model.model.empty_state(len(ids)).to(dtype)
            for t in range(ids.shape[1]):
                state = model.model(ids[:, t : t + 1], state=state).state
            none = ids.new_zeros(len(ids), 0)
            logits = model(none, state=state).logits
            name = f"clicks, {str(dtype).removeprefix('torch.')}"
            results[name] = quality(logits, full, targets, ids) | {"bytes_per_user": state.nbytes // len(state)}
    for name, row in results.items():
        print(f"{name:20}", "  ".join(f"{key} {value:.4f}" for key, value in row.items()))
    facts = {"data": arguments.data, "users": len(ids), "longest_history": ids.shape[1], "results": results}
    write_report(arguments.output, {**report_header(), **facts})


def quality(logits: torch.Tensor, full: torch.Tensor, targets: torch.Tensor, seen: torch.Tensor) -> dict[str, float]:
    """NDCG@10 and HR@10 of the targets, and how much of the full pass's ten best is kept."""
    ranks = rank_targets(logits, targets, seen).double()
    hit = ranks <= 10
    ours, theirs = (x.scatter(1, seen, float("-inf")).topk(10).indices for x in (logits, full))
    common = (ours[:, :, None] == theirs[:, None]).any(2).double().mean()
    return {
        "ndcg@10": ((ranks + 1).log2().reciprocal() * hit).mean().item(),
        "hr@10": hit.double().mean().item(),
        "top_10_in_common": common.item(),
        "top_1_equal": (ours[:, 0] == theirs[:, 0]).double().mean().item(),
    }


if __name__ == "__main__":
    main()
