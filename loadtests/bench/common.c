#define _GNU_SOURCE
#include "common.h"

#include <arpa/inet.h>
#include <endian.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#define FIN 0x80
#define MASKED 0x80

void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static int64_t clock_ns(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1000000000L + time.tv_nsec;
}

int64_t now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

int64_t own_cpu_ns(void)
{
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

long raise_files_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        die("the limit on open files cannot be read");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        die("the limit on open files cannot be raised to %ld", (long)limit.rlim_max);
    return (long)limit.rlim_cur;
}

void prepare_socket(int fd)
{
    int on = 1;
    if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0)
        die("a socket cannot be set up: %m");
}

static void unmask(char *payload, size_t length, const unsigned char mask[4])
{
    for (size_t i = 0; i < length; i++)
        payload[i] ^= (char)mask[i % 4];
}

int take_frame(char *data, size_t length, struct frame *frame)
{
    const unsigned char *head = (const unsigned char *)data;
    size_t at = 2;
    if (length < at)
        return 0;
    if (!(head[0] & FIN))
        die("a frame came in fragments");
    uint64_t size = head[1] & 0x7f;
    if (size == 126) {
        uint16_t extended;
        if (length < (at = 4))
            return 0;
        memcpy(&extended, head + 2, sizeof extended);
        size = be16toh(extended);
    } else if (size == 127) {
        uint64_t extended;
        if (length < (at = 10))
            return 0;
        memcpy(&extended, head + 2, sizeof extended);
        size = be64toh(extended);
    }
    int masked = head[1] & MASKED;
    if (masked)
        at += 4;
    if (length < at || length - at < size)
        return 0;
    if (masked)
        unmask(data + at, size, head + at - 4);
    *frame = (struct frame){head[0] & 0x0f, data + at, size, at + size};
    return 1;
}

size_t frame_head(char *out, int opcode, size_t payload_length, const unsigned char mask[4])
{
    size_t at;
    out[0] = (char)(FIN | opcode);
    if (payload_length < 126) {
        out[1] = (char)payload_length;
        at = 2;
    } else if (payload_length < 65536) {
        uint16_t extended = htobe16((uint16_t)payload_length);
        out[1] = 126;
        memcpy(out + 2, &extended, sizeof extended);
        at = 4;
    } else {
        uint64_t extended = htobe64(payload_length);
        out[1] = 127;
        memcpy(out + 2, &extended, sizeof extended);
        at = 10;
    }
    if (mask) {
        out[1] = (char)(out[1] | MASKED);
        memcpy(out + at, mask, 4);
        at += 4;
    }
    return at;
}
