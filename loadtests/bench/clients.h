/* Connections of the generator, all in one thread: each connects, subscribes where its role asks for it, answers
 * pings, and hands on what it hears. */
#ifndef CLIENTS_H
#define CLIENTS_H

#include "bytes.h"
#include "encodings.h"
#include "transports.h"

#include <stddef.h>
#include <stdint.h>

enum role {
    VISITOR,    /* connects, and no more */
    PUBLISHER,  /* the same over a WebSocket, whatever the others are on, and is used to publish */
    SUBSCRIBER, /* subscribes to the channel */
    SILENT,     /* subscribes, and never reads again */
};

enum state { OPENING, REQUESTING, CONNECTING, SUBSCRIBING, READY };

struct client {
    enum role role;
    const struct transport *transport;
    enum state state;
    int fd;
    int64_t next;       /* number of the message that it must hear next */
    struct bytes kept;  /* the beginning of a frame whose rest has not come */
    struct bytes unsent;
};

/* When the bytes that are being handled were read. */
extern int64_t clients_now;

/* CPU time in which there was nothing to handle, where nothing was waited for. */
extern int64_t clients_idle_ns;

/* How many pings were answered. */
extern int64_t clients_pings;

/* Begin. All speak `encoding`, and all but publishers over `transport`. Subscribers ask for `channel`; where there is a
 * `token`, they connect with it, and its channel is theirs without a command. `timer` is a descriptor that ends
 * `clients_wait` too when it can be read; -1 for none. */
void clients_start(const struct encoding *encoding, const struct transport *transport, const char *channel,
                   const char *token, int timer);

/* Begin to connect to a port of this machine. `clients_on_ready` is called when it is done. */
void client_open(struct client *client, enum role role, int port);

/* Put a command into a frame of its own, behind what is not sent yet. */
void client_queue(struct client *client, const char *command, size_t length);

/* Send what is queued, the rest of it as soon as the socket takes it. */
void client_flush(struct client *client);

/* Handle what has come, and wait for it for so long at most; 0 does not wait. */
void clients_wait(int timeout_ms);

/* To be defined by the user of this file. */
void clients_on_ready(struct client *client);
void clients_on_message(struct client *client, const char *message, size_t length);

#endif
