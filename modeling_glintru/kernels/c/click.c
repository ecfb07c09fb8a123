#define PANEL 64
#define TOGETHER 4
#define PADDED(n, to) (((n) + (to) - 1) / (to) * (to))

#define PANEL_TILE(MR)                                                                             \
    case MR:                                                                                       \
        for (int first = 0; first < PANEL; first += 4 * WIDTH) {                                   \
            vec acc[MR][4];                                                                        \
            UNROLL for (int i = 0; i < MR; i++)                                                    \
                UNROLL for (int j = 0; j < 4; j++) acc[i][j] = READ(b + first + j * WIDTH);        \
            for (int q = 0; q < k; q++) {                                                          \
                const float *row = b + (long)(q + 1) * PANEL + first;                              \
                UNROLL for (int i = 0; i < MR; i++)                                                \
                    UNROLL for (int j = 0; j < 4; j++) acc[i][j] += a[i * lda + q] * READ(row + j * WIDTH); \
            }                                                                                      \
            UNROLL for (int i = 0; i < MR; i++)                                                    \
                UNROLL for (int j = 0; j < 4; j++) AT(c + i * ldc + first + j * WIDTH) = acc[i][j]; \
        }                                                                                          \
        break;

/* C (rows, 64) = A (rows, k) times a panel, plus its biases. A sum has the same order whatever the rows beside it. */
static void panel_product(int rows, int k, const float *a, long lda, const float *b, float *c, long ldc) {
    for (; rows > 0; rows -= TOGETHER, a += TOGETHER * lda, c += TOGETHER * ldc)
        switch (rows) { PANEL_TILE(1) PANEL_TILE(2) PANEL_TILE(3) default: PANEL_TILE(4) }
}

/* C (rows, n) = A (rows, k) times the next matrix of `at`, which moves behind it; rows of C are padded to panels. */
static void linear(int rows, int k, int n, const float *a, long lda, const float **at, float *c) {
    const long ldc = PADDED(n, PANEL);
    for (int j = 0; j < n; j += PANEL, *at += (long)(k + 1) * PANEL)
        panel_product(rows, k, a, lda, *at, c + j, ldc);
}

struct click {
    int layers, d, heads, vocabulary, attention, gru, convolutions, gate, block_gate, mlp, average, space, rank;
    float eps, share, decay, space_share;
};

static inline void gelu_product(float *a, const float *gate, int n) {
    for (int j = 0; j < n; j += WIDTH) {
        vec density, x = READ(gate + j);
        AT(a + j) = READ(a + j) * (x * normal_(x, &density));
    }
}

/* out = norm(a + x) over d values; padding, whose weight and bias are 0, becomes 0. */
static void norm_sum(const float *a, const float *x, const float *weight, const float *bias, float *out, int d,
                     int padded, float eps) {
    float sum = 0, square = 0;
    for (int j = 0; j < padded; j++) out[j] = a[j] + x[j];
    for (int j = 0; j < d; j++) sum += out[j];
    const float mean = sum / d;
    for (int j = 0; j < d; j++) square += (out[j] - mean) * (out[j] - mean);
    const float scale = 1.0f / __builtin_sqrtf(square / d + eps);
    for (int j = 0; j < padded; j++) out[j] = (out[j] - mean) * scale * weight[j] + bias[j];
}

/* ELU features of length one for each head, in place. */
static void head_features(float *x, int d, int padded, int size) {
    for (int j = 0; j < padded; j += WIDTH) {
        vec z = READ(x + j);
        AT(x + j) = pick(z > (vec){0}, z, expm1_(pick(z > (vec){0}, (vec){0}, z)));
    }
    for (int at = 0; at < d; at += size) {
        float square = 0;
        for (int j = 0; j < size; j++) square += x[at + j] * x[at + j];
        const float norm = __builtin_sqrtf(square), scale = 1.0f / (norm > NORM_FLOOR ? norm : NORM_FLOOR);
        for (int j = 0; j < size; j++) x[at + j] *= scale;
    }
}

/* now = old + k v^T, and out = scale * q now; one head. */
static void head_step(const float *q, const float *k, const float *v, const float *restrict old, float *restrict now,
                      float *restrict out, int size, float scale) {
    for (int j = 0; j < size; j++) out[j] = 0;
    for (int i = 0; i < size; i++, old += size, now += size) {
        const float key = k[i], query = q[i] * scale;
        for (int j = 0; j < size; j++) {
            now[j] = old[j] + key * v[j];
            out[j] += query * now[j];
        }
    }
}

