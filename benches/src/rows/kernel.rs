//! Turns through the kernel, beside the raw syscalls that they cannot avoid, and the layers in
//! between: `pollmux::sys`, mio and polling.

#[path = "../../../examples/common/poke.rs"]
mod poke;

use std::cell::OnceCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use poke::Poke;
use pollmux::driver::Native;
use pollmux::sys::{Interest, Mode, PollEvents, Poller, PollerTimer, Waker};
use pollmux::{Reactor, Time, select};

use crate::measure::Contestant;
use crate::raw;
use crate::row::{Bound, Family, row};

const FAR: Duration = Duration::from_secs(1_000);
/// The time from now to the deadline of a tick: shorter than a sleep takes, and longer.
const STEP: Duration = Duration::from_micros(1);
const LONG_STEP: Duration = Duration::from_micros(20);
pub const SLACK: Duration = Duration::from_micros(50);

pub fn families() -> Vec<Family> {
    let at_most = |times: f64| Bound::Ratio(1.0 / times);
    let layers = ["mio", "polling"];
    vec![
        Family::new(
            |_| wakes(),
            [row(
                "kernel/wake",
                "A sleep ended by a message, beside `write` and `epoll_wait` on one thread.",
                "pollmux select!",
                &["raw"],
            )
            .gate(at_most(1.15))
            .goal(at_most(1.10))],
        ),
        Family::new(
            |_| ticks(STEP),
            [row(
                "kernel/tick",
                "A tick after 1 µs, beside the clock, `timerfd_settime` and `epoll_wait`.",
                "pollmux select!",
                &["raw"],
            )
            .gate(at_most(1.15))
            .goal(Bound::Ratio(1.0))
            .beside(&["pollmux::sys", "pollmux with slack", "raw epoll_pwait2"])],
        )
        .slices((20, 60), (11, 31)),
        Family::new(
            |_| ticks(LONG_STEP),
            [row(
                "kernel/tick/20us",
                "A tick after 20 µs, for which both arm the timer and sleep.",
                "pollmux select!",
                &["raw"],
            )
            .gate(at_most(1.15))
            .goal(Bound::Ratio(1.0))],
        )
        .slices((20, 60), (11, 31)),
        Family::new(
            |_| plain_waits(),
            [row(
                "sys/wake+wait",
                "`pollmux::sys`: `Waker::wake` and `Poller::wait`, on one thread.",
                "pollmux::sys",
                &["raw", "mio", "polling"],
            )],
        ),
        Family::new(
            |_| timed_waits(),
            [row(
                "sys/wake+timed-wait",
                "The same with a timeout, which costs some pollers more syscalls.",
                "pollmux::sys",
                &["raw epoll_pwait2", "mio", "polling"],
            )],
        ),
        Family::new(
            |_| looks(),
            [row(
                "sys/look",
                "`Poller::wait` with a timeout of zero that finds nothing.",
                "pollmux::sys",
                &["raw", "mio", "polling"],
            )],
        ),
        Family::new(
            |_| calls(),
            [
                row("sys/arm", "`PollerTimer::arm`, far ahead.", "arm", &["raw timerfd_settime"]),
                row("sys/modify", "`Poller::modify` of a file.", "modify", &["raw epoll_ctl MOD"]),
                row("sys/wake", "`Waker::wake` when nobody waits.", "wake", &["raw write"])
                    .beside(&layers[..1]),
            ],
        ),
    ]
}

pub fn wakes() -> Vec<Contestant> {
    let sender = Rc::new(OnceCell::new());
    let native = Native::new().expect("a poller");
    let reactor = Reactor::with_driver(Poke { native, sender: sender.clone() }).expect("a reactor");
    let (tx, inbox) = reactor.channel::<u64>(64).expect("a channel");
    assert!(sender.set(tx).is_ok());
    let heartbeat = reactor.every(FAR).expect("a period");
    let handle = reactor.handle();
    let ours = Contestant::on("pollmux select!", &handle, move || {
        select! { reactor;
            recv(inbox) -> event => assert_eq!(event, Ok(1)),
            recv(heartbeat) -> _tick => {},
        }
    });
    vec![ours, raw_wake("raw")]
}

fn raw_wake(name: &str) -> Contestant {
    let (epoll, eventfd) = raw::pair(raw::EDGE);
    let mut events = raw::events();
    Contestant::ops(name, move || {
        raw::write(&eventfd);
        assert_eq!(raw::wait(&epoll, &mut events, -1), 1);
    })
}

pub fn near_ticks() -> Vec<Contestant> {
    ticks(STEP)
}

fn ticks(step: Duration) -> Vec<Contestant> {
    let ours = move |name: &str, reactor: io::Result<Reactor>| {
        let reactor = reactor.expect("a reactor");
        let timer = reactor.timer();
        let handle = reactor.handle();
        Contestant::on(name, &handle, move || {
            timer.reset(step);
            select! { reactor; recv(timer) -> _due => {} }
        })
    };
    let (epoll, timerfd, mut events) = (raw::epoll(), raw::timerfd(), raw::events());
    assert_eq!(raw::add(&epoll, &timerfd, raw::EDGE), 0);
    let raw = Contestant::ops("raw", move || {
        raw::settime(&timerfd, Time::now() + step);
        assert_eq!(raw::wait(&epoll, &mut events, -1), 1);
    });
    let poller = Poller::new().expect("a poller");
    let timer = PollerTimer::new(&poller, 1).expect("a timer");
    let mut found = PollEvents::with_capacity(16);
    let sys = Contestant::ops("pollmux::sys", move || {
        poller.arm_and_wait(&timer, Time::now() + step, &mut found, None).expect("a wait");
    });
    let (epoll, mut events) = (raw::epoll(), raw::events());
    let pwait2 = Contestant::ops("raw epoll_pwait2", move || {
        let due = Time::now() + step;
        assert_eq!(raw::pwait2(&epoll, &mut events, due - Time::now()), 0);
    });
    vec![
        ours("pollmux select!", Reactor::new()),
        raw,
        sys,
        ours("pollmux with slack", Reactor::builder().slack(SLACK).build()),
        pwait2,
    ]
}

