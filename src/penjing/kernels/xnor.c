/* Convolution of signs by signs: XOR and popcount, 64 channels a word.

   A bit says +1. Weights are [groups][outs / 8][taps * words][8], zeros up to 8 filters: a register of 8 words is one
   word of 8 filters, so that counts need never be added up across a register. Inputs are packed on the way in, to
   [images][groups][padded rows][padded columns][words]; what lies around the picture is 0, which is -1, and bits behind
   the last channel are 0 in both. A filter's sum is then n - 2 * count, n being the number of its weights. */

#include "kernels.h"

struct job {
    struct convolution s;
    int64_t words, deep;     /* words of a pixel; words of a filter */
    const int64_t *offsets;  /* [deep] from a pixel's first word to each that a filter reads */
    const float *x, *threshold, *scale, *bias;
    const uint64_t *flip, *weights;
    uint64_t *packed;
    float *y;
};

BEST_FOR(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vpopcntdq"),
         __builtin_cpu_supports("avx2"))

/* ---------------------------------------------------------------------------------------------------------- packing

   A unit of work is one word of all pixels of one group of one image. `signs_*` writes the word of `count` pixels that
   follow one another: +1 where x >= threshold. */

enum { CHUNK = 64, BITS = 64, HALF = 32 };

typedef void (*signs_of)(const float *x, int64_t area, const float *threshold, int64_t channels, int64_t count,
                         uint64_t *words);

static void signs_portable(const float *x, int64_t area, const float *threshold, int64_t channels, int64_t count,
                           uint64_t *words) {
    memset(words, 0, (size_t)count * sizeof *words);
    for (int64_t c = 0; c < channels; c++)
        for (int64_t i = 0; i < count; i++) words[i] |= (uint64_t)(x[c * area + i] >= threshold[c]) << c;
}

#if X86
TARGET("avx2")
static void signs_avx2(const float *x, int64_t area, const float *threshold, int64_t channels, int64_t count,
                       uint64_t *words) {
    uint32_t halves[2][16];
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) {
        for (int64_t half = 0; half < 2; half++) {
            __m256i a = _mm256_setzero_si256(), b = a, bit = _mm256_set1_epi32(1);
            int64_t last = channels < (half + 1) * HALF ? channels : (half + 1) * HALF;
            for (int64_t c = half * HALF; c < last; c++) {
                const float *at = x + c * area + i;
                __m256 t = _mm256_set1_ps(threshold[c]);
                __m256 more = _mm256_cmp_ps(_mm256_loadu_ps(at), t, _CMP_GE_OQ);
                __m256 next = _mm256_cmp_ps(_mm256_loadu_ps(at + 8), t, _CMP_GE_OQ);
                a = _mm256_or_si256(a, _mm256_and_si256(_mm256_castps_si256(more), bit));
                b = _mm256_or_si256(b, _mm256_and_si256(_mm256_castps_si256(next), bit));
                bit = _mm256_add_epi32(bit, bit);
            }
            _mm256_storeu_si256((__m256i *)&halves[half][0], a);
            _mm256_storeu_si256((__m256i *)&halves[half][8], b);
        }
        for (int k = 0; k < 16; k++) words[i + k] = halves[0][k] | (uint64_t)halves[1][k] << HALF;
    }
    if (i < count) signs_portable(x + i, area, threshold, channels, count - i, words + i);
}

