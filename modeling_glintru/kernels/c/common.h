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
