/* The floor: for each publish, a loop of one write for each subscriber, and nothing else.
 *
 * It is the least that a server can do which does not join messages. It knows the few commands that the
 * generator sends, looks at nothing that it does not need, and checks nothing: it is for no other client.
 * It prints the port that it got, and runs until it is killed.
 */
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define IN_BYTES 65536
#define EVENTS 256

struct peer {
    int fd;
    int upgraded;
    size_t length; /* of what came in and is not taken yet */
    char in[IN_BYTES];
};

static int epoll_fd;
static struct peer **peers; /* by file descriptor */
static int *subscribers;
static size_t subscribers_count;

static void send_all(int fd, const char *data, size_t length)
{
    while (length) {
        ssize_t sent = send(fd, data, length, MSG_NOSIGNAL);
        if (sent > 0) {
            data += sent;
            length -= (size_t)sent;
        } else if (errno == EAGAIN) {
            struct pollfd writable = {.fd = fd, .events = POLLOUT};
            poll(&writable, 1, -1);
        } else {
            return; /* It is gone; its end is read from its socket. */
        }
    }
}

static void send_text(int fd, const char *text, size_t length)
{
    char frame[length + 14];
    size_t head = frame_head(frame, OP_TEXT, length, NULL);
    memcpy(frame + head, text, length);
    send_all(fd, frame, head + length);
}

/* {"id":7,"publish":{"channel":"…","data":…}} */
static void publish(const char *command, size_t length)
{
    static const char before[] = "{\"push\":{\"channel\":\"" CHANNEL "\",\"pub\":{\"data\":";
    char frame[length + sizeof before + 32];
    const char *data = memmem(command, length, "\"data\":", 7);
    if (!data)
        die("floor: a publish without data");
    data += 7;
    size_t data_length = (size_t)(command + length - 2 - data);
    size_t text = sizeof before - 1 + data_length + 3;
    size_t at = frame_head(frame, OP_TEXT, text, NULL);
    memcpy(frame + at, before, sizeof before - 1);
    at += sizeof before - 1;
    memcpy(frame + at, data, data_length);
    at += data_length;
    memcpy(frame + at, "}}}", 3);
    for (size_t i = 0; i < subscribers_count; i++)
        send_all(subscribers[i], frame, at + 3);
}

static void on_command(struct peer *peer, const char *command, size_t length)
{
    char reply[128];
    const char *name = memchr(command, ',', length);
    if (!name || length < 6)
        die("floor: not a command: %.*s", (int)length, command);
    int id_length = (int)(name - command);
    name += 2;
    const char *result = "\"publish\":{}";
    if (*name == 'c')
        result = "\"connect\":{\"client\":\"c\",\"version\":\"floor\"}";
    if (*name == 's') {
        result = "\"subscribe\":{}";
        subscribers[subscribers_count++] = peer->fd;
    }
    if (*name == 'p')
        publish(command, length);
    int size = snprintf(reply, sizeof reply, "%.*s,%s}", id_length, command, result);
    send_text(peer->fd, reply, (size_t)size);
}

static size_t upgrade(struct peer *peer)
{
    static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                                 "Connection: Upgrade\r\n\r\n";
    const char *end = memmem(peer->in, peer->length, "\r\n\r\n", 4);
    if (!end)
        return 0;
    peer->upgraded = 1;
    send_all(peer->fd, answer, sizeof answer - 1);
    return (size_t)(end + 4 - peer->in);
}

static void forget(struct peer *peer)
{
    for (size_t i = 0; i < subscribers_count; i++)
        if (subscribers[i] == peer->fd)
            subscribers[i--] = subscribers[--subscribers_count];
    peers[peer->fd] = NULL;
    close(peer->fd);
    free(peer);
}

static void on_readable(struct peer *peer)
{
    ssize_t got = recv(peer->fd, peer->in + peer->length, IN_BYTES - peer->length, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        forget(peer);
        return;
    }
    peer->length += (size_t)got;
    size_t taken = peer->upgraded ? 0 : upgrade(peer);
    struct frame frame;
    while (peer->upgraded && take_frame(peer->in + taken, peer->length - taken, &frame)) {
        if (frame.opcode == OP_TEXT)
            on_command(peer, frame.payload, frame.length);
        taken += frame.size;
    }
    peer->length -= taken;
    memmove(peer->in, peer->in + taken, peer->length);
    if (peer->length == IN_BYTES)
        die("floor: a message of more than %d bytes", IN_BYTES);
}

static void accept_all(int listener)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, 0)) >= 0) {
        prepare_socket(fd);
        struct peer *peer = malloc(sizeof *peer);
        if (!peer)
            die("floor: out of memory");
        peer->fd = fd;
        peer->upgraded = 0;
        peer->length = 0;
        peers[fd] = peer;
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
    }
    if (errno != EAGAIN && errno != ECONNABORTED)
        die("floor: accept: %m");
}

int main(void)
{
    long files_max = raise_files_limit();
    peers = calloc((size_t)files_max, sizeof *peers);
    subscribers = calloc((size_t)files_max, sizeof *subscribers);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (!peers || !subscribers || bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, 4096) != 0)
        die("floor: cannot listen: %m");
    prepare_socket(listener);
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    epoll_fd = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == listener)
                accept_all(listener);
            else if (peers[events[i].data.fd])
                on_readable(peers[events[i].data.fd]);
        }
    }
}
