"""A small C kernel for the recurrence on CPUs, built on first use where there is a C compiler.

PyTorch has no fused GRU for CPUs: its loop pays several dispatches for each of hundreds of dependent steps, twice that
backward. Here a step is one small product and one pointwise loop. Without a compiler (or with `GLINTRU_KERNELS=0` in
the environment) nothing is built and `nn.GRU` does the work, with the same numbers.
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

logger = logging.getLogger(__name__)

ROWS = 8  # rows of a batch that one register tile holds
WIDTH = 16  # floats that one vector of the kernel holds
# Not -ffast-math: linked into a library it would flush denormals in the whole process.
FLAGS = [
    *("-O3", "-march=native", "-std=gnu11", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math"),
    *("-fno-signed-zeros", "-fassociative-math", "-freciprocal-math"),
]

SOURCE = r"""
#include <stdlib.h>
#include <string.h>

typedef float vec __attribute__((vector_size(64), aligned(4), may_alias));
typedef int ivec __attribute__((vector_size(64), aligned(4), may_alias));
#define WIDTH 16
#define AT(pointer) (*(vec *)(pointer))
#define READ(pointer) (*(const vec *)(pointer))

static inline vec pick(ivec mask, vec yes, vec no) { return (vec)((mask & (ivec)yes) | (~mask & (ivec)no)); }

/* exp within float32 rounding. */
static inline vec exp_(vec x) {
    const vec zero = {0};
    x = pick(x < zero - 87.0f, zero - 87.0f, x);
    x = pick(x > zero + 88.0f, zero + 88.0f, x);
    ivec whole = __builtin_convertvector(x * 1.44269504f + pick(x < zero, zero - 0.5f, zero + 0.5f), ivec);
    vec n = __builtin_convertvector(whole, vec);
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = 1.9875691500e-4f * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (vec)((whole + 127) << 23);
}
static inline vec sigmoid_(vec x) { return 1.0f / (1.0f + exp_(-x)); }

/* C (mr, n) = A (mr, k) B (k, n); n is a multiple of 32, B and C are packed to it. */
#define UNROLL _Pragma("GCC unroll 8")
#define TILE(MR)                                                                             \
    case MR:                                                                                 \
        for (int j = 0; j < n; j += 32) {                                                    \
            vec acc[MR][2];                                                                  \
            UNROLL for (int i = 0; i < MR; i++) acc[i][0] = acc[i][1] = (vec){0};                   \
            for (int q = 0; q < k; q++) {                                                    \
                vec b0 = *(const vec *)(b + (long)q * n + j);                                \
                vec b1 = *(const vec *)(b + (long)q * n + j + 16);                           \
                UNROLL for (int i = 0; i < MR; i++) {                                            \
                    acc[i][0] += a[i * lda + q] * b0;                                        \
                    acc[i][1] += a[i * lda + q] * b1;                                        \
                }                                                                            \
            }                                                                                \
            UNROLL for (int i = 0; i < MR; i++) {                                            \
                *(vec *)(c + (long)i * n + j) = acc[i][0];                                   \
                *(vec *)(c + (long)i * n + j + 16) = acc[i][1];                              \
            }                                                                                \
        }                                                                                    \
        break;

static void product(int mr, int k, int n, const float *a, long lda, const float *b, float *c) {
    switch (mr) { TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6) TILE(7) TILE(8) }
}

/* One GRU step of a row: gates from the input (xg) and from the state before (hg); keep gets reset, update, new. */
static inline void step(const float *xg, const float *hg, const float *before, float *out, float *keep, int d) {
    for (int j = 0; j < d; j += WIDTH) {
        vec r = sigmoid_(READ(xg + j) + READ(hg + j));
        vec z = sigmoid_(READ(xg + d + j) + READ(hg + d + j));
        vec m = 2.0f * sigmoid_(2.0f * (READ(xg + 2 * d + j) + r * READ(hg + 2 * d + j))) - 1.0f;
        AT(keep + j) = r; AT(keep + d + j) = z; AT(keep + 2 * d + j) = m;
        AT(out + j) = m + z * (READ(before + j) - m);
    }
}

