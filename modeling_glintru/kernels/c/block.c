/* Parts of the block, for T float and bfloat16; GET and PUT move a vector, sums are float32.
   All work on rows first ... last of the batch; `keep` (batch, length) is 1 at items and 0 at padding, or null. */

/* y = elu(x) / its norm, hd values; gives the norm. */
static INLINE float NAME(features)(const T *x, float *y, const int hd) {
    vec e[64 / WIDTH], square = {0};
    for (int j = 0; j < hd / WIDTH; j++) {
        vec z = GET(x + j * WIDTH);
        e[j] = pick(z > (vec){0}, z, expm1_(pick(z > (vec){0}, (vec){0}, z)));
        square += e[j] * e[j];
    }
    float norm = __builtin_sqrtf(sum_(square)), scale = 1.0f / (norm > NORM_FLOOR ? norm : NORM_FLOOR);
    for (int j = 0; j < hd / WIDTH; j++) AT(y + j * WIDTH) = e[j] * scale;
    return norm;
}
static INLINE void NAME(features_back)(const T *x, const float *y, float norm, const vec *g, T *to, const int hd) {
    vec along = {0};
    for (int j = 0; j < hd / WIDTH; j++) along += g[j] * READ(y + j * WIDTH);
    float inner = norm > NORM_FLOOR ? sum_(along) : 0.0f, used = norm > NORM_FLOOR ? norm : NORM_FLOOR;
    for (int j = 0; j < hd / WIDTH; j++) {
        vec out = READ(y + j * WIDTH), e = (g[j] - out * inner) / used;
        PUT(to + j * WIDTH, pick(GET(x + j * WIDTH) > (vec){0}, e, e * (out * used + 1.0f)));
    }
}

/* Linear attention of one head, causal: out[t] = scale * q[t] . sum over s <= t of k[s] v[s]^T, where q and k are
   ELU features of length one. */
static INLINE void NAME(attend)(const T *qkv, const float *keep, T *out, int length, int d, int at, float scale,
                                const int hd) {
    float sums[64 * 64] __attribute__((aligned(64))), q[64], k[64];
    memset(sums, 0, sizeof(float) * hd * hd);
    for (int t = 0; t < length; t++) {
        const T *row = qkv + (long)t * 3 * d + at;
        NAME(features)(row, q, hd);
        NAME(features)(row + d, k, hd);
        vec v[64 / WIDTH], total[64 / WIDTH];
        for (int j = 0; j < hd / WIDTH; j++) {
            v[j] = GET(row + 2 * d + j * WIDTH) * (keep ? keep[t] : 1.0f);
            total[j] = (vec){0};
        }
        UNROLL for (int i = 0; i < hd; i++)
            for (int j = 0; j < hd / WIDTH; j++) {
                vec s = AT(sums + i * hd + j * WIDTH) + k[i] * v[j];
                AT(sums + i * hd + j * WIDTH) = s;
                total[j] += q[i] * s;
            }
        for (int j = 0; j < hd / WIDTH; j++) PUT(out + (long)t * d + at + j * WIDTH, total[j] * scale);
    }
}

