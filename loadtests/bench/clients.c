#define _GNU_SOURCE
#include "clients.h"
#include "common.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define IN_BYTES (1 << 20)
#define EVENTS 128
#define SILENT_BUFFER_BYTES 4096

static const unsigned char MASK[4] = {0x2f, 0x9a, 0x51, 0xc3};

int64_t clients_now;
int64_t clients_idle_ns;
int64_t clients_pings;

static const struct encoding *encoding;
static const struct transport *transport, *websocket;
static struct text connect_with_token; /* empty where there is none */
static struct text channel;
static char subscribe[SUBSCRIBE_BYTES];
static int epoll_fd, timer_fd;
static char in[IN_BYTES];

static void watch(struct client *client, int operation, uint32_t events)
{
    /* Edges, since levels cost a second look at each socket. A read that is not full has emptied the socket. */
    struct epoll_event event = {.events = events | EPOLLRDHUP | EPOLLET, .data.ptr = client};
    if (epoll_ctl(epoll_fd, operation, client->fd, &event) != 0)
        die("a socket cannot be watched: %m");
}

void clients_start(const struct encoding *spoken, const struct transport *used, const char *name, const char *token,
                   int timer)
{
    encoding = spoken;
    transport = used;
    websocket = transport_named("websocket");
    channel = (struct text){name, strlen(name)};
    snprintf(subscribe, sizeof subscribe, encoding->subscribe, name);
    if (token) {
        char *command = malloc(strlen(token) + CONNECT_BYTES);
        if (!command)
            die("out of memory");
        connect_with_token = (struct text){command, encoding->connect_with(command, token)};
    }
    epoll_fd = epoll_create1(0);
    timer_fd = timer;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (timer >= 0)
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer, &event);
}

void client_open(struct client *client, enum role role, int port)
{
    *client = (struct client){
        .role = role,
        .transport = role == PUBLISHER ? websocket : transport,
        .state = OPENING,
        .fd = socket(AF_INET, SOCK_STREAM, 0),
    };
    if (client->fd < 0)
        die("a socket cannot be made: %m");
    prepare_socket(client->fd);
    /* Nothing waits after the end: the ports of thousands are free for the next run. */
    struct linger linger = {.l_onoff = 1};
    setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    int small = SILENT_BUFFER_BYTES;
    if (role == SILENT)
        setsockopt(client->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(client->fd, (struct sockaddr *)&address, sizeof address) != 0 && errno != EINPROGRESS)
        die("port %d does not take a connection: %m", port);
    watch(client, EPOLL_CTL_ADD, EPOLLOUT);
}

void client_queue(struct client *client, const char *command, size_t length)
{
    char head[14];
    bytes_append(&client->unsent, head, frame_head(head, encoding->opcode, length, MASK));
    bytes_append(&client->unsent, command, length);
    char *payload = client->unsent.data + client->unsent.length - length;
    for (size_t i = 0; i < length; i++)
        payload[i] ^= (char)MASK[i % 4];
}