/* Rows first ... last of the batch. x (batch, length, 3d) input gates; w (d, n) the transposed recurrent weight,
   n >= 3d; h (batch, length, d) states; saved (batch, length, k d): reset, update, new, the new gate's recurrent part.
   With edges, e (batch, length, 3d) are other input gates for one step from the same state before, which the sequence
   does not go on from: he (batch, length, d), and saved has three more parts. Without, e is null. */
int gru_forward(const float *x, const float *e, const float *w, float *h, float *he, float *saved,
                int first, int last, int length, int d, int n) {
    const int parts = e ? 7 : 4;
    float *gates = aligned_alloc(64, sizeof(float) * 8 * n);
    float *zero = calloc(d, sizeof(float));
    if (!gates || !zero) { free(gates); free(zero); return 1; }
    for (int row = first; row < last; row += 8) {
        int mr = last - row < 8 ? last - row : 8;
        for (int t = 0; t < length; t++) {
            if (t) product(mr, d, n, h + ((long)row * length + t - 1) * d, (long)length * d, w, gates);
            else memset(gates, 0, sizeof(float) * 8 * n);
            for (int i = 0; i < mr; i++) {
                long at = (long)(row + i) * length + t;
                const float *hg = gates + (long)i * n, *before = t ? h + (at - 1) * d : zero;
                float *keep = saved + at * parts * d;
                step(x + at * 3 * d, hg, before, h + at * d, keep, d);
                memcpy(keep + 3 * d, hg + 2 * d, sizeof(float) * d);
                if (e) step(e + at * 3 * d, hg, before, he + at * d, keep + 4 * d, d);
            }
        }
    }
    free(gates); free(zero);
    return 0;
}

/* Adds a step's part: gradients of its input gates (dx) and of the recurrent gates (dg), and through the update gate
   to the state before (dz). */
static inline void step_back(const float *g, const float *keep, const float *s, const float *before, float *dx,
                             float *dg, float *through, int d) {
    for (int j = 0; j < d; j += WIDTH) {
        vec dh = READ(g + j), r = READ(keep + j), z = READ(keep + d + j), m = READ(keep + 2 * d + j);
        vec dm = dh * (1.0f - z) * (1.0f - m * m);
        vec dz = dh * (READ(before + j) - m) * z * (1.0f - z);
        vec dr = dm * READ(s + j) * r * (1.0f - r);
        AT(dx + j) = dr; AT(dx + d + j) = dz; AT(dx + 2 * d + j) = dm;
        AT(dg + j) += dr; AT(dg + d + j) += dz; AT(dg + 2 * d + j) += dm * r;
        AT(through + j) += dh * z;
    }
}

/* gh, ge (batch, length, d): gradients of the states and, with edges, of the edge states; w (3d, n) the recurrent
   weight, n >= d; dx, de, dg (batch, length, 3d): gradients of both input gates and of the recurrent gates. */
int gru_backward(const float *gh, const float *ge, const float *w, const float *h, const float *saved, float *dx,
                 float *de, float *dg, int first, int last, int length, int d, int n) {
    const int parts = ge ? 7 : 4;
    float *carry = aligned_alloc(64, sizeof(float) * 8 * n), *dh = malloc(sizeof(float) * d);
    float *through = malloc(sizeof(float) * 8 * d), *zero = calloc(d, sizeof(float));
    if (!carry || !dh || !through || !zero) { free(carry); free(dh); free(through); free(zero); return 1; }
    for (int row = first; row < last; row += 8) {
        int mr = last - row < 8 ? last - row : 8;
        memset(carry, 0, sizeof(float) * 8 * n);
        memset(through, 0, sizeof(float) * 8 * d);
        for (int t = length - 1; t >= 0; t--) {
            for (int i = 0; i < mr; i++) {
                long at = (long)(row + i) * length + t;
                const float *before = t ? h + (at - 1) * d : zero, *keep = saved + at * parts * d;
                float *pass = through + (long)i * d, *out = dg + at * 3 * d;
                for (int j = 0; j < d; j += WIDTH)
                    AT(dh + j) = READ(gh + at * d + j) + READ(carry + (long)i * n + j) + READ(pass + j);
                memset(pass, 0, sizeof(float) * d);
                memset(out, 0, sizeof(float) * 3 * d);
                step_back(dh, keep, keep + 3 * d, before, dx + at * 3 * d, out, pass, d);
                if (ge) step_back(ge + at * d, keep + 4 * d, keep + 3 * d, before, de + at * 3 * d, out, pass, d);
            }
            if (t) product(mr, 3 * d, n, dg + ((long)row * length + t) * 3 * d, (long)length * 3 * d, w, carry);
        }
    }
    free(carry); free(dh); free(through); free(zero);
    return 0;
}

