/* The transports of the protocol, as far as the generator speaks them. */
#ifndef TRANSPORTS_H
#define TRANSPORTS_H

#include "bytes.h"
#include "encodings.h"

struct transport {
    const char *name;
    const char *welcome; /* what the head of the answer begins with */
    int two_way;         /* whether commands follow; where none do, the connect command is in the request */

    /* Write the request. */
    void (*request)(struct bytes *out, const struct encoding *encoding, struct text connect);

    /* Take the first frame of what comes behind the head. Returns 0 where it is not whole yet. */
    int (*take)(char *data, size_t length, struct frame *frame);

    /* The messages of a frame, in place of the encoding's own way; NULL where that one serves. */
    const char *(*split)(const char *data, const char *end, struct text *message);
};

/* A transport by its name. Ends the program where there is none. */
const struct transport *transport_named(const char *name);

#endif
