//! The raw floor: each syscall of the hot path, the clocks, wake-ups between threads, and the
//! lateness of the kernel's own timers.

use std::hint::black_box;
use std::time::{Duration, Instant};

use pollmux::Time;
use serde::{Deserialize, Serialize};

use crate::measure::{Contestant, Measured, in_turn};
use crate::raw;
use crate::row::{Scale, Text};
use crate::rows::{lateness, trips};

/// One figure of the floor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// "clock", "syscall", "wake-up" or "lateness".
    pub kind: Text,
    pub what: String,
    pub ns: Option<f64>,
    pub q1: Option<f64>,
    pub q3: Option<f64>,
    /// The 99th percentile, of lateness only.
    pub p99: Option<f64>,
}

impl Line {
    fn new(kind: &'static str, what: String, measured: &Measured) -> Line {
        let [q1, ns, q3] = measured.quartiles().map_or([None; 3], |q| q.map(Some));
        Line { kind: kind.into(), what, ns, q1, q3, p99: None }
    }
}

/// A deadline later than the end of any bench.
const FAR: Duration = Duration::from_secs(1_000);

pub fn measure(scale: Scale, progress: &mut dyn FnMut()) -> Vec<Line> {
    let rounds = scale.of(1, 11, 31);
    let slice = Duration::from_micros(scale.of(200, 4_000, 20_000));
    let mut lines = Vec::new();
    let groups: [(&str, Vec<Contestant>, u32); 3] = [
        ("clock", clocks(), 1),
        ("syscall", syscalls(), 1),
        ("wake-up", trips::floor(), scale.of(5, 5, 3)),
    ];
    for (kind, mut contestants, times) in groups {
        let measured = in_turn(&mut contestants, slice * times, rounds, &mut *progress);
        lines.extend(measured.iter().map(|found| Line::new(kind, found.name.clone(), found)));
    }
    for (us, _, samples) in lateness::DELAYS {
        let n = scale.of(samples[0], samples[1] / 3, samples[2] / 4);
        if n == 0 {
            continue;
        }
        for found in lateness::floor(Duration::from_micros(us), n) {
            let mut late = found.samples.clone();
            late.sort_by(f64::total_cmp);
            let mut line = Line::new(
                "lateness",
                format!("{}, {}", found.name, lateness::readable(us)),
                &found,
            );
            line.p99 = late.get((late.len() * 99).div_ceil(100).saturating_sub(1)).copied();
            lines.push(line);
        }
        progress();
    }
    lines
}

fn clocks() -> Vec<Contestant> {
    let mut all = vec![
        Contestant::ops("Instant::now", || {
            black_box(Instant::now());
        }),
        Contestant::ops("CLOCK_MONOTONIC", || {
            black_box(raw::clock(libc::CLOCK_MONOTONIC));
        }),
        Contestant::ops("CLOCK_MONOTONIC_COARSE", || {
            black_box(raw::clock(libc::CLOCK_MONOTONIC_COARSE));
        }),
        Contestant::ops("pollmux Time::now", || {
            black_box(Time::now());
        }),
    ];
    #[cfg(target_arch = "x86_64")]
    all.push(Contestant::ops("rdtsc", || {
        black_box(raw::rdtsc());
    }));
    all
}

fn syscalls() -> Vec<Contestant> {
    let mut all = vec![Contestant::ops("getppid, the cheapest there is", || {
        black_box(raw::getppid());
    })];
    let (epoll, quiet) = raw::pair(raw::EDGE);
    let mut events = raw::events();
    all.push(Contestant::ops("epoll_wait(0), nothing ready", move || {
        let _open = &quiet;
        assert_eq!(raw::wait(&epoll, &mut events, 0), 0);
    }));
    let (epoll, ready) = raw::pair(raw::LEVEL);
    raw::write(&ready);
    let mut events = raw::events();
    all.push(Contestant::ops("epoll_wait(0), one ready, level", move || {
        let _open = &ready;
        assert_eq!(raw::wait(&epoll, &mut events, 0), 1);
    }));
    let (epoll, quiet) = raw::pair(raw::EDGE);
    let mut events = raw::events();
    let pwait2 = "epoll_pwait2(0), nothing ready";
    all.push(if raw::pwait2(&epoll, &mut events, Duration::ZERO) == 0 {
        Contestant::ops(pwait2, move || {
            let _open = &quiet;
            raw::pwait2(&epoll, &mut events, Duration::ZERO);
        })
    } else {
        Contestant::absent(&[pwait2], "this kernel does not have the syscall")
    });
    let alone = raw::eventfd();
    all.push(Contestant::ops("eventfd write, nobody waits", move || {
        raw::write(&alone);
    }));
    let alone = raw::eventfd();
    all.push(Contestant::ops("eventfd write + read", move || {
        raw::write(&alone);
        raw::read(&alone);
    }));
    let (epoll, eventfd) = raw::pair(raw::EDGE);
    let mut events = raw::events();
    all.push(Contestant::ops("eventfd write + epoll_wait, edge", move || {
        raw::write(&eventfd);
        assert_eq!(raw::wait(&epoll, &mut events, -1), 1);
    }));
    let timerfd = raw::timerfd();
    let at = Time::now() + FAR;
    all.push(Contestant::ops("timerfd_settime, far", move || {
        raw::settime(&timerfd, black_box(at));
    }));
    let (epoll, eventfd) = raw::pair(raw::EDGE);
    all.push(Contestant::ops("epoll_ctl MOD", move || {
        raw::modify(&epoll, &eventfd, raw::EDGE);
    }));
    let epoll = raw::epoll();
    all.push(Contestant::ops("timerfd create + add + settime + close", move || {
        let timerfd = raw::timerfd();
        raw::add(&epoll, &timerfd, raw::EDGE);
        raw::settime(&timerfd, at);
    }));
    all
}