void client_flush(struct client *client)
{
    struct bytes *unsent = &client->unsent;
    ssize_t sent = send(client->fd, unsent->data, unsent->length, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        die("the server broke a connection: %m");
    if (sent > 0)
        bytes_drop_first(unsent, (size_t)sent);
    if (unsent->length)
        watch(client, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
}

static int has_token(const struct client *client)
{
    return connect_with_token.length && (client->role == SUBSCRIBER || client->role == SILENT);
}

static struct text connect_of(const struct client *client)
{
    return has_token(client) ? connect_with_token : encoding->connect;
}

static void command(struct client *client, struct text text)
{
    client_queue(client, text.data, text.length);
    client_flush(client);
}

static void on_writable(struct client *client)
{
    watch(client, EPOLL_CTL_MOD, EPOLLIN);
    if (client->state == OPENING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error)
            die("the server does not take a connection: %s", strerror(error));
        client->state = REQUESTING;
        client->transport->request(&client->unsent, encoding, connect_of(client));
    }
    client_flush(client);
}

static void become_ready(struct client *client)
{
    client->state = READY;
    if (client->role == SILENT)
        epoll_ctl(epoll_fd, EPOLL_CTL_DEL, client->fd, NULL);
    clients_on_ready(client);
}

static int holds(struct text message, struct text mark)
{
    return memmem(message.data, message.length, mark.data, mark.length) != NULL;
}

static void on_message(struct client *client, struct text message)
{
    if (message.length == encoding->ping_length && client->state != CONNECTING) {
        clients_pings++;
        /* The pong to a stream is a request of its own, and that of a stream's end comes after a run's. */
        if (client->transport->two_way)
            command(client, encoding->pong);
    } else if (client->state == CONNECTING && holds(message, encoding->connected)) {
        if (client->role == VISITOR || client->role == PUBLISHER || holds(message, channel)) {
            become_ready(client);
        } else if (!client->transport->two_way) {
            die("over %s who has no token for the channel cannot subscribe", client->transport->name);
        } else {
            client->state = SUBSCRIBING;
            command(client, (struct text){subscribe, strlen(subscribe)});
        }
    } else if (client->state == SUBSCRIBING && holds(message, encoding->subscribed)) {
        become_ready(client);
    } else if (client->state == READY) {
        clients_on_message(client, message.data, message.length);
    } else {
        die("the server answered: %.*s", (int)message.length, message.data);
    }
}

static void on_frame(struct client *client, const struct frame *frame)
{
    if (frame->opcode == encoding->opcode || frame->opcode == OP_CHUNK) {
        const char *at = frame->payload, *end = at + frame->length;
        const char *(*split)(const char *, const char *, struct text *) = client->transport->split;
        struct text message;
        if (!split)
            split = encoding->split;
        while (at < end) {
            at = split(at, end, &message);
            if (!at)
                die("the server sent a frame that is not whole messages");
            on_message(client, message);
        }
    } else if (frame->opcode == OP_CLOSE && frame->length >= 2) {
        const unsigned char *code = (const unsigned char *)frame->payload;
        die("the server closed a connection: %d %.*s", code[0] << 8 | code[1], (int)frame->length - 2,
            frame->payload + 2);
    } else {
        die("the server sent a frame of opcode %d", frame->opcode);
    }
}

static size_t on_answer(struct client *client, const char *data, size_t length)
{
    const char *end = memmem(data, length, "\r\n\r\n", 4);
    if (!end)
        return 0;
    if (strncmp(data, client->transport->welcome, strlen(client->transport->welcome)) != 0)
        die("the server refused a handshake: %.*s", (int)strcspn(data, "\r"), data);
    client->state = CONNECTING;
    if (client->transport->two_way)
        command(client, connect_of(client));
    return (size_t)(end + 4 - data);
}

static void on_readable(struct client *client)
{
    size_t length = client->kept.length;
    if (length)
        memcpy(in, client->kept.data, length);
    ssize_t got = recv(client->fd, in + length, IN_BYTES - length, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0)
        die("the server broke a connection");
    clients_now = now_ns();
    length += (size_t)got;
    size_t taken = client->state == REQUESTING ? on_answer(client, in, length) : 0;
    struct frame frame;
    while (client->state != REQUESTING && client->transport->take(in + taken, length - taken, &frame)) {
        on_frame(client, &frame);
        taken += frame.size;
    }
    client->kept.length = 0;
    if (taken < length)
        bytes_append(&client->kept, in + taken, length - taken);
    if (client->kept.length == IN_BYTES)
        die("the server sent a frame of more than %d bytes", IN_BYTES);
    if (length == IN_BYTES)
        on_readable(client);
}

void clients_wait(int timeout_ms)
{
    struct epoll_event events[EVENTS];
    int64_t began = timeout_ms ? 0 : own_cpu_ns();
    int count = epoll_wait(epoll_fd, events, EVENTS, timeout_ms);
    if (!timeout_ms && !count)
        clients_idle_ns += own_cpu_ns() - began;
    for (int i = 0; i < count; i++) {
        struct client *client = events[i].data.ptr;
        uint64_t expirations;
        if (!client) {
            if (read(timer_fd, &expirations, sizeof expirations) < 0 && errno != EAGAIN)
                die("the timer cannot be read: %m");
            continue;
        }
        if (events[i].events & EPOLLOUT)
            on_writable(client);
        if (events[i].events & EPOLLIN)
            on_readable(client);
        if (events[i].events & (EPOLLRDHUP | EPOLLERR | EPOLLHUP))
            on_readable(client); /* the end, or the error, behind what could be read */
    }
}
