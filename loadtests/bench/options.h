/* The generator's command line. */
#ifndef OPTIONS_H
#define OPTIONS_H

#define MANY 8

enum mode { WINDOW, RATE, CONNECTS, IDLE };

extern struct options {
    enum mode mode;
    int ports[MANY], ports_count; /* of the server; the publisher is on the first */
    int pids[MANY], pids_count;   /* the server's processes */
    const char *encoding, *transport;
    const char *channel;          /* of CHANNEL_LENGTH characters */
    const char *token;            /* that subscribers connect with, instead of subscribing; or NULL */
    int clients;                  /* beside the publisher */
    int silent;                   /* so many of them never read */
    int in_flight;                /* handshakes at once */
    int window;                   /* publishes in flight */
    int turns;                    /* measure once for each byte of the standard input, and do nothing between */
    int awake;                    /* do not sleep while nothing comes: no write of the server has to wake this */
    int size;                     /* of a payload, in bytes */
    double rate;                  /* publishes a second */
    double seconds, warmup_s;     /* of measured time, and before it */
} options;

/* Fill `options`. Ends the program where they are not right. */
void parse_options(int argc, char **argv);

#endif
