/* Convs with kernels of 3 x 3 and stride 1 by Winograd's minimal filtering F(2 x 2, 3 x 3) (Lavin and Gray, 2016,
 * section 4.1): of a tile of 4 x 4 inputs 16 products make 2 x 2 outputs, where the definition takes 36.
 *
 * Tensors are float32: activations (N, H, W, C), weights (O, 3, 3, I / groups). What is transformed lies in 16 planes,
 * one for each place in a tile, and the conv is a product of matrices in each. Sums over channels, and over tiles for
 * the weight, are in one order however the work is divided: neither `threads` nor the rest of a batch changes a result.
 */

#include <omp.h>

#include "product.h"

/* Tiles that are worked on at a time. GAP: between planes, so that they do not share the same few lines of the cache. */
enum { TILES = 48, GAP = 64 };

/* Of a conv; channels are those of one group. */
typedef struct {
    int64_t images, height, width, inputs, outputs, groups, padding;
} Shape;

static inline int64_t out_size(int64_t size, const Shape *s) { return size + 2 * s->padding - 2; }
static inline int64_t tiles_along(int64_t size, const Shape *s) { return (out_size(size, s) + 1) / 2; }
static inline int64_t all_tiles(const Shape *s) {
    return s->images * tiles_along(s->height, s) * tiles_along(s->width, s);
}

/* A tile's first output; whether there is an output below and beside it. */
typedef struct {
    int64_t image, top, left, below, beside;
} Tile;

static inline Tile find_tile(const Shape *s, int64_t number) {
    int64_t across = tiles_along(s->width, s), down = tiles_along(s->height, s);
    int64_t top = number / across % down * 2, left = number % across * 2;
    int64_t below = top + 1 < out_size(s->height, s), beside = left + 1 < out_size(s->width, s);
    return (Tile){number / across / down, top, left, below, beside};
}

/* The four transforms along one axis: of inputs, of products to outputs' (or, for the weight, of gradients to
 * products') and of weights and back. */

static inline void input_to_plane(const vec d[4], vec out[4]) {
    out[0] = d[0] - d[2];
    out[1] = d[1] + d[2];
    out[2] = d[2] - d[1];
    out[3] = d[1] - d[3];
}

static inline void plane_to_output(const vec m[4], vec out[2]) {
    out[0] = m[0] + m[1] + m[2];
    out[1] = m[1] - m[2] - m[3];
}

static inline void gradient_to_plane(const vec y[2], vec out[4]) {
    out[0] = y[0];
    out[1] = y[0] + y[1];
    out[2] = y[0] - y[1];
    out[3] = -y[1];
}

static inline void weight_to_plane(const vec g[3], vec out[4]) {
    vec ends = 0.5f * (g[0] + g[2]), middle = 0.5f * g[1];
    out[0] = g[0];
    out[1] = ends + middle;
    out[2] = ends - middle;
    out[3] = g[2];
}

static inline void plane_to_weight(const vec u[4], vec out[3]) {
    vec sum = 0.5f * (u[1] + u[2]), difference = 0.5f * (u[1] - u[2]);
    out[0] = u[0] + sum;
    out[1] = difference;
    out[2] = sum + u[3];
}

/* Where the 4 x 4 inputs of a tile are; outside the image, zeros with a step of 0. */
static const float zeros[LANES];

static inline void find_inputs(const Shape *s, const float *x, int64_t number, const float *from[16],
                               int64_t step[16]) {
    Tile t = find_tile(s, number);
    for (int i = 0; i < 16; i++) {
        int64_t y = t.top - s->padding + i / 4, z = t.left - s->padding + i % 4;
        step[i] = y >= 0 && y < s->height && z >= 0 && z < s->width;
        from[i] = step[i] ? x + ((t.image * s->height + y) * s->width + z) * s->inputs * s->groups : zeros;
    }
}

