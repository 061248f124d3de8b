/* Quadratic depthwise convolution, y = (Wa*x) o (Wb*x) + Wc*x, forward and backward, in float32.
 *
 * A task is a block of LANES channels (one vector) of a part of the batch. It walks down an image row by row and
 * keeps the few rows that a kernel spans, of x and in the backward pass of g o b, g o a and g, in rings with zeros at
 * both ends. The order of every sum follows from the shapes alone: neither the number of threads nor the width of the
 * vectors changes a bit. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* LANES: floats in a vector. TILE: neighbours with three sums each, which fill the registers; WIDE: with one each. */
#if defined(__AVX512F__)
#define LANES 16
#define TILE 8
#define WIDE 8
#elif defined(__AVX__)
#define LANES 8
#define TILE 4
#define WIDE 14
#elif defined(__aarch64__)
#define LANES 4
#define TILE 8
#define WIDE 14
#else
#define LANES 4
#define TILE 4
#define WIDE 14
#endif

#define INLINE static inline __attribute__((always_inline))

/* `call` for a width known at compile time, so that its sums live in registers. */
#define UP_TO_4(call) \
    case 1: call(1); break; case 2: call(2); break; case 3: call(3); break; case 4: call(4); break;
#define UP_TO_8(call) UP_TO_4(call) \
    case 5: call(5); break; case 6: call(6); break; case 7: call(7); break; case 8: call(8); break;
#define UP_TO_14(call) UP_TO_8(call) \
    case 9: call(9); break; case 10: call(10); break; case 11: call(11); break; case 12: call(12); break; \
    case 13: call(13); break; case 14: call(14); break;
#define PASTE(a, b) a##b
#define EACH(most, width, call) switch (width) { PASTE(UP_TO_, most)(call) }

/* Loads a value that several sums take once: left to itself, GCC loads it for each. */
#if defined(__x86_64__)
#define KEEP(vector) __asm__("" : "+v"(vector))
#elif defined(__aarch64__)
#define KEEP(vector) __asm__("" : "+w"(vector))
#else
#define KEEP(vector) (void)(vector)
#endif

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int64_t num;

/* What Python hands over. Forward: grad is null; backward: y is null, and grad_x, or grad_weight and grad_bias, may
 * be. H and W are those of x; the output's are divided by the stride and rounded up. Maps are (N, C, H, W) in memory
 * if `planar`, else (N, H, W, C). */
typedef struct {
    const float *x, *weight, *bias, *grad;       /* weight (3, C, K, K), bias (3, C), grad like y */
    float *y, *grad_x, *grad_weight, *grad_bias; /* the gradients like x, weight and bias */
    num n, c, h, w, k, stride, planar;
} Call;

/* Where the floats of x or y lie: so far apart are neighbouring pixels, and channels. */
typedef struct {
    num h, w, pixel, channel;
} Map;

typedef struct {
    const Call *call;
    vec *partial; /* (blocks, parts, 3 * ky * kx + 3): gradients of taps and biases, summed over a part of the batch */
    num *done;    /* (blocks): finished parts */
    num next, failed;
    num blocks, parts;
    Map in, out;
    num dead_y, dead_x, ky, kx, pad_y, pad_x; /* taps further out than the map is long meet padding alone: left out */
    num ring, x_row, g_row, g_left;           /* rows in a ring, vectors in a row, zeros on the left of a row of g */
} Job;

/* One thread's own memory. */
typedef struct {
    vec *weight, *bias, *x, *g; /* (3, ky, kx), (3), (ring, x_row), (ring, 3, g_row) */
    vec *sum;                   /* (3, ky, kx) and behind it (3), in `partial` */
    num channel, live;          /* the first channel, and how many lanes are channels */
} Scratch;

INLINE num min(num a, num b) { return a < b ? a : b; }
INLINE num max(num a, num b) { return a > b ? a : b; }

/* Where the first pixel of a row lies. */
INLINE num row_of(const Job *j, const Scratch *s, const Map *map, num image, num row) {
    return image * j->call->c * map->h * map->w + row * map->w * map->pixel + s->channel * map->channel;
}

/* One row into vectors. The next one is fetched ahead: its lines lie too far apart for the hardware to guess. */
static void take(const Map *map, const float *from, vec *to, num live) {
    if (map->channel != 1 || live < LANES) {
        for (num lane = 0; lane < live; lane++)
            for (num t = 0; t < map->w; t++) to[t][lane] = from[lane * map->channel + t * map->pixel];
        return;
    }
    for (num t = 0; t < map->w; t++, from += map->pixel) {
        __builtin_prefetch(from + map->w * map->pixel);
        memcpy(to + t, from, sizeof *to);
    }
}

