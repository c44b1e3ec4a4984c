//! What a syscall costs, and what the layers above add to it: raw calls beside `pollmux::sys`, mio
//! and polling.
//!
//! `cargo bench -p pollmux-benches --bench syscalls` (a filter may follow: `-- 'wake and wait'`)
//! takes about a minute and a half. Each group does one thing in several ways. The machine drifts:
//! **only ratios inside one run count**, best inside one group.
//!
//! The groups of round trips keep their two threads on a core each, where there are two.

mod common;

use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use pollmux::sys::{Interest, Mode, PollEvents, Poller, PollerTimer, Waker};
use pollmux::{Reactor, Time, channel, select};

use common::{group, raw};

/// Longer than any bench.
const FAR: Duration = Duration::from_secs(1_000);

/// `pollmux::sys`: a poller with a waker in it.
struct Sys {
    poller: Poller,
    waker: Arc<Waker>,
    events: PollEvents,
}

impl Sys {
    fn new() -> Sys {
        let poller = Poller::new().expect("a poller");
        let waker = Waker::new(&poller, 1).expect("a waker");
        Sys { poller, waker: Arc::new(waker), events: PollEvents::with_capacity(16) }
    }

    #[inline]
    fn wait(&mut self, timeout: Option<Duration>) -> usize {
        self.poller.wait(&mut self.events, timeout).expect("a wait");
        self.events.len()
    }
}

/// mio's poll with its one waker.
struct Mio {
    poll: mio::Poll,
    waker: Arc<mio::Waker>,
    events: mio::Events,
}

impl Mio {
    fn new() -> Mio {
        let poll = mio::Poll::new().expect("a poll");
        let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(1)).expect("a waker"));
        Mio { poll, waker, events: mio::Events::with_capacity(16) }
    }

    #[inline]
    fn wait(&mut self, timeout: Option<Duration>) -> usize {
        self.poll.poll(&mut self.events, timeout).expect("a wait");
        self.events.iter().count()
    }
}

/// polling's poller, which has its notification built in and reports no event for it.
struct Polling {
    poller: Arc<polling::Poller>,
    events: polling::Events,
}

impl Polling {
    fn new() -> Polling {
        Polling {
            poller: Arc::new(polling::Poller::new().expect("a poller")),
            events: polling::Events::new(),
        }
    }

    #[inline]
    fn wait(&mut self, timeout: Option<Duration>) -> usize {
        self.events.clear();
        self.poller.wait(&mut self.events, timeout).expect("a wait")
    }
}

fn clocks(c: &mut Criterion) {
    let mut group = group(c, "clock");
    group.bench_function("std Instant::now", |b| b.iter(Instant::now));
    group.bench_function("raw CLOCK_MONOTONIC", |b| b.iter(|| raw::clock(libc::CLOCK_MONOTONIC)));
    group.bench_function("raw CLOCK_MONOTONIC_COARSE", |b| {
        b.iter(|| raw::clock(libc::CLOCK_MONOTONIC_COARSE))
    });
    #[cfg(target_arch = "x86_64")]
    group.bench_function("raw rdtsc", |b| b.iter(raw::rdtsc));
    group.bench_function("pollmux Time::now", |b| b.iter(Time::now));
    group.finish();
}

