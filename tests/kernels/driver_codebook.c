/* codebook.c on random shapes, for sanitizers: each path on 1 and 3 threads, each buffer exactly as large as it must be,
   against sums of doubles. Arguments: how many shapes, and a seed. */

#include <math.h>
#include <stdio.h>

#include "codebook.c"

static int64_t below(int64_t n) { return rand() % n; }

static void *room(int64_t count, size_t each) {
    void *made = malloc((size_t)count * each);
    if (!made) exit(3);
    return made;
}

static float *drawn(int64_t count) {
    float *x = room(count, sizeof *x);
    for (int64_t i = 0; i < count; i++) x[i] = (float)(below(17) - 8) / 8;
    return x;
}

/* The code of weight k of a filter whose block has so many filters; by the description at the head of codebook.c. */
static int code_of(const uint8_t *block, int64_t filters, int64_t row, int64_t depth, int64_t bits, int64_t k) {
    int64_t v = k / 16, lane = k % 16, per = 32 / bits, whole = depth / per, at = v % per, mask = (1 << bits) - 1;
    if (v / per < whole) {
        const uint8_t *word = block + (v / per * filters + row) * 64 + lane * 4;
        uint32_t all = word[0] | word[1] << 8 | word[2] << 16 | (uint32_t)word[3] << 24;
        return (int)(all >> (at * bits) & (uint32_t)mask);
    }
    int64_t each = 8 / bits;
    return block[whole * filters * 64 + (at / each * filters + row) * 16 + lane] >> (at % each * bits) & (int)mask;
}

static int one_shape(int linear) {
    struct convolution s = {
        .images = 1 + below(linear ? 70 : 3), .groups = 1 + below(2), .channels = 1 + below(linear ? 700 : 50),
        .height = 1 + below(7), .width = 1 + below(19), .outs = 1 + below(14), .kernel_h = 1 + below(3),
        .kernel_w = 1 + below(3), .stride_h = 1 + below(2), .stride_w = 1 + below(2), .dilation_h = 1 + below(2),
        .dilation_w = 1 + below(2),
    };
    if (linear) s.groups = s.height = s.width = s.kernel_h = s.kernel_w = 1;
    if (!linear) s.pad_top = below(3) + s.dilation_h * (s.kernel_h - 1);
    if (!linear) s.pad_left = below(3) + s.dilation_w * (s.kernel_w - 1);
    s.padded_h = s.pad_top + s.height + (linear ? 0 : below(3));
    s.padded_w = s.pad_left + s.width + (linear ? 0 : below(3));
    s.out_h = (s.padded_h - s.dilation_h * (s.kernel_h - 1) - 1) / s.stride_h + 1;
    s.out_w = (s.padded_w - s.dilation_w * (s.kernel_w - 1) - 1) / s.stride_w + 1;
    int64_t bits = 1 << below(3), gathered = below(2), taps = s.kernel_h * s.kernel_w;
    int64_t filled = gathered ? s.channels : (s.channels + 15) / 16 * 16, depth = (taps * filled + 15) / 16;
    int64_t left = depth % (32 / bits), each = 8 / bits;
    int64_t bytes = depth / (32 / bits) * 64 + (left + each - 1) / each * 16;
    int64_t ins = s.groups * s.channels, outs = s.groups * s.outs, area = s.out_h * s.out_w;
    float *x = drawn(s.images * ins * s.height * s.width), *table = drawn(16);
    float *scale = drawn(outs), *bias = drawn(outs), *y = room(s.images * outs * area, sizeof *y);
    float *first = room(s.images * outs * area, sizeof *y);
    for (int i = 0; i < 16; i++) table[i] = table[i % (1 << bits)];
    uint8_t *codes = room(outs * bytes, 1);
    for (int64_t i = 0; i < outs * bytes; i++) codes[i] = (uint8_t)below(256);
    double *right = room(s.images * outs * area, sizeof *right);
    for (int64_t i = 0; i < s.images * outs * area; i++) {
        int64_t at = i % area, f = i / area % s.outs, g = i / area / s.outs % s.groups, image = i / area / outs;
        int64_t block = f / 4 * 4, filters = s.outs - block < 4 ? s.outs - block : 4;
        double sum = 0;
        for (int64_t tap = 0; tap < taps; tap++) {
            int64_t row = at / s.out_w * s.stride_h + tap / s.kernel_w * s.dilation_h - s.pad_top;
            int64_t column = at % s.out_w * s.stride_w + tap % s.kernel_w * s.dilation_w - s.pad_left;
            if (row < 0 || row >= s.height || column < 0 || column >= s.width) continue;
            for (int64_t c = 0; c < s.channels; c++) {
                const uint8_t *of = codes + (g * s.outs + block) * bytes;
                double weight = table[code_of(of, filters, f % 4, depth, bits, tap * filled + c)];
                sum += weight * x[((image * ins + g * s.channels + c) * s.height + row) * s.width + column];
            }
        }
        right[i] = sum * scale[g * s.outs + f] + bias[g * s.outs + f];
    }
    int wrong = 0;
    for (int run = 0; run < 2 * (best() + 1) && !wrong; run++) {
        int threads = run % 2 ? 3 : 1, path = run / 2;
        memset(y, 0xFF, (size_t)(s.images * outs * area) * sizeof *y);
        if (linear ? codebook_linear(&s, bits, x, codes, table, scale, bias, y, path, threads)
                   : codebook_conv2d(&s, bits, gathered, x, codes, table, scale, bias, y, path, threads))
            exit(3);
        for (int64_t i = 0; i < s.images * outs * area && !wrong; i++)
            if ((wrong = !(fabs(y[i] - right[i]) < 1e-3)))
                fprintf(stderr, "path %d: output %ld is %g, not %g\n", path, (long)i, y[i], right[i]);
        if (run % 2 && memcmp(first, y, (size_t)(s.images * outs * area) * sizeof *y)) wrong = 1;
        memcpy(first, y, (size_t)(s.images * outs * area) * sizeof *y);
    }
    free(x), free(table), free(scale), free(bias), free(y), free(first), free(codes), free(right);
    return wrong;
}

int main(int count, char **given) {
    if (count != 3) return 2;
    srand((unsigned)atoi(given[2]));
    for (int i = 0; i < atoi(given[1]); i++)
        if (one_shape(i % 2)) return 1;
    puts("ok");
    return 0;
}
