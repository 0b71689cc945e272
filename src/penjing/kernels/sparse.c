/* Convolution by few weights that are not zero: each is added, times what it reads, to all positions of its output.

   Pictures are copied to planes with a margin, one for each channel and phase of the stride that weights read, so that
   what a weight reads of a plane lies at one offset from every position: a plane is one long vector, and the columns of
   the margin are computed and thrown away. Up to 14 registers hold positions of an output while its weights of some
   channels pass by: as many channels as the nearest cache holds of what a strip of an output, about so many registers,
   reads. Where a row is a whole number of registers, there is a copy of each plane for every column of the kernel,
   shifted by it, so that no load crosses a line of the cache. */

#include "kernels.h"

struct sparse {
    int64_t images, channels, height, width, outs;
    int64_t stride_h, stride_w, pad_top, pad_left;
    int64_t phases_h, phases_w;                /* of the stride, those that a weight reads: 0 to so many */
    int64_t rows, pitch, plane, copies, shift; /* of a plane; floats from one plane to the next; columns apart */
    int64_t out_h, out_w, length;              /* length: floats of an output, out_h * pitch up to a register */
    int64_t blocks, strips;                    /* of channels; of an output's lines */
};

struct job {
    struct sparse s;
    const float *x, *bias, *values;
    const int32_t *offsets;
    const int64_t *starts; /* [blocks * outs + 1] where the weights of a block and output begin */
    float *planes, *sums, *y;
};

enum { LINE = 16, MOST = 14 };

BEST_FOR(__builtin_cpu_supports("avx512f"), __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))

/* ---------------------------------------------------------------------------------------------------------- planes */

INLINE void copy_every(float *to, const float *from, int64_t count, const int64_t stride) {
    for (int64_t k = 0; k < count; k++) to[k] = from[k * stride];
}

static void lay_out(const void *given, ptrdiff_t from, ptrdiff_t to) {
    const struct job *j = given;
    const struct sparse *s = &j->s;
    for (int64_t unit = from * s->phases_h * s->phases_w; unit < to * s->phases_h * s->phases_w; unit++) {
        int64_t across = unit % s->phases_w, down = unit / s->phases_w % s->phases_h;
        int64_t c = unit / (s->phases_w * s->phases_h);
        const float *x = j->x + c * s->height * s->width;
        float *plane = j->planes + unit * s->copies * s->plane;
        /* the first and the one behind the last column inside the picture, and the column of the picture read first */
        int64_t first = s->pad_left > across ? (s->pad_left - across + s->stride_w - 1) / s->stride_w : 0;
        int64_t last = s->width + s->pad_left > across ? (s->width + s->pad_left - across - 1) / s->stride_w + 1 : 0;
        if (last > s->pitch) last = s->pitch;
        int64_t count = last - first, column = first * s->stride_w + across - s->pad_left;
        memset(plane, 0, (size_t)s->plane * sizeof *plane);
        for (int64_t i = 0; i < s->rows && count > 0; i++) {
            int64_t y = i * s->stride_h + down - s->pad_top;
            if (y < 0 || y >= s->height) continue;
            float *row = plane + i * s->pitch + first;
            const float *read = x + y * s->width + column;
            if (s->stride_w == 1)
                memcpy(row, read, (size_t)count * sizeof *row);
            else if (s->stride_w == 2)
                copy_every(row, read, count, 2);
            else
                copy_every(row, read, count, s->stride_w);
        }
        for (int64_t k = 1; k < s->copies; k++) {
            int64_t by = k * s->shift, left = s->plane - by;
            memcpy(plane + k * s->plane, plane + by, (size_t)left * sizeof *plane);
            memset(plane + k * s->plane + left, 0, (size_t)by * sizeof *plane);
        }
    }
}