/* Vectors to every `step`-th of `width` pixels. */
INLINE void give(const Map *map, const vec *from, float *to, num width, num step, num live) {
    if (map->channel != 1 || live < LANES) {
        for (num lane = 0; lane < live; lane++)
            for (num t = 0; t < width; t++) to[lane * map->channel + t * step * map->pixel] = from[t][lane];
        return;
    }
    for (num t = 0; t < width; t++, to += step * map->pixel) {
        __builtin_prefetch(to + map->w * map->pixel, 1);
        memcpy(to, from + t, sizeof *from);
    }
}

/* The first `branches` convolutions at `width` neighbouring outputs of row y. */
INLINE void convolve(const Job *j, const Scratch *s, num y, num first, const int branches, const int width,
                     vec out[3][TILE]) {
    const num stride = j->call->stride, plane = j->ky * j->kx;
    const num low = max(0, j->pad_y - stride * y), high = min(j->ky, j->call->h + j->pad_y - stride * y);
    vec sum[3][TILE];
    for (int b = 0; b < branches; b++)
        for (int t = 0; t < width; t++) sum[b][t] = s->bias[b];
    for (num ky = low; ky < high; ky++) {
        const vec *x = s->x + ((stride * y + ky - j->pad_y) & (j->ring - 1)) * j->x_row + stride * first;
        const vec *weight = s->weight + ky * j->kx;
        for (num kx = 0; kx < j->kx; kx++, x++, weight++)
            for (int t = 0; t < width; t++) {
                vec pixel = x[stride * t];
                KEEP(pixel);
                for (int b = 0; b < branches; b++) sum[b][t] += weight[b * plane] * pixel;
            }
    }
    for (int b = 0; b < branches; b++)
        for (int t = 0; t < width; t++) out[b][t] = sum[b][t];
}

static void forward_row(const Job *j, const Scratch *s, num image, num y) {
    const Map *map = &j->out;
    float *to = j->call->y + row_of(j, s, map, image, y);
    const num tiles = (map->w + TILE - 1) / TILE;
    for (num tile = 0; tile < tiles; tile++) {
        const num first = map->w * tile / tiles, width = map->w * (tile + 1) / tiles - first;
        vec out[3][TILE];
#define FORWARD(count) convolve(j, s, y, first, 3, count, out)
        EACH(TILE, width, FORWARD)
        for (num t = 0; t < width; t++) out[2][t] += out[0][t] * out[1][t];
        give(map, out[2], to + first * map->pixel, width, 1, s->live);
    }
}

/* g o b, g o a and g of row y into the ring. */
static void factor_row(const Job *j, const Scratch *s, num image, num y) {
    const Map *map = &j->out;
    vec *a = s->g + (y & (j->ring - 1)) * 3 * j->g_row + j->g_left, *b = a + j->g_row, *g = b + j->g_row;
    take(map, j->call->grad + row_of(j, s, map, image, y), g, s->live);
    vec sum[3] = {{0}, {0}, {0}};
    const num tiles = (map->w + TILE - 1) / TILE;
    for (num tile = 0; tile < tiles; tile++) {
        const num first = map->w * tile / tiles, width = map->w * (tile + 1) / tiles - first;
        vec out[3][TILE];
#define FACTORS(count) convolve(j, s, y, first, 2, count, out)
        EACH(TILE, width, FACTORS)
        for (num t = 0; t < width; t++) {
            sum[0] += a[first + t] = g[first + t] * out[1][t];
            sum[1] += b[first + t] = g[first + t] * out[0][t];
            sum[2] += g[first + t];
        }
    }
    for (int i = 0; i < 3; i++) s->sum[3 * j->ky * j->kx + i] += sum[i];
}

/* Gradients of `width` neighbouring taps from one row of outputs and the row of x that they meet. */
INLINE void correlate(const Job *j, const vec *g, const vec *x, vec *total, const int width) {
    const num stride = j->call->stride, plane = j->ky * j->kx;
    vec sum[3][TILE];
    for (int b = 0; b < 3; b++)
        for (int t = 0; t < width; t++) sum[b][t] = (vec){0};
    for (num o = 0; o < j->out.w; o++, g++, x += stride) {
        const vec a = g[0], b = g[j->g_row], c = g[2 * j->g_row];
        for (int t = 0; t < width; t++) {
            vec pixel = x[t];
            KEEP(pixel);
            sum[0][t] += a * pixel;
            sum[1][t] += b * pixel;
            sum[2][t] += c * pixel;
        }
    }
    for (int b = 0; b < 3; b++)
        for (int t = 0; t < width; t++) total[b * plane + t] += sum[b][t];
}

