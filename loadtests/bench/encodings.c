#define _GNU_SOURCE
#include "encodings.h"
#include "common.h"

#include <endian.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define TEXT(literal) {literal, sizeof literal - 1}

static char *put(char *out, const char *data, size_t length)
{
    memcpy(out, data, length);
    return out + length;
}

#define PUT(out, literal) put(out, literal, sizeof literal - 1)

/* JSON: a line each. */

static const char *json_split(const char *data, const char *end, struct text *message)
{
    const char *newline = memchr(data, '\n', (size_t)(end - data));
    *message = (struct text){data, (size_t)((newline ? newline : end) - data)};
    return newline ? newline + 1 : end;
}

static size_t json_connect_with(char *out, const char *token)
{
    return (size_t)sprintf(out, "{\"id\":1,\"connect\":{\"token\":\"%s\"}}", token);
}

static size_t json_publish(char *out, long id, const char *channel, const char *digits, struct text rest)
{
    int length = sprintf(out, "{\"id\":%ld,\"publish\":{\"channel\":\"%s\",\"data\":{\"n\":", id, channel);
    char *at = put(put(out + length, digits, NUMBER_DIGITS), rest.data, rest.length);
    return (size_t)(PUT(at, "}}") - out);
}

static size_t json_rest(char *out, size_t filler)
{
    char *at = PUT(out, ",\"x\":\"");
    memset(at, 'x', filler);
    return (size_t)(PUT(at + filler, "\"}") - out);
}

/* Protobuf: each behind its length as a varint. A payload is the same JSON. */

static size_t varint_length(size_t number)
{
    size_t length = 1;
    while (number >>= 7)
        length++;
    return length;
}

static char *put_varint(char *out, size_t number)
{
    for (; number > 0x7f; number >>= 7)
        *out++ = (char)(number | 0x80);
    *out++ = (char)number;
    return out;
}

static const char *protobuf_split(const char *data, const char *end, struct text *message)
{
    size_t length = 0;
    for (int shift = 0; data < end && shift < 35; shift += 7) {
        unsigned char byte = (unsigned char)*data++;
        length |= (size_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *message = (struct text){data, length};
            return length <= (size_t)(end - data) ? data + length : NULL;
        }
    }
    return NULL;
}

static size_t protobuf_connect_with(char *out, const char *token)
{
    size_t length = strlen(token), connect = 1 + varint_length(length) + length;
    char *at = PUT(put_varint(out, 2 + 1 + varint_length(connect) + connect), "\x08\x01\x22");
    at = PUT(put_varint(at, connect), "\x0a");
    return (size_t)(put(put_varint(at, length), token, length) - out);
}

static size_t protobuf_publish(char *out, long id, const char *channel, const char *digits, struct text rest)
{
    static const char NUMBER[] = "{\"n\":";
    size_t data = sizeof NUMBER - 1 + NUMBER_DIGITS + rest.length;
    size_t publish = 2 + CHANNEL_LENGTH + 1 + varint_length(data) + data;
    size_t command = 1 + varint_length((size_t)id) + 1 + varint_length(publish) + publish;
    char *at = PUT(put_varint(out, command), "\x08");
    at = PUT(put_varint(at, (size_t)id), "\x3a");
    at = put(PUT(put_varint(at, publish), "\x0a\x0a"), channel, CHANNEL_LENGTH);
    at = PUT(put_varint(PUT(at, "\x12"), data), NUMBER);
    return (size_t)(put(put(at, digits, NUMBER_DIGITS), rest.data, rest.length) - out);
}

/* MessagePack: map after map, written the shortest way, as encoders do. A payload is a map too, and its number text, as its place is found by its digits. */

/* Bytes of the length or count behind a head. */
static size_t width_of(unsigned char head)
{
    switch (head) {
    case 0xc4: case 0xd9:
        return 1;
    case 0xc5: case 0xda: case 0xdc: case 0xde:
        return 2;
    case 0xc6: case 0xdb: case 0xdd: case 0xdf:
        return 4;
    default:
        return 0;
    }
}

static const char *msgpack_split(const char *data, const char *end, struct text *message)
{
    const unsigned char *at = (const unsigned char *)data, *last = (const unsigned char *)end;
    for (size_t left = 1; left; left--) {
        if (at >= last)
            return NULL;
        unsigned char head = *at++;
        size_t width = width_of(head), count = 0;
        if ((size_t)(last - at) < width)
            return NULL;
        for (; width; width--)
            count = count << 8 | *at++;
        if (head >= 0x80 && head < 0x90)
            left += 2 * (size_t)(head & 0x0f);
        else if (head >= 0x90 && head < 0xa0)
            left += head & 0x0f;
        else if (head >= 0xa0 && head < 0xc0)
            at += head & 0x1f;
        else if (head == 0xca || head == 0xcb)
            at += head == 0xca ? 4 : 8;
        else if (head >= 0xcc && head <= 0xd3)
            at += (size_t)1 << (head & 3);
        else if (head == 0xdc || head == 0xdd)
            left += count;
        else if (head == 0xde || head == 0xdf)
            left += 2 * count;
        else
            at += count;
    }
    *message = (struct text){data, (size_t)((const char *)at - data)};
    return at <= last ? (const char *)at : NULL;
}

