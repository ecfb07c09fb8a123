#define QUERIES 32

struct candidate { float score; int id; };

static inline int worse(struct candidate a, struct candidate b) {
    return a.score < b.score || (a.score == b.score && a.id > b.id);
}
/* Puts `one` in the place of the root of a heap whose root is its worst member. */
static void sift(struct candidate *heap, int n, struct candidate one) {
    int at = 0;
    for (int child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && worse(heap[child + 1], heap[child])) child++;
        if (!worse(heap[child], one)) break;
        heap[at] = heap[child];
    }
    heap[at] = one;
}
static void push(struct candidate *heap, int n, struct candidate one) {
    int at = n;
    for (; at && worse(one, heap[(at - 1) / 2]); at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
    heap[at] = one;
}

/* Sets in `words` a bit for each item that is no candidate: those not among `allowed`, if there is such a list, and
   those of `exclude`. Gives how many items are allowed, or -1 for an id that is not in 0 ... items - 1. */
static long long banned_bits(unsigned long long *words, long count, long items, const long long *allowed,
                             long num_allowed, const long long *exclude, long num_exclude) {
    long long found = items - 1;
    memset(words, allowed ? 0xff : 0, sizeof(*words) * count);
    if (allowed) {
        found = 0;
        for (long i = 0; i < num_allowed; i++) {
            const unsigned long long id = allowed[i], bit = 1ULL << (id % PANEL);
            if (id >= (unsigned long long)items) return -1;
            if (id && words[id / PANEL] & bit) { words[id / PANEL] &= ~bit; found++; }
        }
    }
    for (long i = 0; i < num_exclude; i++) {
        const unsigned long long id = exclude[i];
        if (id >= (unsigned long long)items) return -1;
        words[id / PANEL] |= 1ULL << (id % PANEL);
    }
    return found;
}

/* The k best of `items` for each of n queries (n, d), best first, of equal ones the lower id first.
   panels: the items as columns; a column that is no item has the bias -inf. allowed_at, exclude_at (n, 2): where each
   query's ids begin and end in `allowed` and `exclude`; either list may be null. ids, scores (n, k), with id 0 and
   score -inf where nothing is left; found (n): allowed items, or null. Gives 0, -1 without memory, 1 for a wrong id. */
int top_k(const float *panels, long items, int d, const float *queries, int n, int k, const long long *allowed,
          const long long *allowed_at, const long long *exclude, const long long *exclude_at, long long *ids,
          float *scores, long long *found) {
    const long count = PADDED(items, PANEL) / PANEL;
    const int together = n < QUERIES ? n : QUERIES, filters = allowed || exclude;
    int wrong = 0;
    unsigned long long *words = filters ? malloc(sizeof(*words) * count * together) : 0;
    struct candidate *heaps = malloc(sizeof(*heaps) * k * together);
    if (!heaps || (filters && !words)) { free(words); free(heaps); return -1; }
    for (int first = 0; first < n && !wrong; first += together) {
        const int rows = n - first < together ? n - first : together;
        int sizes[QUERIES] = {0};
        float floors[QUERIES];
        for (int i = 0; i < rows; i++) {
            floors[i] = -__builtin_inff();
            if (!filters) continue;
            const long long *a = allowed ? allowed_at + 2 * (first + i) : 0;
            const long long *e = exclude ? exclude_at + 2 * (first + i) : 0;
            const long long open = banned_bits(words + i * count, count, items, a ? allowed + a[0] : 0,
                                               a ? a[1] - a[0] : 0, e ? exclude + e[0] : 0, e ? e[1] - e[0] : 0);
            if (open < 0) wrong = 1;
            if (found) found[first + i] = open;
        }
        for (long panel = 0; panel < count && !wrong; panel++) {
            for (int i = 0; i < rows; i += TOGETHER) {
                const int some = rows - i < TOGETHER ? rows - i : TOGETHER;
                int open = !filters;
                for (int u = 0; u < some && !open; u++) open = words[(i + u) * count + panel] != ~0ULL;
                if (!open) continue;
                float sums[TOGETHER][PANEL] __attribute__((aligned(64)));
                panel_product(some, d, queries + (long)(first + i) * d, d, panels + panel * (d + 1) * PANEL, sums[0],
                              PANEL);
                for (int u = 0; u < some; u++) {
                    const int query = i + u;
                    const float floor = floors[query];
                    int any = 0;
                    for (int q = 0; q < PANEL; q++) any |= sums[u][q] > floor;
                    if (!any) continue;
                    const unsigned long long banned = filters ? words[query * count + panel] : 0;
                    struct candidate *heap = heaps + (long)query * k;
                    for (int q = 0; q < PANEL; q++) {
                        if (!(sums[u][q] > floors[query]) || banned >> q & 1) continue;
                        const struct candidate one = {sums[u][q], (int)(panel * PANEL + q)};
                        if (sizes[query] < k) push(heap, sizes[query]++, one); else sift(heap, k, one);
                        if (sizes[query] == k) floors[query] = heap[0].score;
                    }
                }
            }
        }
        for (int i = 0; i < rows; i++) {
            struct candidate *heap = heaps + (long)i * k;
            long long *id = ids + (long)(first + i) * k;
            float *score = scores + (long)(first + i) * k;
            for (int j = k - 1; j >= sizes[i]; j--) { id[j] = 0; score[j] = -__builtin_inff(); }
            for (int j = sizes[i] - 1; j >= 0; j--) {
                id[j] = heap[0].id;
                score[j] = heap[0].score;
                sift(heap, j, heap[j]);
            }
        }
    }
    free(words); free(heaps);
    return wrong;
}
