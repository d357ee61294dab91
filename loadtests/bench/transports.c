#define _GNU_SOURCE
#include "transports.h"

#include <stdio.h>

static void append_text(struct bytes *out, const char *text)
{
    bytes_append(out, text, strlen(text));
}

/* A WebSocket: frames of RFC 6455 behind an upgrade. */

static void request_upgrade(struct bytes *out, const struct encoding *encoding, struct text connect)
{
    (void)connect;
    append_text(out, "GET /connection/websocket HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIGdlbmVyYXRvcidzIQ==\r\n"
                     "Sec-WebSocket-Version: 13\r\n");
    if (encoding->subprotocol) {
        append_text(out, "Sec-WebSocket-Protocol: ");
        append_text(out, encoding->subprotocol);
        append_text(out, "\r\n");
    }
    append_text(out, "\r\n");
}

/* HTTP streaming: the command is the body of a request, and what comes are the chunks of its answer. */

static void request_stream(struct bytes *out, const struct encoding *encoding, struct text connect)
{
    char head[256];
    const char *type = encoding->opcode == OP_TEXT ? "application/json" : "application/octet-stream";
    snprintf(head, sizeof head,
             "POST /connection/http_stream HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %s\r\n"
             "Content-Length: %zu\r\n\r\n",
             type, connect.length);
    append_text(out, head);
    bytes_append(out, connect.data, connect.length);
}

/* A chunk of RFC 9112, section 7.1. */
static int take_chunk(char *data, size_t length, struct frame *frame)
{
    const char *line_end = memmem(data, length, "\r\n", 2);
    if (!line_end)
        return 0;
    size_t at = (size_t)(line_end + 2 - data), size = strtoul(data, NULL, 16);
    if (!size)
        die("the server ended a stream");
    if (length < at + size + 2)
        return 0;
    *frame = (struct frame){OP_CHUNK, data + at, size, at + size + 2};
    return 1;
}

/* SSE: the command is in the query of a request, and each message is an event. */

static void request_events(struct bytes *out, const struct encoding *encoding, struct text connect)
{
    (void)encoding;
    append_text(out, "GET /connection/sse?cf_connect=");
    for (size_t i = 0; i < connect.length; i++) {
        char escaped[4];
        snprintf(escaped, sizeof escaped, "%%%02X", (unsigned char)connect.data[i]);
        append_text(out, escaped);
    }
    append_text(out, " HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
}

/* "data: " and a line, and an empty one. */
static const char *split_events(const char *data, const char *end, struct text *message)
{
    static const char FIELD[] = "data: ", ENDING[] = "\n\n";
    const char *text = data + sizeof FIELD - 1;
    if (text >= end || memcmp(data, FIELD, sizeof FIELD - 1) != 0)
        return NULL;
    const char *newline = memchr(text, '\n', (size_t)(end - text));
    if (!newline || end - newline < 2 || memcmp(newline, ENDING, 2) != 0)
        return NULL;
    *message = (struct text){text, (size_t)(newline - text)};
    return newline + 2;
}

static const struct transport TRANSPORTS[] = {
    {.name = "websocket",
     .welcome = "HTTP/1.1 101 ",
     .two_way = 1,
     .request = request_upgrade,
     .take = take_frame},
    {.name = "http_stream", .welcome = "HTTP/1.1 200 ", .request = request_stream, .take = take_chunk},
    {.name = "sse",
     .welcome = "HTTP/1.1 200 ",
     .request = request_events,
     .take = take_chunk,
     .split = split_events},
};

const struct transport *transport_named(const char *name)
{
    for (size_t i = 0; i < sizeof TRANSPORTS / sizeof *TRANSPORTS; i++)
        if (strcmp(TRANSPORTS[i].name, name) == 0)
            return &TRANSPORTS[i];
    die("load: no transport is called %s", name);
}
