/* Layers whose weights are one of up to 16 numbers: codes of 1, 2 or 4 bits, looked up in a register as they are read.

   A filter is `depth` vectors of LANES weights, zeros of x beside those that are filled up. PER = 32 / bits vectors are
   a chunk of LANES words of 32 bits: word l has the codes of lane l, first vector lowest, so that a table look-up, a
   shift and the next look-up decode 16 weights each. What is left of the vectors lies in parts of LANES bytes, 8 / bits
   vectors each. Filters go by ROWS: chunks of all of them, then parts of all of them; the last block of a group has
   fewer. So weights are read once, from one end to the other.

   Code AHEAD bytes on is asked for meanwhile: processors on their own stop at the end of a page of memory.

   Sums are in float32, in an order that the path decides: paths differ by rounding, numbers of threads do not. */

#include "codebook_fill.h"

/* Outputs are computed a strip of pixels after the other, so that what these read stays near; within one, each block's
   codes stay nearest while all its pixels pass. */

static void run(const struct job *j, const float *const *pixels, int64_t count, int64_t group, int64_t from, int64_t to,
                float *y, int64_t filter_step, int64_t pixel_step) {
    for (int64_t block = from; block < to; block++) {
        int64_t filter = group * j->s.outs + block * ROWS;
        struct tile t = {
            .codes = j->codes + filter * j->row_bytes, .scale = j->scale + filter, .bias = j->bias + filter,
            .filters = smaller(ROWS, j->s.outs - block * ROWS), .filter_step = filter_step, .pixel_step = pixel_step,
        };
        for (int64_t p = 0; p < count; p += PIXELS) {
            t.pixels = pixels + p;
            t.count = smaller(PIXELS, count - p);
            t.y = y + block * ROWS * filter_step + p * pixel_step;
            j->fill(j, &t);
        }
    }
}

INLINE int64_t strip_of(const struct job *j) {
    int64_t fit = STRIP_BYTES / (j->depth * LANES * (int64_t)sizeof(float)) / PIXELS * PIXELS;
    return fit < PIXELS ? PIXELS : smaller(fit, STRIP);
}

/* Blocks of filters of a linear layer: s.images rows of s.channels floats, `step` apart. */
static void multiply(const void *given, ptrdiff_t from, ptrdiff_t to) {
    const struct job *j = given;
    const float *pixels[STRIP];
    int64_t strip = strip_of(j);
    for (int64_t row = 0; row < j->s.images; row += strip) {
        int64_t count = smaller(strip, j->s.images - row);
        for (int64_t i = 0; i < count; i++) pixels[i] = j->x + (row + i) * j->step;
        run(j, pixels, count, 0, from, to, j->y + row * j->s.outs, 1, j->s.outs);
    }
}

/* Rows of pictures: channels of a pixel side by side, with zeros around. */
static void turn(const void *given, ptrdiff_t first, ptrdiff_t last) {
    const struct job *j = given;
    const struct convolution *s = &j->s;
    int64_t each = j->step / s->groups, area = s->height * s->width;
    for (ptrdiff_t unit = first; unit < last; unit++) {
        int64_t image = unit / s->height, row = unit % s->height;
        float *into = j->packed + ((image * s->padded_h + s->pad_top + row) * s->padded_w + s->pad_left) * j->step;
        for (int64_t group = 0; group < s->groups; group++, into += each) {
            const float *x = j->x + (image * s->groups + group) * s->channels * area + row * s->width;
            int64_t column = 0;
#if X86
            for (; column + 4 <= s->width && s->channels >= 4; column += 4)
                for (int64_t c = 0; c < s->channels; c += 4) {
                    if (c + 4 > s->channels) c = s->channels - 4; /* once more, rather than one by one */
                    const float *from = x + c * area + column;
                    __m128 p = _mm_loadu_ps(from), q = _mm_loadu_ps(from + area);
                    __m128 r = _mm_loadu_ps(from + 2 * area), t = _mm_loadu_ps(from + 3 * area);
                    _MM_TRANSPOSE4_PS(p, q, r, t);
                    float *to = into + column * j->step + c;
                    _mm_storeu_ps(to, p), _mm_storeu_ps(to + j->step, q);
                    _mm_storeu_ps(to + 2 * j->step, r), _mm_storeu_ps(to + 3 * j->step, t);
                }
#endif
            for (; column < s->width; column++)
                for (int64_t c = 0; c < s->channels; c++) into[column * j->step + c] = x[c * area + column];
        }
    }
}

