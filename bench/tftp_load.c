/* Many TFTP clients in one thread: the load of bench.tftp, which compiles this file.
 *
 *     tftp_load SERVER FILE NAME CLIENTS BLKSIZE WINDOWSIZE
 *
 * Each client has a socket and a port of its own, as machines have, and knows nothing but what the server tells
 * it. Every block is compared with FILE. One epoll that never sleeps: real clients have a core each. Prints one
 * line of JSON; times are seconds from the first request on.
 *
 * A client repeats its last packet after RETRY_SECONDS of silence, as most do, tells a gap in a window at once
 * (RFC 7440 section 4) and acknowledges a block that it has had already (RFC 1350 section 6).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define RETRY_SECONDS 1.0
#define CHECK_SECONDS 0.1
#define MOST_WINDOW 64
#define MOST_DATAGRAM 65536
#define RECEIVE_BYTES (1 << 20)

enum { RRQ = 1, DATA = 3, ACK = 4, ERROR = 5, OACK = 6 };

struct client {
    int fd;
    bool connected, failed, whole;
    long block_size, window;
    long have;         /* blocks, in order */
    long in_window;    /* blocks since the last ACK */
    long reported_gap; /* `have` when a gap was last told */
    double heard;
};

static const unsigned char *content;
static size_t size;
static char request[1024];
static size_t request_length;
static struct sockaddr_in server;
static unsigned char *room[MOST_WINDOW];
static struct mmsghdr messages[MOST_WINDOW];
static struct iovec parts[MOST_WINDOW];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void ask(struct client *c) {
    sendto(c->fd, request, request_length, 0, (struct sockaddr *)&server, sizeof server);
}

static void acknowledge(struct client *c) {
    unsigned char packet[4] = {0, ACK, c->have >> 8 & 0xff, c->have & 0xff};
    c->in_window = 0;
    send(c->fd, packet, sizeof packet, 0);
}

static void repeat(struct client *c) {
    if (c->connected)
        acknowledge(c);
    else
        ask(c);
}

static void read_options(struct client *c, const unsigned char *data, size_t length) {
    const char *at = (const char *)data + 2, *end = (const char *)data + length;
    while (at < end) {
        const char *value = at + strnlen(at, end - at) + 1;
        if (value >= end)
            return;
        if (!strcasecmp(at, "blksize"))
            c->block_size = atol(value);
        if (!strcasecmp(at, "windowsize"))
            c->window = atol(value);
        at = value + strnlen(value, end - value) + 1;
    }
}

/* A DATA packet is the next block, and right in every byte. */
static bool is_next(const struct client *c, const unsigned char *data, size_t length) {
    size_t offset = c->have * c->block_size, rest = size - offset;
    size_t wanted = rest < (size_t)c->block_size ? rest : (size_t)c->block_size;
    long block = c->have + 1;
    return length == wanted + 4 && data[0] == 0 && data[1] == DATA && data[2] == (block >> 8 & 0xff) &&
           data[3] == (block & 0xff) && !memcmp(data + 4, content + offset, wanted);
}

/* An answer that is not the block awaited. */
static void take_other(struct client *c, const unsigned char *data, size_t length) {
    int opcode = length < 4 ? 0 : data[1], block = length < 4 ? 0 : data[2] << 8 | data[3];
    if (opcode == DATA && block == ((c->have + 1) & 0xffff))
        c->failed = true; /* the right number, and other bytes */
    else if (opcode == DATA && block == (c->have & 0xffff))
        acknowledge(c); /* our ACK was lost, or a copy is late */
    else if (opcode == DATA && c->window > 1 && c->reported_gap != c->have) {
        c->reported_gap = c->have;
        acknowledge(c);
    } else if (opcode == OACK && c->have == 0)
        acknowledge(c); /* ours was lost */
    else if (opcode == ERROR)
        c->failed = true;
}

static void take(struct client *c, const unsigned char *data, size_t length) {
    if (!is_next(c, data, length)) {
        take_other(c, data, length);
        return;
    }
    c->have++;
    c->whole = length < (size_t)c->block_size + 4;
    if (++c->in_window >= c->window || c->whole)
        acknowledge(c);
}