/// Calls that do one small thing.
fn calls(c: &mut Criterion) {
    let mut group = group(c, "call");
    group.bench_function("raw getppid, the cheapest there is", |b| b.iter(raw::getppid));

    let (epoll, eventfd) = raw::pair(raw::EDGE);
    group.bench_function("raw epoll_ctl MOD", |b| {
        b.iter(|| raw::modify(&epoll, &eventfd, raw::EDGE))
    });
    let sys = Sys::new();
    sys.poller.register(&eventfd, 2, Interest::READABLE, Mode::Edge).expect("a registration");
    group.bench_function("pollmux Poller::modify", |b| {
        b.iter(|| {
            sys.poller.modify(&eventfd, 2, Interest::READABLE, Mode::Edge).expect("registered")
        })
    });
    sys.poller.deregister(&eventfd).expect("registered");

    let (timerfd, timer) = (raw::timerfd(), PollerTimer::new(&sys.poller, 3).expect("a timer"));
    let at = Time::now() + FAR;
    group.bench_function("raw timerfd_settime, far", |b| {
        b.iter(|| raw::settime(&timerfd, black_box(at)))
    });
    group.bench_function("pollmux PollerTimer::arm, far", |b| {
        b.iter(|| timer.arm(black_box(at)).expect("a deadline"))
    });

    group.bench_function("raw eventfd write, nobody waits", |b| b.iter(|| raw::write(&eventfd)));
    group.bench_function("pollmux Waker::wake, nobody waits", |b| {
        b.iter(|| sys.waker.wake().expect("a wake-up"))
    });
    let mio = Mio::new();
    group.bench_function("mio Waker::wake, nobody waits", |b| {
        b.iter(|| mio.waker.wake().expect("a wake-up"))
    });
    group.bench_function("raw eventfd write + read", |b| {
        b.iter(|| (raw::write(&eventfd), raw::read(&eventfd)))
    });
    group.finish();
}

/// Waits that do not sleep and do not find anything, or find the same again.
fn looks(c: &mut Criterion) {
    let mut nothing = group(c, "look, nothing ready");
    let (epoll, _eventfd) = raw::pair(raw::EDGE);
    let mut events = raw::events();
    nothing.bench_function("raw epoll_wait(0)", |b| {
        b.iter(|| assert_eq!(raw::wait(&epoll, &mut events, 0), 0))
    });
    // An older kernel has no epoll_pwait2.
    if raw::pwait2(&epoll, &mut events, Duration::ZERO) == 0 {
        nothing.bench_function("raw epoll_pwait2(0)", |b| {
            b.iter(|| raw::pwait2(&epoll, &mut events, Duration::ZERO))
        });
    }
    let (mut sys, mut mio, mut polling) = (Sys::new(), Mio::new(), Polling::new());
    let zero = Some(Duration::ZERO);
    nothing.bench_function("pollmux Poller::wait(0)", |b| b.iter(|| assert_eq!(sys.wait(zero), 0)));
    nothing.bench_function("mio Poll::poll(0)", |b| b.iter(|| assert_eq!(mio.wait(zero), 0)));
    nothing.bench_function("polling Poller::wait(0)", |b| {
        b.iter(|| assert_eq!(polling.wait(zero), 0))
    });
    nothing.finish();

    let mut one = group(c, "look, one ready (level-triggered)");
    let (epoll, eventfd) = raw::pair(raw::LEVEL);
    raw::write(&eventfd);
    one.bench_function("raw epoll_wait(0)", |b| {
        b.iter(|| assert_eq!(raw::wait(&epoll, &mut events, 0), 1))
    });
    let mut sys = Sys::new();
    sys.poller.register(&eventfd, 2, Interest::READABLE, Mode::Level).expect("a registration");
    one.bench_function("pollmux Poller::wait(0)", |b| b.iter(|| assert_eq!(sys.wait(zero), 1)));
    one.finish();
}

