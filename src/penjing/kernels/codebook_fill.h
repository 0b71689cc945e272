/* Outputs of codebook.c, a tile at a time, on each path; `fill_for` picks the function. See there for how codes lie. */

#ifndef PENJING_CODEBOOK_FILL_H
#define PENJING_CODEBOOK_FILL_H

#include "kernels.h"

enum { LANES = 16, ROWS = 4, PIXELS = 4, LEVELS = 16, STRIP = 32, STRIP_BYTES = 1 << 18, AHEAD = 4096 };

BEST_FOR(__builtin_cpu_supports("avx512f"), __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))

struct job;
struct tile;
typedef void (*fill)(const struct job *j, const struct tile *t);

struct job {
    struct convolution s;
    int64_t bits, depth, blocks, row_bytes; /* row_bytes: codes of a filter */
    int64_t step, gathered;                 /* floats of a pixel, all groups; whether a filter's inputs are copied out */
    const int64_t *offsets;                 /* [depth] from a pixel's first float to each vector that a filter reads */
    const float *x, *table, *scale, *bias;  /* table [LEVELS], repeated where there are fewer */
    const uint8_t *codes;
    float *packed, *y;                      /* packed: [images, padded_h, padded_w, step] */
    int *failed;
    fill fill;
};

struct tile {
    const float *const *pixels; /* the first float that each output reads */
    const uint8_t *codes;       /* of the block */
    const float *scale, *bias;
    float *y;
    int64_t filters, count, filter_step, pixel_step; /* filters and pixels there are; from one output to the next */
};

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* `fill` computes up to PIXELS outputs of one block of filters. A block of fewer filters reads its last several times.
   Sums of ROWS filters at one pixel, times scale plus bias, are its outputs there. */

INLINE void finish(const struct tile *t, int64_t pixel, int64_t first, int64_t rows, const float *sums) {
    float *y = t->y + pixel * t->pixel_step;
    for (int64_t r = 0; r < rows && first + r < t->filters; r++)
        y[(first + r) * t->filter_step] = sums[r] * t->scale[first + r] + t->bias[first + r];
}

INLINE void fill_portable_of(const struct job *j, const struct tile *t, const int bits, const int pixels,
                             const int64_t first) {
    const int per = 32 / bits, each = 8 / bits;
    const int64_t whole = j->depth / per, n = t->filters;
    for (int64_t r = 0; r < n; r++) {
        float sums[PIXELS][LANES] = {{0}};
        for (int64_t v = 0; v < j->depth; v++) {
            int64_t chunk = v / per, at = v % per, offset = j->offsets[v];
            const uint8_t *w;
            int64_t apart;
            if (chunk < whole)
                w = t->codes + (chunk * n + r) * LANES * 4 + at / each, apart = 4;
            else
                w = t->codes + whole * n * LANES * 4 + (at / each * n + r) * LANES, apart = 1;
            float weights[LANES];
            for (int l = 0; l < LANES; l++) weights[l] = j->table[w[l * apart] >> at % each * bits & ((1 << bits) - 1)];
            for (int m = 0; m < pixels; m++) {
                const float *x = t->pixels[first + m] + offset;
                for (int l = 0; l < LANES; l++) sums[m][l] += weights[l] * x[l];
            }
        }
        for (int m = 0; m < pixels; m++) {
            for (int half = LANES / 2; half; half /= 2)
                for (int l = 0; l < half; l++) sums[m][l] += sums[m][l + half];
            finish(t, first + m, r, 1, sums[m]);
        }
    }
}

#if X86
#define NARROW TARGET("avx2,fma")
#define WIDE TARGET("avx512f,avx2,fma")

/* `finish` for several pixels: whole where filters, or else four pixels, lie side by side. */
INLINE void finish_sse(const struct tile *t, int64_t pixel, int64_t row, int64_t rows, __m128 *sums, const int pixels) {
    if (t->filter_step == 1 && rows == ROWS && t->filters == ROWS) {
        __m128 scale = _mm_loadu_ps(t->scale), bias = _mm_loadu_ps(t->bias);
#pragma GCC unroll 4
        for (int m = 0; m < pixels; m++)
            _mm_storeu_ps(t->y + (pixel + m) * t->pixel_step, _mm_add_ps(_mm_mul_ps(sums[m], scale), bias));
    } else if (t->pixel_step == 1 && pixels == PIXELS) {
        _MM_TRANSPOSE4_PS(sums[0], sums[1], sums[2], sums[3]);
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            if (r >= rows || row + r >= t->filters) break;
            __m128 scale = _mm_set1_ps(t->scale[row + r]), bias = _mm_set1_ps(t->bias[row + r]);
            _mm_storeu_ps(t->y + (row + r) * t->filter_step + pixel, _mm_add_ps(_mm_mul_ps(sums[r], scale), bias));
        }
    } else {
        for (int m = 0; m < pixels; m++) {
            float each[ROWS];
            _mm_storeu_ps(each, sums[m]);
            finish(t, pixel + m, row, rows, each);
        }
    }
}

