/* Convolution by few weights that are not zero: each is added, times what it reads, to all positions of its output.

   Pictures are copied to planes with a margin, one for each channel and phase of the stride, so that what a weight reads
   of a plane lies at one offset from every position: a plane is one long vector, and the columns of the margin are
   computed and thrown away. Up to 14 registers hold positions of an output while its weights of some channels, as many
   as the nearest cache holds, pass by. Where a row is a whole number of registers, there is a copy of each plane for
   every column of the kernel, shifted by it, so that no load crosses a line of the cache. */

#include "kernels.h"

struct sparse {
    int64_t images, channels, height, width, outs;
    int64_t stride_h, stride_w, pad_top, pad_left;
    int64_t rows, pitch, plane, copies, shift; /* of a plane; floats from one plane to the next; columns apart */
    int64_t out_h, out_w, length, blocks;      /* length: floats of an output, out_h * pitch up to a register */
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

static void lay_out(const void *given, ptrdiff_t from, ptrdiff_t to) {
    const struct job *j = given;
    const struct sparse *s = &j->s;
    for (ptrdiff_t c = from; c < to; c++) {
        const float *x = j->x + c * s->height * s->width;
        for (int64_t phase = 0; phase < s->stride_h * s->stride_w; phase++) {
            int64_t down = phase / s->stride_w, across = phase % s->stride_w;
            float *plane = j->planes + (c * s->stride_h * s->stride_w + phase) * s->copies * s->plane;
            for (int64_t i = 0; i < s->rows; i++) {
                float *row = plane + i * s->pitch;
                int64_t y = i * s->stride_h + down - s->pad_top;
                if (y < 0 || y >= s->height) {
                    memset(row, 0, (size_t)s->pitch * sizeof *row);
                    continue;
                }
                const float *read = x + y * s->width;
                /* the first and the one behind the last column inside the picture */
                int64_t first = (s->pad_left - across + s->stride_w - 1) / s->stride_w;
                int64_t last = (s->width + s->pad_left - across + s->stride_w - 1) / s->stride_w;
                if (s->pad_left < across) first = 0;
                if (s->width + s->pad_left < across) last = 0;
                if (last > s->pitch) last = s->pitch;
                if (first > last) first = last;
                memset(row, 0, (size_t)first * sizeof *row);
                if (s->stride_w == 1)
                    memcpy(row + first, read + first - s->pad_left, (size_t)(last - first) * sizeof *row);
                else
                    for (int64_t k = first; k < last; k++) row[k] = read[k * s->stride_w + across - s->pad_left];
                memset(row + last, 0, (size_t)(s->pitch - last) * sizeof *row);
            }
            memset(plane + s->rows * s->pitch, 0, (size_t)(s->plane - s->rows * s->pitch) * sizeof *plane);
            for (int64_t k = 1; k < s->copies; k++) {
                int64_t by = k * s->shift, left = s->plane - by;
                memcpy(plane + k * s->plane, plane + by, (size_t)left * sizeof *plane);
                memset(plane + k * s->plane + left, 0, (size_t)by * sizeof *plane);
            }
        }
    }
}

/* ------------------------------------------------------------------------------------------------------------ sums

   `add_*` adds what `count` weights read to `length` floats of an output, a multiple of LINE. */

typedef void (*add)(const float *x, const int32_t *offsets, const float *values, int64_t count, float *sums,
                    int64_t length);

static void add_portable(const float *x, const int32_t *offsets, const float *values, int64_t count, float *sums,
                         int64_t length) {
    for (int64_t at = 0; at < length; at += LINE) {
        float some[LINE];
        memcpy(some, sums + at, sizeof some);
        for (int64_t k = 0; k < count; k++)
            for (int i = 0; i < LINE; i++) some[i] += values[k] * x[offsets[k] + at + i];
        memcpy(sums + at, some, sizeof some);
    }
}

#if X86
#define NARROW TARGET("avx2,fma")

NARROW INLINE void add_avx2_of(const float *x, const int32_t *offsets, const float *values, int64_t count, float *sums,
                               const int lines) {
    __m256 some[12];
#pragma GCC unroll 12
    for (int i = 0; i < 2 * lines; i++) some[i] = _mm256_loadu_ps(sums + 8 * i);
    for (int64_t k = 0; k < count; k++) {
        const float *at = x + offsets[k];
        __m256 value = _mm256_broadcast_ss(values + k);
#pragma GCC unroll 12
        for (int i = 0; i < 2 * lines; i++) some[i] = _mm256_fmadd_ps(value, _mm256_loadu_ps(at + 8 * i), some[i]);
    }
#pragma GCC unroll 12
    for (int i = 0; i < 2 * lines; i++) _mm256_storeu_ps(sums + 8 * i, some[i]);
}

NARROW static void add_avx2(const float *x, const int32_t *offsets, const float *values, int64_t count, float *sums,
                            int64_t length) {
    int64_t at = 0;
    for (; at + 6 * LINE <= length; at += 6 * LINE) add_avx2_of(x + at, offsets, values, count, sums + at, 6);
    for (; at + 3 * LINE <= length; at += 3 * LINE) add_avx2_of(x + at, offsets, values, count, sums + at, 3);
    for (; at < length; at += LINE) add_avx2_of(x + at, offsets, values, count, sums + at, 1);
}

#define WIDE TARGET("avx512f")

WIDE INLINE void add_avx512_of(const float *x, const int32_t *offsets, const float *values, int64_t count, float *sums,
                               const int lines) {
    __m512 some[MOST];
#pragma GCC unroll 14
    for (int i = 0; i < lines; i++) some[i] = _mm512_loadu_ps(sums + LINE * i);
    for (int64_t k = 0; k < count; k++) {
        const float *at = x + offsets[k];
        __m512 value = _mm512_set1_ps(values[k]);
#pragma GCC unroll 14
        for (int i = 0; i < lines; i++) some[i] = _mm512_fmadd_ps(value, _mm512_loadu_ps(at + LINE * i), some[i]);
    }
#pragma GCC unroll 14
    for (int i = 0; i < lines; i++) _mm512_storeu_ps(sums + LINE * i, some[i]);
}

WIDE static void add_avx512(const float *x, const int32_t *offsets, const float *values, int64_t count, float *sums,
                            int64_t length) {
    int64_t at = 0;
    for (; at + MOST * LINE <= length; at += MOST * LINE)
        add_avx512_of(x + at, offsets, values, count, sums + at, MOST);
#define LINES(n) \
    case n: add_avx512_of(x + at, offsets, values, count, sums + at, n); break;
    switch ((length - at) / LINE) {
        LINES(1) LINES(2) LINES(3) LINES(4) LINES(5) LINES(6) LINES(7) LINES(8) LINES(9) LINES(10) LINES(11) LINES(12)
        LINES(13)
    }
}
#endif

INLINE void convolve(const struct job *j, ptrdiff_t from, ptrdiff_t to, add adds) {
    const struct sparse *s = &j->s;
    for (ptrdiff_t o = from; o < to; o++)
        for (int64_t i = 0; i < s->length; i++) j->sums[o * s->length + i] = j->bias[o];
    for (int64_t b = 0; b < s->blocks; b++) {
        const int64_t *starts = j->starts + b * s->outs;
        for (ptrdiff_t o = from; o < to; o++) {
            int64_t first = starts[o], count = starts[o + 1] - first;
            if (count) adds(j->planes, j->offsets + first, j->values + first, count, j->sums + o * s->length, s->length);
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
    size_t planes = (size_t)(s->channels * s->stride_h * s->stride_w * s->copies * s->plane) * sizeof(float);
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