TARGET("avx512f")
static void signs_avx512(const float *x, int64_t area, const float *threshold, int64_t channels, int64_t count,
                         uint64_t *words) {
    uint64_t all = count < 64 ? ((uint64_t)1 << count) - 1 : ~(uint64_t)0;
    __mmask16 there[4] = {(__mmask16)all, (__mmask16)(all >> 16), (__mmask16)(all >> 32), (__mmask16)(all >> 48)};
    uint32_t halves[2][CHUNK];
    for (int64_t half = 0; half < 2; half++) {
        __m512i signs[4], bit = _mm512_set1_epi32(1);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) signs[i] = _mm512_setzero_si512();
        int64_t last = channels < (half + 1) * HALF ? channels : (half + 1) * HALF;
        for (int64_t c = half * HALF; c < last; c++) {
            __m512 least = _mm512_set1_ps(threshold[c]);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                __m512 values = _mm512_maskz_loadu_ps(there[i], x + c * area + 16 * i);
                __mmask16 more = _mm512_cmp_ps_mask(values, least, _CMP_GE_OQ);
                signs[i] = _mm512_mask_or_epi32(signs[i], more, signs[i], bit);
            }
            bit = _mm512_add_epi32(bit, bit);
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) _mm512_storeu_si512(&halves[half][16 * i], signs[i]);
    }
    for (int64_t i = 0; i < count; i++) words[i] = halves[0][i] | (uint64_t)halves[1][i] << HALF;
}
#endif

INLINE void pack(const struct job *j, ptrdiff_t from, ptrdiff_t to, signs_of signs) {
    const struct convolution *s = &j->s;
    int64_t area = s->height * s->width;
    for (ptrdiff_t unit = from; unit < to; unit++) {
        int64_t word = unit % j->words, of = unit / j->words, first = word * BITS, group = of % s->groups;
        int64_t channels = s->channels - first < BITS ? s->channels - first : BITS;
        const float *x = j->x + (of * s->channels + first) * area;
        const float *threshold = j->threshold + group * s->channels + first;
        uint64_t flip = j->flip[group * j->words + word];
        uint64_t *corner = j->packed + of * s->padded_h * s->padded_w * j->words + word;
        uint64_t words[CHUNK];
        int64_t row = s->pad_top, column = 0;
        for (int64_t p = 0; p < area; p += CHUNK) {
            int64_t count = area - p < CHUNK ? area - p : CHUNK;
            signs(x + p, area, threshold, channels, count, words);
            for (int64_t i = 0; i < count; i++) {
                corner[(row * s->padded_w + s->pad_left + column) * j->words] = words[i] ^ flip;
                if (++column == s->width) column = 0, row++;
            }
        }
    }
}

static void pack_portable(const void *job, ptrdiff_t from, ptrdiff_t to) { pack(job, from, to, signs_portable); }

/* -------------------------------------------------------------------------------------------------------- convolving

   A unit of work is a tile of PIXELS outputs that follow one another in one image. Blocks of filters go outside, so
   that theirs stay in the nearest cache while all pixels pass. `fill` computes one tile of so many blocks. */

enum { BLOCK = 8, PIXELS = 4, BLOCKS = 4 };

struct tile {
    const uint64_t *pixels[PIXELS]; /* the first word that each output reads */
    const uint64_t *weights;        /* of the first block */
    const float *scale, *bias;
    float *y;                       /* of its first filter and first pixel */
    int64_t filters, count, area;   /* how many of its blocks' filters and of its pixels there are; filter to filter */
};

typedef void (*fill)(const struct job *j, const struct tile *t);

/* Blocks are filled `most` at a time, then one at a time, so are pixels. */
INLINE void convolve(const struct job *j, ptrdiff_t from, ptrdiff_t to, int64_t most, fill many, fill one) {
    const struct convolution *s = &j->s;
    int64_t area = s->out_h * s->out_w, tiles = (area + PIXELS - 1) / PIXELS;
    int64_t blocks = (s->outs + BLOCK - 1) / BLOCK, down = s->stride_h * s->padded_w * j->words;
    while (from < to) {
        int64_t image = from / tiles, first = from % tiles * PIXELS;
        int64_t end = to - image * tiles < tiles ? (to - image * tiles) * PIXELS : area;
        from = (image + 1) * tiles;
        for (int64_t group = 0; group < s->groups; group++) {
            const uint64_t *packed = j->packed + (image * s->groups + group) * s->padded_h * s->padded_w * j->words;
            for (int64_t block = 0, at_once; block < blocks; block += at_once) {
                at_once = blocks - block < most ? 1 : most;
                int64_t filter = group * s->outs + block * BLOCK, column = first % s->out_w;
                const uint64_t *row = packed + first / s->out_w * down;
                struct tile t = {
                    .weights = j->weights + (group * blocks + block) * j->deep * BLOCK,
                    .scale = j->scale + filter, .bias = j->bias + filter,
                    .filters = s->outs - block * BLOCK, .area = area,
                };
                for (int64_t p = first; p < end; p += PIXELS) {
                    t.count = end - p < PIXELS ? end - p : PIXELS;
                    t.y = j->y + (image * s->groups * s->outs + filter) * area + p;
                    for (int64_t i = 0; i < t.count; i++) {
                        t.pixels[i] = row + column * s->stride_w * j->words;
                        if (++column == s->out_w) column = 0, row += down;
                    }
                    (at_once == 1 ? one : many)(j, &t);
                }
            }
        }
    }
}