static void inputs_to_planes(const Shape *s, const float *x, int64_t number, float *out, int64_t plane) {
    const float *from[16];
    int64_t step[16];
    find_inputs(s, x, number, from, step);
    for (int64_t c = 0; c < s->inputs; c += LANES) {
        vec half[4][4];
        for (int j = 0; j < 4; j++) {
            vec d[4], made[4];
            for (int i = 0; i < 4; i++) d[i] = load(from[4 * i + j] + c * step[4 * i + j]);
            input_to_plane(d, made);
            for (int i = 0; i < 4; i++) half[i][j] = made[i];
        }
        for (int i = 0; i < 4; i++) {
            vec made[4];
            input_to_plane(half[i], made);
            for (int j = 0; j < 4; j++) store(out + (4 * i + j) * plane + c, made[j]);
        }
    }
}

static void planes_to_outputs(const Shape *s, const float *m, int64_t plane, int64_t count, int64_t number,
                              const float *bias, float *y) {
    Tile t = find_tile(s, number);
    int64_t channels = s->outputs * s->groups, width = out_size(s->width, s);
    y += ((t.image * out_size(s->height, s) + t.top) * width + t.left) * channels;
    for (int64_t c = 0; c < count; c += LANES) {
        vec half[2][4], add = bias ? load(bias + c) : (vec){0};
        for (int j = 0; j < 4; j++) {
            vec from[4], made[2];
            for (int i = 0; i < 4; i++) from[i] = load(m + (4 * i + j) * plane + c);
            plane_to_output(from, made);
            half[0][j] = made[0], half[1][j] = made[1];
        }
        for (int64_t i = 0; i <= t.below; i++) {
            float *to = y + i * width * channels + c;
            vec made[2];
            plane_to_output(half[i], made);
            store(to, made[0] + add);
            if (t.beside) store(to + channels, made[1] + add);
        }
    }
}

typedef int32_t ivec __attribute__((vector_size(LANES * 4)));

/* Rows to columns: at each step half of what two rows hold change places. */
static inline void transpose(vec x[LANES]) {
#pragma GCC unroll 4
    for (int half = LANES / 2; half > 0; half /= 2) {
        ivec low, high;
#pragma GCC unroll 16
        for (int lane = 0; lane < LANES; lane++) {
            low[lane] = lane & half ? LANES + lane - half : lane;
            high[lane] = lane & half ? LANES + lane : lane + half;
        }
#pragma GCC unroll 16
        for (int row = 0; row < LANES; row++) {
            if (row & half) continue;
            vec a = x[row], b = x[row + half];
            x[row] = __builtin_shuffle(a, b, low);
            x[row + half] = __builtin_shuffle(a, b, high);
        }
    }
}

/* Of one input and PANEL outputs; 9 taps that are `tap` apart, which is negative for a kernel that is turned round. */
static inline void weights_to_planes(const float *w, int64_t tap, float *out, int64_t plane) {
    for (int c = 0; c < PANEL; c += LANES) {
        vec half[4][3];
        for (int j = 0; j < 3; j++) {
            vec g[3], made[4];
            for (int i = 0; i < 3; i++) g[i] = load(w + (3 * i + j) * tap + c);
            weight_to_plane(g, made);
            for (int i = 0; i < 4; i++) half[i][j] = made[i];
        }
        for (int i = 0; i < 4; i++) {
            vec made[4];
            weight_to_plane(half[i], made);
            for (int j = 0; j < 4; j++) store(out + (4 * i + j) * plane + c, made[j]);
        }
    }
}

/* All weights as (groups, 16, outputs / PANEL, inputs, PANEL). `turned`: for the gradient of a conv's input, in which
 * its outputs are inputs; w is then (groups, inputs, 3, 3, outputs). */
static void prepare_weights(const Shape *s, const float *w, int turned, float *out) {
    int64_t panels = s->outputs / PANEL, plane = s->inputs * s->outputs;
#pragma omp for schedule(static) collapse(3)
    for (int64_t group = 0; group < s->groups; group++) {
        for (int64_t panel = 0; panel < panels; panel++) {
            for (int64_t input = 0; input < s->inputs; input += LANES) {
                const float *from = w + group * plane * 9;
                float *to = out + group * 16 * plane + (panel * s->inputs + input) * PANEL;
                float block[LANES][9][PANEL];
                for (int o = 0; o < PANEL && !turned; o += LANES) {
                    for (int tap = 0; tap < 9; tap++) {
                        vec square[LANES];
                        for (int i = 0; i < LANES; i++) {
                            square[i] = load(from + ((panel * PANEL + o + i) * 9 + tap) * s->inputs + input);
                        }
                        transpose(square);
                        for (int i = 0; i < LANES; i++) store(block[i][tap] + o, square[i]);
                    }
                }
                for (int i = 0; i < LANES; i++, to += PANEL) {
                    const float *last = from + ((input + i) * 9 + 8) * s->outputs + panel * PANEL;
                    if (turned) weights_to_planes(last, -s->outputs, to, plane);
                    else weights_to_planes(block[i][0], PANEL, to, plane);
                }
            }
        }
    }
}

