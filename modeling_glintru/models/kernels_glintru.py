"""Small C kernels for CPUs, built on first use where there is a C compiler.

PyTorch has no fused GRU for CPUs: its loop pays several dispatches for each of hundreds of dependent steps, twice that
backward. Here a step is one small product and one pointwise loop. The other kernels save passes over memory. Without a
compiler (or with `GLINTRU_KERNELS=0` in the environment) nothing is built and PyTorch does the work, with the same
numbers.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .kernel_source_glintru import SOURCE

logger = logging.getLogger(__name__)

ROWS = 8  # rows of a batch that one register tile holds
WIDTH = 16  # floats of the widest vectors that a kernel is built with; sizes are multiples of it
# Not -ffast-math: linked into a library it would flush denormals in the whole process.
FLAGS = [
    *("-O3", "-march=native", "-std=gnu11", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math"),
    *("-fno-signed-zeros", "-fassociative-math", "-freciprocal-math"),
]


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or `None` where they cannot be built."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    if os.environ.get("GLINTRU_KERNELS", "1") == "0" or compiler is None or os.name != "posix":
        return None
    try:
        return ctypes.CDLL(str(_build(compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        logger.info("the CPU kernels were not built, nn.GRU is used instead: %s", error)
        return None


def _build(compiler: str) -> Path:
    """Compiles once per source, compiler and kind of CPU into the user's cache; safe with several processes."""
    with open("/proc/cpuinfo", encoding="utf-8") if Path("/proc/cpuinfo").exists() else open(os.devnull) as file:
        processor = next((line for line in file if line.startswith(("flags", "Features"))), "")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    digest = hashlib.sha256("\n".join([SOURCE, *FLAGS, version, processor]).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "glintru" / "kernels"
    target = folder / f"gru-{digest}.so"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            source, built = Path(scratch) / "gru.c", Path(scratch) / "gru.so"
            source.write_text(SOURCE, encoding="utf-8")
            command = [compiler, *FLAGS, str(source), "-o", str(built), "-lm"]
            subprocess.run(command, capture_output=True, check=True, timeout=120)
            os.replace(built, target)
    return target


@functools.cache
def _openmp() -> ctypes.CDLL | None:
    """The OpenMP runtime of PyTorch, if it is GNU's: its threads wait for work where others would have to push in."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text(encoding="utf-8").splitlines() if maps.exists() else []
    paths = [line.split(maxsplit=5)[5] for line in lines if "libgomp" in line]
    library = ctypes.CDLL(paths[0]) if paths else None
    return library if hasattr(library, "GOMP_parallel") else None


def _in_team(part: Callable[[int], Any], workers: int) -> list[Any]:
    openmp, errors = _openmp(), []
    results: list[Any] = [None] * workers
    assert openmp is not None

    def body(_: Any) -> None:
        try:
            for i in range(openmp.omp_get_thread_num(), workers, openmp.omp_get_num_threads()):
                results[i] = part(i)
        except BaseException as error:  # it would be lost on the way through C
            errors.append(error)

    openmp.GOMP_parallel(ctypes.CFUNCTYPE(None, ctypes.c_void_p)(body), None, workers, 0)
    if errors:
        raise errors[0]
    return results


@functools.cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="glintru")


def in_parallel(part: Callable[[int], Any], workers: int) -> list[Any]:
    """The results of `part(0)` ... `part(workers - 1)`, a thread each; for C functions, which free the lock."""
    if workers == 1:
        return [part(0)]
    if _openmp() is not None:
        return _in_team(part, workers)
    return list(_pool(workers).map(part, range(workers)))


def _over_rows(
    function: Callable[..., int],
    batch: int,
    tensors: Sequence[Tensor | None],
    sizes: Sequence[Any],
    tile: int = ROWS,
) -> None:
    """Calls a kernel on parts of the batch, a thread each; the interpreter's lock is free meanwhile."""
    threads = torch.get_num_threads()
    tile = max(1, min(tile, batch // threads))
    tiles = -(-batch // tile)
    workers = max(1, min(threads, tiles))
    cuts = [min(batch, (tiles * i // workers) * tile) for i in range(workers)] + [batch]
    pointers = [ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors]

    def part(i: int) -> int:
        return function(*pointers, cuts[i], cuts[i + 1], *sizes)

    if any(in_parallel(part, workers)):
        raise MemoryError("no memory for the buffers of a kernel")


def call(
    name: str,
    dtype: torch.dtype,
    batch: int,
    tensors: Sequence[Tensor | None],
    sizes: Sequence[Any],
    tile: int = 1,
) -> None:
    """Calls the kernel for values of a dtype on every row of the batch; the tensors are contiguous."""
    function = getattr(library(), f"{name}_{str(dtype).removeprefix('torch.')}")
    _over_rows(function, batch, tensors, sizes, tile)


def packed(matrix: Tensor) -> Tensor:
    """(rows, columns) with the columns filled up to a multiple of 32, contiguous."""
    return torch.nn.functional.pad(matrix, (0, -matrix.shape[1] % 32)).contiguous()


def gru_scan(gates: Tensor, weight: Tensor) -> Tensor:
    """As `GRUScan`; without gradients nothing is written for a backward pass."""
    if torch.is_grad_enabled() and (gates.requires_grad or weight.requires_grad):
        return GRUScan.apply(gates, weight)
    return _gru_states(gates.contiguous(), weight, None)


def _gru_states(gates: Tensor, weight: Tensor, saved: Tensor | None) -> Tensor:
    """What `GRUScan` gives; `saved`, if there, gets what its backward needs."""
    kernels = library()
    assert kernels is not None
    sides, batch, length, width = gates.shape
    matrix = packed(weight.detach().T)
    states = gates.new_empty(sides, batch, length, width // 3)
    edges, edge_states = (gates[1], states[1]) if sides == 2 else (None, None)
    tensors = (gates[0], edges, matrix, states[0], edge_states, saved)
    _over_rows(kernels.gru_forward, batch, tensors, (length, width // 3, matrix.shape[1]))
    return states


class GRUScan(torch.autograd.Function):
    """All states of a GRU without biases from its input gates, starting at zero; float32 on the CPU.

    With edges, other input gates, also the state that each of them gives from the same state before it: the last step
    of a prefix, whose product with the recurrent weight is the one that the sequence itself needs.
    """

    @staticmethod
    def forward(ctx, gates: Tensor, weight: Tensor) -> Tensor:
        """gates (1 or 2, batch, length, 3 d) = input times weight_ih, interior and edge; weight (3 d, d) = weight_hh.

        Returns:
            States and edge states, (1 or 2, batch, length, d).
        """
        gates = gates.contiguous()
        sides, batch, length, width = gates.shape
        saved = gates.new_empty(batch, length, (1 + 3 * sides) * (width // 3))
        states = _gru_states(gates, weight, saved)
        ctx.save_for_backward(weight, states, saved)
        return states

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        kernels = library()
        assert kernels is not None
        weight, states, saved = ctx.saved_tensors
        sides, batch, length, size = states.shape
        matrix, grad = packed(weight.detach()), grad.contiguous()
        dgates = states.new_empty(sides, batch, length, 3 * size)
        recurrent = states.new_empty(batch * length, 3 * size)  # zero at the start of each row
        edge_grad, dedges = (grad[1], dgates[1]) if sides == 2 else (None, None)
        tensors = (grad[0], edge_grad, matrix, states[0], saved, dgates[0], dedges, recurrent)
        _over_rows(kernels.gru_backward, batch, tensors, (length, size, matrix.shape[1]))
        return dgates, recurrent[1:].T @ states[0].view(-1, size)[:-1]


def cross_entropy_(scores: Tensor, targets: Tensor, temperature: float, smoothing: float) -> Tensor | None:
    """Turns `scores` (rows, items), in place, into the gradient of their summed cross-entropy with `targets`.

    Returns:
        The summed loss, float32 scalar; `None`, with `scores` as they were, where there is no kernel for them.
    """
    return _softmax_gradient("cross_entropy", [scores], targets, temperature, smoothing)


def twin_cross_entropy_(scores: Tensor, targets: Tensor, temperature: float, alpha: float) -> Tensor | None:
    """As `cross_entropy_`, for (2, rows, items) scores of two passes and the loss of `r_drop`."""
    return _softmax_gradient("twin_cross_entropy", list(scores), targets, temperature, alpha)


def _softmax_gradient(
    name: str, passes: Sequence[Tensor], targets: Tensor, temperature: float, option: float
) -> Tensor | None:
    """Calls that kernel on the (rows, items) scores of each pass; see `cross_entropy_`."""
    first = passes[0]
    kernels = library() if first.device.type == "cpu" and not torch.compiler.is_compiling() else None
    contiguous = all(scores.is_contiguous() for scores in passes)
    if kernels is None or first.dtype not in (torch.float32, torch.bfloat16) or not contiguous:
        return None
    losses = torch.empty(len(first), dtype=torch.float32)
    options = (
        first.shape[1],
        int(first.dtype == torch.bfloat16),
        ctypes.c_float(temperature),
        ctypes.c_float(option),
    )
    _over_rows(getattr(kernels, name), len(first), (*passes, targets.contiguous(), losses), options)
    return losses.sum()


def can_fuse(x: Tensor, width: int) -> bool:
    """Whether the kernels serve: float32 or bfloat16 on the CPU, a width that fills vectors, and no tracing."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and width % WIDTH == 0
        and x.numel() > 0
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and library() is not None
    )