/// The contestant `pollmux::sys`: a poller with a waker in it.
struct Sys {
    poller: Poller,
    waker: Waker,
    events: PollEvents,
}

impl Sys {
    fn new() -> Sys {
        let poller = Poller::new().expect("a poller");
        let waker = Waker::new(&poller, 1).expect("a waker");
        Sys { poller, waker, events: PollEvents::with_capacity(16) }
    }

    #[inline]
    fn wait(&mut self, timeout: Option<Duration>) -> usize {
        self.poller.wait(&mut self.events, timeout).expect("a wait");
        self.events.len()
    }
}

/// The contestant mio: a poll with its one waker.
struct Mio {
    poll: mio::Poll,
    waker: mio::Waker,
    events: mio::Events,
}

impl Mio {
    fn new() -> Mio {
        let poll = mio::Poll::new().expect("a poll");
        let waker = mio::Waker::new(poll.registry(), mio::Token(1)).expect("a waker");
        Mio { poll, waker, events: mio::Events::with_capacity(16) }
    }

    #[inline]
    fn wait(&mut self, timeout: Option<Duration>) -> usize {
        self.poll.poll(&mut self.events, timeout).expect("a wait");
        self.events.iter().count()
    }
}

/// The contestant polling: a poller with a built-in notification, for which it reports no event.
struct Polling {
    poller: polling::Poller,
    events: polling::Events,
}

impl Polling {
    fn new() -> Polling {
        let poller = polling::Poller::new().expect("a poller");
        Polling { poller, events: polling::Events::new() }
    }

    #[inline]
    fn wait(&mut self, timeout: Option<Duration>) -> usize {
        self.events.clear();
        self.poller.wait(&mut self.events, timeout).expect("a wait")
    }
}

fn layered_waits(timeout: Option<Duration>) -> Vec<Contestant> {
    let (mut sys, mut mio, mut polling) = (Sys::new(), Mio::new(), Polling::new());
    vec![
        Contestant::ops("pollmux::sys", move || {
            sys.waker.wake().expect("a wake-up");
            assert_eq!(sys.wait(timeout), 1);
        }),
        Contestant::ops("mio", move || {
            mio.waker.wake().expect("a wake-up");
            assert_eq!(mio.wait(timeout), 1);
        }),
        Contestant::ops("polling", move || {
            polling.poller.notify().expect("a wake-up");
            polling.wait(timeout);
        }),
    ]
}

fn plain_waits() -> Vec<Contestant> {
    let mut all = layered_waits(None);
    all.push(raw_wake("raw"));
    all
}

pub fn timed_waits() -> Vec<Contestant> {
    let mut all = layered_waits(Some(FAR));
    let (epoll, eventfd) = raw::pair(raw::EDGE);
    let mut events = raw::events();
    all.push(if raw::pwait2(&epoll, &mut events, Duration::ZERO) == 0 {
        Contestant::ops("raw epoll_pwait2", move || {
            raw::write(&eventfd);
            assert_eq!(raw::pwait2(&epoll, &mut events, FAR), 1);
        })
    } else {
        Contestant::absent(&["raw epoll_pwait2"], "this kernel does not have the syscall")
    });
    all
}

fn looks() -> Vec<Contestant> {
    let (mut sys, mut mio, mut polling) = (Sys::new(), Mio::new(), Polling::new());
    let zero = Some(Duration::ZERO);
    let (epoll, eventfd) = raw::pair(raw::EDGE);
    let mut events = raw::events();
    vec![
        Contestant::ops("pollmux::sys", move || assert_eq!(sys.wait(zero), 0)),
        Contestant::ops("mio", move || assert_eq!(mio.wait(zero), 0)),
        Contestant::ops("polling", move || assert_eq!(polling.wait(zero), 0)),
        Contestant::ops("raw", move || {
            let _open = &eventfd;
            assert_eq!(raw::wait(&epoll, &mut events, 0), 0);
        }),
    ]
}

fn calls() -> Vec<Contestant> {
    let at = Time::now() + FAR;
    let sys = Sys::new();
    let timer = PollerTimer::new(&sys.poller, 3).expect("a timer");
    let timerfd = raw::timerfd();
    let (epoll, eventfd) = raw::pair(raw::EDGE);
    let files = Sys::new();
    let file = raw::eventfd();
    files.poller.register(&file, 2, Interest::READABLE, Mode::Edge).expect("a registration");
    let (awake, mio) = (Sys::new(), Mio::new());
    let (_keep, woken) = raw::pair(raw::EDGE);
    vec![
        Contestant::ops("arm", move || {
            let _open = &sys;
            timer.arm(std::hint::black_box(at)).expect("a deadline");
        }),
        Contestant::ops("raw timerfd_settime", move || {
            raw::settime(&timerfd, std::hint::black_box(at));
        }),
        Contestant::ops("modify", move || {
            files.poller.modify(&file, 2, Interest::READABLE, Mode::Edge).expect("registered");
        }),
        Contestant::ops("raw epoll_ctl MOD", move || {
            raw::modify(&epoll, &eventfd, raw::EDGE);
        }),
        Contestant::ops("wake", move || awake.waker.wake().expect("a wake-up")),
        Contestant::ops("raw write", move || {
            let _open = &_keep;
            raw::write(&woken);
        }),
        Contestant::ops("mio", move || mio.waker.wake().expect("a wake-up")),
    ]
}
