#include "options.h"
#include "common.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

static const char *const MODES[] = {"window", "rate", "connects", "idle"};

struct options options = {
    .encoding = "json", .transport = "websocket", .channel = CHANNEL, .clients = 1, .in_flight = 64, .window = 1, .size = 100, .rate = 1,
    .seconds = 1};

static void set(const char *name, char *value)
{
    if (strcmp(name, "encoding") == 0)
        options.encoding = value;
    else if (strcmp(name, "transport") == 0)
        options.transport = value;
    else if (strcmp(name, "channel") == 0)
        options.channel = value;
    else if (strcmp(name, "token") == 0)
        options.token = value;
    else if (strcmp(name, "port") == 0 && options.ports_count < MANY)
        options.ports[options.ports_count++] = atoi(value);
    else if (strcmp(name, "watch") == 0 && options.pids_count < MANY)
        options.pids[options.pids_count++] = atoi(value);
    else if (strcmp(name, "clients") == 0)
        options.clients = atoi(value);
    else if (strcmp(name, "silent") == 0)
        options.silent = atoi(value);
    else if (strcmp(name, "in-flight") == 0)
        options.in_flight = atoi(value);
    else if (strcmp(name, "window") == 0)
        options.window = atoi(value);
    else if (strcmp(name, "turns") == 0)
        options.turns = atoi(value);
    else if (strcmp(name, "awake") == 0)
        options.awake = atoi(value);
    else if (strcmp(name, "size") == 0)
        options.size = atoi(value);
    else if (strcmp(name, "rate") == 0)
        options.rate = atof(value);
    else if (strcmp(name, "seconds") == 0)
        options.seconds = atof(value);
    else if (strcmp(name, "warmup") == 0)
        options.warmup_s = atof(value);
    else
        die("load: too many of --%s", name);
}

void parse_options(int argc, char **argv)
{
    static const struct option NAMES[] = {
        {"port", 1, NULL, 0}, {"watch", 1, NULL, 0}, {"clients", 1, NULL, 0}, {"silent", 1, NULL, 0},
        {"in-flight", 1, NULL, 0}, {"window", 1, NULL, 0}, {"size", 1, NULL, 0}, {"rate", 1, NULL, 0},
        {"seconds", 1, NULL, 0}, {"warmup", 1, NULL, 0}, {"encoding", 1, NULL, 0},
        {"transport", 1, NULL, 0}, {"token", 1, NULL, 0}, {"awake", 1, NULL, 0},
        {"channel", 1, NULL, 0}, {"turns", 1, NULL, 0},
        {0},
    };
    int index, found;
    while ((found = getopt_long(argc, argv, "", NAMES, &index)) == 0)
        set(NAMES[index].name, optarg);
    size_t mode = 0;
    while (mode < 4 && (optind + 1 != argc || strcmp(argv[optind], MODES[mode]) != 0))
        mode++;
    if (found != -1 || mode == 4 || !options.ports_count)
        die("usage: load window|rate|connects|idle --port PORT [--clients N] ...");
    options.mode = (enum mode)mode;
    if (options.clients < 1 || options.silent >= options.clients || options.in_flight < 1 || options.window < 1
        || options.rate <= 0 || options.seconds <= 0 || strlen(options.channel) != CHANNEL_LENGTH)
        die("load: a number is out of its range");
}
