"""The C text of the CPU kernels; `kernels_glintru` builds it.

`BLOCK` is compiled twice, for float32 and for bfloat16 values; all arithmetic is float32.
"""

from .block_source_glintru import BLOCK
from .history_source_glintru import HISTORY
from .scan_source_glintru import SCAN
from .step_source_glintru import STEP, TOP_K

COMMON = r"""
#include <stdlib.h>
#include <string.h>

/* Vectors as wide as a register here: wider ones, which the compiler splits, took up to twenty times as long. */
#if defined(__AVX512F__)
#define WIDTH 16
#define NUMBERS 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#elif defined(__AVX__)
#define WIDTH 8
#define NUMBERS 0, 1, 2, 3, 4, 5, 6, 7
#else
#define WIDTH 4
#define NUMBERS 0, 1, 2, 3
#endif
#if defined(__AVX512F__) || defined(__aarch64__) /* 32 registers, elsewhere 16: what a tile of sums may take of them */
#define TILE_ROWS 8
#else
#define TILE_ROWS 4
#endif
#define GRAIN 16 /* sizes are multiples of it, or filled up to it, whatever the machine */
typedef float vec __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef int ivec __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
#define NORM_FLOOR 1e-6f
#define INLINE inline __attribute__((always_inline))
#define AT(pointer) (*(vec *)(pointer))
#define READ(pointer) (*(const vec *)(pointer))

static inline vec pick(ivec mask, vec yes, vec no) { return (vec)((mask & (ivec)yes) | (~mask & (ivec)no)); }

/* exp(x) = power * (1 + rest) within float32 rounding; near zero the power is 1 and the rest does not cancel. */
static inline vec exp_parts(vec x, vec *power) {
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
    *power = (vec)((whole + 127) << 23);
    return p * r * r + r;
}
static inline vec exp_(vec x) {
    vec power, rest = exp_parts(x, &power);
    return (rest + 1.0f) * power;
}
static inline vec expm1_(vec x) {
    vec power, rest = exp_parts(x, &power);
    return power * rest + (power - 1.0f);
}
static inline vec sigmoid_(vec x) { return 1.0f / (1.0f + exp_(-x)); }

typedef unsigned short hvec __attribute__((vector_size(2 * WIDTH), aligned(2), may_alias));
typedef unsigned int uvec __attribute__((vector_size(4 * WIDTH), may_alias));

static inline vec widen(const unsigned short *p) {
    return (vec)(__builtin_convertvector(*(const hvec *)p, uvec) << 16);
}
static inline void narrow(unsigned short *p, vec x) {
    uvec u = (uvec)x;
    *(hvec *)p = __builtin_convertvector((u + 0x7fff + ((u >> 16) & 1)) >> 16, hvec);
}
static inline float sum_(vec x) {
    float total = 0;
    for (int q = 0; q < WIDTH; q++) total += x[q];
    return total;
}

/* The normal distribution function within 1e-7 (Abramowitz and Stegun 7.1.26), and its density. */
static inline vec normal_(vec x, vec *density) {
    const vec zero = {0};
    vec size = pick(x < zero, -x, x), e = exp_(-0.5f * x * x), t = 1.0f / (1.0f + 0.23164189f * size);
    vec p = 1.061405429f * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = (p * t + 0.254829592f) * t * e * 0.5f;
    *density = e * 0.39894228f;
    return pick(x > zero, 1.0f - p, p);
}

/* Dropout whose random bits are a hash of the place and two seeds (two rounds of a 32-bit finaliser), so that the
   backward pass makes the same mask again and nothing is stored. */
struct drop { unsigned seed, more, threshold; float scale; };
static inline uvec mixed_(uvec x) {
    x ^= x >> 16; x *= 0x7feb352dU; x ^= x >> 15; x *= 0x846ca68bU;
    return x ^ (x >> 16);
}
static inline vec drop_(vec x, long place, struct drop drop) {
    if (!drop.threshold) return x;
    const uvec lanes = {NUMBERS};
    uvec bits = mixed_(mixed_((lanes + (unsigned)place) ^ drop.seed) + drop.more);
    return pick((ivec)(bits >= drop.threshold), x * drop.scale, (vec){0});
}

/* C (rows, n) = A (rows, k) B (k, n); n is a multiple of 32, B and C are packed to it. */
#define UNROLL _Pragma("GCC unroll 8")
#define TILE(MR)                                                                             \
    case MR:                                                                                 \
        for (int j = 0; j < n; j += 2 * WIDTH) {                                             \
            vec acc[MR][2];                                                                  \
            UNROLL for (int i = 0; i < MR; i++) acc[i][0] = acc[i][1] = (vec){0};                   \
            for (int q = 0; q < k; q++) {                                                    \
                vec b0 = *(const vec *)(b + (long)q * n + j);                                \
                vec b1 = *(const vec *)(b + (long)q * n + j + WIDTH);                        \
                UNROLL for (int i = 0; i < MR; i++) {                                            \
                    acc[i][0] += a[i * lda + q] * b0;                                        \
                    acc[i][1] += a[i * lda + q] * b1;                                        \
                }                                                                            \
            }                                                                                \
            UNROLL for (int i = 0; i < MR; i++) {                                            \
                *(vec *)(c + (long)i * n + j) = acc[i][0];                                   \
                *(vec *)(c + (long)i * n + j + WIDTH) = acc[i][1];                           \
            }                                                                                \
        }                                                                                    \
        break;

static void product(int rows, int k, int n, const float *a, long lda, const float *b, float *c) {
#if TILE_ROWS == 8
    switch (rows) { TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6) TILE(7) TILE(8) }
#else
    for (; rows > 0; rows -= 4, a += 4 * lda, c += 4L * n)
        switch (rows) { TILE(1) TILE(2) TILE(3) default: TILE(4) }
#endif
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
   does not go on from: he (batch, length, d), and saved has three more parts. Without, e is null; so may saved be. */
int gru_forward(const float *x, const float *e, const float *w, float *h, float *he, float *saved,
                int first, int last, int length, int d, int n) {
    const int parts = e ? 7 : 4;
    float *gates = aligned_alloc(64, sizeof(float) * 8 * n);
    float *zero = calloc(8 * d, sizeof(float)), *spare = zero + d;
    if (!gates || !zero) { free(gates); free(zero); return 1; }
    for (int row = first; row < last; row += 8) {
        int mr = last - row < 8 ? last - row : 8;
        for (int t = 0; t < length; t++) {
            if (t) product(mr, d, n, h + ((long)row * length + t - 1) * d, (long)length * d, w, gates);
            else memset(gates, 0, sizeof(float) * 8 * n);
            for (int i = 0; i < mr; i++) {
                long at = (long)(row + i) * length + t;
                const float *hg = gates + (long)i * n, *before = t ? h + (at - 1) * d : zero;
                float *keep = saved ? saved + at * parts * d : spare;
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
            else for (int i = 0; i < mr; i++) memset(dg + (long)(row + i) * length * 3 * d, 0, sizeof(float) * 3 * d);
        }
    }
    free(carry); free(dh); free(through); free(zero);
    return 0;
}

/* n scores from an offset on, in float32 or bfloat16, times scale; up to padded nothing that counts. */
static void read_row(float *row, const void *scores, long at, int n, int padded, int bf16, float scale) {
    const unsigned short *half_row = (const unsigned short *)scores + at;
    const float *full_row = (const float *)scores + at;
    int j = 0;
    for (; j + WIDTH <= n; j += WIDTH) AT(row + j) = (bf16 ? widen(half_row + j) : READ(full_row + j)) * scale;
    for (; j < n; j++) {
        union { unsigned u; float f; } one = { bf16 ? (unsigned)half_row[j] << 16 : 0 };
        row[j] = (bf16 ? one.f : full_row[j]) * scale;
    }
    for (; j < padded; j++) row[j] = -3.0e38f;
}

/* row * share - even, to where read_row read. */
static void write_row(void *scores, long at, const float *row, int n, int bf16, float share, float even) {
    unsigned short *half_row = (unsigned short *)scores + at;
    float *full_row = (float *)scores + at;
    int j = 0;
    for (; j + WIDTH <= n; j += WIDTH) {
        vec g = READ(row + j) * share - even;
        if (bf16) narrow(half_row + j, g); else AT(full_row + j) = g;
    }
    for (; j < n; j++) {
        union { float f; unsigned u; } one = { row[j] * share - even };
        if (bf16) half_row[j] = (one.u + 0x7fff + ((one.u >> 16) & 1)) >> 16; else full_row[j] = one.f;
    }
}

/* powers = exp(row - top) for the largest of the row, 0 beyond n; returns their sum. */
static float exponentials(float *powers, const float *row, int n, int padded, float *top) {
    vec most = READ(row), sum = {0};
    for (int j = WIDTH; j < padded; j += WIDTH) most = pick(READ(row + j) > most, READ(row + j), most);
    float mass = 0, largest = most[0];
    for (int q = 1; q < WIDTH; q++) largest = most[q] > largest ? most[q] : largest;
    for (int j = 0; j < padded; j += WIDTH) { vec p = exp_(READ(row + j) - largest); AT(powers + j) = p; sum += p; }
    for (int q = 0; q < WIDTH; q++) mass += sum[q];
    for (int j = n; j < padded; j++) { mass -= powers[j]; powers[j] = 0; }
    *top = largest;
    return mass;
}

/* scores (rows, n) in float32 or bfloat16 become, in place, the gradient of the cross-entropy with the targets; losses
   (rows) float32. A row stays in the cache from its maximum to its gradient. */
int cross_entropy(void *scores, const long long *targets, float *losses, int first, int last, int n, int bf16,
                  float temperature, float smoothing) {
    const int padded = (n + GRAIN - 1) / GRAIN * GRAIN;
    const float scale = 1.0f / temperature;
    float *row = aligned_alloc(64, sizeof(float) * padded);
    if (!row) return 1;
    for (int i = first; i < last; i++) {
        float top, total = 0;
        read_row(row, scores, (long)i * n, n, padded, bf16, scale);
        if (smoothing > 0) for (int j = 0; j < n; j++) total += row[j];
        float wanted = (1.0f - smoothing) * row[targets[i]] + smoothing * total / n;
        const float mass = exponentials(row, row, n, padded, &top);
        losses[i] = __builtin_logf(mass) + top - wanted;
        row[targets[i]] -= (1.0f - smoothing) * mass;
        write_row(scores, (long)i * n, row, n, bf16, scale / mass, scale * smoothing / n);
    }
    free(row);
    return 0;
}

/* The loss of r_drop for rows of scores a and b of two passes, and its gradient in their place. */
int twin_cross_entropy(void *a, void *b, const long long *targets, float *losses, int first, int last, int n, int bf16,
                       float temperature, float alpha) {
    const int padded = (n + GRAIN - 1) / GRAIN * GRAIN;
    const float scale = 1.0f / temperature, pull = 0.5f * alpha;
    float *rows = aligned_alloc(64, sizeof(float) * padded * 4);
    if (!rows) return 1;
    float *x = rows, *y = rows + padded, *p = rows + 2 * (long)padded, *q = rows + 3 * (long)padded;
    for (int i = first; i < last; i++) {
        float top_x, top_y;
        read_row(x, a, (long)i * n, n, padded, bf16, scale);
        read_row(y, b, (long)i * n, n, padded, bf16, scale);
        const float mass_x = exponentials(p, x, n, padded, &top_x), mass_y = exponentials(q, y, n, padded, &top_y);
        const float log_x = __builtin_logf(mass_x) + top_x, log_y = __builtin_logf(mass_y) + top_y;
        const float share_x = 1.0f / mass_x, share_y = 1.0f / mass_y, apart = log_y - log_x;
        losses[i] = 0.5f * (log_x - x[targets[i]] + log_y - y[targets[i]]);
        vec sum_x = {0}, sum_y = {0};
        for (int j = 0; j < padded; j += WIDTH) {
            vec d = READ(x + j) - READ(y + j) + apart;
            sum_x += READ(p + j) * d;
            sum_y += READ(q + j) * d;
        }
        float forth = 0, back = 0; /* KL(x, y), and less KL(y, x) */
        for (int k = 0; k < WIDTH; k++) { forth += sum_x[k]; back += sum_y[k]; }
        forth *= share_x;
        back *= share_y;
        losses[i] += 0.5f * pull * (forth - back);
        for (int j = 0; j < padded; j += WIDTH) {
            vec d = READ(x + j) - READ(y + j) + apart, u = READ(p + j) * share_x, v = READ(q + j) * share_y;
            AT(x + j) = u + pull * (u * (d - forth) + u - v);
            AT(y + j) = v + pull * (v * (back - d) + v - u);
        }
        x[targets[i]] -= 1.0f;
        y[targets[i]] -= 1.0f;
        write_row(a, (long)i * n, x, n, bf16, 0.5f * scale, 0.0f);
        write_row(b, (long)i * n, y, n, bf16, 0.5f * scale, 0.0f);
    }
    free(rows);
    return 0;
}
"""

FLOAT32 = """
#define T float
#define GET(pointer) READ(pointer)
#define PUT(pointer, value) (AT(pointer) = (value))
#define NAME(name) name##_float32
"""

BFLOAT16 = """
#undef T
#undef GET
#undef PUT
#undef NAME
#define T unsigned short
#define GET(pointer) widen(pointer)
#define PUT(pointer, value) narrow(pointer, value)
#define NAME(name) name##_bfloat16
"""

SOURCE = COMMON + HISTORY + STEP + TOP_K + SCAN + FLOAT32 + BLOCK + BFLOAT16 + BLOCK