/* ------------------------------------------------------------------------------------------------------------ sums

   `add_*` adds what `count` weights read to `length` floats of an output, a multiple of LINE.

   Lines go in pieces of about one size. Where a piece has few, weights that follow one another are summed in registers
   of their own, `chains` of them, since a sum that waits for the one before leaves most of the time unused. */

typedef void (*add)(const float *x, const int32_t *offsets, const float *values, int64_t count, float *sums,
                    int64_t length);

/* Sums of `lines` lines in `chains` chains: lines * chains * LINE floats must fit into the registers. */
#define ADD_LINES(path, target, vector, load, store, spread, add_product)                                             \
    target INLINE void add_lines_##path(const float *x, const int32_t *offsets, const float *values, int64_t count,   \
                                        float *sums, const int lines, const int chains) {                             \
        enum { WIDTH = sizeof(vector) / sizeof(float) };                                                              \
        const int each = lines * LINE / WIDTH;                                                                        \
        vector some[MOST];                                                                                            \
        _Pragma("GCC unroll 14") for (int i = 0; i < each * chains; i++)                                              \
            some[i] = i < each ? load(sums + WIDTH * i) : spread(0.0f);                                               \
        int64_t k = 0;                                                                                                \
        for (; k + chains <= count; k += chains)                                                                      \
            _Pragma("GCC unroll 14") for (int i = 0; i < each * chains; i++)                                          \
                some[i] = add_product(spread(values[k + i / each]),                                                   \
                                      load(x + offsets[k + i / each] + WIDTH * (i % each)), some[i]);                 \
        for (; k < count; k++)                                                                                        \
            _Pragma("GCC unroll 14") for (int i = 0; i < each; i++)                                                   \
                some[i] = add_product(spread(values[k]), load(x + offsets[k] + WIDTH * i), some[i]);                  \
        _Pragma("GCC unroll 14") for (int i = each; i < each * chains; i++) some[i % each] += some[i];                \
        _Pragma("GCC unroll 14") for (int i = 0; i < each; i++) store(sums + WIDTH * i, some[i]);                     \
    }

/* `add_*`: lines in pieces of `most` at most, each with the chains that CASES have for it. */
#define ADD(path, target, most, CASES)                                                                                \
    target static void add_##path(const float *x, const int32_t *offsets, const float *values, int64_t count,         \
                                  float *sums, int64_t length) {                                                      \
        int64_t lines = length / LINE, pieces = (lines + (most) - 1) / (most);                                        \
        for (int64_t piece = 0; piece < pieces; piece++) {                                                            \
            int64_t first = lines * piece / pieces, last = lines * (piece + 1) / pieces, at = first * LINE;           \
            switch (last - first) { CASES(path) }                                                                     \
        }                                                                                                             \
    }

#define LINES(path, lines, chains) \
    case lines: add_lines_##path(x + at, offsets, values, count, sums + at, lines, chains); break;

typedef float four __attribute__((vector_size(16)));

INLINE four load_four(const float *x) {
    four held;
    memcpy(&held, x, sizeof held);
    return held;
}

INLINE void store_four(float *x, four held) { memcpy(x, &held, sizeof held); }

#define SPREAD_FOUR(value) ((four){value, value, value, value})
#define ADD_FOUR(a, b, c) ((c) + (a) * (b))
#define CASES_PORTABLE(path) LINES(path, 1, 2) LINES(path, 2, 1)
ADD_LINES(portable, , four, load_four, store_four, SPREAD_FOUR, ADD_FOUR)
ADD(portable, , 2, CASES_PORTABLE)

#if X86
#define CASES_AVX2(path) \
    LINES(path, 1, 4) LINES(path, 2, 2) LINES(path, 3, 2) LINES(path, 4, 1) LINES(path, 5, 1) LINES(path, 6, 1)
ADD_LINES(avx2, TARGET("avx2,fma"), __m256, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_fmadd_ps)
ADD(avx2, TARGET("avx2,fma"), 6, CASES_AVX2)

