/* GRAIN channels are scanned together, so that each number of their states is one line of the cache. */
#define VECTORS (GRAIN / WIDTH)
#define SCAN_CHUNK 16 /* positions between two states that the backward pass starts from */

/* Rows first ... last of the batch. h[t] = exp(step[t] a) h[t-1] + drive[t] b[t], y[t] = the sum of h[t] c[t] over the
   n numbers of state. step, drive, y (batch, length, channels); a (channels / GRAIN, n, GRAIN); b, c (batch, length,
   n); start and end, each or null, (batch, channels / GRAIN, n, GRAIN): the states before and after. saved, or null,
   gets the state before each chunk, (batch, chunks, channels / GRAIN, n, GRAIN). */
int scan_float32(const float *step, const float *drive, const float *a, const float *b, const float *c,
                 const float *start, float *y, float *end, float *saved, int first, int last, int length, int channels,
                 int n) {
    const int chunks = (length + SCAN_CHUNK - 1) / SCAN_CHUNK;
    const long size = (long)n * channels;
    const size_t bytes = sizeof(float) * n * GRAIN;
    float *h = aligned_alloc(64, bytes);
    if (!h) return 1;
    for (int j = 0; j < channels; j += GRAIN)
        for (int row = first; row < last; row++) {
            const float *rates = a + (long)j * n;
            if (start) memcpy(h, start + row * size + (long)j * n, bytes); else memset(h, 0, bytes);
            for (int t = 0; t < length; t++) {
                const long at = (long)row * length + t, place = at * channels + j;
                const float *bt = b + at * n, *ct = c + at * n;
                vec s[VECTORS], d[VECTORS], sum[VECTORS];
                if (saved && t % SCAN_CHUNK == 0)
                    memcpy(saved + ((long)row * chunks + t / SCAN_CHUNK) * size + (long)j * n, h, bytes);
                UNROLL for (int v = 0; v < VECTORS; v++) {
                    s[v] = READ(step + place + v * WIDTH);
                    d[v] = READ(drive + place + v * WIDTH);
                    sum[v] = (vec){0};
                }
                for (int k = 0; k < n; k++)
                    UNROLL for (int v = 0; v < VECTORS; v++) {
                        const int q = k * GRAIN + v * WIDTH;
                        vec state = exp_(s[v] * READ(rates + q)) * READ(h + q) + d[v] * bt[k];
                        AT(h + q) = state;
                        sum[v] += state * ct[k];
                    }
                UNROLL for (int v = 0; v < VECTORS; v++) AT(y + place + v * WIDTH) = sum[v];
            }
            if (end) memcpy(end + row * size + (long)j * n, h, bytes);
        }
    free(h);
    return 0;
}

/* The gradients of all inputs from that of y. da (batch, channels / GRAIN, n, GRAIN) is to be summed over the batch. */
int scan_back_float32(const float *grad, const float *step, const float *drive, const float *a, const float *b,
                  const float *c, const float *saved, float *dstep, float *ddrive, float *da, float *db, float *dc,
                  int first, int last, int length, int channels, int n) {
    const int chunks = (length + SCAN_CHUNK - 1) / SCAN_CHUNK;
    const long size = (long)n * channels, part = (long)n * GRAIN, wide = (long)n * WIDTH;
    float *states = aligned_alloc(64, sizeof(float) * part * (2 * SCAN_CHUNK + 1)); /* the one before the chunk first */
    float *later = aligned_alloc(64, sizeof(float) * size);
    float *sums = aligned_alloc(64, sizeof(float) * 2 * SCAN_CHUNK * part);
    if (!states || !later || !sums) { free(states); free(later); free(sums); return 1; }
    float *decays = states + part * (SCAN_CHUNK + 1), *sums_c = sums + SCAN_CHUNK * part;
    for (int row = first; row < last; row++) {
        memset(later, 0, sizeof(float) * size);
        memset(da + row * size, 0, sizeof(float) * size);
        for (int chunk = chunks - 1; chunk >= 0; chunk--) {
            const long from = (long)row * length + chunk * SCAN_CHUNK;
            const int count = chunk == chunks - 1 ? length - chunk * SCAN_CHUNK : SCAN_CHUNK;
            memset(sums, 0, sizeof(float) * 2 * SCAN_CHUNK * part);
            for (int j = 0; j < channels; j += GRAIN) {
                const float *rates = a + (long)j * n;
                memcpy(states, saved + ((long)row * chunks + chunk) * size + (long)j * n, sizeof(float) * part);
                for (int t = 0; t < count; t++)
                    UNROLL for (int v = 0; v < VECTORS; v++) {
                        const long at = (from + t) * channels + j + v * WIDTH;
                        const vec s = READ(step + at), d = READ(drive + at);
                        const float *bt = b + (from + t) * n;
                        float *before = states + t * part + v * WIDTH, *decay = decays + t * part + v * WIDTH;
                        for (int k = 0; k < n; k++) {
                            vec power = exp_(s * READ(rates + k * GRAIN + v * WIDTH));
                            AT(decay + k * GRAIN) = power;
                            AT(before + part + k * GRAIN) = power * READ(before + k * GRAIN) + d * bt[k];
                        }
                    }
                for (int t = count - 1; t >= 0; t--)
                    UNROLL for (int v = 0; v < VECTORS; v++) {
                        const long at = (from + t) * channels + j + v * WIDTH, block = (long)j * n + v * WIDTH;
                        const vec g = READ(grad + at), s = READ(step + at), d = READ(drive + at);
                        const float *bt = b + (from + t) * n, *ct = c + (from + t) * n;
                        const float *before = states + t * part + v * WIDTH, *decay = decays + t * part + v * WIDTH;
                        float *back = later + block, *total = da + row * size + block;
                        float *to_b = sums + t * wide, *to_c = sums_c + t * wide;
                        vec to_step = {0}, to_drive = {0};
                        for (int k = 0; k < n; k++) {
                            const int q = k * GRAIN;
                            vec to_state = READ(back + q) + g * ct[k];
                            AT(to_c + k * WIDTH) += g * READ(before + part + q);
                            AT(to_b + k * WIDTH) += d * to_state;
                            to_drive += to_state * bt[k];
                            to_state *= READ(decay + q);
                            AT(back + q) = to_state;
                            to_state *= READ(before + q);
                            to_step += to_state * READ(rates + q + v * WIDTH);
                            AT(total + q) += to_state * s;
                        }
                        AT(dstep + at) = to_step;
                        AT(ddrive + at) = to_drive;
                    }
            }
            for (int t = 0; t < count; t++)
                for (int k = 0; k < n; k++) {
                    db[(from + t) * n + k] = sum_(READ(sums + t * wide + k * WIDTH));
                    dc[(from + t) * n + k] = sum_(READ(sums_c + t * wide + k * WIDTH));
                }
        }
    }
    free(states); free(later); free(sums);
    return 0;
}