/* Counts of one pixel and one block into outputs. */
INLINE void finish(const struct job *j, const struct tile *t, int64_t pixel, const uint64_t *counts) {
    int64_t n = j->s.channels * j->s.kernel_h * j->s.kernel_w, filters = t->filters < BLOCK ? t->filters : BLOCK;
    for (int64_t f = 0; f < filters; f++)
        t->y[f * t->area + pixel] = (float)(n - 2 * (int64_t)counts[f]) * t->scale[f] + t->bias[f];
}

static void fill_portable(const struct job *j, const struct tile *t) {
    for (int64_t i = 0; i < t->count; i++) {
        uint64_t counts[BLOCK] = {0};
        for (int64_t k = 0; k < j->deep; k++) {
            uint64_t x = t->pixels[i][j->offsets[k]];
            for (int f = 0; f < BLOCK; f++) counts[f] += (uint64_t)__builtin_popcountll(x ^ t->weights[k * BLOCK + f]);
        }
        finish(j, t, i, counts);
    }
}

static void convolve_portable(const void *job, ptrdiff_t from, ptrdiff_t to) {
    convolve(job, from, to, 1, fill_portable, fill_portable);
}

#if X86
static void pack_avx2(const void *job, ptrdiff_t from, ptrdiff_t to) { pack(job, from, to, signs_avx2); }
static void pack_avx512(const void *job, ptrdiff_t from, ptrdiff_t to) { pack(job, from, to, signs_avx512); }

/* Bits of each byte, by table of four: at most 8 a word, so that bytes hold the sum of 31 words. */
enum { FULL = 31 };

TARGET("avx2")
INLINE __m256i byte_counts(__m256i bits) {
    const __m256i four = _mm256_set1_epi8(15);
    const __m256i of = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    __m256i low = _mm256_shuffle_epi8(of, _mm256_and_si256(bits, four));
    return _mm256_add_epi8(low, _mm256_shuffle_epi8(of, _mm256_and_si256(_mm256_srli_epi16(bits, 4), four)));
}

TARGET("avx2")
INLINE void fill_avx2_of(const struct job *j, const struct tile *t, const int64_t first, const int pixels) {
    const __m256i zero = _mm256_setzero_si256();
    uint64_t counts[2][BLOCK];
    __m256i sums[2][2] = {{zero, zero}, {zero, zero}};
    for (int64_t start = 0; start < j->deep; start += FULL) {
        int64_t end = j->deep - start < FULL ? j->deep : start + FULL;
        __m256i bytes[2][2] = {{zero, zero}, {zero, zero}};
        for (int64_t k = start; k < end; k++) {
            const __m256i *w = (const __m256i *)(t->weights + k * BLOCK);
            __m256i a = _mm256_loadu_si256(w), b = _mm256_loadu_si256(w + 1);
            for (int i = 0; i < pixels; i++) {
                __m256i x = _mm256_set1_epi64x((int64_t)t->pixels[first + i][j->offsets[k]]);
                bytes[i][0] = _mm256_add_epi8(bytes[i][0], byte_counts(_mm256_xor_si256(a, x)));
                bytes[i][1] = _mm256_add_epi8(bytes[i][1], byte_counts(_mm256_xor_si256(b, x)));
            }
        }
        for (int i = 0; i < pixels; i++)
            for (int h = 0; h < 2; h++) sums[i][h] = _mm256_add_epi64(sums[i][h], _mm256_sad_epu8(bytes[i][h], zero));
    }
    for (int i = 0; i < pixels; i++) {
        _mm256_storeu_si256((__m256i *)&counts[i][0], sums[i][0]);
        _mm256_storeu_si256((__m256i *)&counts[i][4], sums[i][1]);
        finish(j, t, first + i, counts[i]);
    }
}