/// A wake-up and the wait that finds it, on one thread: without a timeout, and with one, which
/// costs some pollers more syscalls.
fn wakes(c: &mut Criterion) {
    let (epoll, eventfd) = raw::pair(raw::EDGE);
    let mut events = raw::events();
    let (mut sys, mut mio, mut polling) = (Sys::new(), Mio::new(), Polling::new());

    let mut plain = group(c, "wake and wait");
    plain.bench_function("raw eventfd write + epoll_wait", |b| {
        b.iter(|| {
            raw::write(&eventfd);
            assert_eq!(raw::wait(&epoll, &mut events, -1), 1);
        })
    });
    plain.bench_function("pollmux Waker::wake + Poller::wait", |b| {
        b.iter(|| {
            sys.waker.wake().expect("a wake-up");
            assert_eq!(sys.wait(None), 1);
        })
    });
    plain.bench_function("mio Waker::wake + Poll::poll", |b| {
        b.iter(|| {
            mio.waker.wake().expect("a wake-up");
            assert_eq!(mio.wait(None), 1);
        })
    });
    plain.bench_function("polling Poller::notify + wait", |b| {
        b.iter(|| {
            polling.poller.notify().expect("a wake-up");
            polling.wait(None)
        })
    });
    plain.finish();

    let mut timed = group(c, "wake and timed wait");
    if raw::pwait2(&epoll, &mut events, Duration::ZERO) == 0 {
        timed.bench_function("raw eventfd write + epoll_pwait2", |b| {
            b.iter(|| {
                raw::write(&eventfd);
                assert_eq!(raw::pwait2(&epoll, &mut events, FAR), 1);
            })
        });
    }
    timed.bench_function("pollmux Waker::wake + Poller::wait", |b| {
        b.iter(|| {
            sys.waker.wake().expect("a wake-up");
            assert_eq!(sys.wait(Some(FAR)), 1);
        })
    });
    timed.bench_function("mio Waker::wake + Poll::poll", |b| {
        b.iter(|| {
            mio.waker.wake().expect("a wake-up");
            assert_eq!(mio.wait(Some(FAR)), 1);
        })
    });
    timed.bench_function("polling Poller::notify + wait", |b| {
        b.iter(|| {
            polling.poller.notify().expect("a wake-up");
            polling.wait(Some(FAR))
        })
    });
    timed.finish();
}

/// A deadline that the kernel ends a sleep at: 1 µs ahead, so that the sleep itself is short.
fn ticks(c: &mut Criterion) {
    let mut group = group(c, "tick: a deadline 1 us ahead, and the sleep until it");
    let step = Duration::from_micros(1);
    let (epoll, timerfd, mut events) = (raw::epoll(), raw::timerfd(), raw::events());
    let poller = Poller::new().expect("a poller");
    let timer = PollerTimer::new(&poller, 1).expect("a timer");
    assert_eq!(raw::add(&epoll, &timerfd, raw::EDGE), 0);
    group.bench_function("raw clock + timerfd_settime + epoll_wait", |b| {
        b.iter(|| {
            raw::settime(&timerfd, Time::now() + step);
            assert_eq!(raw::wait(&epoll, &mut events, -1), 1);
        })
    });
    let mut found = PollEvents::with_capacity(16);
    group.bench_function("pollmux Time::now + Poller::arm_and_wait", |b| {
        b.iter(|| {
            poller.arm_and_wait(&timer, Time::now() + step, &mut found, None).expect("a wait");
        })
    });
    let reactor = Reactor::new().expect("a reactor");
    let logical = reactor.timer();
    group.bench_function("pollmux Timer::reset + select!", |b| {
        b.iter(|| {
            logical.reset(step);
            select! { reactor; recv(logical) -> due => due }
        })
    });
    group.finish();
}

/// Round trips in which each side sleeps until the other wakes it.
fn parked(c: &mut Criterion) {
    let mut group = group(c, "round trip, parked");
    let ((here, wake_here), (there, wake_there)) = (raw::pair(raw::EDGE), raw::pair(raw::EDGE));
    let (mut events, mut events_there) = (raw::events(), raw::events());
    round_trip(
        &mut group,
        "raw eventfd + epoll_wait",
        || {
            raw::wait(&there, &mut events_there, -1);
        },
        || {
            raw::write(&wake_here);
        },
        || {
            raw::write(&wake_there);
        },
        || {
            raw::wait(&here, &mut events, -1);
        },
    );
    let (mut here, mut there) = (Sys::new(), Sys::new());
    let (wake_here, wake_there) = (here.waker.clone(), there.waker.clone());
    round_trip(
        &mut group,
        "pollmux Waker + Poller::wait",
        || {
            there.wait(None);
        },
        || wake_here.wake().expect("a wake-up"),
        || wake_there.wake().expect("a wake-up"),
        || {
            here.wait(None);
        },
    );
    let (mut here, mut there) = (Mio::new(), Mio::new());
    let (wake_here, wake_there) = (here.waker.clone(), there.waker.clone());
    round_trip(
        &mut group,
        "mio Waker + Poll::poll",
        || {
            there.wait(None);
        },
        || wake_here.wake().expect("a wake-up"),
        || wake_there.wake().expect("a wake-up"),
        || {
            here.wait(None);
        },
    );
    let (mut here, mut there) = (Polling::new(), Polling::new());
    let (wake_here, wake_there) = (here.poller.clone(), there.poller.clone());
    round_trip(
        &mut group,
        "polling Poller::notify + wait",
        || {
            there.wait(None);
        },
        || wake_here.notify().expect("a wake-up"),
        || wake_there.notify().expect("a wake-up"),
        || {
            here.wait(None);
        },
    );
    reactors(&mut group);
    group.finish();
}

