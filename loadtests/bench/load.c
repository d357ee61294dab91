/* The generator: one thread that publishes, reads as every subscriber, and checks that each message came to each
 * of them once, whole and in order. Prints one line of JSON; where anything was wrong, one line says what, and the
 * exit code is 1.
 *
 *   load window    keeps --window publishes in flight; one is in flight until every subscriber has it
 *   load rate      publishes --rate times a second, whatever comes of it
 *   load connects  connects --clients clients, and no more
 *   load idle      holds --clients subscribers who only answer pings
 *
 * With --turns it measures once for each byte that comes on its standard input, prints a line for each, and between
 * them only answers pings.
 *
 * Latency is from the time at which a message was to be sent, not from when it was: a server that holds the
 * generator up does not look better for it.
 */
#define _GNU_SOURCE
#include "clients.h"
#include "common.h"
#include "histogram.h"
#include "options.h"
#include "watched.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define NUMBER_BASE 1000000000L
#define DRAIN_NS 5000000000L /* without anything that came */
#define AFTER_NS 50000000L /* something may still come, for the second time */
#define OPEN_NS 60000000000L
#define WAIT_MS 10
#define FILES_BESIDE 32

struct message {
    int64_t due;
    int waiting; /* for so many subscribers */
};

static struct client *clients, *publisher;
static int clients_count, opened, ready, readers;
static struct message *messages;
static int64_t messages_room, published, acknowledged, complete;
static int64_t lost, doubled, disordered;
static int64_t measured_first = INT64_MAX, measured_end = INT64_MAX; /* numbers of messages */
static int64_t deliveries, deliveries_total, began_at, ended_at;
static int measuring;
static double own_cpu_s;
static struct histogram latency;
static struct watched watched[MANY];
static const struct encoding *encoding;
static struct text after_number; /* the rest of each payload */

/* What the clients hear. */

static void check_order(struct client *client, int64_t number)
{
    if (number == client->next - 1) {
        doubled++;
    } else if (number < client->next) {
        disordered++;
    } else {
        lost += number - client->next;
        client->next = number + 1;
    }
}

static void on_message(struct client *client, int64_t number)
{
    if (number < 0 || number >= published)
        die("a message came that was never published: %ld", (long)number);
    if (number == client->next)
        client->next++;
    else
        check_order(client, number);
    struct message *message = &messages[number];
    if (number >= measured_first && number < measured_end)
        histogram_record(&latency, clients_now - message->due);
    deliveries += measuring;
    deliveries_total++;
    if (--message->waiting == 0)
        complete++;
}

static void on_push(struct client *client, const char *message, size_t length)
{
    static size_t place; /* where the data stood in the last message */
    const struct text mark = encoding->mark;
    if (length < place + mark.length || memcmp(message + place, mark.data, mark.length) != 0) {
        const char *found = memmem(message, length, mark.data, mark.length);
        if (!found)
            die("the server said: %.*s", (int)length, message);
        place = (size_t)(found - message);
    }
    const char *digits = message + place + mark.length;
    size_t left = length - place - mark.length;
    if (left < NUMBER_DIGITS + after_number.length
        || memcmp(digits + NUMBER_DIGITS, after_number.data, after_number.length) != 0)
        die("a payload was changed: %.*s", (int)length, message);
    int64_t number = 0;
    for (int i = 0; i < NUMBER_DIGITS; i++)
        number = 10 * number + (digits[i] - '0');
    on_message(client, number - NUMBER_BASE);
}

void clients_on_message(struct client *client, const char *message, size_t length)
{
    if (client != publisher)
        on_push(client, message, length);
    else if (memmem(message, length, encoding->published.data, encoding->published.length))
        acknowledged++;
    else
        die("a publish was answered: %.*s", (int)length, message);
}

void clients_on_ready(struct client *client)
{
    readers += client->role == SUBSCRIBER;
    ready++;
}

/* What is done. */

static enum role role_of(int index)
{
    if (options.mode == CONNECTS)
        return VISITOR;
    if (options.mode != IDLE && index == 0)
        return PUBLISHER;
    return index > clients_count - 1 - options.silent ? SILENT : SUBSCRIBER;
}

static void open_all(void)
{
    int64_t deadline = now_ns() + OPEN_NS;
    while (ready < clients_count) {
        for (; opened < clients_count && opened - ready < options.in_flight; opened++)
            client_open(&clients[opened], role_of(opened), options.ports[opened % options.ports_count]);
        clients_wait(WAIT_MS);
        if (now_ns() > deadline)
            die("after %ld s only %d of %d clients were connected", OPEN_NS / 1000000000L, ready, clients_count);
    }
}

static void publish(int64_t due)
{
    if (published == messages_room) {
        messages_room = messages_room ? 2 * messages_room : 4096;
        messages = realloc(messages, (size_t)messages_room * sizeof *messages);
        if (!messages)
            die("out of memory");
    }
    messages[published] = (struct message){due, readers};
    char command[PUBLISH_BYTES + after_number.length], digits[24];
    sprintf(digits, "%ld", NUMBER_BASE + (long)published);
    size_t length = encoding->publish(command, (long)published + 3, options.channel, digits, after_number);
    client_queue(publisher, command, length);
    published++;
}

static void fill_window(void)
{
    if (published - complete == options.window)
        return;
    int64_t now = now_ns();
    while (published - complete < options.window)
        publish(now);
    client_flush(publisher);
}

