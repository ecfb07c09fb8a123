/* Rows first ... last of ids (batch, length), counts (batch) items before padding. tables (3, items, 3d): what an item
   gives to the gates of the item after it, to its own and to those of the item before it; w, n as in gru_forward.
   h (batch, d): the state over all but the newest two items, zero where there are no more. */
int states_of_items_float32(const long long *ids, const long long *counts, const float *tables, const float *w,
                            float *h, int first, int last, int length, long items, int d, int n) {
    const int wide = 3 * d;
    const float *after = tables, *own = after + items * wide, *before = own + items * wide;
    float *gates = aligned_alloc(64, sizeof(float) * 8 * n), *x = malloc(sizeof(float) * wide);
    if (!gates || !x) { free(gates); free(x); return 1; }
    memset(h + (long)first * d, 0, sizeof(float) * (last - first) * d);
    for (int row = first; row < last; row += 8) {
        const int mr = last - row < 8 ? last - row : 8;
        long long most = 0;
        for (int i = 0; i < mr; i++) most = counts[row + i] > most ? counts[row + i] : most;
        for (long t = 0; t + 2 < most; t++) {
            product(mr, d, n, h + (long)row * d, d, w, gates);
            for (int i = 0; i < mr; i++) {
                if (t + 2 >= counts[row + i]) continue;
                const long long *id = ids + (long)(row + i) * length + t;
                const float *a = after + (t ? id[-1] : 0) * wide, *o = own + id[0] * wide, *b = before + id[1] * wide;
                float *state = h + (long)(row + i) * d;
                for (int j = 0; j < wide; j += WIDTH) AT(x + j) = READ(a + j) + READ(o + j) + READ(b + j);
                if (t + 3 < counts[row + i]) { /* the tables are larger than the caches */
                    const float *next_own = own + id[1] * wide, *next_before = before + id[2] * wide;
                    for (int j = 0; j < wide; j += 16) {
                        __builtin_prefetch(next_own + j);
                        __builtin_prefetch(next_before + j);
                        __builtin_prefetch(after + id[0] * wide + j);
                    }
                }
                step(x, gates + (long)i * n, state, state, x, d);
            }
        }
    }
    free(gates); free(x);
    return 0;
}

/* table (items, 2d): features of keys, and values. out (batch, d / hd, hd, hd): for each head the sum of k v^T over all
   items of a row but the newest. */
int sums_of_items_float32(const long long *ids, const long long *counts, const float *table, float *out, int first,
                          int last, int length, int d, int hd) {
    for (int row = first; row < last; row++)
        for (int at = 0; at < d; at += hd)
            for (int i = 0; i < hd; i += 8)
                for (int j = 0; j < hd; j += WIDTH) {
                    vec sums[8];
                    UNROLL for (int q = 0; q < 8; q++) sums[q] = (vec){0};
                    for (long t = 0; t + 1 < counts[row]; t++) {
                        const float *k = table + ids[(long)row * length + t] * 2 * d + at;
                        const vec v = READ(k + d + j);
                        UNROLL for (int q = 0; q < 8; q++) sums[q] += k[i + q] * v;
                    }
                    float *to = out + ((long)row * d + at + i) * hd + j;
                    UNROLL for (int q = 0; q < 8; q++) AT(to + q * hd) = sums[q];
                }
    return 0;
}
