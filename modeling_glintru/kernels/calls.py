"""Calls of the C kernels: on parts of a batch, a thread each, and under which conditions they serve."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import build

__all__ = ["ROWS", "WIDTH", "call", "can_fuse", "in_parallel", "kept", "over_rows", "packed"]

ROWS = 8  # rows of a batch that one register tile holds
WIDTH = 16  # floats of the widest vectors that a kernel is built with; sizes are multiples of it


def can_fuse(x: Tensor, width: int) -> bool:
    """Whether the kernels serve: float32 or bfloat16 on the CPU, a width that fills vectors, and no tracing."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and width % WIDTH == 0
        and x.numel() > 0
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and build.library() is not None
    )


def kept(mask: Tensor | None) -> Tensor | None:
    """A mask as the kernels take it: float32, contiguous."""
    return None if mask is None else mask.detach().float().contiguous()


def packed(matrix: Tensor) -> Tensor:
    """(rows, columns) with the columns filled up to a multiple of 32, contiguous."""
    return torch.nn.functional.pad(matrix, (0, -matrix.shape[1] % 32)).contiguous()


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


def _begin_again_after_fork() -> None:
    """Lets a forked process compute, with one thread: those of its parent, which it would wait for, are not in it."""
    _pool.cache_clear()
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_begin_again_after_fork)


def in_parallel(part: Callable[[int], Any], workers: int) -> list[Any]:
    """The results of `part(0)` ... `part(workers - 1)`, a thread each; for C functions, which free the lock."""
    if workers == 1:
        return [part(0)]
    if _openmp() is not None:
        return _in_team(part, workers)
    return list(_pool(workers).map(part, range(workers)))


def over_rows(
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
    function = getattr(build.library(), f"{name}_{str(dtype).removeprefix('torch.')}")
    over_rows(function, batch, tensors, sizes, tile)