/// This thread wakes another and waits; the other waits and wakes this one.
fn round_trip(
    group: &mut BenchmarkGroup<'_, WallTime>,
    what: &str,
    mut wait_there: impl FnMut() + Send,
    wake_here: impl Fn() + Send,
    wake_there: impl Fn(),
    mut wait_here: impl FnMut(),
) {
    let stop = &AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(move || {
            raw::pin_to(1);
            while !stop.load(Ordering::SeqCst) {
                wait_there();
                wake_here();
            }
        });
        group.bench_function(what, |b| {
            b.iter(|| {
                wake_there();
                wait_here();
            })
        });
        stop.store(true, Ordering::SeqCst);
        wake_there();
    });
}

/// A message there and a message back, between two reactors.
fn reactors(group: &mut BenchmarkGroup<'_, WallTime>) {
    let reactor = Reactor::new().expect("a reactor");
    let (to_here, inbox) = reactor.channel::<u64>(8).expect("a channel");
    let (to_there, there) = channel::bounded::<u64>(8);
    let echo = thread::spawn(move || {
        raw::pin_to(1);
        let reactor = Reactor::new().expect("a reactor");
        let inbox = reactor.register(there).expect("an open reactor");
        while let Ok(n) = select! { reactor; recv(inbox) -> n => n } {
            to_here.send(n).expect("a receiver");
        }
    });
    group.bench_function("pollmux send + select!, two reactors", |b| {
        b.iter(|| {
            to_there.send(7).expect("a receiver");
            select! { reactor; recv(inbox) -> n => n.expect("a sender") }
        })
    });
    drop(to_there);
    echo.join().expect("no panic");
}

/// Round trips without the kernel: the least that two cores need to agree.
fn spinning(c: &mut Criterion) {
    let mut group = group(c, "round trip, spinning");
    let (ping, pong) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            raw::pin_to(1);
            let mut seen = 0;
            while seen != u64::MAX {
                let n = ping.load(Ordering::Acquire);
                if n == seen {
                    spin_loop();
                } else {
                    seen = n;
                    pong.store(n, Ordering::Release);
                }
            }
        });
        let mut n = 0;
        group.bench_function("two atomics", |b| {
            b.iter(|| {
                n += 1;
                ping.store(n, Ordering::Release);
                while pong.load(Ordering::Acquire) != n {
                    spin_loop();
                }
            })
        });
        ping.store(u64::MAX, Ordering::Release);
    });
    group.finish();
}

fn main() {
    // Asked for before this thread is kept on one of them.
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut criterion = Criterion::default().configure_from_args();
    clocks(&mut criterion);
    calls(&mut criterion);
    looks(&mut criterion);
    wakes(&mut criterion);
    ticks(&mut criterion);
    // From here on this thread stays where it is; the others go to another core.
    raw::pin_to(0);
    parked(&mut criterion);
    if cores > 1 {
        spinning(&mut criterion); // on one core nobody answers while the other spins
    }
    criterion.final_summary();
}
