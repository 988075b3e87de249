/* Products of float32 matrices, by vectors of as many lanes as the processor has. */

#include <stdint.h>

/* As many ROWS of a product are computed together as there are registers for;
 * STRIP: columns of a left side that is transposed. */
#if defined __AVX512F__
enum { LANES = 16, ROWS = 8, STRIP = 8 };
#elif defined __AVX__
enum { LANES = 8, ROWS = 6, STRIP = 32 };
#else
enum { LANES = 4, ROWS = 8, STRIP = 8 };
#endif
enum { PANEL = 2 * LANES }; /* columns of a product that are computed together */

typedef float vec __attribute__((vector_size(LANES * 4), aligned(4)));

static inline vec load(const float *x) { return *(const vec *)x; }
static inline void store(float *x, vec value) { *(vec *)x = value; }

/* rows x PANEL values of c are, or grow by, a product of a and b, whose rows are PANEL long. */
static inline __attribute__((always_inline)) void product(const float *a, int64_t row, int64_t step, const float *b,
                                                          float *c, int64_t width, int64_t depth, int rows, int add) {
    vec left[ROWS] = {0}, right[ROWS] = {0};
    for (int64_t k = 0; k < depth; k++, b += PANEL) {
        vec first = load(b), second = load(b + LANES);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            float value = a[r * row + k * step];
            left[r] += value * first;
            right[r] += value * second;
        }
    }
    for (int r = 0; r < rows; r++, c += width) {
        store(c, add ? load(c) + left[r] : left[r]);
        store(c + LANES, add ? load(c + LANES) + right[r] : right[r]);
    }
}

static void multiply(const float *a, int64_t row, int64_t step, const float *b, float *c, int64_t width, int64_t depth,
                     int64_t rows, int add) {
    for (; rows >= ROWS; rows -= ROWS, a += ROWS * row, c += ROWS * width) {
        product(a, row, step, b, c, width, depth, ROWS, add);
    }
    for (; rows >= 4; rows -= 4, a += 4 * row, c += 4 * width) product(a, row, step, b, c, width, depth, 4, add);
    for (; rows >= 2; rows -= 2, a += 2 * row, c += 2 * width) product(a, row, step, b, c, width, depth, 2, add);
    if (rows) product(a, row, step, b, c, width, depth, 1, add);
}

/* Into how many parts to divide `panels`, so that `tasks` times as many occupy all threads evenly. */
static int64_t divide(int64_t tasks, int64_t panels, int threads) {
    int64_t parts = 1;
    while (parts < panels && (tasks * parts < 2 * threads || panels % parts)) parts++;
    return parts;
}
