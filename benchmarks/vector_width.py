"""What the compiled kernels gain on a processor with narrower registers, AVX2 by default, beside plain PyTorch.

Both sides run in one process in interleaved rounds, with PyTorch held to the same instructions; processor time.

    python benchmarks/vector_width.py
    python benchmarks/vector_width.py --processor nehalem --rounds 3

Prints a table and writes benchmarks/results/vector_width_PROCESSOR.json.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
PROCESSORS = {  # what PyTorch and its libraries are held to
    "native": {},
    "haswell": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "nehalem": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processor", choices=list(PROCESSORS), default="haswell")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="by default in benchmarks/results")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    os.environ.update(PROCESSORS[args.processor])  # PyTorch reads them when it is imported
    import torch
    from measuring import Side, report_header, spread, write_report
    from train_speed import without_kernel

    from modeling_glintru import GlintRUConfig, GlintRUForSequentialRecommendation
    from modeling_glintru.kernels import build
    from modeling_glintru.kernels.softmax import kernel_gradient_, softmax_gradient
    from modeling_glintru.machine import keep_freed_memory
    from modeling_glintru.models import ops_glintru as ops

    compiler = build.find_compiler()
    if compiler is None:
        raise SystemExit("there is no C compiler")
    with tempfile.TemporaryDirectory() as folder:
        build.compile_kernels(compiler, Path(folder) / "kernels.so", args.processor)
        library = ctypes.CDLL(str(Path(folder) / "kernels.so"))
    build.library = lambda: library
    keep_freed_memory()
    torch.manual_seed(0)

    def trained(function: Callable[..., torch.Tensor], *shapes: tuple[int, ...]) -> Callable[[], object]:
        """Forward and backward with random inputs."""
        inputs = [torch.randn(shape).requires_grad_() for shape in shapes]
        direction = torch.randn_like(function(*inputs))
        return lambda: torch.autograd.grad(function(*inputs), inputs, direction)

    def cross_entropy() -> None:
        gradient = scores.clone()
        if kernel_gradient_("cross_entropy", gradient, targets, 1.0, 0.0) is None:
            softmax_gradient(gradient, targets, 1.0, 0.0, torch.float32)

    scores, targets, row = torch.randn(1, 256, 3416), torch.randint(3416, (256,)), (32, 200, 128)
    gru, norm = torch.nn.GRU(128, 128, bias=False, batch_first=True), torch.nn.LayerNorm(128)
    drops = {"embedding_dropout": 0.3, "attention_dropout": 0.2, "hidden_dropout": 0.3}
    config = GlintRUConfig(vocab_size=3417, hidden_size=128, num_attention_heads=8, **drops)  # the recipe of ML-1M
    side = Side(GlintRUForSequentialRecommendation(config), bf16=False)
    ids = torch.randint(1, 3417, row[:2])
    runs = {
        "recurrence, interior and edges": trained(lambda x: ops.gru_prefix_states(gru, x), (2, *row)),
        "linear attention, 8 heads": trained(lambda x: ops.linear_attention(x, None, 8), (32, 200, 384)),
        "linear attention, 2 heads": trained(lambda x: ops.linear_attention(x, None, 2), (32, 200, 384)),
        "dropout, residual and norm": trained(lambda a, x: ops.add_norm(a, x, norm, 0.3), row, row),
        "product with gelu": trained(lambda a, gate: ops.gelu_gate(a, gate), row, row),
        "taps": trained(lambda x, bias: ops.prefix_convolution(x, bias, None), (32, 200, 384), (128,)),
        "gated pairs": trained(lambda g, v: ops.gated_pairs(g, v, None, 0.3), (2, *row), (2, *row)),
        "cross-entropy, 256 x 3,416": cross_entropy,
        "training step": lambda: side.step({"input_ids": ids, "labels": ids.roll(-1, 1)}),
    }
    results = {}
    print(f"{args.processor}: kernel and plain, ms of processor time, forward and backward")
    for name, run in runs.items():
        seconds: dict[str, list[float]] = {"kernel": [], "plain": []}
        for index in range(args.rounds + 1):
            for which in seconds:
                start = time.process_time()
                if which == "kernel":
                    run()
                else:
                    with without_kernel():
                        run()
                if index:
                    seconds[which].append(time.process_time() - start)
        results[name] = {which: min(values) * 1e3 for which, values in seconds.items()}
        results[name]["ratio"] = spread(seconds["plain"], seconds["kernel"])
        ratio = results[name]["ratio"]
        print(
            f"  {name:<32}{results[name]['kernel']:>9.2f}{results[name]['plain']:>9.2f}"
            f"{ratio['median']:>8.2f}x   [{ratio['low']:.2f}, {ratio['high']:.2f}]"
        )
    output = args.output or RESULTS / f"vector_width_{args.processor}.json"
    write_report(output, {"processor": args.processor, **report_header(), "milliseconds": results})


if __name__ == "__main__":
    main()