/* Sums over the lanes of four registers. */
NARROW INLINE __m128 across(__m256 a, __m256 b, __m256 c, __m256 d) {
    __m256 both = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1));
}

NARROW INLINE __m256 decode_avx2(__m256i codes, __m256 low, __m256 high, const int bits) {
    __m256 found = _mm256_permutevar8x32_ps(low, codes);
    if (bits < 4) return found;
    __m256 other = _mm256_permutevar8x32_ps(high, codes);
    return _mm256_blendv_ps(found, other, _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28)));
}

/* `steps` vectors, of the half of their lanes that begins at `lane`. */
NARROW INLINE void add_avx2(const struct job *j, const float *const *x, __m256i *codes, int64_t v, int64_t steps,
                            int64_t lane, __m256 low, __m256 high, __m256 sums[ROWS][PIXELS], const int bits,
                            const int rows, const int pixels) {
    for (int64_t i = 0; i < steps; i++) {
        int64_t offset = j->offsets[v + i] + lane;
        __m256 weights[ROWS];
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            weights[r] = decode_avx2(codes[r], low, high, bits);
            codes[r] = _mm256_srli_epi32(codes[r], bits);
        }
#pragma GCC unroll 4
        for (int m = 0; m < pixels; m++) {
            __m256 here = _mm256_loadu_ps(x[m] + offset);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) sums[r][m] = _mm256_fmadd_ps(weights[r], here, sums[r][m]);
        }
    }
}

NARROW INLINE void fill_avx2_of(const struct job *j, const struct tile *t, const int bits, const int rows,
                                const int pixels, const int64_t row, const int64_t first) {
    const int per = 32 / bits, each = 8 / bits;
    const __m256 low = _mm256_loadu_ps(j->table), high = _mm256_loadu_ps(j->table + 8);
    const uint8_t *w = t->codes;
    const float *x[PIXELS];
    int64_t n = t->filters, of[ROWS], v = 0;
    __m256 sums[ROWS][PIXELS];
    __m256i codes[ROWS];
#pragma GCC unroll 4
    for (int m = 0; m < pixels; m++) x[m] = t->pixels[first + m];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++) {
        of[r] = smaller(row + r, n - 1) * LANES;
#pragma GCC unroll 4
        for (int m = 0; m < PIXELS; m++) sums[r][m] = _mm256_setzero_ps();
    }
    for (; v + per <= j->depth; v += per, w += n * LANES * 4)
        for (int half = 0; half < 2; half++) {
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                if (!half) _mm_prefetch((const char *)w + of[r] * 4 + AHEAD, _MM_HINT_T0);
                codes[r] = _mm256_loadu_si256((const __m256i *)(w + of[r] * 4 + half * 32));
            }
            add_avx2(j, x, codes, v, per, half * 8, low, high, sums, bits, rows, pixels);
        }
    for (; v < j->depth; v += each, w += n * LANES)
        for (int half = 0; half < 2; half++) {
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++)
                codes[r] = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(w + of[r] + half * 8)));
            add_avx2(j, x, codes, v, smaller(each, j->depth - v), half * 8, low, high, sums, bits, rows, pixels);
        }
    __m128 outputs[PIXELS];
#pragma GCC unroll 4
    for (int m = 0; m < pixels; m++) outputs[m] = across(sums[0][m], sums[1][m], sums[2][m], sums[3][m]);
    finish_sse(t, first, row, rows, outputs, pixels);
}

WIDE INLINE __m256 halved(__m512 a) {
    return _mm256_add_ps(_mm512_castps512_ps256(a),
                         _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1)));
}

WIDE INLINE void add_avx512(const struct job *j, const float *const *x, __m512i *codes, int64_t v, int64_t steps,
                            __m512 table, __m512 sums[ROWS][PIXELS], const int bits, const int pixels) {
#pragma GCC unroll 2
    for (int64_t i = 0; i < steps; i++) {
        int64_t offset = j->offsets[v + i];
        __m512 here[PIXELS];
#pragma GCC unroll 4
        for (int m = 0; m < pixels; m++) here[m] = _mm512_loadu_ps(x[m] + offset);
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) { /* a look-up minds the lowest 4 bits alone */
            __m512 weights = _mm512_permutexvar_ps(codes[r], table);
            codes[r] = _mm512_srli_epi32(codes[r], (unsigned)bits);
#pragma GCC unroll 4
            for (int m = 0; m < pixels; m++) sums[r][m] = _mm512_fmadd_ps(weights, here[m], sums[r][m]);
        }
    }
}

