// The peers in C: libev, libuv or libevent, by -DLIBEV, -DLIBUV or -DLIBEVENT. Reads commands
// from the standard input, a line each, and answers each with a line of numbers.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#if defined(LIBEV)
#include <ev.h>
#elif defined(LIBUV)
#include <uv.h>
#else
#include <event2/event.h>
#include <event2/event_struct.h>
#endif

static double clock_ns(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static void *cells(size_t n, size_t size) {
    void *all = calloc(n, size);
    if (!all) abort();
    return all;
}

// The operations of one slice: until the time is over, or so many.
static double slice_ns;
static long times;
static int goes_on(double begin, long done) {
    return times ? done < times : clock_ns(CLOCK_MONOTONIC) - begin < slice_ns;
}

// A timer of each library, and a loop.
#if defined(LIBEV)
typedef ev_timer Timer;
typedef struct ev_loop Loop;
static Loop *loop_new(void) { return ev_loop_new(EVFLAG_AUTO); }
static void loop_free(Loop *loop) { ev_loop_destroy(loop); }
static void loop_now(Loop *loop) { ev_now_update(loop); }
#elif defined(LIBUV)
typedef uv_timer_t Timer;
typedef uv_loop_t Loop;
static Loop *loop_new(void) {
    Loop *loop = cells(1, sizeof(Loop));
    uv_loop_init(loop);
    return loop;
}
static void loop_free(Loop *loop) {
    uv_loop_close(loop);
    free(loop);
}
static void loop_now(Loop *loop) { uv_update_time(loop); }
#else
typedef struct event Timer;
typedef struct event_base Loop;
// The default clock is coarse: timers would fire up to a tick early.
static Loop *loop_new(void) {
    struct event_config *config = event_config_new();
    event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER);
    Loop *loop = event_base_new_with_config(config);
    event_config_free(config);
    return loop;
}
static void loop_free(Loop *loop) { event_base_free(loop); }
static void loop_now(Loop *loop) { event_base_update_cache_time(loop); }
#endif

// --- million N, again N: start, fire and drop N timers, 1,000 to a millisecond; CPU ns a timer.
// `million` uses a new loop, and memory that nobody has touched. `again` keeps both for the next.

static long fired;

#if defined(LIBEV)
static void on_timer(Loop *loop, Timer *timer, int events) {
    (void)loop, (void)timer, (void)events;
    fired++;
}
#elif defined(LIBUV)
static void on_timer(Timer *timer) {
    (void)timer;
    fired++;
}
#else
static void on_timer(evutil_socket_t fd, short events, void *arg) {
    (void)fd, (void)events, (void)arg;
    fired++;
}
#endif

static void million(Loop *loop, Timer *timers, long n) {
    long ms = 0;
    fired = 0;
    loop_now(loop);
    double a = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    for (long i = 0; i < n; i++) {
        if (i % 1000 == 0) ms++;
#if defined(LIBEV)
        ev_timer_init(&timers[i], on_timer, ms / 1e3, 0);
        ev_timer_start(loop, &timers[i]);
#elif defined(LIBUV)
        uv_timer_init(loop, &timers[i]);
        uv_timer_start(&timers[i], on_timer, ms, 0);
#else
        struct timeval after = {ms / 1000, ms % 1000 * 1000};
        event_assign(&timers[i], loop, -1, 0, on_timer, NULL);
        event_add(&timers[i], &after);
#endif
    }
    double b = clock_ns(CLOCK_THREAD_CPUTIME_ID);
#if defined(LIBEV)
    ev_run(loop, 0);
#elif defined(LIBUV)
    uv_run(loop, UV_RUN_DEFAULT);
#else
    event_base_dispatch(loop);
#endif
    double c = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    if (fired != n) abort();
#if defined(LIBUV)
    for (long i = 0; i < n; i++) uv_close((uv_handle_t *)&timers[i], NULL);
    uv_run(loop, UV_RUN_DEFAULT);
#elif defined(LIBEVENT)
    for (long i = 0; i < n; i++) event_del(&timers[i]);
#else
    for (long i = 0; i < n; i++) ev_timer_stop(loop, &timers[i]);
#endif
    double d = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    printf("%f %f %f\n", (b - a) / n, (c - b) / n, (d - c) / n);
}

static void in_new_memory(long n) {
    Loop *loop = loop_new();
    Timer *timers = malloc(n * sizeof(Timer));
    if (!timers) abort();
    million(loop, timers, n);
    loop_free(loop);
    free(timers);
}

static void in_kept_memory(long n) {
    static Loop *loop;
    static Timer *timers;
    if (!loop) {
        loop = loop_new();
        timers = cells(n, sizeof(Timer));
    }
    million(loop, timers, n);
}

// --- rearm SLICE TIMES: put one timer off again and again, each time a little more; ns each.
// libev and libuv count from the time that the loop has stored, libevent reads the clock.

static void rearm(void) {
    Loop *loop = loop_new();
    Timer *timer = cells(1, sizeof(Timer));
    long n = 0;
#if defined(LIBEV)
    ev_timer_init(timer, on_timer, 1000, 1000);
#elif defined(LIBUV)
    uv_timer_init(loop, timer);
    uv_timer_start(timer, on_timer, 1000000, 1000000);
#else
    event_assign(timer, loop, -1, 0, on_timer, NULL);
#endif
    double begin = clock_ns(CLOCK_MONOTONIC);
    do {
        for (int i = 0; i < 64; i++) {
#if defined(LIBEV)
            timer->repeat += 1e-6;
            ev_timer_again(loop, timer);
#elif defined(LIBUV)
            uv_timer_set_repeat(timer, 1000000 + n + i);
            uv_timer_again(timer);
#else
            struct timeval after = {1000, i};
            event_add(timer, &after);
#endif
        }
        n += 64;
    } while (goes_on(begin, n));
    double end = clock_ns(CLOCK_MONOTONIC);
#if defined(LIBUV)
    uv_close((uv_handle_t *)timer, NULL);
    uv_run(loop, UV_RUN_DEFAULT);
#elif defined(LIBEVENT)
    event_del(timer);
#else
    ev_timer_stop(loop, timer);
#endif
    loop_free(loop);
    free(timer);
    printf("%f\n", (end - begin) / n);
}