/* What `GlintRUMovingAverage.advance` computes for one user: now = decay old + x, and out (padded) from their average.
   The weights behind `at`: of the average, of the item, of the norm, each padded. */
static void moving_average(const struct click *s, const float *x, const float *at, const float *old,
                           float *restrict now, long long items, float *mixed, float *out) {
    const int d = s->d, p = PADDED(d, GRAIN);
    float power = s->decay, last = 1; /* decay ** (items + 1) by squaring */
    for (unsigned long long left = items + 1; left; left >>= 1, power *= power) if (left & 1) last *= power;
    const float share = (1 - s->decay) / (1 - last);
    for (int j = 0; j < d; j++) {
        now[j] = s->decay * old[j] + x[j];
        mixed[j] = at[j] * (now[j] * share) + at[p + j] * x[j];
    }
    for (int j = d; j < p; j++) mixed[j] = 0;
    norm_sum(mixed, x, at + 2 * p, at + 3 * p, out, d, p, s->eps);
}

/* The selective GRU of `users` rows at once: what `GlintRUSelectiveGRU.advance` computes. `in` (users, wide) holds the
   products of the input; old, now are the users' memories: hidden and, with convolutions, edge and after. */
static void recurrence(const struct click *s, int users, const float *in, long wide, const float **at,
                       const float *const *old, float *const *now, const long long *counts, float *scratch,
                       float *result) {
    const int d = s->d, p = PADDED(d, GRAIN), half = d / 2, sides = s->convolutions ? 2 : 1;
    const long out = PADDED(d, PANEL), gates = PADDED(3 * p, PANEL), narrow = PADDED(half, PANEL);
    const size_t bytes = sizeof(float) * d;
    float *inputs = scratch, *states = inputs + 2L * TOGETHER * p, *start = states + 2L * TOGETHER * p;
    float *x = start + (long)TOGETHER * p, *h = x + 2 * TOGETHER * gates, *keep = h + TOGETHER * gates;
    float *value = keep + 3 * p, *gate = value + 2 * TOGETHER * out, *down = gate + 2 * TOGETHER * out;
    float *pair = down + 2 * TOGETHER * narrow;
    memset(inputs, 0, sizeof(float) * 5 * TOGETHER * p);
    for (int u = 0; u < users; u++) {
        const float *row = in + u * wide;
        float *interior = inputs + (long)u * p, *edge = inputs + (long)(users + u) * p;
        memcpy(start + (long)u * p, old[u], bytes);
        if (!s->convolutions) { memcpy(interior, row, bytes); continue; }
        for (int j = 0; j < d; j++) {
            edge[j] = old[u][2 * d + j] + row[p + j];
            interior[j] = counts[u] > 0 ? old[u][d + j] + row[2 * p + j] : 0.0f;
        }
        memcpy(now[u] + d, edge, bytes);
        memcpy(now[u] + 2 * d, row, bytes);
    }
    linear(sides * users, d, 3 * p, inputs, p, at, x);
    const float *recurrent = *at;
    linear(users, d, 3 * p, start, p, at, h);
    for (int u = 0; u < users; u++) {
        step(x + u * gates, h + u * gates, start + (long)u * p, states + (long)u * p, keep, p);
        memcpy(now[u], states + (long)u * p, bytes);
    }
    if (s->convolutions) {
        linear(users, d, 3 * p, states, p, &recurrent, h);
        for (int u = 0; u < users; u++)
            step(x + (users + u) * gates, h + u * gates, states + (long)u * p, states + (long)(users + u) * p, keep, p);
    }
    linear(sides * users, d, d, states, p, at, value);
    if (s->gate) {
        linear(sides * users, d, half, inputs, p, at, down);
        for (long j = 0; j < sides * users * narrow; j += WIDTH)
            AT(down + j) = READ(down + j) * sigmoid_(READ(down + j));
        linear(sides * users, half, d, down, narrow, at, gate);
        for (long j = 0; j < sides * users * out; j += WIDTH) AT(value + j) = READ(value + j) * READ(gate + j);
    }
    if (!s->convolutions) { memcpy(result, value, sizeof(float) * users * out); return; }
    for (int u = 0; u < users; u++) {
        float *both = pair + 2L * u * d;
        if (counts[u] > 0) memcpy(both, value + u * out, bytes); else memset(both, 0, bytes);
        memcpy(both + d, value + (users + u) * out, bytes);
    }
    linear(users, 2 * d, d, pair, 2 * d, at, result);
}

#define STATE_SIZE 16
#define TAPS 4

/* What `SelectiveStateSpace.advance` computes for one item each of `users` rows x (users, padded d); result (users, d
   padded to panels). old, now are the users' memories: TAPS - 1 inputs and STATE_SIZE numbers for each channel. */