#define CASES_AVX512(path)                                                                                            \
    LINES(path, 1, 8) LINES(path, 2, 4) LINES(path, 3, 4) LINES(path, 4, 2) LINES(path, 5, 2) LINES(path, 6, 2)       \
    LINES(path, 7, 2) LINES(path, 8, 1) LINES(path, 9, 1) LINES(path, 10, 1) LINES(path, 11, 1) LINES(path, 12, 1)    \
    LINES(path, 13, 1) LINES(path, 14, 1)
ADD_LINES(avx512, TARGET("avx512f"), __m512, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, _mm512_fmadd_ps)
ADD(avx512, TARGET("avx512f"), 14, CASES_AVX512)
#endif

INLINE void convolve(const struct job *j, ptrdiff_t from, ptrdiff_t to, add adds) {
    const struct sparse *s = &j->s;
    for (ptrdiff_t o = from; o < to; o++)
        for (int64_t i = 0; i < s->length; i++) j->sums[o * s->length + i] = j->bias[o];
    for (int64_t strip = 0, lines = s->length / LINE; strip < s->strips; strip++) {
        int64_t at = lines * strip / s->strips * LINE, length = lines * (strip + 1) / s->strips * LINE - at;
        for (int64_t b = 0; b < s->blocks; b++) {
            const int64_t *starts = j->starts + b * s->outs;
            for (ptrdiff_t o = from; o < to; o++) {
                int64_t k = starts[o], count = starts[o + 1] - k;
                float *sums = j->sums + o * s->length + at;
                if (count) adds(j->planes + at, j->offsets + k, j->values + k, count, sums, length);
            }
        }
    }
    for (ptrdiff_t o = from; o < to; o++)
        for (int64_t i = 0; i < s->out_h; i++)
            memcpy(j->y + (o * s->out_h + i) * s->out_w, j->sums + o * s->length + i * s->pitch,
                   (size_t)s->out_w * sizeof(float));
}

static void convolve_portable(const void *job, ptrdiff_t from, ptrdiff_t to) { convolve(job, from, to, add_portable); }

#if X86
static void convolve_avx2(const void *job, ptrdiff_t from, ptrdiff_t to) { convolve(job, from, to, add_avx2); }

static void convolve_avx512(const void *job, ptrdiff_t from, ptrdiff_t to) { convolve(job, from, to, add_avx512); }
#endif

/* y = conv(x, weights) + bias; 0, or 1 where there is no memory.
   Shapes: x [images, channels, height, width]; bias [outs]; values and offsets [weights that are not zero], by block of
   channels and output; y [images, outs, out_h, out_w]. */
EXPORTED int sparse_conv2d(const struct sparse *s, const float *x, const float *bias, const float *values,
                           const int32_t *offsets, const int64_t *starts, float *y, int path, int threads) {
    struct job j = {.s = *s, .bias = bias, .values = values, .offsets = offsets, .starts = starts};
    size_t planes = (size_t)(s->channels * s->phases_h * s->phases_w * s->copies * s->plane) * sizeof(float);
    size_t sums = (size_t)(s->outs * s->length) * sizeof(float), line = LINE * sizeof(float);
    j.planes = aligned_alloc(line, (planes + line - 1) / line * line);
    j.sums = aligned_alloc(line, (sums + line - 1) / line * line);
    if (!j.planes || !j.sums) {
        free(j.planes);
        free(j.sums);
        return 1;
    }
    work_on convolves = convolve_portable;
#if X86
    if (path == AVX2) convolves = convolve_avx2;
    if (path == AVX512) convolves = convolve_avx512;
#endif
    for (int64_t n = 0; n < s->images; n++) {
        j.x = x + n * s->channels * s->height * s->width;
        j.y = y + n * s->outs * s->out_h * s->out_w;
        share_out(lay_out, &j, s->channels, threads);
        share_out(convolves, &j, s->outs, threads);
    }
    free(j.planes);
    free(j.sums);
    return 0;
}