TARGET("avx2")
static void fill_avx2(const struct job *j, const struct tile *t) {
    int64_t i = 0;
    for (; i + 2 <= t->count; i += 2) fill_avx2_of(j, t, i, 2);
    if (i < t->count) fill_avx2_of(j, t, i, 1);
}

static void convolve_avx2(const void *job, ptrdiff_t from, ptrdiff_t to) {
    convolve(job, from, to, 1, fill_avx2, fill_avx2);
}

#define WIDE TARGET("avx512f,avx512vl,avx512dq,avx512vpopcntdq,avx2")

/* Counts of 8 filters at one pixel into their outputs there. */
WIDE INLINE __m256 outputs(__m512i counts, __m512i n, __m256 scale, __m256 bias) {
    __m512i sums = _mm512_sub_epi64(n, _mm512_add_epi64(counts, counts));
    return _mm256_add_ps(_mm256_mul_ps(_mm512_cvtepi64_ps(sums), scale), bias);
}

/* The accumulators are an array that unrolls into registers: 16 of the 32 for the full tile. */
WIDE INLINE void fill_avx512_of(const struct job *j, const struct tile *t, const int64_t first, const int blocks,
                                const int pixels) {
    const int64_t deep = j->deep;
    const uint64_t *w = t->weights, *x[PIXELS];
    __m512i counts[BLOCKS][PIXELS];
#pragma GCC unroll 4
    for (int i = 0; i < pixels; i++) x[i] = t->pixels[first + i];
#pragma GCC unroll 4
    for (int b = 0; b < blocks; b++)
#pragma GCC unroll 4
        for (int i = 0; i < pixels; i++) counts[b][i] = _mm512_setzero_si512();
    for (int64_t k = 0; k < deep; k++, w += BLOCK) {
        int64_t offset = j->offsets[k];
        __m512i here[PIXELS];
#pragma GCC unroll 4
        for (int i = 0; i < pixels; i++) here[i] = _mm512_set1_epi64((int64_t)x[i][offset]);
#pragma GCC unroll 4
        for (int b = 0; b < blocks; b++) {
            __m512i filters = _mm512_loadu_si512(w + b * deep * BLOCK);
#pragma GCC unroll 4
            for (int i = 0; i < pixels; i++)
                counts[b][i] =
                    _mm512_add_epi64(counts[b][i], _mm512_popcnt_epi64(_mm512_xor_si512(filters, here[i])));
        }
    }
    const __m512i n = _mm512_set1_epi64(j->s.channels * j->s.kernel_h * j->s.kernel_w);
#pragma GCC unroll 4
    for (int b = 0; b < blocks; b++) {
        int64_t left = t->filters - b * BLOCK;
        float *y = t->y + b * BLOCK * t->area + first;
        __mmask8 there = left < BLOCK ? (__mmask8)((1u << left) - 1) : 255;
        __m256 scale = _mm256_maskz_loadu_ps(there, t->scale + b * BLOCK);
        __m256 bias = _mm256_maskz_loadu_ps(there, t->bias + b * BLOCK);
        if (pixels == PIXELS && left >= BLOCK) { /* four pixels of a filter lie side by side */
            __m256 p = outputs(counts[b][0], n, scale, bias), q = outputs(counts[b][1], n, scale, bias);
            __m256 r = outputs(counts[b][2], n, scale, bias), s = outputs(counts[b][3], n, scale, bias);
            __m256 pq = _mm256_unpacklo_ps(p, q), rs = _mm256_unpacklo_ps(r, s);
            __m256 pq_ = _mm256_unpackhi_ps(p, q), rs_ = _mm256_unpackhi_ps(r, s);
            __m256 rows[4] = {_mm256_shuffle_ps(pq, rs, 0x44), _mm256_shuffle_ps(pq, rs, 0xEE),
                              _mm256_shuffle_ps(pq_, rs_, 0x44), _mm256_shuffle_ps(pq_, rs_, 0xEE)};
#pragma GCC unroll 4
            for (int f = 0; f < 4; f++) {
                _mm_storeu_ps(y + f * t->area, _mm256_castps256_ps128(rows[f]));
                _mm_storeu_ps(y + (f + 4) * t->area, _mm256_extractf128_ps(rows[f], 1));
            }
        } else {
#pragma GCC unroll 4
            for (int i = 0; i < pixels; i++) {
                float values[BLOCK];
                _mm256_storeu_ps(values, outputs(counts[b][i], n, scale, bias));
                for (int64_t f = 0; f < (left < BLOCK ? left : BLOCK); f++) y[f * t->area + i] = values[f];
            }
        }
    }
}

