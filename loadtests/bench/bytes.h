/* Bytes that grow at one end. */
#ifndef BYTES_H
#define BYTES_H

#include "common.h"

#include <stdlib.h>
#include <string.h>

struct bytes {
    char *data;
    size_t length, room;
};

static inline void bytes_append(struct bytes *bytes, const char *data, size_t length)
{
    if (bytes->length + length > bytes->room) {
        bytes->room = 2 * (bytes->length + length);
        bytes->data = realloc(bytes->data, bytes->room);
        if (!bytes->data)
            die("out of memory");
    }
    memcpy(bytes->data + bytes->length, data, length);
    bytes->length += length;
}

static inline void bytes_drop_first(struct bytes *bytes, size_t length)
{
    bytes->length -= length;
    memmove(bytes->data, bytes->data + length, bytes->length);
}

#endif