static void state_space(const struct click *s, int users, const float *x, const float **at, const float *const *old,
                        float *const *now, float *scratch, float *result) {
    const int d = s->d, p = PADDED(d, GRAIN), channels = 2 * d, wide = PADDED(channels, GRAIN);
    const int reads = s->rank + 2 * STATE_SIZE;
    const long two = PADDED(2 * wide, PANEL), out = PADDED(wide, PANEL), narrow = PADDED(reads, PANEL);
    float *in = scratch, *u = in + TOGETHER * two, *read = u + (long)TOGETHER * wide, *step = read + TOGETHER * narrow;
    linear(users, d, 2 * wide, x, p, at, in);
    const float *conv = *at, *bias = conv + TAPS * channels;
    *at = bias + wide;
    for (int i = 0; i < users; i++) {
        const float *in_row = in + i * two, *before = old[i];
        float *u_row = u + (long)i * wide, *after = now[i];
        memset(u_row + channels, 0, sizeof(float) * (wide - channels));
        for (int j = 0; j < channels; j++) {
            const float *tap = conv + TAPS * j, *last = before + (TAPS - 1) * j;
            float *next = after + (TAPS - 1) * j;
            next[0] = last[1]; next[1] = last[2]; next[2] = in_row[j];
            u_row[j] = bias[j] + tap[0] * last[0] + tap[1] * next[0] + tap[2] * next[1] + tap[3] * next[2];
        }
        for (int j = 0; j < wide; j += WIDTH) AT(u_row + j) = READ(u_row + j) * sigmoid_(READ(u_row + j));
    }
    linear(users, channels, reads, u, wide, at, read);
    linear(users, s->rank, wide, read, narrow, at, step);
    const float *rates = *at, *skip = rates + STATE_SIZE * channels;
    *at = skip + wide;
    for (int i = 0; i < users; i++) {
        const float *b = read + i * narrow + s->rank, *c = b + STATE_SIZE, *gate = in + i * two + wide;
        const float *before = old[i] + (TAPS - 1) * channels;
        float *after = now[i] + (TAPS - 1) * channels, *u_row = u + (long)i * wide, *steps = step + i * out;
        for (int j = 0; j < channels; j++) {
            const float z = steps[j], size = z > 20.0f ? z : __builtin_log1pf(__builtin_expf(z));
            const float drive = size * u_row[j];
            vec sum = {0};
            for (int q = 0; q < STATE_SIZE; q += WIDTH) {
                const int place = j * STATE_SIZE + q;
                vec state = exp_(size * READ(rates + place)) * READ(before + place) + drive * READ(b + q);
                AT(after + place) = state;
                sum += state * READ(c + q);
            }
            u_row[j] = sum_(sum) + skip[j] * u_row[j];
        }
        for (int j = 0; j < wide; j += WIDTH)
            AT(u_row + j) = READ(u_row + j) * READ(gate + j) * sigmoid_(READ(gate + j));
    }
    linear(users, channels, d, u, wide, at, result);
}

/* rows, next (n, row): the states before and after; items (n) from 1 to vocabulary - 1. Gives 0, -1 without memory, or
   the number of the first wrong item, from 1. */
