/* The gradient of a pointwise conv's weight, a product of two matrices whose rows are positions: activations are
 * channels-last. Sums over positions are in one order, whatever `threads` is. */

#include "product.h"

enum { POSITIONS = 288 }; /* about as many are summed at a time */

/* Whether the compiler was allowed the instructions without which torch's own products are
 * faster. */
int64_t products_pay(void) {
#if defined __FMA__ && (defined __AVX2__ || defined __AVX512F__)
    return 1;
#else
    return 0;
#endif
}

/* Rows of `width` values to pieces of `piece` columns, one after the other. */
static void to_pieces(const float *x, int64_t width, int64_t rows, int64_t piece, float *out) {
#pragma omp for schedule(static)
    for (int64_t begin = 0; begin < rows; begin += 16) {
        int64_t end = begin + 16 < rows ? begin + 16 : rows;
        for (int64_t first = 0; first < width; first += piece) {
            for (int64_t row = begin; row < end; row++) {
                for (int64_t i = 0; i < piece; i++) {
                    out[first * rows + row * piece + i] = x[row * width + first + i];
                }
            }
        }
    }
}

/* How many values of scratch memory the function below uses. */
int64_t pointwise_scratch(int64_t inputs, int64_t outputs, int threads) {
    (void)threads;
    return 2 * POSITIONS * (inputs + outputs);
}

/* x: (positions, inputs), grad: (positions, outputs), of_w: (outputs, inputs). */
void pointwise_weight(const float *x, const float *grad, float *of_w, int64_t positions, int64_t inputs,
                      int64_t outputs, float *scratch, int threads) {
    int64_t blocks = positions / POSITIONS + 1, panels = inputs / PANEL;
    int64_t parts = divide(panels, outputs / STRIP, threads), some = outputs / parts;
    float *left = scratch, *right = scratch + 2 * POSITIONS * outputs;
#pragma omp parallel num_threads(threads)
    for (int64_t block = 0; block < blocks; block++) {
        int64_t first = positions * block / blocks, count = positions * (block + 1) / blocks - first;
        to_pieces(grad + first * outputs, outputs, count, STRIP, left);
        to_pieces(x + first * inputs, inputs, count, PANEL, right);
#pragma omp for schedule(dynamic) collapse(2)
        for (int64_t panel = 0; panel < panels; panel++) {
            for (int64_t part = 0; part < parts; part++) {
                for (int64_t output = part * some; output < (part + 1) * some; output += STRIP) {
                    const float *a = left + output * count, *b = right + panel * PANEL * count;
                    float *c = of_w + output * inputs + panel * PANEL;
                    multiply(a, 1, STRIP, b, c, inputs, count, STRIP, block > 0);
                }
            }
        }
    }
}
