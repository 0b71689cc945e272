/* What packed layers are compared with: sums of 32-bit floats, by the vectors that the compiler makes of plain loops;
   and a way to have weights come from memory. */

#include "kernels.h"

enum { LANES = 16, ROWS = 4, PIXELS = 4 };

BEST_FOR(__builtin_cpu_supports("avx512f"), __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))

/* y[i][o] = x[i] . w[o], `rows` of x and ROWS filters at a time. */
INLINE void block(const float *x, const float *w, float *y, int64_t ins, int64_t outs, const int rows) {
    float sums[PIXELS][ROWS][LANES] = {{{0}}};
    for (int64_t k = 0; k + LANES <= ins; k += LANES)
        for (int i = 0; i < rows; i++)
            for (int o = 0; o < ROWS; o++)
                for (int l = 0; l < LANES; l++)
                    sums[i][o][l] = __builtin_fmaf(x[i * ins + k + l], w[o * ins + k + l], sums[i][o][l]);
    for (int i = 0; i < rows; i++)
        for (int o = 0; o < ROWS; o++) {
            float sum = 0;
            for (int l = 0; l < LANES; l++) sum += sums[i][o][l];
            y[i * outs + o] = sum;
        }
}

INLINE void multiply(int64_t count, int64_t ins, int64_t outs, const float *x, const float *w, float *y) {
    for (int64_t o = 0; o < outs; o += ROWS) {
        int64_t i = 0;
        for (; i + PIXELS <= count; i += PIXELS) block(x + i * ins, w + o * ins, y + i * outs + o, ins, outs, PIXELS);
        for (; i < count; i++) block(x + i * ins, w + o * ins, y + i * outs + o, ins, outs, 1);
    }
}

static void portable(int64_t count, int64_t ins, int64_t outs, const float *x, const float *w, float *y) {
    multiply(count, ins, outs, x, w, y);
}
#if X86
TARGET("avx2,fma")
static void avx2(int64_t count, int64_t ins, int64_t outs, const float *x, const float *w, float *y) {
    multiply(count, ins, outs, x, w, y);
}
TARGET("avx512f,prefer-vector-width=512")
static void avx512(int64_t count, int64_t ins, int64_t outs, const float *x, const float *w, float *y) {
    multiply(count, ins, outs, x, w, y);
}
#endif

/* Shapes: x [count, ins]; w [outs, ins]; y [count, outs]; ins in whole LANES, outs in whole ROWS. */
EXPORTED void plain(int64_t count, int64_t ins, int64_t outs, const float *x, const float *w, float *y, int path) {
#if X86
    if (path == AVX2) return avx2(count, ins, outs, x, w, y);
    if (path == AVX512) return avx512(count, ins, outs, x, w, y);
#endif
    portable(count, ins, outs, x, w, y);
}

/* Take bytes out of all caches. */
EXPORTED void forget(const char *from, int64_t bytes) {
#if X86
    for (int64_t i = 0; i < bytes; i += 64) _mm_clflush(from + i);
    _mm_mfence();
#else
    (void)from, (void)bytes;
#endif
}