static void keep_rate(int timer, int64_t start)
{
    int64_t before = published, now = now_ns(), due;
    while ((due = start + (int64_t)((double)published * 1e9 / options.rate)) <= now)
        publish(due);
    if (published == before)
        return;
    client_flush(publisher);
    struct itimerspec at = {.it_value = {due / 1000000000L, due % 1000000000L}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
}

/* But for what it takes to stay awake. */
static double own_cpu(void)
{
    return (double)(own_cpu_ns() - clients_idle_ns) / 1e9;
}

static void begin_measuring(void)
{
    measuring = 1;
    deliveries = 0;
    memset(&latency, 0, sizeof latency);
    measured_first = published;
    measured_end = INT64_MAX;
    began_at = now_ns();
    own_cpu_s = -own_cpu();
    for (int i = 0; i < options.pids_count; i++)
        watched_begin(&watched[i]);
}

static void end_measuring(void)
{
    measuring = 0;
    measured_end = published;
    ended_at = now_ns();
    own_cpu_s += own_cpu();
    for (int i = 0; i < options.pids_count; i++)
        watched_end(&watched[i]);
}

static void run(int timer)
{
    int64_t start = now_ns(), begin_at = start + (int64_t)(options.warmup_s * 1e9);
    int64_t end_at = begin_at + (int64_t)(options.seconds * 1e9);
    for (int64_t now = start; now < end_at; now = now_ns()) {
        if (now >= begin_at && !measuring)
            begin_measuring();
        if (options.mode == WINDOW)
            fill_window();
        else if (options.mode == RATE)
            keep_rate(timer, start);
        clients_wait(options.awake ? 0 : WAIT_MS);
    }
    end_measuring();
}

/* Until all that is in flight has come. What came wrong does not become right. */
static void settle(void)
{
    int64_t total = -1, deadline = 0;
    while ((complete < published || acknowledged < published) && !lost && !doubled && !disordered) {
        if (deliveries_total + acknowledged != total) {
            total = deliveries_total + acknowledged;
            deadline = now_ns() + DRAIN_NS;
        } else if (now_ns() > deadline) {
            break;
        }
        clients_wait(WAIT_MS);
    }
}

/* Wait for what is still to come, also for what must not. */
static void drain(void)
{
    settle();
    for (int64_t until = now_ns() + AFTER_NS; published && now_ns() < until;)
        clients_wait(WAIT_MS);
    for (int i = 0; i < clients_count; i++)
        if (clients[i].role == SUBSCRIBER)
            lost += published - clients[i].next;
}

/* What is said. */

static void print_result(void)
{
    printf("{\"seconds\":%.6f,\"connections\":%d,\"published\":%ld,\"deliveries\":%ld,\"pings\":%ld,\"cpu_s\":%.6f",
           (double)(ended_at - began_at) / 1e9, ready, (long)published, (long)deliveries, (long)clients_pings,
           own_cpu_s);
    static const struct {
        const char *name;
        double part;
    } QUANTILES[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}, {"max", 1.0}};
    printf(",\"latency_ms\":{");
    for (size_t i = 0; i < sizeof QUANTILES / sizeof *QUANTILES; i++)
        printf("%s\"%s\":%.6f", i ? "," : "", QUANTILES[i].name,
               (double)histogram_quantile(&latency, QUANTILES[i].part) / 1e6);
    printf("},\"watched\":[");
    for (int i = 0; i < options.pids_count; i++)
        printf("%s{\"cpu_s\":%.6f,\"rss_before\":%ld,\"rss_end\":%ld,\"rss_peak\":%ld}", i ? "," : "",
               watched[i].cpu_s, (long)watched[i].rss_before, (long)watched[i].rss_end, (long)watched[i].rss_peak);
    printf("]}\n");
    fflush(stdout);
}

/* Whether there is to be one more. */
static int next_turn(void)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    char byte;
    while (poll(&input, 1, 0) == 0)
        clients_wait(WAIT_MS);
    return read(STDIN_FILENO, &byte, 1) == 1;
}

static void take_turns(int timer)
{
    while (next_turn()) {
        run(timer);
        settle();
        print_result();
    }
}

static void make_payload(void)
{
    int filler = options.size - NUMBER_DIGITS - (int)strlen("{\"n\":,\"x\":\"\"}");
    if (filler < 0)
        die("load: --size must be at least %d", options.size - filler);
    char *rest = malloc((size_t)filler + REST_BYTES);
    if (!rest)
        die("out of memory");
    after_number = (struct text){rest, encoding->rest(rest, (size_t)filler)};
}

int main(int argc, char **argv)
{
    parse_options(argc, argv);
    for (int i = 0; i < options.pids_count; i++)
        watched_open(&watched[i], options.pids[i]);
    encoding = encoding_named(options.encoding);
    make_payload();
    int publishes = options.mode == WINDOW || options.mode == RATE;
    clients_count = options.clients + publishes;
    long files_max = raise_files_limit();
    if (files_max < clients_count + FILES_BESIDE)
        die("load: %d clients need as many open files, and the hard limit is %ld: raise it (ulimit -Hn)", clients_count,
            files_max);
    clients = calloc((size_t)clients_count, sizeof *clients);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    if (!clients || timer < 0)
        die("load: cannot begin: %m");
    publisher = publishes ? clients : NULL;
    clients_start(encoding, transport_named(options.transport), options.channel, options.token, timer);
    if (options.mode == CONNECTS)
        begin_measuring();
    open_all();
    if (options.mode == CONNECTS)
        end_measuring();
    else if (options.turns)
        take_turns(timer);
    else
        run(timer);
    drain();
    if (!options.turns)
        print_result();
    if (lost || doubled || disordered || acknowledged < published)
        die("of %ld messages to %d subscribers %ld deliveries were lost, %ld doubled, %ld out of order;"
            " %ld publishes were not acknowledged",
            (long)published, readers, (long)lost, (long)doubled, (long)disordered, (long)(published - acknowledged));
    return 0;
}