typedef unsigned short hvec __attribute__((vector_size(32), aligned(2), may_alias));
typedef unsigned int uvec __attribute__((vector_size(64), may_alias));

static inline vec widen(const unsigned short *p) {
    return (vec)(__builtin_convertvector(*(const hvec *)p, uvec) << 16);
}
static inline void narrow(unsigned short *p, vec x) {
    uvec u = (uvec)x;
    *(hvec *)p = __builtin_convertvector((u + 0x7fff + ((u >> 16) & 1)) >> 16, hvec);
}

/* scores (rows, n) in float32 or bfloat16 become, in place, the gradient of the cross-entropy with the targets; losses
   (rows) float32. A row stays in the cache from its maximum to its gradient. */
int cross_entropy(void *scores, const long long *targets, float *losses, int first, int last, int n, int bf16,
                  float temperature, float smoothing) {
    const int padded = (n + WIDTH - 1) / WIDTH * WIDTH;
    const float scale = 1.0f / temperature;
    float *row = aligned_alloc(64, sizeof(float) * padded);
    if (!row) return 1;
    for (int i = first; i < last; i++) {
        unsigned short *half_row = (unsigned short *)scores + (long)i * n;
        float *full_row = (float *)scores + (long)i * n;
        int j = 0;
        for (; j + WIDTH <= n; j += WIDTH) AT(row + j) = (bf16 ? widen(half_row + j) : READ(full_row + j)) * scale;
        for (; j < n; j++) {
            union { unsigned u; float f; } one = { bf16 ? (unsigned)half_row[j] << 16 : 0 };
            row[j] = (bf16 ? one.f : full_row[j]) * scale;
        }
        for (; j < padded; j++) row[j] = -3.0e38f;
        vec most = READ(row);
        for (j = WIDTH; j < padded; j += WIDTH) most = pick(READ(row + j) > most, READ(row + j), most);
        float top = most[0], mass = 0, total = 0;
        for (int q = 1; q < WIDTH; q++) top = most[q] > top ? most[q] : top;
        if (smoothing > 0) for (j = 0; j < n; j++) total += row[j];
        float wanted = (1.0f - smoothing) * row[targets[i]] + smoothing * total / n;
        vec sum = {0};
        for (j = 0; j < padded; j += WIDTH) { vec p = exp_(READ(row + j) - top); AT(row + j) = p; sum += p; }
        for (int q = 0; q < WIDTH; q++) mass += sum[q];
        for (j = n; j < padded; j++) mass -= row[j];
        losses[i] = __builtin_logf(mass) + top - wanted;
        const float share = scale / mass, even = scale * smoothing / n;
        row[targets[i]] -= (1.0f - smoothing) * mass;
        for (j = 0; j + WIDTH <= n; j += WIDTH) {
            vec g = READ(row + j) * share - even;
            if (bf16) narrow(half_row + j, g); else AT(full_row + j) = g;
        }
        for (; j < n; j++) {
            union { float f; unsigned u; } one = { row[j] * share - even };
            if (bf16) half_row[j] = (one.u + 0x7fff + ((one.u >> 16) & 1)) >> 16; else full_row[j] = one.f;
        }
    }
    free(row);
    return 0;
}
"""


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
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="glintru")


def _over_rows(
    function: Callable[..., int], batch: int, tensors: Sequence[Tensor | None], sizes: Sequence[Any]
) -> None:
    """Calls a kernel on parts of the batch, a thread each; the interpreter's lock is free meanwhile."""
    tiles = -(-batch // ROWS)
    workers = max(1, min(torch.get_num_threads(), tiles))
    cuts = [min(batch, (tiles * i // workers) * ROWS) for i in range(workers)] + [batch]
    pointers = [ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors]

    def part(i: int) -> int:
        return function(*pointers, cuts[i], cuts[i + 1], *sizes)

    results = [part(0)] if workers == 1 else list(_pool(workers).map(part, range(workers)))
    if any(results):
        raise MemoryError("no memory for the buffers of the GRU kernel")


def _packed(matrix: Tensor) -> Tensor:
    """(rows, columns) with the columns filled up to a multiple of 32, contiguous."""
    return torch.nn.functional.pad(matrix, (0, -matrix.shape[1] % 32)).contiguous()


class GRUScan(torch.autograd.Function):
    """All states of a GRU without biases from its input gates, starting at zero; float32 on the CPU.

    With `edges`, other input gates, also the state that each of them gives from the same state before it: the last step
    of a prefix, whose product with the recurrent weight is the one that the sequence itself needs.
    """

    @staticmethod
    def forward(ctx, gates: Tensor, edges: Tensor | None, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        """gates, edges (batch, length, 3 d) = input times weight_ih; weight (3 d, d) = weight_hh.

        Returns:
            States and edge states, (batch, length, d); the latter `None` without `edges`.
        """
        kernels = library()
        assert kernels is not None
        gates, edges = gates.contiguous(), None if edges is None else edges.contiguous()
        batch, length, size = gates.shape[0], gates.shape[1], weight.shape[1]
        packed = _packed(weight.detach().T)
        states = gates.new_empty(batch, length, size)
        edge_states = None if edges is None else torch.empty_like(states)
        saved = gates.new_empty(batch, length, (4 if edges is None else 7) * size)
        sizes = (length, size, packed.shape[1])
        _over_rows(kernels.gru_forward, batch, (gates, edges, packed, states, edge_states, saved), sizes)
        ctx.save_for_backward(weight, states, saved)
        ctx.has_edges = edges is not None
        return states, edge_states

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor, edge_grad: Tensor | None):
        kernels = library()
        assert kernels is not None
        weight, states, saved = ctx.saved_tensors
        batch, length, size = states.shape
        packed, grad = _packed(weight.detach()), grad.contiguous()
        edge_grad = edge_grad.contiguous() if ctx.has_edges and edge_grad is not None else None
        dgates, recurrent = (states.new_empty(batch, length, 3 * size) for _ in range(2))
        dedges = torch.empty_like(dgates) if ctx.has_edges else None
        tensors = (grad, edge_grad, packed, states, saved, dgates, dedges, recurrent)
        _over_rows(kernels.gru_backward, batch, tensors, (length, size, packed.shape[1]))
        dweight = recurrent[:, 1:].reshape(-1, 3 * size).T @ states[:, :-1].reshape(-1, size)
        return dgates, dedges, dweight


def cross_entropy_(scores: Tensor, targets: Tensor, temperature: float, smoothing: float) -> Tensor | None:
    """Turns `scores` (rows, items), in place, into the gradient of their summed cross-entropy with `targets`.

    Returns:
        The summed loss, float32 scalar; `None`, with `scores` as they were, where there is no kernel for them.
    """
    kernels = library() if scores.device.type == "cpu" and not torch.compiler.is_compiling() else None
    if kernels is None or scores.dtype not in (torch.float32, torch.bfloat16) or not scores.is_contiguous():
        return None
    losses = torch.empty(len(scores), dtype=torch.float32)
    options = (
        scores.shape[1],
        int(scores.dtype == torch.bfloat16),
        ctypes.c_float(temperature),
        ctypes.c_float(smoothing),
    )
    _over_rows(kernels.cross_entropy, len(scores), (scores, targets.contiguous(), losses), options)
    return losses.sum()


def can_scan(x: Tensor, weight: Tensor) -> bool:
    """Whether the kernel serves this GRU: float32 weights on the CPU, a size that fills vectors, and no tracing."""
    return (
        x.device.type == "cpu"
        and weight.dtype == torch.float32
        and weight.shape[1] % WIDTH == 0
        and x.dtype != torch.float64
        and x.shape[1] > 0
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and library() is not None
    )