static void weight_row(const Job *j, const Scratch *s, num y) {
    const num stride = j->call->stride, groups = (j->kx + TILE - 1) / TILE;
    const num low = max(0, j->pad_y - stride * y), high = min(j->ky, j->call->h + j->pad_y - stride * y);
    const vec *g = s->g + (y & (j->ring - 1)) * 3 * j->g_row + j->g_left;
    for (num ky = low; ky < high; ky++) {
        const vec *x = s->x + ((stride * y + ky - j->pad_y) & (j->ring - 1)) * j->x_row;
        for (num group = 0; group < groups; group++) {
            const num first = j->kx * group / groups, width = j->kx * (group + 1) / groups - first;
            vec *total = s->sum + ky * j->kx + first;
#define CORRELATE(count) correlate(j, g, x + first, total, count)
            EACH(TILE, width, CORRELATE)
        }
    }
}

/* grad_x of row q at the columns stride * (first + t) + phase - pad_x, t < width. */
INLINE void spread(const Job *j, const Scratch *s, num q, num first, num phase, const int width, vec *out) {
    const num stride = j->call->stride, plane = j->ky * j->kx, from = q + j->pad_y;
    vec sum[WIDE];
    for (int t = 0; t < width; t++) sum[t] = (vec){0};
    for (num ky = from % stride; ky < j->ky && ky <= from; ky += stride) {
        const num y = (from - ky) / stride;
        if (y >= j->out.h) continue;
        const vec *g = s->g + (y & (j->ring - 1)) * 3 * j->g_row + j->g_left + first;
        const vec *weight = s->weight + ky * j->kx;
        for (num kx = phase; kx < j->kx; kx += stride, g--)
            for (int b = 0; b < 3; b++) {
                const vec w = weight[b * plane + kx];
                for (int t = 0; t < width; t++) sum[t] += w * g[b * j->g_row + t];
            }
    }
    for (int t = 0; t < width; t++) out[t] = sum[t];
}

static void input_row(const Job *j, const Scratch *s, num image, num q) {
    const Map *map = &j->in;
    const num stride = j->call->stride;
    float *to = j->call->grad_x + row_of(j, s, map, image, q);
    for (num phase = 0; phase < stride; phase++) {
        const num begin = (max(0, j->pad_x - phase) + stride - 1) / stride;
        const num columns = max(0, (map->w + j->pad_x - phase + stride - 1) / stride - begin);
        const num tiles = (columns + WIDE - 1) / WIDE;
        for (num tile = 0; tile < tiles; tile++) {
            const num first = begin + columns * tile / tiles;
            const num width = begin + columns * (tile + 1) / tiles - first;
            vec out[WIDE];
#define SPREAD(count) spread(j, s, q, first, phase, count, out)
            EACH(WIDE, width, SPREAD)
            give(map, out, to + (stride * first + phase - j->pad_x) * map->pixel, width, stride, s->live);
        }
    }
}

static void one_image(const Job *j, const Scratch *s, num image) {
    const Call *call = j->call;
    num taken = 0, given = 0;
    for (num y = 0; y < j->out.h; y++) {
        for (; taken < min(call->h, call->stride * y + j->ky - j->pad_y); taken++) {
            vec *to = s->x + (taken & (j->ring - 1)) * j->x_row + j->pad_x;
            take(&j->in, call->x + row_of(j, s, &j->in, image, taken), to, s->live);
        }
        if (!call->grad) {
            forward_row(j, s, image, y);
            continue;
        }
        factor_row(j, s, image, y);
        if (call->grad_weight) weight_row(j, s, y);
        if (call->grad_x)
            for (; given < call->h && (y + 1 == j->out.h || (given + j->pad_y) / call->stride <= y); given++)
                input_row(j, s, image, given);
    }
}

/* The gradients of a block's parameters: its parts of the batch in order. */
static void finish(const Job *j, const Scratch *s, vec *part) {
    const num k = j->call->k, plane = j->ky * j->kx, size = 3 * plane + 3;
    for (num i = 0; i < size; i++)
        for (num other = 1; other < j->parts; other++) part[i] += part[other * size + i];
    for (num b = 0; b < 3; b++)
        for (num lane = 0; lane < s->live; lane++) {
            const num row = b * j->call->c + s->channel + lane;
            float *to = j->call->grad_weight + row * k * k;
            memset(to, 0, k * k * sizeof *to);
            j->call->grad_bias[row] = part[3 * plane + b][lane];
            for (num y = 0; y < j->ky; y++)
                for (num x = 0; x < j->kx; x++)
                    to[(y + j->dead_y) * k + x + j->dead_x] = part[b * plane + y * j->kx + x][lane];
        }
}

