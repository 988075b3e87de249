/* The gradient of a pointwise conv's weight, a product of two matrices whose rows are positions: activations are
 * channels-last. Sums over positions are in one order, whatever `threads` is. */

#include <omp.h>

#include "product.h"

/* About so many positions are summed at a time, and so many columns are read together: whole lines of the cache. */
enum { POSITIONS = 288, COLUMNS = 32 };

/* Whether the compiler was allowed the instructions without which torch's own products are
 * faster. */
int64_t products_pay(void) {
#if defined __FMA__ && (defined __AVX2__ || defined __AVX512F__)
    return 1;
#else
    return 0;
#endif
}

/* COLUMNS of rows of `width` values, in pieces of `piece` columns. */
static inline void copy_columns(const float *x, int64_t width, int64_t rows, int piece, float *out) {
    for (int64_t row = 0; row < rows; row++, x += width) {
        for (int i = 0; i < COLUMNS; i += LANES / 2) {
            for (int j = i; j < i + LANES / 2; j++) out[(j / piece * rows + row) * piece + j % piece] = x[j];
        }
    }
}

/* How the work is divided: panels of inputs, and outputs, of a task. */
static inline void divide_pointwise(int64_t inputs, int64_t outputs, int threads, int64_t *panels, int64_t *some) {
    int64_t parts = divide(1, inputs / COLUMNS, threads);
    *panels = inputs / PANEL / parts;
    *some = outputs / divide(parts, outputs / COLUMNS, threads);
}

/* How many values of scratch memory the function below uses. */
int64_t pointwise_scratch(int64_t inputs, int64_t outputs, int threads) {
    int64_t panels, some;
    divide_pointwise(inputs, outputs, threads, &panels, &some);
    return threads * 2 * POSITIONS * (panels * PANEL + COLUMNS);
}

/* x: (positions, inputs), grad: (positions, outputs), of_w: (outputs, inputs). No task waits for another. */
void pointwise_weight(const float *x, const float *grad, float *of_w, int64_t positions, int64_t inputs,
                      int64_t outputs, float *scratch, int threads) {
    int64_t blocks = positions / POSITIONS + 1, panels, some;
    divide_pointwise(inputs, outputs, threads, &panels, &some);
#pragma omp parallel for num_threads(threads) schedule(dynamic) collapse(2)
    for (int64_t start = 0; start < inputs; start += panels * PANEL) {
        for (int64_t begin = 0; begin < outputs; begin += some) {
            float *right = scratch + omp_get_thread_num() * 2 * POSITIONS * (panels * PANEL + COLUMNS);
            float *left = right + 2 * POSITIONS * panels * PANEL;
            for (int64_t block = 0; block < blocks; block++) {
                int64_t first = positions * block / blocks, count = positions * (block + 1) / blocks - first;
                for (int64_t input = 0; input < panels * PANEL; input += COLUMNS) {
                    copy_columns(x + first * inputs + start + input, inputs, count, PANEL, right + input * count);
                }
                for (int64_t output = begin; output < begin + some; output += COLUMNS) {
                    copy_columns(grad + first * outputs + output, outputs, count, STRIP, left);
                    for (int64_t p = 0; p < panels; p++) {
                        for (int64_t strip = 0; strip < COLUMNS; strip += STRIP) {
                            const float *a = left + strip * count, *b = right + p * PANEL * count;
                            float *c = of_w + (output + strip) * inputs + start + p * PANEL;
                            multiply(a, 1, STRIP, b, c, inputs, count, STRIP, block > 0);
                        }
                    }
                }
            }
        }
    }
}