/* Strips of pixels of one group of one image. */
static void convolve(const void *given, ptrdiff_t from, ptrdiff_t to) {
    const struct job *j = given;
    const struct convolution *s = &j->s;
    const float *pixels[STRIP];
    int64_t strip = strip_of(j), area = s->out_h * s->out_w, strips = (area + strip - 1) / strip;
    int64_t deep = j->depth * LANES, joined = s->dilation_w == 1 && s->groups == 1;
    int64_t runs = joined ? s->kernel_h : s->kernel_h * s->kernel_w;
    size_t length = (size_t)(joined ? s->kernel_w * s->channels : s->channels);
    float *copies = j->gathered ? calloc((size_t)(strip * deep), sizeof *copies) : NULL;
    if (j->gathered && !copies) {
        __atomic_store_n(j->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    for (ptrdiff_t unit = from; unit < to; unit++) {
        int64_t of = unit / strips, image = of / s->groups, group = of % s->groups, first = unit % strips * strip;
        int64_t count = smaller(strip, area - first);
        const float *x = j->packed + image * s->padded_h * s->padded_w * j->step + group * (j->step / s->groups);
        for (int64_t i = 0; i < count; i++) {
            int64_t row = (first + i) / s->out_w * s->stride_h, column = (first + i) % s->out_w * s->stride_w;
            pixels[i] = x + (row * s->padded_w + column) * j->step;
            if (!j->gathered) continue;
            float *copy = copies + i * deep;
            for (int64_t k = 0; k < runs; k++) {
                int64_t down = joined ? k : k / s->kernel_w, across = joined ? 0 : k % s->kernel_w;
                int64_t at = down * s->dilation_h * s->padded_w + across * s->dilation_w;
                memcpy(copy + (size_t)k * length, pixels[i] + at * j->step, length * sizeof *copy);
            }
            pixels[i] = copy;
        }
        run(j, pixels, count, group, 0, j->blocks, j->y + of * s->outs * area + first, area, 1);
    }
    free(copies);
}

static struct job job_of(const struct convolution *s, int64_t bits, int64_t depth, int path) {
    int64_t per = 32 / bits, each = 8 / bits, left = depth % per;
    return (struct job){
        .s = *s, .bits = bits, .depth = depth, .blocks = (s->outs + ROWS - 1) / ROWS,
        .row_bytes = (depth / per * 4 + (left + each - 1) / each) * LANES, .fill = fill_for(bits, path),
    };
}

/* y = scale * (x @ table[codes].T) + bias; 0, or 1 where there is no memory.
   Shapes: x [s.images, s.channels]; table [LEVELS]; scale, bias [s.outs]; y [s.images, s.outs]; s.groups is 1. */
EXPORTED int codebook_linear(const struct convolution *s, int64_t bits, const float *x, const uint8_t *codes,
                             const float *table, const float *scale, const float *bias, float *y, int path,
                             int threads) {
    struct job j = job_of(s, bits, (s->channels + LANES - 1) / LANES, path);
    int64_t *offsets = malloc((size_t)j.depth * sizeof *offsets);
    j.x = x, j.codes = codes, j.table = table, j.scale = scale, j.bias = bias, j.y = y, j.offsets = offsets;
    j.step = s->channels;
    if (s->channels % LANES) {
        j.step = j.depth * LANES;
        j.packed = calloc((size_t)s->images, (size_t)j.step * sizeof *j.packed);
    }
    if (!offsets || (s->channels % LANES && !j.packed)) {
        free(offsets);
        free(j.packed);
        return 1;
    }
    for (int64_t v = 0; v < j.depth; v++) offsets[v] = v * LANES;
    if (j.packed) {
        for (int64_t i = 0; i < s->images; i++)
            memcpy(j.packed + i * j.step, x + i * s->channels, (size_t)s->channels * sizeof *x);
        j.x = j.packed;
    }
    share_out(multiply, &j, j.blocks, threads);
    free(offsets);
    free(j.packed);
    return 0;
}

/* y = scale * conv(x, table[codes]) + bias; 0, or 1 where there is no memory.
   A filter's weights go by rows of the kernel, columns, channels: channels filled up to LANES, or, where that would
   waste much, `gathered`, all of a filter's filled up at their end.
   Shapes: x [images, groups * channels, height, width]; y [images, groups * outs, out_h, out_w]. */
EXPORTED int codebook_conv2d(const struct convolution *s, int64_t bits, int64_t gathered, const float *x,
                             const uint8_t *codes, const float *table, const float *scale, const float *bias, float *y,
                             int path, int threads) {
    int64_t taps = s->kernel_h * s->kernel_w, vectors = (s->channels + LANES - 1) / LANES;
    int failed = 0;
    struct job j =
        job_of(s, bits, gathered ? (taps * s->channels + LANES - 1) / LANES : taps * vectors, path);
    int64_t *offsets = malloc((size_t)j.depth * sizeof *offsets);
    j.x = x, j.codes = codes, j.table = table, j.scale = scale, j.bias = bias, j.y = y, j.offsets = offsets;
    j.gathered = gathered, j.failed = &failed;
    j.step = s->groups * (gathered ? s->channels : vectors * LANES);
    j.packed = calloc((size_t)(s->images * s->padded_h * s->padded_w), (size_t)j.step * sizeof *j.packed);
    if (!offsets || !j.packed) {
        free(offsets);
        free(j.packed);
        return 1;
    }
    for (int64_t v = 0; v < j.depth; v++) {
        int64_t tap = v / vectors, row = tap / s->kernel_w * s->dilation_h, column = tap % s->kernel_w * s->dilation_w;
        offsets[v] = gathered ? v * LANES : (row * s->padded_w + column) * j.step + v % vectors * LANES;
    }
    share_out(turn, &j, s->images * s->height, threads);
    int64_t strip = strip_of(&j), area = s->out_h * s->out_w;
    share_out(convolve, &j, s->images * s->groups * ((area + strip - 1) / strip), threads);
    free(offsets);
    free(j.packed);
    return failed;
}
