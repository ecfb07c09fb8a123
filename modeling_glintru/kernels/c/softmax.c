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