/* Its backward: one sweep forward for the queries, one in reverse for keys and values. `s` holds a head's features. */
static INLINE void NAME(attend_back)(const T *g, const T *qkv, const float *keep, T *out, float *s, int length, int d,
                                     int at, float scale, const int hd) {
    float sums[64 * 64] __attribute__((aligned(64))), more[64 * 64] __attribute__((aligned(64))), v[64], go[64];
    float *norms = s + (long)length * 2 * hd;
    memset(sums, 0, sizeof(float) * hd * hd);
    for (int t = 0; t < length; t++) {
        const T *row = qkv + (long)t * 3 * d + at;
        float *q = s + (long)t * 2 * hd, *k = q + hd;
        norms[2 * t] = NAME(features)(row, q, hd);
        norms[2 * t + 1] = NAME(features)(row + d, k, hd);
        vec total[64 / WIDTH];
        for (int j = 0; j < hd / WIDTH; j++) {
            AT(v + j * WIDTH) = GET(row + 2 * d + j * WIDTH) * (keep ? keep[t] : 1.0f);
            AT(go + j * WIDTH) = GET(g + (long)t * d + at + j * WIDTH) * scale;
            total[j] = (vec){0};
        }
        UNROLL for (int i = 0; i < hd; i++)
            for (int j = 0; j < hd / WIDTH; j++) {
                vec x = AT(sums + i * hd + j * WIDTH) + v[i] * READ(k + j * WIDTH);
                AT(sums + i * hd + j * WIDTH) = x;
                total[j] += go[i] * x;
            }
        NAME(features_back)(row, q, norms[2 * t], total, out + (long)t * 3 * d + at, hd);
    }
    memset(sums, 0, sizeof(float) * hd * hd);
    memset(more, 0, sizeof(float) * hd * hd);
    for (int t = length - 1; t >= 0; t--) {
        const T *row = qkv + (long)t * 3 * d + at;
        T *to = out + (long)t * 3 * d + at;
        const float *q = s + (long)t * 2 * hd, *k = q + hd;
        vec gv[64 / WIDTH], gk[64 / WIDTH];
        for (int j = 0; j < hd / WIDTH; j++) {
            AT(v + j * WIDTH) = GET(row + 2 * d + j * WIDTH) * (keep ? keep[t] : 1.0f);
            AT(go + j * WIDTH) = GET(g + (long)t * d + at + j * WIDTH) * scale;
            gv[j] = gk[j] = (vec){0};
        }
        UNROLL for (int i = 0; i < hd; i++)
            for (int j = 0; j < hd / WIDTH; j++) {
                vec x = AT(sums + i * hd + j * WIDTH) + q[i] * READ(go + j * WIDTH);
                vec y = AT(more + i * hd + j * WIDTH) + go[i] * READ(q + j * WIDTH);
                AT(sums + i * hd + j * WIDTH) = x;
                AT(more + i * hd + j * WIDTH) = y;
                gv[j] += k[i] * x;
                gk[j] += v[i] * y;
            }
        for (int j = 0; j < hd / WIDTH; j++) PUT(to + 2 * d + j * WIDTH, gv[j] * (keep ? keep[t] : 1.0f));
        NAME(features_back)(row + d, k, norms[2 * t + 1], gk, to + d, hd);
    }
}

/* qkv (batch, length, 3d) -> out (batch, length, d). */
int NAME(attention)(const T *qkv, const float *keep, T *out, int first, int last, int length, int d, int hd,
                    float scale) {
    for (int row = first; row < last; row++)
        for (int at = 0; at < d; at += hd) {
            const T *in = qkv + (long)row * length * 3 * d;
            const float *kept = keep ? keep + (long)row * length : 0;
            T *to = out + (long)row * length * d;
            if (hd == 16) NAME(attend)(in, kept, to, length, d, at, scale, 16);
            else if (hd == 32) NAME(attend)(in, kept, to, length, d, at, scale, 32);
            else NAME(attend)(in, kept, to, length, d, at, scale, 64);
        }
    return 0;
}
int NAME(attention_back)(const T *g, const T *qkv, const float *keep, T *out, int first, int last, int length, int d,
                         int hd, float scale) {
    float *s = malloc(sizeof(float) * length * 2 * (hd + 1));
    if (!s) return 1;
    for (int row = first; row < last; row++)
        for (int at = 0; at < d; at += hd) {
            const T *in = qkv + (long)row * length * 3 * d, *from = g + (long)row * length * d;
            const float *kept = keep ? keep + (long)row * length : 0;
            T *to = out + (long)row * length * 3 * d;
            if (hd == 16) NAME(attend_back)(from, in, kept, to, s, length, d, at, scale, 16);
            else if (hd == 32) NAME(attend_back)(from, in, kept, to, s, length, d, at, scale, 32);
            else NAME(attend_back)(from, in, kept, to, s, length, d, at, scale, 64);
        }
    free(s);
    return 0;
}

/* taps (batch, length, 3d): what an item gives to the place after it, to its own and to the place before it.
   inside, edge (batch, length, d): the convolution with and without the right neighbour. */