// --- chain PAIRS SLICE TIMES: each event reads a byte, writes it on to the next pair, and re-arms
// the pair's timer; ns an event.

typedef struct {
    int in, out;
#if defined(LIBEV)
    ev_io io;
    ev_timer timer;
#elif defined(LIBUV)
    uv_poll_t io;
    uv_timer_t timer;
#else
    struct event io;
#endif
} Pair;

static Pair *pairs;
static long n_pairs, events, stop_at;
static double chain_begin;
static Loop *chain_loop;

static void on_pair(Pair *pair) {
    char byte;
    if (read(pair->in, &byte, 1) != 1) abort();
    events++;
    if (events >= stop_at) {
        if (goes_on(chain_begin, events)) {
            stop_at += times ? 1 : 64;
        } else {
#if defined(LIBEV)
            ev_break(chain_loop, EVBREAK_ALL);
#elif defined(LIBUV)
            uv_stop(chain_loop);
#else
            event_base_loopbreak(chain_loop);
#endif
            return;
        }
    }
    long next = pair - pairs + 1;
    if (next == n_pairs) next = 0;
    if (write(pairs[next].out, &byte, 1) != 1) abort();
#if defined(LIBEV)
    ev_timer_again(chain_loop, &pair->timer);
#elif defined(LIBUV)
    uv_timer_again(&pair->timer);
#else
    struct timeval after = {10, 0};
    event_add(&pair->io, &after);
#endif
}

#if defined(LIBEV)
static void on_io(Loop *loop, ev_io *io, int what) {
    (void)loop, (void)what;
    on_pair(io->data);
}
#elif defined(LIBUV)
static void on_io(uv_poll_t *io, int status, int what) {
    (void)what;
    if (status) abort();
    on_pair(io->data);
}
#else
static void on_io(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    if (what & EV_TIMEOUT) abort();
    on_pair(arg);
}
#endif

static void chain(long n) {
    struct rlimit limit = {3 * n + 100, 3 * n + 100};
    setrlimit(RLIMIT_NOFILE, &limit);
    chain_loop = loop_new();
    pairs = cells(n, sizeof(Pair));
    n_pairs = n, events = 0, stop_at = 64;
    for (long i = 0; i < n; i++) {
        int ends[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends)) abort();
        Pair *pair = &pairs[i];
        pair->in = ends[0], pair->out = ends[1];
#if defined(LIBEV)
        ev_io_init(&pair->io, on_io, pair->in, EV_READ);
        pair->io.data = pair;
        ev_io_start(chain_loop, &pair->io);
        ev_timer_init(&pair->timer, on_timer, 10, 10);
        ev_timer_again(chain_loop, &pair->timer);
#elif defined(LIBUV)
        uv_poll_init(chain_loop, &pair->io, pair->in);
        pair->io.data = pair;
        uv_poll_start(&pair->io, UV_READABLE, on_io);
        uv_timer_init(chain_loop, &pair->timer);
        uv_timer_start(&pair->timer, on_timer, 10000, 10000);
#else
        struct timeval after = {10, 0};
        event_assign(&pair->io, chain_loop, pair->in, EV_READ | EV_PERSIST, on_io, pair);
        event_add(&pair->io, &after);
#endif
    }
    chain_begin = clock_ns(CLOCK_MONOTONIC);
    if (write(pairs[0].out, "x", 1) != 1) abort();
#if defined(LIBEV)
    ev_run(chain_loop, 0);
#elif defined(LIBUV)
    uv_run(chain_loop, UV_RUN_DEFAULT);
#else
    event_base_dispatch(chain_loop);
#endif
    double spent = clock_ns(CLOCK_MONOTONIC) - chain_begin;
    for (long i = 0; i < n; i++) {
        Pair *pair = &pairs[i];
#if defined(LIBEV)
        ev_io_stop(chain_loop, &pair->io);
        ev_timer_stop(chain_loop, &pair->timer);
#elif defined(LIBUV)
        uv_poll_stop(&pair->io);
        uv_close((uv_handle_t *)&pair->io, NULL);
        uv_close((uv_handle_t *)&pair->timer, NULL);
#else
        event_del(&pair->io);
#endif
    }
#if defined(LIBUV)
    uv_run(chain_loop, UV_RUN_DEFAULT);
#endif
    for (long i = 0; i < n; i++) close(pairs[i].in), close(pairs[i].out);
    loop_free(chain_loop);
    free(pairs);
    printf("%f\n", spent / events);
}

int main(void) {
    char word[16];
    long n;
    while (scanf("%15s %ld %lf %ld", word, &n, &slice_ns, &times) == 4) {
        if (!strcmp(word, "million")) in_new_memory(n);
        else if (!strcmp(word, "again")) in_kept_memory(n);
        else if (!strcmp(word, "rearm")) rearm();
        else if (!strcmp(word, "chain")) chain(n);
#if defined(LIBEV)
        else if (!strcmp(word, "version"))
            printf("%d %d\n", ev_version_major(), ev_version_minor());
#elif defined(LIBUV)
        else if (!strcmp(word, "version")) puts(uv_version_string());
#else
        else if (!strcmp(word, "version")) puts(event_get_version());
#endif
        else return 1;
        fflush(stdout);
    }
    return 0;
}