WIDE INLINE void fill_avx512_of(const struct job *j, const struct tile *t, const int bits, const int pixels,
                                const int64_t first) {
    const int per = 32 / bits, each = 8 / bits;
    const __m512 table = _mm512_loadu_ps(j->table);
    const uint8_t *w = t->codes;
    const float *x[PIXELS];
    int64_t n = t->filters, of[ROWS], v = 0;
    __m512 sums[ROWS][PIXELS];
    __m512i codes[ROWS];
#pragma GCC unroll 4
    for (int m = 0; m < pixels; m++) x[m] = t->pixels[first + m];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++) {
        of[r] = smaller(r, n - 1) * LANES;
#pragma GCC unroll 4
        for (int m = 0; m < pixels; m++) sums[r][m] = _mm512_setzero_ps();
    }
    for (; v + per <= j->depth; v += per, w += n * LANES * 4) {
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            _mm_prefetch((const char *)w + of[r] * 4 + AHEAD, _MM_HINT_T0);
            codes[r] = _mm512_loadu_si512(w + of[r] * 4);
        }
        add_avx512(j, x, codes, v, per, table, sums, bits, pixels);
    }
    for (; v < j->depth; v += each, w += n * LANES) {
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) codes[r] = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(w + of[r])));
        add_avx512(j, x, codes, v, smaller(each, j->depth - v), table, sums, bits, pixels);
    }
    __m128 outputs[PIXELS];
#pragma GCC unroll 4
    for (int m = 0; m < pixels; m++)
        outputs[m] = across(halved(sums[0][m]), halved(sums[1][m]), halved(sums[2][m]), halved(sums[3][m]));
    finish_sse(t, first, 0, ROWS, outputs, pixels);
}
#endif

/* A function for each number of bits, which runs the widest tile that there are pixels for. */
#define FILLS(path, features, many, two, one)                                       \
    features static void fill_##path##_1(const struct job *j, const struct tile *t) \
        FILL_WITH(1, path, many, two, one)                                          \
    features static void fill_##path##_2(const struct job *j, const struct tile *t) \
        FILL_WITH(2, path, many, two, one)                                          \
    features static void fill_##path##_4(const struct job *j, const struct tile *t) \
        FILL_WITH(4, path, many, two, one)

#define FILL_WITH(bits, path, many, two, one)    \
    {                                            \
        int64_t i = 0;                           \
        if (t->count == PIXELS) {                \
            many(bits, 0);                       \
            return;                              \
        }                                        \
        for (; i + 2 <= t->count; i += 2) two(bits, i); \
        if (i < t->count) one(bits, i);          \
    }

#define PORTABLE_4(bits, i) fill_portable_of(j, t, bits, PIXELS, i)
#define PORTABLE_2(bits, i) fill_portable_of(j, t, bits, 2, i)
#define PORTABLE_1(bits, i) fill_portable_of(j, t, bits, 1, i)
FILLS(portable, , PORTABLE_4, PORTABLE_2, PORTABLE_1)

#if X86
/* Of 16 registers, sums take 8. */
#define AVX2_4(bits, i) \
    for (int64_t row = 0; row < ROWS; row += 2) fill_avx2_of(j, t, bits, 2, PIXELS, row, i)
#define AVX2_2(bits, i) fill_avx2_of(j, t, bits, ROWS, 2, 0, i)
#define AVX2_1(bits, i) fill_avx2_of(j, t, bits, ROWS, 1, 0, i)
FILLS(avx2, NARROW, AVX2_4, AVX2_2, AVX2_1)

#define AVX512_4(bits, i) fill_avx512_of(j, t, bits, PIXELS, i)
#define AVX512_2(bits, i) fill_avx512_of(j, t, bits, 2, i)
#define AVX512_1(bits, i) fill_avx512_of(j, t, bits, 1, i)
FILLS(avx512, WIDE, AVX512_4, AVX512_2, AVX512_1)
#endif

static fill fill_for(int64_t bits, int path) {
    int width = bits == 1 ? 0 : bits == 2 ? 1 : 2;
#if X86
    if (path == AVX2) return (fill[]){fill_avx2_1, fill_avx2_2, fill_avx2_4}[width];
    if (path == AVX512) return (fill[]){fill_avx512_1, fill_avx512_2, fill_avx512_4}[width];
#endif
    (void)path;
    return (fill[]){fill_portable_1, fill_portable_2, fill_portable_4}[width];
}

#endif