int NAME(taps)(const T *taps, const float *bias, const float *keep, T *inside, T *edge, int first, int last, int length,
               int d) {
    for (int row = first; row < last; row++)
        for (int t = 0; t < length; t++) {
            long at = (long)row * length + t;
            const T *here = taps + at * 3 * d;
            float own = keep ? keep[at] : 1.0f, left = 0, right = 0;
            if (t) left = keep ? keep[at - 1] : 1.0f;
            if (t + 1 < length) right = keep ? keep[at + 1] : 1.0f;
            for (int j = 0; j < d; j += WIDTH) {
                vec x = GET(here + d + j) * own + READ(bias + j);
                if (t) x += GET(here - 3 * d + j) * left;
                PUT(edge + at * d + j, x);
                if (t + 1 < length) x += GET(here + 5 * d + j) * right;
                PUT(inside + at * d + j, x * own);
            }
        }
    return 0;
}
/* gi, ge: gradients of inside and edge; gb (batch, d) those of the bias. */
int NAME(taps_back)(const T *gi, const T *ge, const float *keep, T *out, float *gb, int first, int last, int length,
                    int d) {
    for (int row = first; row < last; row++) {
        float *bias = gb + (long)row * d;
        memset(bias, 0, sizeof(float) * d);
        for (int t = 0; t < length; t++) {
            long at = (long)row * length + t;
            T *here = out + at * 3 * d;
            float own = keep ? keep[at] : 1.0f, left = 0, right = 0;
            if (t) left = keep ? keep[at - 1] : 1.0f;
            if (t + 1 < length) right = keep ? keep[at + 1] : 1.0f;
            for (int j = 0; j < d; j += WIDTH) {
                vec x = GET(gi + at * d + j) * own + GET(ge + at * d + j), zero = {0};
                AT(bias + j) += x;
                PUT(here + d + j, x * own);
                if (t + 1 < length) x = (GET(gi + (at + 1) * d + j) * right + GET(ge + (at + 1) * d + j)) * own;
                else x = zero;
                PUT(here + j, x);
                if (t) x = GET(gi + (at - 1) * d + j) * left * own;
                else x = zero;
                PUT(here + 2 * d + j, x);
            }
        }
    }
    return 0;
}

/* dropout(gate) * value, for the inside (moved one place on) and the edge, side by side: out (batch, length, 2d). */
int NAME(gate)(const T *gi, const T *ge, const T *vi, const T *ve, const float *keep, T *out, int first, int last,
               int length, int d, struct drop drop, long half) {
    for (int row = first; row < last; row++)
        for (int t = 0; t < length; t++) {
            long at = (long)row * length + t;
            for (int j = 0; j < d; j += WIDTH) {
                vec y = {0};
                if (t) y = drop_(GET(gi + (at - 1) * d + j), (at - 1) * d + j, drop) * GET(vi + (at - 1) * d + j) *
                           (keep ? keep[at - 1] : 1.0f);
                PUT(out + at * 2 * d + j, y);
                y = drop_(GET(ge + at * d + j), half + at * d + j, drop) * GET(ve + at * d + j);
                PUT(out + at * 2 * d + d + j, y);
            }
        }
    return 0;
}
int NAME(gate_back)(const T *g, const T *gi, const T *ge, const T *vi, const T *ve, const float *keep, T *dgi, T *dge,
                    T *dvi, T *dve, int first, int last, int length, int d, struct drop drop, long half) {
    for (int row = first; row < last; row++)
        for (int t = 0; t < length; t++) {
            long at = (long)row * length + t;
            for (int j = 0; j < d; j += WIDTH) {
                vec y = {0};
                if (t + 1 < length) y = GET(g + (at + 1) * 2 * d + j) * (keep ? keep[at] : 1.0f);
                PUT(dgi + at * d + j, drop_(y * GET(vi + at * d + j), at * d + j, drop));
                PUT(dvi + at * d + j, y * drop_(GET(gi + at * d + j), at * d + j, drop));
                y = GET(g + at * 2 * d + d + j);
                PUT(dge + at * d + j, drop_(y * GET(ve + at * d + j), half + at * d + j, drop));
                PUT(dve + at * d + j, y * drop_(GET(ge + at * d + j), half + at * d + j, drop));
            }
        }
    return 0;
}

