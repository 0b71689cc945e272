/* sparse.c on random shapes, for sanitizers: each path on 1 and 3 threads, each buffer exactly as large as it must be,
   against a plain convolution. Arguments: how many shapes, and a seed. */

#include <math.h>
#include <stdio.h>

#include "sparse.c"

static int64_t below(int64_t n) { return rand() % n; }

static void *room(int64_t count, size_t each) {
    void *made = malloc((size_t)(count ? count : 1) * each);
    if (!made) exit(3);
    return made;
}

static float *drawn(int64_t count) {
    float *x = room(count, sizeof *x);
    for (int64_t i = 0; i < count; i++) x[i] = (float)(below(7) - 3);
    return x;
}

static int64_t whole(int64_t n, int64_t each) { return (n + each - 1) / each * each; }

static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

static int one_shape(void) {
    int64_t kh = 1 + below(3), kw = 1 + below(3), dh = 1 + below(2), dw = 1 + below(2), shifted = below(2);
    struct sparse s = {.images = 1 + below(2), .channels = 1 + below(9), .height = 1 + below(9), .width = 1 + below(30),
                       .outs = 1 + below(9), .stride_h = 1 + below(3), .stride_w = shifted ? 1 : 1 + below(3),
                       .pad_top = below(3) + dh * (kh - 1), .pad_left = below(3) + dw * (kw - 1)};
    s.phases_h = s.phases_w = 1;
    for (int64_t k = 0; k < kh; k++) s.phases_h = most(s.phases_h, 1 + k * dh % s.stride_h);
    for (int64_t k = 0; k < kw; k++) s.phases_w = most(s.phases_w, 1 + k * dw % s.stride_w);
    int64_t padded_h = s.height + s.pad_top + below(3), padded_w = s.width + s.pad_left + below(3);
    s.out_h = (padded_h - dh * (kh - 1) - 1) / s.stride_h + 1, s.out_w = (padded_w - dw * (kw - 1) - 1) / s.stride_w + 1;
    s.rows = whole(padded_h, s.stride_h) / s.stride_h, s.pitch = whole(padded_w, s.stride_w) / s.stride_w;
    if (shifted) s.pitch = whole(s.pitch, LINE);
    s.copies = shifted ? kw : 1, s.shift = dw, s.length = whole(s.out_h * s.pitch, LINE);
    int64_t furthest = dh * (kh - 1) / s.stride_h * s.pitch + dw * (kw - 1) / s.stride_w + s.length;
    s.plane = whole(most(s.rows * s.pitch, furthest), LINE), s.blocks = 1 + below(3), s.strips = 1 + below(3);
    if (s.strips > s.length / LINE) s.strips = s.length / LINE;
    int64_t weights = s.outs * s.channels * kh * kw, per_block = (s.channels + s.blocks - 1) / s.blocks, count = 0;
    float *values = room(weights, sizeof *values), *dense = room(weights, sizeof *dense), *bias = drawn(s.outs);
    int32_t *offsets = room(weights, sizeof *offsets);
    int64_t *starts = room(s.blocks * s.outs + 1, sizeof *starts);
    for (int64_t b = 0; b < s.blocks; b++)
        for (int64_t o = 0; o < s.outs; o++) {
            starts[b * s.outs + o] = count;
            for (int64_t c = b * per_block; c < s.channels && c < (b + 1) * per_block; c++)
                for (int64_t tap = 0; tap < kh * kw; tap++) {
                    float value = below(3) ? 0 : (float)(1 + below(3));
                    dense[(o * s.channels + c) * kh * kw + tap] = value;
                    if (value == 0) continue;
                    int64_t down = tap / kw * dh, across = tap % kw * dw;
                    int64_t at = (c * s.phases_h + down % s.stride_h) * s.phases_w + across % s.stride_w;
                    at = shifted ? (at * s.copies + tap % kw) * s.plane : at * s.plane + across / s.stride_w;
                    offsets[count] = (int32_t)(at + down / s.stride_h * s.pitch);
                    values[count++] = value;
                }
        }
    starts[s.blocks * s.outs] = count;
    float *x = drawn(s.images * s.channels * s.height * s.width);
    int64_t area = s.out_h * s.out_w;
    float *right = room(s.images * s.outs * area, sizeof *right), *y = room(s.images * s.outs * area, sizeof *y);
    for (int64_t i = 0; i < s.images * s.outs * area; i++) {
        int64_t at = i % area, o = i / area % s.outs, image = i / area / s.outs;
        float sum = bias[o];
        for (int64_t k = 0; k < s.channels * kh * kw; k++) {
            int64_t c = k / (kh * kw), row = at / s.out_w * s.stride_h + k / kw % kh * dh - s.pad_top;
            int64_t column = at % s.out_w * s.stride_w + k % kw * dw - s.pad_left;
            if (row >= 0 && row < s.height && column >= 0 && column < s.width)
                sum += dense[o * s.channels * kh * kw + k] * x[((image * s.channels + c) * s.height + row) * s.width + column];
        }
        right[i] = sum;
    }
    int wrong = 0;
    for (int run = 0; run < 2 * (best() + 1) && !wrong; run++) {
        memset(y, 0xFF, (size_t)(s.images * s.outs * area) * sizeof *y);
        if (sparse_conv2d(&s, x, bias, values, offsets, starts, y, run / 2, run % 2 ? 3 : 1)) exit(3);
        for (int64_t i = 0; i < s.images * s.outs * area && !wrong; i++)
            if ((wrong = y[i] != right[i])) /* small whole numbers: sums are exact */
                fprintf(stderr, "path %d: output %ld is %g, not %g\n", run / 2, (long)i, y[i], right[i]);
    }
    free(values), free(dense), free(bias), free(offsets), free(starts), free(x), free(right), free(y);
    return wrong;
}

int main(int count, char **given) {
    if (count != 3) return 2;
    srand((unsigned)atoi(given[2]));
    for (int i = 0; i < atoi(given[1]); i++)
        if (one_shape()) return 1;
    puts("ok");
    return 0;
}
