/* A histogram of nanoseconds whose buckets grow with the value: any quantile is right to within 1 %. */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#define STEPS 128 /* in each doubling */
#define BUCKETS (64 * STEPS)

struct histogram {
    int64_t count, max;
    int64_t buckets[BUCKETS];
};

/* Values below 2 * STEPS have a bucket each; above, the leading bits choose it. */
static inline void histogram_record(struct histogram *histogram, int64_t value)
{
    uint64_t bits = value > 0 ? (uint64_t)value : 0;
    int shift = bits < 2 * STEPS ? 0 : 56 - __builtin_clzll(bits);
    histogram->buckets[(size_t)shift * STEPS + (bits >> shift)]++;
    histogram->count++;
    if (value > histogram->max)
        histogram->max = value;
}

/* The value that so great a part of all is not above: the upper end of its bucket. */
static inline int64_t histogram_quantile(const struct histogram *histogram, double part)
{
    int64_t rank = (int64_t)ceil(part * (double)histogram->count), seen = 0;
    for (size_t bucket = 0; rank > 0 && bucket < BUCKETS; bucket++) {
        seen += histogram->buckets[bucket];
        if (seen >= rank) {
            size_t shift = bucket < 2 * STEPS ? 0 : bucket / STEPS - 1;
            int64_t upper = (int64_t)((bucket - shift * STEPS + 1) << shift) - 1;
            return upper < histogram->max ? upper : histogram->max;
        }
    }
    return 0;
}

#endif