/* out = layer norm of dropout(a) + x; x and out are float32; stats (batch, length, 2): mean, 1 / deviation. */
int NAME(add_norm)(const T *a, const float *x, const float *weight, const float *bias, float *out, float *stats,
                   int first, int last, int length, int d, struct drop drop, float eps) {
    for (long at = (long)first * length; at < (long)last * length; at++) {
        vec total = {0}, square = {0};
        float *to = out + at * d;
        for (int j = 0; j < d; j += WIDTH) {
            vec s = drop_(GET(a + at * d + j), at * d + j, drop) + READ(x + at * d + j);
            AT(to + j) = s;
            total += s;
        }
        float mean = sum_(total) / d;
        for (int j = 0; j < d; j += WIDTH) { vec s = READ(to + j) - mean; square += s * s; }
        float scale = 1.0f / __builtin_sqrtf(sum_(square) / d + eps);
        stats[2 * at] = mean;
        stats[2 * at + 1] = scale;
        for (int j = 0; j < d; j += WIDTH)
            AT(to + j) = (READ(to + j) - mean) * scale * READ(weight + j) + READ(bias + j);
    }
    return 0;
}
/* gw, gb (batch, d): gradients of weight and bias. */
int NAME(add_norm_back)(const float *g, const T *a, const float *x, const float *weight, const float *stats, T *da,
                        float *dx, float *gw, float *gb, int first, int last, int length, int d, struct drop drop) {
    for (int row = first; row < last; row++) {
        float *dweight = gw + (long)row * d, *dbias = gb + (long)row * d;
        memset(dweight, 0, sizeof(float) * d);
        memset(dbias, 0, sizeof(float) * d);
        for (long at = (long)row * length; at < (long)(row + 1) * length; at++) {
            float mean = stats[2 * at], scale = stats[2 * at + 1], *to = dx + at * d;
            vec one = {0}, two = {0};
            for (int j = 0; j < d; j += WIDTH) {
                vec s = drop_(GET(a + at * d + j), at * d + j, drop) + READ(x + at * d + j);
                vec n = (s - mean) * scale, grad = READ(g + at * d + j), inner = grad * READ(weight + j);
                AT(to + j) = n;
                AT(dweight + j) += grad * n;
                AT(dbias + j) += grad;
                one += inner;
                two += inner * n;
            }
            float first_moment = sum_(one) / d, second_moment = sum_(two) / d;
            for (int j = 0; j < d; j += WIDTH) {
                vec s = (READ(g + at * d + j) * READ(weight + j) - first_moment - READ(to + j) * second_moment) * scale;
                AT(to + j) = s;
                PUT(da + at * d + j, drop_(s, at * d + j, drop));
            }
        }
    }
    return 0;
}

/* out = (shares[0] a + shares[1] b) * gelu(g), or a * gelu(g) without b, which is float32. */
int NAME(gelu_gate)(const T *a, const float *b, const T *g, const float *shares, T *out, int first, int last,
                    int length, int d) {
    for (long at = (long)first * length * d; at < (long)last * length * d; at += WIDTH) {
        vec x = GET(a + at), z = GET(g + at), slope;
        if (b) x = shares[0] * x + shares[1] * READ(b + at);
        PUT(out + at, x * z * normal_(z, &slope));
    }
    return 0;
}
/* gs (batch, 2): gradients of the shares. */
int NAME(gelu_gate_back)(const T *grad, const T *a, const float *b, const T *g, const float *shares, T *da, float *db,
                         T *dg, float *gs, int first, int last, int length, int d) {
    for (int row = first; row < last; row++) {
        vec one = {0}, two = {0};
        for (long at = (long)row * length * d; at < (long)(row + 1) * length * d; at += WIDTH) {
            vec x = GET(a + at), z = GET(g + at), y = GET(grad + at), slope, share = normal_(z, &slope);
            vec through = y * z * share;
            if (b) {
                vec other = READ(b + at);
                one += through * x;
                two += through * other;
                x = shares[0] * x + shares[1] * other;
                AT(db + at) = through * shares[1];
                PUT(da + at, through * shares[0]);
            } else PUT(da + at, through);
            PUT(dg + at, y * x * (share + z * slope));
        }
        if (b) { gs[2 * row] = sum_(one); gs[2 * row + 1] = sum_(two); }
    }
    return 0;
}

/* out = dropout(x), n elements a row, n a multiple of 16; the same again is its backward. */
int NAME(dropout)(const T *x, T *out, int first, int last, long n, struct drop drop) {
    for (long at = first * n; at < last * n; at += WIDTH) PUT(out + at, drop_(GET(x + at), at, drop));
    return 0;
}
