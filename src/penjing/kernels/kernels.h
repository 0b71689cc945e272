/* What every kernel needs: which code a processor can run, and work shared out to threads.

   A source has one function for each path, marked with what it may use, and picks one when it is called; whoever calls
   may ask for less than the processor has. Each source exports `best` (BEST_FOR). A function gives the same bits on any
   number of threads, and, unless its source says otherwise, on all paths. */

#ifndef PENJING_KERNELS_H
#define PENJING_KERNELS_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { PORTABLE = 0, AVX2 = 1, AVX512 = 2 };

#define EXPORTED __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))

#if defined(__x86_64__)
#define X86 1
#include <immintrin.h>
#define TARGET(features) __attribute__((target(features)))
#else
#define X86 0
#endif

/* Define `best`; the conditions are made of __builtin_cpu_supports("..."), which must be given literal names. */
#if X86
#define BEST_FOR(avx512, avx2)                       \
    EXPORTED int best(void) {                        \
        __builtin_cpu_init();                        \
        return (avx512) ? AVX512 : (avx2) ? AVX2 : PORTABLE; \
    }
#else
#define BEST_FOR(avx512, avx2) \
    EXPORTED int best(void) { return PORTABLE; }
#endif

/* A convolution, as layers hand it over: kernels/packed.py has the same order. */
struct convolution {
    int64_t images, groups, channels, height, width, outs; /* channels and outs: of one group */
    int64_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w;
    int64_t padded_h, padded_w, out_h, out_w;
};

enum { MOST_THREADS = 64 };

typedef void (*work_on)(const void *job, ptrdiff_t from, ptrdiff_t to);

struct part {
    work_on work;
    const void *job;
    ptrdiff_t from, to;
};

static void *do_part(void *given) {
    const struct part *part = given;
    part->work(part->job, part->from, part->to);
    return NULL;
}

/* Call work(job, from, to) on ranges that make up 0..count, side by side on so many threads.
   Threads are made for each call: a pool would not outlive a fork. Where one cannot be had, its part is done here. */
static void share_out(work_on work, const void *job, ptrdiff_t count, int threads) {
    pthread_t others[MOST_THREADS];
    struct part parts[MOST_THREADS];
    int started[MOST_THREADS];
    ptrdiff_t n = threads < 1 ? 1 : threads > MOST_THREADS ? MOST_THREADS : threads;
    if (n > count) n = count;
    if (n <= 1) {
        if (count > 0) work(job, 0, count);
        return;
    }
    for (ptrdiff_t i = 1; i < n; i++) {
        parts[i] = (struct part){work, job, count * i / n, count * (i + 1) / n};
        started[i] = pthread_create(&others[i], NULL, do_part, &parts[i]) == 0;
    }
    work(job, 0, count / n);
    for (ptrdiff_t i = 1; i < n; i++) {
        if (started[i])
            pthread_join(others[i], NULL);
        else
            do_part(&parts[i]);
    }
}

#endif