/* How the work is divided: blocks of tiles; outputs of a task of a conv, where a block and a group are one or several
 * tasks, and of the weight's gradient, where a row of 4 planes and a group are. */
static inline int64_t count_blocks(const Shape *s) { return (all_tiles(s) + TILES - 1) / TILES; }
static inline int64_t outputs_of_task(const Shape *s, int64_t tasks, int threads) {
    return s->outputs / divide(s->groups * tasks, s->outputs / PANEL, threads);
}

/* How many values of scratch memory the two functions below use. */
int64_t conv3x3_scratch(const Shape *s, int threads) {
    int64_t conv = 16 * (TILES * (s->inputs + outputs_of_task(s, count_blocks(s), threads)) + 2 * GAP);
    int64_t weight = 4 * (TILES * (s->inputs + outputs_of_task(s, 4, threads)) + 2 * GAP);
    return 16 * s->groups * s->inputs * s->outputs + threads * (conv > weight ? conv : weight);
}

void conv3x3(const float *x, const float *w, const float *bias, float *y, const Shape *s, int64_t turned,
             float *scratch, int threads) {
    int64_t tiles = all_tiles(s), blocks = count_blocks(s), panels = s->outputs / PANEL;
    int64_t width = outputs_of_task(s, blocks, threads), some = width / PANEL, parts = panels / some;
    int64_t plane_in = TILES * s->inputs + GAP, plane_out = TILES * width + GAP;
    float *memory = scratch + 16 * s->groups * s->inputs * s->outputs;
#pragma omp parallel num_threads(threads)
    {
        prepare_weights(s, w, turned, scratch);
#pragma omp for schedule(dynamic) collapse(3)
        for (int64_t group = 0; group < s->groups; group++) {
            for (int64_t block = 0; block < blocks; block++) {
                for (int64_t part = 0; part < parts; part++) {
                    float *v = memory + omp_get_thread_num() * 16 * (plane_in + plane_out), *m = v + 16 * plane_in;
                    int64_t first = tiles * block / blocks, count = tiles * (block + 1) / blocks - first;
                    for (int64_t t = 0; t < count; t++) {
                        inputs_to_planes(s, x + group * s->inputs, first + t, v + t * s->inputs, plane_in);
                    }
                    for (int64_t i = 0; i < 16; i++) {
                        const float *u = scratch + ((group * 16 + i) * panels + part * some) * s->inputs * PANEL;
                        for (int64_t p = 0; p < some; p++, u += s->inputs * PANEL) {
                            float *to = m + i * plane_out + p * PANEL;
                            multiply(v + i * plane_in, s->inputs, 1, u, to, width, s->inputs, count, 0);
                        }
                    }
                    int64_t output = group * s->outputs + part * width;
                    for (int64_t t = 0; t < count; t++) {
                        const float *add = bias ? bias + output : 0;
                        planes_to_outputs(s, m + t * width, plane_out, width, first + t, add, y + output);
                    }
                }
            }
        }
    }
}

/* One row of a tile's transformed inputs, to 4 planes of (inputs / PANEL, TILES, PANEL). */
static void inputs_to_row(const Shape *s, const float *x, int64_t number, int row, float *out, int64_t plane) {
    const float *from[16];
    int64_t step[16];
    find_inputs(s, x, number, from, step);
    int a = row == 0 ? 0 : row == 2 ? 2 : 1, b = row == 2 ? 1 : row == 3 ? 3 : 2; /* as in input_to_plane */
    for (int64_t c = 0; c < s->inputs; c += LANES) {
        vec half[4], made[4];
        for (int j = 0; j < 4; j++) {
            vec first = load(from[4 * a + j] + c * step[4 * a + j]);
            vec second = load(from[4 * b + j] + c * step[4 * b + j]);
            half[j] = row == 1 ? first + second : first - second;
        }
        input_to_plane(half, made);
        for (int j = 0; j < 4; j++) store(out + j * plane + c / PANEL * TILES * PANEL + c % PANEL, made[j]);
    }
}