static size_t msgpack_connect_with(char *out, const char *token)
{
    uint16_t length = htobe16((uint16_t)strlen(token));
    char *at = PUT(out, "\x82\xa2id\x01\xa7" "connect\x81\xa5token\xda");
    at = put(at, (const char *)&length, sizeof length);
    return (size_t)(put(at, token, strlen(token)) - out);
}

/* A number of up to 32 bits, behind the head of its width: `head` is that of 8 bits, and those of 16 and 32 follow. */
static char *put_number(char *out, uint32_t number, unsigned char head)
{
    int width = number < 1 << 8 ? 0 : number < 1 << 16 ? 1 : 2;
    uint32_t bytes = htobe32(number);
    *out++ = (char)(head + width);
    return put(out, (const char *)&bytes + 4 - (1 << width), (size_t)1 << width);
}

static size_t msgpack_publish(char *out, long id, const char *channel, const char *digits, struct text rest)
{
    char *at = PUT(out, "\x82\xa2id");
    if (id < 0x80)
        *at++ = (char)id;
    else
        at = put_number(at, (uint32_t)id, 0xcc);
    at = put(PUT(at, "\xa7publish\x82\xa7" "channel\xaa"), channel, CHANNEL_LENGTH);
    at = PUT(at, "\xa4" "data\x82\xa1n\xaa");
    return (size_t)(put(put(at, digits, NUMBER_DIGITS), rest.data, rest.length) - out);
}

static size_t msgpack_rest(char *out, size_t filler)
{
    char *at = PUT(out, "\xa1x");
    if (filler < 32)
        *at++ = (char)(0xa0 + filler);
    else
        at = put_number(at, (uint32_t)filler, 0xd9);
    memset(at, 'x', filler);
    return (size_t)(at + filler - out);
}

static const struct encoding ENCODINGS[] = {
    {
        .name = "json",
        .opcode = OP_TEXT,
        .connect = TEXT("{\"id\":1,\"connect\":{}}"),
        .subscribe = "{\"id\":2,\"subscribe\":{\"channel\":\"%s\"}}",
        .pong = TEXT("{}"),
        .ping_length = 2,
        .connected = TEXT("\"connect\":"),
        .subscribed = TEXT("\"subscribe\":"),
        .published = TEXT("\"publish\":"),
        .mark = TEXT("\"data\":{\"n\":"),
        .split = json_split,
        .connect_with = json_connect_with,
        .publish = json_publish,
        .rest = json_rest,
    },
    {
        .name = "protobuf",
        .subprotocol = "centrifuge-protobuf",
        .opcode = OP_BINARY,
        .connect = TEXT("\x04\x08\x01\x22\x00"),
        .subscribe = "\x10\x08\x02\x2a\x0c\x0a\x0a%s",
        .pong = TEXT("\x00"),
        .ping_length = 0,
        .connected = TEXT("\x08\x01\x2a"),
        .subscribed = TEXT("\x08\x02\x32"),
        .published = TEXT("\x42\x00"),
        .mark = TEXT("{\"n\":"),
        .split = protobuf_split,
        .connect_with = protobuf_connect_with,
        .publish = protobuf_publish,
        .rest = json_rest,
    },
    {
        .name = "msgpack",
        .subprotocol = "hub-msgpack",
        .opcode = OP_BINARY,
        .connect = TEXT("\x82\xa2id\x01\xa7" "connect\x80"),
        .subscribe = "\x82\xa2id\x02\xa9subscribe\x81\xa7" "channel\xaa%s",
        .pong = TEXT("\x80"),
        .ping_length = 1,
        .connected = TEXT("\xa7" "connect"),
        .subscribed = TEXT("\xa9subscribe"),
        .published = TEXT("\xa7publish"),
        .mark = TEXT("\xa4" "data\x82\xa1n\xaa"),
        .split = msgpack_split,
        .connect_with = msgpack_connect_with,
        .publish = msgpack_publish,
        .rest = msgpack_rest,
    },
};

const struct encoding *encoding_named(const char *name)
{
    for (size_t i = 0; i < sizeof ENCODINGS / sizeof *ENCODINGS; i++)
        if (strcmp(ENCODINGS[i].name, name) == 0)
            return &ENCODINGS[i];
    die("load: no encoding is called %s", name);
}
