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