/* One row of a tile's transformed gradients, `count` channels of them, to 4 planes of (TILES, count). */
static void gradients_to_row(const Shape *s, const float *grad, int64_t number, int row, int64_t count, float *out,
                             int64_t plane) {
    Tile t = find_tile(s, number);
    int64_t channels = s->outputs * s->groups, width = out_size(s->width, s);
    const float *at = grad + ((t.image * out_size(s->height, s) + t.top) * width + t.left) * channels, *from[4];
    int64_t step[4] = {1, t.beside, t.below, t.below && t.beside};
    for (int i = 0; i < 4; i++) from[i] = step[i] ? at + (i / 2 * width + i % 2) * channels : zeros;
    for (int64_t c = 0; c < count; c += LANES) {
        vec half[2], made[4];
        for (int j = 0; j < 2; j++) {
            vec upper = load(from[j] + c * step[j]), lower = load(from[2 + j] + c * step[2 + j]);
            half[j] = row == 0 ? upper : row == 1 ? upper + lower : row == 2 ? upper - lower : -lower;
        }
        gradient_to_plane(half, made);
        for (int j = 0; j < 4; j++) store(out + j * plane + c, made[j]);
    }
}

void conv3x3_weight(const float *x, const float *grad, float *of_w, const Shape *s, float *scratch, int threads) {
    int64_t tiles = all_tiles(s), panels = s->inputs / PANEL, plane = s->inputs * s->outputs;
    int64_t some = outputs_of_task(s, 4, threads), parts = s->outputs / some;
    int64_t plane_in = TILES * s->inputs + GAP, plane_out = TILES * some + GAP;
    float *memory = scratch + 16 * s->groups * plane;
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(dynamic) collapse(3)
        for (int64_t group = 0; group < s->groups; group++) {
            for (int row = 0; row < 4; row++) {
                for (int64_t part = 0; part < parts; part++) {
                    float *v = memory + omp_get_thread_num() * 4 * (plane_in + plane_out), *d = v + 4 * plane_in;
                    float *u = scratch + (group * 4 + row) * 4 * plane + part * some * s->inputs;
                    const float *inputs = x + group * s->inputs, *from = grad + group * s->outputs + part * some;
                    for (int64_t first = 0; first < tiles; first += TILES) {
                        int64_t count = tiles - first < TILES ? tiles - first : TILES;
                        for (int64_t t = 0; t < count; t++) {
                            inputs_to_row(s, inputs, first + t, row, v + t * PANEL, plane_in);
                            gradients_to_row(s, from, first + t, row, some, d + t * some, plane_out);
                        }
                        for (int64_t i = 0; i < 4 * panels; i++) {
                            const float *a = d + i / panels * plane_out, *b = v + i / panels * plane_in;
                            float *c = u + i / panels * plane + i % panels * PANEL;
                            b += i % panels * TILES * PANEL;
                            multiply(a, 1, some, b, c, s->inputs, count, some, first > 0);
                        }
                    }
                }
            }
        }
#pragma omp for schedule(static)
        for (int64_t output = 0; output < s->groups * s->outputs; output++) {
            const float *u = scratch + output / s->outputs * 16 * plane + output % s->outputs * s->inputs;
            float *to = of_w + output * 9 * s->inputs;
            for (int64_t c = 0; c < s->inputs; c += LANES) {
                vec half[3][4];
                for (int j = 0; j < 4; j++) {
                    vec from[4], made[3];
                    for (int i = 0; i < 4; i++) from[i] = load(u + (4 * i + j) * plane + c);
                    plane_to_weight(from, made);
                    for (int i = 0; i < 3; i++) half[i][j] = made[i];
                }
                for (int i = 0; i < 3; i++) {
                    vec made[3];
                    plane_to_weight(half[i], made);
                    for (int j = 0; j < 3; j++) store(to + (3 * i + j) * s->inputs + c, made[j]);
                }
            }
        }
    }
}