static void take_parameters(const Job *j, const Scratch *s) {
    const num k = j->call->k, plane = j->ky * j->kx;
    for (num b = 0; b < 3; b++)
        for (num lane = 0; lane < s->live; lane++) {
            const num row = b * j->call->c + s->channel + lane;
            const float *from = j->call->weight + row * k * k;
            s->bias[b][lane] = j->call->bias[row];
            for (num y = 0; y < j->ky; y++)
                for (num x = 0; x < j->kx; x++)
                    s->weight[b * plane + y * j->kx + x][lane] = from[(y + j->dead_y) * k + x + j->dead_x];
        }
}

static void one_task(Job *j, Scratch *s, num task) {
    const num block = task / j->parts, part = task % j->parts, size = 3 * j->ky * j->kx + 3;
    s->channel = block * LANES;
    s->live = min(LANES, j->call->c - s->channel);
    take_parameters(j, s);
    if (j->call->grad) {
        s->sum = j->partial + task * size;
        memset(s->sum, 0, size * sizeof(vec));
    }
    for (num image = j->call->n * part / j->parts; image < j->call->n * (part + 1) / j->parts; image++)
        one_image(j, s, image);
    if (j->call->grad_weight && __atomic_add_fetch(&j->done[block], 1, __ATOMIC_ACQ_REL) == j->parts)
        finish(j, s, j->partial + block * j->parts * size);
}

static void *lines(num bytes) { return aligned_alloc(64, (bytes + 63) / 64 * 64); }

static void work(void *shared) {
    Job *j = shared;
    const num plane = j->ky * j->kx;
    const num bytes = (3 * plane + 3 + j->ring * (j->x_row + 3 * j->g_row)) * sizeof(vec);
    Scratch s = {.weight = lines(bytes)};
    if (!s.weight) {
        __atomic_store_n(&j->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    memset(s.weight, 0, bytes);
    s.bias = s.weight + 3 * plane;
    s.x = s.bias + 3;
    s.g = s.x + j->ring * j->x_row;
    for (num task; (task = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED)) < j->blocks * j->parts;)
        one_task(j, &s, task);
    free(s.weight);
}

static Map map_of(const Call *call, num h, num w) {
    return (Map){h, w, call->planar ? 1 : call->c, call->planar ? h * w : 1};
}

/* Returns 0, or 1 where memory ran out. `parallel` is GOMP_parallel of the OpenMP runtime, or null: one thread. */
int quadratic_depthwise(const Call *call, unsigned threads,
                        void (*parallel)(void (*)(void *), void *, unsigned, unsigned)) {
    const num stride = call->stride, half = call->k / 2;
    Job j = {.call = call, .ring = 1};
    j.blocks = (call->c + LANES - 1) / LANES;
    j.parts = min(call->n, (64 + (call->c + 15) / 16 - 1) / ((call->c + 15) / 16)); /* work for 64 threads */
    j.in = map_of(call, call->h, call->w);
    j.out = map_of(call, (call->h + stride - 1) / stride, (call->w + stride - 1) / stride);
    j.dead_y = max(0, half - (call->h - 1));
    j.dead_x = max(0, half - (call->w - 1));
    j.ky = call->k - 2 * j.dead_y;
    j.kx = call->k - 2 * j.dead_x;
    j.pad_y = j.ky / 2;
    j.pad_x = j.kx / 2;
    while (j.ring <= j.ky) j.ring *= 2;
    j.x_row = call->w + 2 * j.pad_x;
    if (call->grad) {
        j.g_left = (j.kx - 1) / stride;
        j.g_row = j.g_left + max(j.out.w, (call->w - 1 + j.pad_x) / stride + 1);
        j.partial = lines(j.blocks * j.parts * (3 * j.ky * j.kx + 3) * sizeof(vec));
        j.done = calloc(j.blocks, sizeof *j.done);
    }
    j.failed = call->grad && !(j.partial && j.done);
    if (!j.failed && threads > 1 && parallel) parallel(work, &j, threads, 0);
    else if (!j.failed) work(&j);
    free(j.partial);
    free(j.done);
    return (int)j.failed;
}