int click(const struct click *s, const float *weights, const float *embeddings, const float *rows,
          const long long *counts, const long long *items, float *next, long row, int n) {
    for (int i = 0; i < n; i++) if (items[i] < 1 || items[i] >= s->vocabulary) return i + 1;
    const int d = s->d, p = PADDED(d, GRAIN), head = d / s->heads;
    const long out = PADDED(d, PANEL), gates = PADDED(3 * p, PANEL), two = PADDED(2 * p, PANEL);
    const int taps = !s->gru ? 0 : s->convolutions ? 3 * p : p, parts = s->attention ? 3 * p : 0;
    const int products = taps + parts + (s->block_gate ? p : 0);
    const long wide = PADDED(products, PANEL);
    const int memory = !s->gru ? 0 : s->convolutions ? 3 * d : d;
    const long doubled = PADDED(2 * d, GRAIN); /* channels of the state space */
    const long narrow = PADDED(s->rank + 2 * STATE_SIZE, PANEL);
    const long for_space = PADDED(2 * doubled, PANEL) + doubled + narrow + PADDED(doubled, PANEL);
    const long for_gru = 8L * p + 3 * gates + 6 * out, most = for_space > for_gru ? for_space : for_gru;
    const size_t size = sizeof(float) * TOGETHER * (4L * p + wide + two + 2 * out + most);
    float *buffer = aligned_alloc(64, size);
    if (!buffer) return -1;
    float *x = buffer, *z = x + TOGETHER * p, *attended = z + TOGETHER * p, *context = attended + TOGETHER * p;
    float *in = context + TOGETHER * p, *mlp = in + TOGETHER * wide, *made = mlp + TOGETHER * two;
    float *recurrent = made + TOGETHER * out, *scratch = recurrent + TOGETHER * out;
    memset(buffer, 0, size);
    for (int first = 0; first < n; first += TOGETHER) {
        const int users = n - first < TOGETHER ? n - first : TOGETHER;
        const float *at = weights, *old[TOGETHER];
        float *now[TOGETHER];
        for (int u = 0; u < users; u++) {
            old[u] = rows + (first + u) * row;
            now[u] = next + (first + u) * row;
            memcpy(x + (long)u * p, embeddings + items[first + u] * d, sizeof(float) * d);
        }
        for (int layer = 0; layer < s->layers; layer++) {
            linear(users, d, products, x, p, &at, in);
            if (s->gru) {
                recurrence(s, users, in, wide, &at, old, now, counts + first, scratch, recurrent);
                for (int u = 0; u < users; u++) { old[u] += memory; now[u] += memory; }
            }
            if (s->attention) {
                for (int u = 0; u < users; u++) {
                    float *q = in + u * wide + taps, *k = q + p, *v = k + p;
                    head_features(q, d, p, head);
                    head_features(k, d, p, head);
                    for (int j = 0; j < d; j += head, old[u] += head * head, now[u] += head * head)
                        head_step(q + j, k + j, v + j, old[u], now[u], context + (long)u * p + j, head,
                                  1.0f / __builtin_sqrtf(head));
                }
                linear(users, d, d, context, p, &at, made);
                for (int u = 0; u < users; u++)
                    norm_sum(made + u * out, x + (long)u * p, at, at + p, attended + (long)u * p, d, p, s->eps);
                at += 2 * p;
            }
            const float gru_share = at[0], attention_share = at[1];
            at += GRAIN;
            for (int u = 0; u < users; u++) {
                float *mixed = context + (long)u * p;
                for (int j = 0; j < p; j++)
                    mixed[j] = (s->gru ? gru_share * recurrent[u * out + j] : 0.0f) +
                               (s->attention ? attention_share * attended[(long)u * p + j] : 0.0f);
                if (s->block_gate) gelu_product(mixed, in + u * wide + taps + parts, p);
            }
            linear(users, d, d, context, p, &at, made);
            const float *norm = at;
            at += 2 * p;
            for (int u = 0; u < users; u++)
                norm_sum(made + u * out, x + (long)u * p, norm, norm + p, z + (long)u * p, d, p, s->eps);
            if (s->average) {
                for (int u = 0; u < users; u++) {
                    float *mine = z + (long)u * p, *averaged = attended + (long)u * p;
                    moving_average(s, x + (long)u * p, at, old[u], now[u], counts[first + u], context + (long)u * p,
                                   averaged);
                    for (int j = 0; j < p; j++) mine[j] += s->share * (averaged[j] - mine[j]);
                    old[u] += d;
                    now[u] += d;
                }
                at += 4 * p;
            }
            if (s->space) {
                state_space(s, users, x, &at, old, now, scratch, made);
                for (int u = 0; u < users; u++) {
                    float *mine = z + (long)u * p, *spaced = attended + (long)u * p;
                    norm_sum(made + u * out, x + (long)u * p, at, at + p, spaced, d, p, s->eps);
                    for (int j = 0; j < p; j++) mine[j] += s->space_share * (spaced[j] - mine[j]);
                    old[u] += (TAPS - 1 + STATE_SIZE) * 2 * d;
                    now[u] += (TAPS - 1 + STATE_SIZE) * 2 * d;
                }
                at += 2 * p;
            }
            if (s->mlp) {
                linear(users, d, 2 * p, z, p, &at, mlp);
                for (int u = 0; u < users; u++) {
                    gelu_product(mlp + u * two, mlp + u * two + p, p);
                    memcpy(context + (long)u * p, mlp + u * two, sizeof(float) * p);
                }
                linear(users, d, d, context, p, &at, made);
                for (int u = 0; u < users; u++)
                    norm_sum(made + u * out, z + (long)u * p, norm, norm + p, x + (long)u * p, d, p, s->eps);
            } else memcpy(x, z, sizeof(float) * users * p);
        }
        for (int u = 0; u < users; u++) memcpy(now[u], x + (long)u * p, sizeof(float) * d);
    }
    free(buffer);
    return 0;
}
