/* The encodings of the protocol, as far as the generator speaks them. */
#ifndef ENCODINGS_H
#define ENCODINGS_H

#include <stddef.h>

/* Every payload begins with a number of ten digits, so that it has one place and one length. */
#define NUMBER_DIGITS 10

struct text {
    const char *data;
    size_t length;
};

struct encoding {
    const char *name, *subprotocol; /* none is offered where it is NULL */
    int opcode;
    struct text connect, pong;                    /* commands */
    const char *subscribe;                        /* a command, as a format for the name of a channel */
    size_t ping_length;                           /* of a ping, the one message of its length */
    struct text connected, subscribed, published; /* each in the reply to its command, and in no other */
    struct text mark;                             /* in a publication, before the digits */

    /* The first message of those that came together. Returns what stands behind it, NULL where it is not whole. */
    const char *(*split)(const char *data, const char *end, struct text *message);

    /* A connect command with a token. Returns its length. */
    size_t (*connect_with)(char *out, const char *token);

    /* A publish command: its id, its channel, the digits, and what stands behind them. Returns its length. */
    size_t (*publish)(char *out, long id, const char *channel, const char *digits, struct text rest);

    /* What stands in a payload behind the digits, with so many bytes of filler. Returns its length. */
    size_t (*rest)(char *out, size_t filler);
};

#define SUBSCRIBE_BYTES 64
#define CONNECT_BYTES 64  /* of a connect command, beside its token */
#define PUBLISH_BYTES 128 /* of a publish command, beside what stands behind the digits */
#define REST_BYTES 16     /* beside the filler */

/* An encoding by its name. Ends the program where there is none. */
const struct encoding *encoding_named(const char *name);

#endif