/* The server's first answer, whose port is the one to talk to from now on. */
static void meet(struct client *c) {
    struct sockaddr_in peer;
    socklen_t peer_length = sizeof peer;
    ssize_t length = recvfrom(c->fd, room[0], MOST_DATAGRAM, 0, (struct sockaddr *)&peer, &peer_length);
    if (length < 4)
        return;
    if (connect(c->fd, (struct sockaddr *)&peer, sizeof peer))
        fail("connect");
    c->connected = true;
    if (room[0][1] == OACK) {
        read_options(c, room[0], length);
        if (c->block_size < 8 || c->window < 1 || c->window > MOST_WINDOW)
            c->failed = true;
        acknowledge(c);
    } else
        take(c, room[0], length);
}

static void take_what_came(struct client *c) {
    if (!c->connected) {
        meet(c);
        return;
    }
    if (c->window == 1) {
        ssize_t length = recv(c->fd, room[0], c->block_size + 5, 0);
        if (length >= 0)
            take(c, room[0], length);
        else if (errno == ECONNREFUSED)
            c->failed = true;
        return;
    }
    int count = recvmmsg(c->fd, messages, c->window, 0, NULL);
    if (count < 0 && errno == ECONNREFUSED)
        c->failed = true;
    for (int i = 0; i < count && !c->whole && !c->failed; i++)
        take(c, room[i], messages[i].msg_len);
}

static void open_client(struct client *c, int epoll, double at) {
    struct sockaddr_in any = {.sin_family = AF_INET};
    int bytes = RECEIVE_BYTES;
    *c = (struct client){.block_size = 512, .window = 1, .reported_gap = -1, .heard = at};
    c->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0 || bind(c->fd, (struct sockaddr *)&any, sizeof any))
        fail("socket");
    setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event))
        fail("epoll_ctl");
}

static void read_file(const char *path) {
    struct stat status;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &status))
        fail(path);
    size = status.st_size;
    content = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (content == MAP_FAILED)
        fail(path);
}

static void write_request(const char *name, int block_size, int window) {
    char *at = request + 2;
    request[1] = RRQ;
    at += sprintf(at, "%s", name) + 1;
    at += sprintf(at, "octet") + 1;
    if (block_size != 512) {
        at += sprintf(at, "blksize") + 1;
        at += sprintf(at, "%d", block_size) + 1;
    }
    if (window > 1) {
        at += sprintf(at, "windowsize") + 1;
        at += sprintf(at, "%d", window) + 1;
    }
    request_length = at - request;
}

static void make_room(void) {
    for (int i = 0; i < MOST_WINDOW; i++) {
        room[i] = malloc(MOST_DATAGRAM);
        parts[i] = (struct iovec){room[i], MOST_DATAGRAM};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
    }
}

int main(int argc, char **argv) {
    if (argc != 7) {
        fprintf(stderr, "usage: tftp_load SERVER FILE NAME CLIENTS BLKSIZE WINDOWSIZE\n");
        return 2;
    }
    int count = atoi(argv[4]), epoll = epoll_create1(0), ended = 0, failed = 0;
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(69)};
    inet_pton(AF_INET, argv[1], &server.sin_addr);
    read_file(argv[2]);
    write_request(argv[3], atoi(argv[5]), atoi(argv[6]));
    make_room();
    struct client *clients = calloc(count, sizeof *clients);
    double *at = calloc(count, sizeof *at), begun = now(), checked = begun;
    for (int i = 0; i < count; i++) {
        open_client(&clients[i], epoll, begun);
        ask(&clients[i]);
    }
    struct epoll_event events[256];
    while (ended < count) {
        int ready = epoll_wait(epoll, events, 256, 0);
        double t = now();
        for (int i = 0; i < ready; i++) {
            struct client *c = events[i].data.ptr;
            c->heard = t;
            take_what_came(c);
            if (c->whole || c->failed) {
                epoll_ctl(epoll, EPOLL_CTL_DEL, c->fd, NULL);
                at[ended++] = now() - begun;
                failed += c->failed;
            }
        }
        if (t - checked > CHECK_SECONDS) {
            checked = t;
            for (int i = 0; i < count; i++) {
                struct client *c = &clients[i];
                if (!c->whole && !c->failed && t - c->heard > RETRY_SECONDS) {
                    c->heard = t;
                    repeat(c);
                }
            }
        }
    }
    printf("{\"seconds\": %.6f, \"failed\": %d, \"windowsize\": %ld, \"ended\": [", now() - begun, failed,
           clients[0].window);
    for (int i = 0; i < count; i++)
        printf("%s%.6f", i ? ", " : "", at[i]);
    printf("]}\n");
    return 0;
}
