"""What a machine without the compiled kernels pays: a training step and an answer to a click, with them and without.

    python benchmarks/without_kernels.py [--rounds 3]

Each round starts one process with the kernels and one with `GLINTRU_KERNELS=0`, on one thread; the models have random
weights and the sizes of the recipes `ml-100k` and `ml-1m-best`. Prints medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

SIZES = {  # hidden size, heads, length, items
    "d = 64, 50 items a history": (64, 1, 50, 1682),
    "d = 128, 200 items a history": (128, 8, 200, 3416),
}


def measured() -> dict[str, float]:
    """Milliseconds in this process, by what was measured."""
    import torch

    from modeling_glintru import (
        GlintRUConfig,
        GlintRUForSequentialRecommendation,
        GlintRUProcessor,
        StreamingRecommender,
    )
    from modeling_glintru.machine import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = {}
    for name, (size, heads, length, items) in SIZES.items():
        drops = dict.fromkeys(("embedding_dropout", "attention_dropout", "hidden_dropout"), 0.2)
        config = GlintRUConfig(vocab_size=items + 1, hidden_size=size, num_attention_heads=heads, **drops)
        model = GlintRUForSequentialRecommendation(config).train()
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        ids = torch.randint(1, items, (32, length))

        def step(model=model, optimizer=optimizer, ids=ids) -> None:
            model(ids, labels=ids.roll(-1, 1)).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        found[f"training step, {name}"] = median(step, 15)
        names = [f"item {number}" for number in range(items)]
        recommender = StreamingRecommender(model.eval(), GlintRUProcessor(names))
        clicks = iter(names)

        def click(recommender=recommender, clicks=clicks) -> None:
            recommender.observe("somebody", next(clicks))
            recommender.recommend("somebody", 10)

        found[f"click and ten items, {name}"] = median(click, 400)
    return found


def median(run, times: int) -> float:
    """Milliseconds of a run, the first third not counted."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[times // 3 :]) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(measured()))
        return
    rounds: dict[str, list[dict[str, float]]] = {"1": [], "0": []}
    for _ in range(args.rounds):
        for switch, results in rounds.items():
            command = [sys.executable, __file__, "--worker"]
            done = subprocess.run(
                command, env={**os.environ, "GLINTRU_KERNELS": switch}, stdout=subprocess.PIPE, check=True
            )
            results.append(json.loads(done.stdout))
    print(f"{'ms':50}{'with':>9}{'without':>9}{'times':>7}")
    for name in rounds["1"][0]:
        there, gone = (statistics.median(result[name] for result in rounds[switch]) for switch in ("1", "0"))
        print(f"{name:50}{there:>9.2f}{gone:>9.2f}{gone / there:>7.1f}")


if __name__ == "__main__":
    main()
