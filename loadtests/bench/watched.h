/* What other processes cost: their CPU clocks and their memory. */
#ifndef WATCHED_H
#define WATCHED_H

#include "common.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct watched {
    int pid;
    clockid_t clock;
    double cpu_s;                /* in the measured time */
    int64_t rss_before, rss_end; /* before the first connection, and at the end of the measured time */
    int64_t rss_peak;
};

static inline double clock_s(clockid_t clock)
{
    struct timespec time;
    if (clock_gettime(clock, &time) != 0)
        die("a process that is watched has ended");
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* A field of /proc/PID/status, in bytes. */
static inline int64_t memory_bytes(int pid, const char *field)
{
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *file = fopen(path, "r");
    if (!file)
        die("process %d cannot be watched", pid);
    long kib = 0;
    while (fgets(line, sizeof line, file))
        if (strncmp(line, field, strlen(field)) == 0)
            sscanf(line + strlen(field), ": %ld", &kib);
    fclose(file);
    return kib * 1024L;
}

static inline void watched_open(struct watched *watched, int pid)
{
    *watched = (struct watched){.pid = pid};
    if (clock_getcpuclockid(pid, &watched->clock) != 0)
        die("process %d cannot be watched", pid);
    watched->rss_before = memory_bytes(pid, "VmRSS");
}

static inline void watched_begin(struct watched *watched)
{
    watched->cpu_s = -clock_s(watched->clock);
}

static inline void watched_end(struct watched *watched)
{
    watched->cpu_s += clock_s(watched->clock);
    watched->rss_end = memory_bytes(watched->pid, "VmRSS");
    watched->rss_peak = memory_bytes(watched->pid, "VmHWM");
}

#endif