WIDE static void fill_avx512_many(const struct job *j, const struct tile *t) {
    if (t->count == PIXELS)
        fill_avx512_of(j, t, 0, BLOCKS, PIXELS);
    else
        for (int64_t i = 0; i < t->count; i++) fill_avx512_of(j, t, i, BLOCKS, 1);
}

WIDE static void fill_avx512_one(const struct job *j, const struct tile *t) {
    if (t->count == PIXELS)
        fill_avx512_of(j, t, 0, 1, PIXELS);
    else
        for (int64_t i = 0; i < t->count; i++) fill_avx512_of(j, t, i, 1, 1);
}

static void convolve_avx512(const void *job, ptrdiff_t from, ptrdiff_t to) {
    convolve(job, from, to, BLOCKS, fill_avx512_many, fill_avx512_one);
}
#endif

/* y = scale * conv(sign(x - threshold), signs) + bias; 0, or 1 where there is no memory.
   Shapes: x [images, groups * channels, height, width]; threshold [groups * channels]; flip [groups, words], bits of
   channels whose sign is turned; scale, bias [groups * outs]; y [images, groups * outs, out_h, out_w]. */
EXPORTED int xnor_conv2d(const struct convolution *s, const float *x, const float *threshold, const uint64_t *flip,
                         const uint64_t *weights, const float *scale, const float *bias, float *y, int path,
                         int threads) {
    struct job j = {.s = *s, .x = x, .threshold = threshold, .flip = flip, .weights = weights, .scale = scale,
                    .bias = bias, .y = y};
    j.words = (s->channels + BITS - 1) / BITS;
    j.deep = j.words * s->kernel_h * s->kernel_w;
    int64_t *offsets = malloc((size_t)j.deep * sizeof *offsets);
    j.packed = calloc((size_t)(s->images * s->groups * s->padded_h), (size_t)(s->padded_w * j.words) * sizeof *j.packed);
    if (!offsets || !j.packed) {
        free(offsets);
        free(j.packed);
        return 1;
    }
    for (int64_t k = 0; k < j.deep; k++) {
        int64_t tap = k / j.words, row = tap / s->kernel_w * s->dilation_h, column = tap % s->kernel_w * s->dilation_w;
        offsets[k] = (row * s->padded_w + column) * j.words + k % j.words;
    }
    j.offsets = offsets;
    work_on packs = pack_portable, convolves = convolve_portable;
#if X86
    if (path == AVX2) packs = pack_avx2, convolves = convolve_avx2;
    if (path == AVX512) packs = pack_avx512, convolves = convolve_avx512;
#endif
    share_out(packs, &j, s->images * s->groups * j.words, threads);
    share_out(convolves, &j, s->images * ((s->out_h * s->out_w + PIXELS - 1) / PIXELS), threads);
    free(offsets);
    free(j.packed);
    return 0;
}
