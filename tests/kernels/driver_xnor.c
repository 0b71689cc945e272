/* xnor.c on random shapes, for sanitizers: each path on 1 and 3 threads, each buffer exactly as large as it must be,
   against sums of floats. Arguments: how many shapes, and a seed. */

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "xnor.c"

static int64_t below(int64_t n) { return rand() % n; }

static void *room(int64_t count, size_t each) {
    void *made = malloc((size_t)count * each);
    if (!made) exit(3);
    return made;
}

/* Numbers that end where a page ends that may not be read: sanitizers do not see loads under a mask. Never freed. */
static float *drawn(int64_t count) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = ((size_t)count * sizeof(float) + page - 1) / page * page;
    char *place = mmap(NULL, pages + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED || mprotect(place + pages, page, PROT_NONE)) exit(3);
    float *x = (float *)(place + pages) - count;
    for (int64_t i = 0; i < count; i++) x[i] = (float)(below(7) - 3);
    return x;
}

static int sign(float x, float threshold) { return x >= threshold ? 1 : -1; }

static int one_shape(void) {
    struct convolution s = {
        .images = 1 + below(3), .groups = 1 + below(2), .channels = 1 + below(140), .height = 1 + below(7),
        .width = 1 + below(19), .outs = 1 + below(70), .kernel_h = 1 + below(3), .kernel_w = 1 + below(3),
        .stride_h = 1 + below(2), .stride_w = 1 + below(2), .dilation_h = 1 + below(2), .dilation_w = 1 + below(2),
    };
    int64_t bottom = below(3), beside = below(3);
    s.pad_top = below(3) + s.dilation_h * (s.kernel_h - 1), s.pad_left = below(3) + s.dilation_w * (s.kernel_w - 1);
    s.padded_h = s.pad_top + s.height + bottom, s.padded_w = s.pad_left + s.width + beside;
    s.out_h = (s.padded_h - s.dilation_h * (s.kernel_h - 1) - 1) / s.stride_h + 1;
    s.out_w = (s.padded_w - s.dilation_w * (s.kernel_w - 1) - 1) / s.stride_w + 1;
    int64_t words = (s.channels + 63) / 64, taps = s.kernel_h * s.kernel_w, blocks = (s.outs + 7) / 8;
    int64_t ins = s.groups * s.channels, outs = s.groups * s.outs, area = s.out_h * s.out_w;
    float *x = drawn(s.images * ins * s.height * s.width), *threshold = drawn(ins);
    float *scale = drawn(outs), *bias = drawn(outs), *y = room(s.images * outs * area, sizeof *y);
    uint64_t *flip = room(s.groups * words, 8), *weights = room(s.groups * blocks * 8 * taps * words, 8);
    for (int64_t i = 0; i < s.groups * words; i++) flip[i] = 0;
    for (int64_t i = 0; i < ins; i++)
        flip[i / s.channels * words + i % s.channels / 64] |= (uint64_t)below(2) << i % s.channels % 64;
    memset(weights, 0, (size_t)(s.groups * blocks * 8 * taps * words) * 8);
#define WEIGHT(g, f, tap, c) weights[(((g) * blocks + (f) / 8) * taps * words + (tap) * words + (c) / 64) * 8 + (f) % 8]
    for (int64_t i = 0; i < outs * taps * s.channels; i++) {
        int64_t c = i % s.channels, tap = i / s.channels % taps, f = i / s.channels / taps % s.outs;
        WEIGHT(i / s.channels / taps / s.outs, f, tap, c) |= (uint64_t)below(2) << c % 64;
    }
    float *right = room(s.images * outs * area, sizeof *right);
    for (int64_t i = 0; i < s.images * outs * area; i++) {
        int64_t at = i % area, f = i / area % s.outs, g = i / area / s.outs % s.groups, image = i / area / outs, sum = 0;
        for (int64_t tap = 0; tap < taps; tap++) {
            int64_t row = at / s.out_w * s.stride_h + tap / s.kernel_w * s.dilation_h - s.pad_top;
            int64_t column = at % s.out_w * s.stride_w + tap % s.kernel_w * s.dilation_w - s.pad_left;
            int inside = row >= 0 && row < s.height && column >= 0 && column < s.width;
            for (int64_t c = 0; c < s.channels; c++) {
                int64_t of = g * s.channels + c;
                int value = -1;
                if (inside) {
                    value = sign(x[((image * ins + of) * s.height + row) * s.width + column], threshold[of]);
                    if (flip[g * words + c / 64] >> c % 64 & 1) value = -value;
                }
                sum += WEIGHT(g, f, tap, c) >> c % 64 & 1 ? value : -value;
            }
        }
        right[i] = (float)sum * scale[g * s.outs + f] + bias[g * s.outs + f];
    }
    int wrong = 0;
    for (int run = 0; run < 2 * (best() + 1) && !wrong; run++) {
        memset(y, 0xFF, (size_t)(s.images * outs * area) * sizeof *y);
        if (xnor_conv2d(&s, x, threshold, flip, weights, scale, bias, y, run / 2, run % 2 ? 3 : 1)) exit(3);
        for (int64_t i = 0; i < s.images * outs * area && !wrong; i++)
            if ((wrong = y[i] != right[i]))
                fprintf(stderr, "path %d: output %ld is %g, not %g\n", run / 2, (long)i, y[i], right[i]);
    }
    free(right);
    free(y), free(flip), free(weights);
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
