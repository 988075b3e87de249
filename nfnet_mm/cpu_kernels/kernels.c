/* What torch's own operations for a CPU pass over memory several times for, or take ten times the arithmetic.
 *
 * All tensors are float32 and without gaps. `threads`: how many of torch's threads share the work; what is computed
 * does not depend on it. */

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { CHUNK = 8192, LANE_SUM = 1024 };

#define PRAGMA(text) _Pragma(#text)
#define PARALLEL_FOR(...) PRAGMA(omp parallel for num_threads(threads) if (threads > 1) schedule(__VA_ARGS__))
#define SIMD(more) PRAGMA(omp simd more)

/* exp(x) for |x| < 87, to an ulp or two: 2^n times the series of exp about 0, up to |r| = ln(2) / 2. */
static inline float exp_(float x) {
    float n = rintf(x * 1.4426950408889634f);
    float r = fmaf(n, -0x1.62e4p-1f, x); /* ln(2) in two parts, the first of few digits */
    r = fmaf(n, -0x1.7f7d1cp-20f, r);
    float p = 1.0f / 5040;
    p = fmaf(p, r, 1.0f / 720);
    p = fmaf(p, r, 1.0f / 120);
    p = fmaf(p, r, 1.0f / 24);
    p = fmaf(p, r, 1.0f / 6);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

/* GELU in its tanh form is x * s with s = sigmoid(2 k (x + 0.044715 x^3)), k = sqrt(2 / pi). Beyond 9.5 s is 0 or 1 to
 * float32's digits, and exp_ would overflow. */
static const float TWO_K = 1.5957691216057308f, CUBIC = 0.044715f, FAR = 9.5f;

static inline float near_zero(float x) { return x < -FAR ? -FAR : x > FAR ? FAR : x; }

void gelu(const float *x, float *out, int64_t n, int threads) {
    PARALLEL_FOR(static)
    for (int64_t start = 0; start < n; start += CHUNK) {
        int64_t stop = start + CHUNK < n ? start + CHUNK : n;
        SIMD()
        for (int64_t i = start; i < stop; i++) {
            float c = near_zero(x[i]), v = x[i] < -FAR ? (x[i] < -FLT_MAX ? NAN : -FAR) : x[i]; /* as torch at -inf */
            out[i] = v / (1.0f + exp_(-TWO_K * c * fmaf(CUBIC * c, c, 1.0f)));
        }
    }
}

void gelu_backward(const float *grad, const float *x, float *out, int64_t n, int threads) {
    PARALLEL_FOR(static)
    for (int64_t start = 0; start < n; start += CHUNK) {
        int64_t stop = start + CHUNK < n ? start + CHUNK : n;
        SIMD()
        for (int64_t i = start; i < stop; i++) {
            float c = near_zero(x[i]), cubic = CUBIC * c * c;
            float e = exp_(-TWO_K * c * (1.0f + cubic)), s = 1.0f / (1.0f + e);
            float slope = TWO_K * c * fmaf(3.0f, cubic, 1.0f);
            out[i] = grad[i] * fmaf(e * s * s, slope, s); /* 1 - s is e * s */
        }
    }
}

/* Sum of squares; in float32 within pieces that lose no digits that matter, over which it is summed in float64. */
static inline double squares_about(const float *x, float middle, int64_t n) {
    double total = 0;
    for (int64_t start = 0; start < n; start += LANE_SUM) {
        int64_t stop = start + LANE_SUM < n ? start + LANE_SUM : n;
        float part = 0;
        SIMD(reduction(+ : part))
        for (int64_t i = start; i < stop; i++) part += (x[i] - middle) * (x[i] - middle);
        total += part;
    }
    return total;
}

/* One row of the standardised weight; the same expression in both functions that call it, so that it is the same bit
 * for bit. */
static inline void scale_row(const float *x, float middle, float factor, float *out, int64_t n) {
    SIMD()
    for (int64_t i = 0; i < n; i++) out[i] = (x[i] - middle) * factor;
}

void standardize(const float *rows, const float *gain, float scale, float least, float eps, float *out, float *mean,
                 float *inverse, int64_t count, int64_t length, int threads) {
    PARALLEL_FOR(static)
    for (int64_t row = 0; row < count; row++) {
        const float *x = rows + row * length;
        double total = 0;
        SIMD(reduction(+ : total))
        for (int64_t i = 0; i < length; i++) total += x[i];
        float middle = total / length;
        float energy = squares_about(x, middle, length);
        energy = energy < least ? least : energy; /* a NaN stays */
        mean[row] = middle;
        inverse[row] = 1.0f / sqrtf(energy + eps);
        scale_row(x, middle, inverse[row] * (gain[row] * scale), out + row * length, length);
    }
}

void standardize_again(const float *rows, const float *gain, float scale, const float *mean, const float *inverse,
                       float *out, int64_t count, int64_t length, int threads) {
    PARALLEL_FOR(static)
    for (int64_t row = 0; row < count; row++) {
        float factor = inverse[row] * (gain[row] * scale);
        scale_row(rows + row * length, mean[row], factor, out + row * length, length);
    }
}

/* `longest`: rows whose inverse norm is above it were divided by a constant. */
void standardize_backward(const float *grad, const float *rows, const float *gain, float scale, const float *mean,
                          const float *inverse, float longest, float *of_rows, float *of_gain, int64_t count,
                          int64_t length, int threads) {
    PARALLEL_FOR(static)
    for (int64_t row = 0; row < count; row++) {
        const float *x = rows + row * length, *g = grad + row * length;
        float *out = of_rows + row * length;
        float middle = mean[row], by = inverse[row], factor = by * (gain[row] * scale);
        double total = 0, along = 0;
        SIMD(reduction(+ : total, along))
        for (int64_t i = 0; i < length; i++) {
            total += g[i];
            along += (double)(g[i] * (x[i] - middle));
        }
        of_gain[row] = (float)along * by * scale;
        float pull = by > longest ? 0.0f : (float)along * by * by, average = total / length;
        SIMD()
        for (int64_t i = 0; i < length; i++) out[i] = factor * (g[i] - average - (x[i] - middle) * pull);
    }
}

/* Where the values of a unit are: `inner` follow each other, then comes a step. */
typedef struct {
    int64_t first, length, inner, step, in_group, group_step, unit_step;
} Place;

static double squares(const float *x, const Place *place) {
    double total = 0;
    for (int64_t i = 0; i < place->length; i += place->inner, x += place->step) {
        total += squares_about(x, 0.0f, place->inner);
    }
    if (total < INFINITY) return total;
    total = 0; /* some square was too large for float32, or some value is not finite */
    x -= place->length / place->inner * place->step;
    for (int64_t i = 0; i < place->length; i += place->inner, x += place->step) {
        for (int64_t j = 0; j < place->inner; j++) total += (double)x[j] * x[j];
    }
    return total;
}

/* Adaptive gradient clipping of all units of all parameters; a parameter without weights is only looked at, and one
 * of which some unit was clipped is marked by a 1. */
void clip(float *const *grads, const float *const *weights, const Place *places, const int32_t *owners, int64_t units,
          float clipping, float eps, float *factors, uint8_t *marks, int threads) {
    PARALLEL_FOR(dynamic, 256)
    for (int64_t unit = 0; unit < units; unit++) {
        int32_t owner = owners[unit];
        const Place *place = places + owner;
        int64_t within = unit - place->first;
        int64_t at = within / place->in_group * place->group_step + within % place->in_group * place->unit_step;
        float *grad = grads[owner] + at;
        double norm = sqrt(squares(grad, place));
        float factor = norm < INFINITY ? 1.0f : INFINITY;
        if (weights[owner] && norm < INFINITY) {
            double weight = sqrt(squares(weights[owner] + at, place));
            double limit = clipping * (weight < eps ? eps : weight);
            if (norm > limit) {
                factor = limit / (norm < 1e-6 ? 1e-6 : norm);
                marks[owner] = 1;
                for (int64_t i = 0; i < place->length; i += place->inner, grad += place->step) {
                    SIMD()
                    for (int64_t j = 0; j < place->inner; j++) grad[j] *= factor;
                }
            }
        }
        factors[unit] = factor;
    }
}
