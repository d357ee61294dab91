/* What the generator and the floor share: frames of RFC 6455, sockets, the clock, and how a program ends. */
#ifndef COMMON_H
#define COMMON_H

#include <stddef.h>
#include <stdint.h>

#define CHANNEL "bench:room"
#define CHANNEL_LENGTH (sizeof CHANNEL - 1)

enum opcode { OP_CHUNK = -1 /* of no WebSocket */, OP_TEXT = 1, OP_BINARY = 2, OP_CLOSE = 8 };

struct frame {
    int opcode;
    char *payload; /* unmasked, in place */
    size_t length; /* of the payload */
    size_t size;   /* of the whole frame */
};

/* End the program, with one line. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Nanoseconds of a clock that only grows. */
int64_t now_ns(void);

/* CPU time of this process so far, in nanoseconds. */
int64_t own_cpu_ns(void);

/* Raise the soft limit on open files to the hard one. Returns it. */
long raise_files_limit(void);

/* Make a socket answer at once, and send small frames at once. */
void prepare_socket(int fd);

/* Take the first frame of `data`. Returns 0 where it is not whole yet. Ends the program at a fragment. */
int take_frame(char *data, size_t length, struct frame *frame);

/* Write the head of a frame. Returns its length, 14 bytes at most. */
size_t frame_head(char *out, int opcode, size_t payload_length, const unsigned char mask[4]);

#endif
