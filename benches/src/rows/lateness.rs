//! The lateness of timers on an idle machine. Each contestant is given the same absolute deadline,
//! a reading of the clock plus the delay. The lateness ends when the code that the timer is for
//! reads the clock.
//!
//! The contestants take turns, sample by sample. Delays of 100 ms and more run side by side. Each
//! contestant has several threads, and each thread has one timer. The threads are staggered evenly
//! and in a random order, so that no two are awake at once, and no contestant always comes after
//! the same other one. After so long a sleep the lateness depends on the machine more than on the
//! code, and half of the samples are 60 µs apart. So a row of few samples says nothing: `Bound` has
//! the doubt in a median.

use std::cell::Cell;
use std::hint::spin_loop;
use std::io;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use pollmux::{Reactor, Time, select};

use super::tokio_runtime;
use crate::measure::{Measured, shuffled};
use crate::native::{self, Peer};
use crate::raw;
use crate::row::{Bound, Family, Task, row};

/// The time before a deadline at which the `precise` reactor wakes up and spins.
const AHEAD: Duration = Duration::from_micros(200);
/// The delays in µs, their names, and the samples: smoke, quick, full.
pub const DELAYS: [(u64, &str, [usize; 3]); 5] = [
    (100, "100us", [2, 300, 3_000]),
    (1_000, "1ms", [2, 150, 1_000]),
    (10_000, "10ms", [1, 60, 250]),
    (100_000, "100ms", [1, 180, 900]),
    (1_000_000, "1s", [0, 128, 640]),
];
/// The time between two threads that wait side by side, at least.
const APART: Duration = Duration::from_micros(1_500);
/// The most threads of a contestant.
const THREADS: usize = 16;
const PEERS: [&str; 1] = ["raw timerfd"];
const OTHERS: [&str; 8] = [
    "crossbeam",
    "tokio",
    "calloop",
    "async-io",
    "monoio, epoll",
    "raw epoll_pwait2",
    "clock_nanosleep",
    "Go",
];

pub fn families() -> Vec<Family> {
    DELAYS.into_iter().map(family).collect()
}

fn family((us, name, samples): (u64, &'static str, [usize; 3])) -> Family {
    Family::own(
        move |task| {
            let [smoke, quick, full] = samples;
            let n = task.scale.of(smoke, quick, full);
            measure(task, Duration::from_micros(us), n)
        },
        [
            row(
                format!("lateness/{name}"),
                format!("How late a timer of {} is, median.", readable(us)),
                "pollmux",
                &PEERS,
            )
            .gate(Bound::TenthOr(1_000.0))
            .beside(&OTHERS),
            row(
                format!("lateness/precise/{name}"),
                "The same with `precise(200 µs)`, which spins to the deadline.",
                "pollmux, precise",
                &PEERS,
            )
            .gate(Bound::TenthOr(1_000.0))
            .goal(Bound::Value(500.0))
            .beside(&["raw, ahead and spinning"]),
        ],
    )
}

/// Formats a delay with the unit that suits its size.
pub fn readable(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{} ms", us / 1_000),
        _ => format!("{} s", us / 1_000_000),
    }
}

/// Waits for one timer of the given delay. Returns the lateness in ns, negative if the timer was
/// early.
type Wait = Box<dyn FnMut(Duration) -> i64>;

/// Makes the wait on the thread that waits.
type Make = fn() -> Wait;

const ALL: [(&str, Make); 11] = [
    ("raw timerfd", || raw_timerfd(Duration::ZERO)),
    ("raw, ahead and spinning", || raw_timerfd(AHEAD)),
    ("pollmux", || pollmux(Reactor::new())),
    ("pollmux, precise", || pollmux(Reactor::builder().precise(AHEAD).build())),
    ("crossbeam", crossbeam),
    ("tokio", tokio),
    ("calloop", calloop),
    ("async-io", async_io),
    ("monoio, epoll", monoio),
    ("raw epoll_pwait2", pwait2),
    ("clock_nanosleep", nanosleep),
];

/// Makes a wait that sleeps until `ahead` before the deadline and looks at the clock from then on.
fn raw_timerfd(ahead: Duration) -> Wait {
    let (epoll, timerfd, mut events) = (raw::epoll(), raw::timerfd(), raw::events());
    assert_eq!(raw::add(&epoll, &timerfd, raw::EDGE), 0);
    Box::new(move |delay| {
        let due = Time::now() + delay;
        assert_eq!(raw::settime(&timerfd, due - ahead), 0);
        while raw::wait(&epoll, &mut events, -1) != 1 {} // a signal ends it with -1
        while Time::now() < due {
            spin_loop();
        }
        late_time(due)
    })
}

fn pwait2() -> Wait {
    let (epoll, mut events) = (raw::epoll(), raw::events());
    Box::new(move |delay| {
        let due = Time::now() + delay;
        raw::pwait2(&epoll, &mut events, delay);
        late_time(due)
    })
}

fn nanosleep() -> Wait {
    Box::new(|delay| {
        let due = Time::now() + delay;
        while !raw::sleep_until(due) {}
        late_time(due)
    })
}

fn pollmux(reactor: io::Result<Reactor>) -> Wait {
    let reactor = reactor.expect("a reactor");
    let timer = reactor.timer();
    Box::new(move |delay| {
        let due = Time::now() + delay;
        timer.reset_at(due);
        let late = select! { reactor; recv(timer) -> _ => late_time(due) };
        assert!(late >= 0, "a timer of pollmux is early");
        late
    })
}

fn crossbeam() -> Wait {
    Box::new(|delay| {
        let due = Instant::now() + delay;
        crossbeam_channel::select! { recv(crossbeam_channel::at(due)) -> _ => late(due) }
    })
}

fn tokio() -> Wait {
    let runtime = tokio_runtime();
    Box::new(move |delay| {
        runtime.block_on(async {
            let due = Instant::now() + delay;
            tokio::time::sleep_until(due.into()).await;
            late(due)
        })
    })
}

fn calloop() -> Wait {
    use calloop::timer::{TimeoutAction, Timer};
    let mut events = calloop::EventLoop::<()>::try_new().expect("a loop");
    let handle = events.handle();
    let result = Rc::new(Cell::new(None));
    Box::new(move |delay| {
        let due = Instant::now() + delay;
        let fired = result.clone();
        let timer = handle.insert_source(Timer::from_deadline(due), move |_, _, ()| {
            fired.set(Some(late(due)));
            TimeoutAction::Drop
        });
        timer.expect("a registration");
        loop {
            events.dispatch(None, &mut ()).expect("a wait");
            if let Some(late) = result.take() {
                return late;
            }
        }
    })
}

#[cfg(not(loom))]
fn async_io() -> Wait {
    Box::new(|delay| {
        async_io::block_on(async {
            let due = Instant::now() + delay;
            async_io::Timer::at(due).await;
            late(due)
        })
    })
}

#[cfg(loom)]
fn async_io() -> Wait {
    unreachable!("it has loom models of its own")
}

fn monoio() -> Wait {
    let builder = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new();
    let mut runtime = builder.enable_timer().build().expect("a runtime");
    Box::new(move |delay| {
        runtime.block_on(async {
            let due = Instant::now() + delay;
            monoio::time::sleep_until(due.into()).await;
            late(due)
        })
    })
}

/// Returns the ns since `due`, negative before it.
fn late_time(due: Time) -> i64 {
    Time::now().as_nanos() as i64 - due.as_nanos() as i64
}

fn late(due: Instant) -> i64 {
    let now = Instant::now();
    match now.checked_duration_since(due) {
        Some(late) => late.as_nanos() as i64,
        None => -((due - now).as_nanos() as i64),
    }
}

fn measure(task: &mut Task<'_>, delay: Duration, n: usize) -> Vec<Measured> {
    let chosen: Vec<_> = ALL.into_iter().filter(|(name, _)| (task.wanted)(name)).collect();
    let mut all: Vec<Measured> = if n == 0 {
        chosen.iter().map(|(name, _)| Measured::absent(name, "no sample in this scale")).collect()
    } else if delay < Duration::from_millis(100) {
        in_turn(task.progress, &chosen, delay, n)
    } else {
        side_by_side(&chosen, delay, n)
    };
    // Go is another process, which would disturb the others.
    if (task.wanted)("Go") && n > 0 {
        (task.progress)();
        let late = native::Process::start(Peer::Go)
            .map(|mut go| native::late(&mut go, n.min(task.scale.of(1, 20, 100)), delay));
        all.push(match late {
            Ok(samples) => Measured::new("Go", samples),
            Err(reason) => Measured::absent("Go", &reason),
        });
    }
    all
}

/// Measures the kernel's own timers alone.
pub fn floor(delay: Duration, n: usize) -> Vec<Measured> {
    let raw = ["raw timerfd", "raw epoll_pwait2", "clock_nanosleep"];
    let chosen: Vec<_> = ALL.into_iter().filter(|(name, _)| raw.contains(name)).collect();
    if delay < Duration::from_millis(100) {
        in_turn(&mut || {}, &chosen, delay, n)
    } else {
        side_by_side(&chosen, delay, n)
    }
}

/// Runs one contestant after the other. Each round begins with another contestant.
fn in_turn(
    progress: &mut dyn FnMut(),
    chosen: &[(&str, Make)],
    delay: Duration,
    n: usize,
) -> Vec<Measured> {
    let mut waits: Vec<Wait> = chosen.iter().map(|(_, make)| make()).collect();
    waits.iter_mut().for_each(warm_up);
    let mut all: Vec<Vec<f64>> = vec![Vec::with_capacity(n); waits.len()];
    for round in 0..n {
        for i in 0..waits.len() {
            let i = (i + round) % waits.len();
            all[i].push(waits[i](delay) as f64);
        }
        if round % 16 == 0 {
            progress();
        }
    }
    chosen.iter().zip(all).map(|((name, _), late)| Measured::new(name, late)).collect()
}

/// Runs each contestant on several threads, `n` waits in all. A cycle is the delay and half a step
/// more, so a thread wakes up half-way between the times when two others do.
fn side_by_side(chosen: &[(&str, Make)], delay: Duration, n: usize) -> Vec<Measured> {
    let fit = delay.as_nanos() / APART.as_nanos() / chosen.len() as u128;
    let each = (fit as usize).clamp(1, THREADS).min(n);
    let threads = each * chosen.len();
    raw::allow_fds(threads as u64 * 8 + 200);
    let step = delay / threads as u32;
    let cycle = delay + step / 2;
    let begin = Instant::now() + Duration::from_millis(50) + threads as u32 * APART;
    let places = shuffled(threads);
    let run = |make: Make, place: usize| {
        let mut wait = make();
        warm_up(&mut wait);
        let rounds = 0..n.div_ceil(each) as u32;
        let at = |round| begin + cycle * round + cycle / threads as u32 * place as u32;
        let late = rounds.map(|round| {
            thread::sleep(at(round).saturating_duration_since(Instant::now()));
            wait(delay) as f64
        });
        late.collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let spawn = |(i, place): (usize, &usize)| {
            let (make, place) = (chosen[i / each].1, *place);
            scope.spawn(move || run(make, place))
        };
        let mut running: Vec<_> = places.iter().enumerate().map(spawn).collect();
        let late = chosen.iter().map(|(name, _)| {
            let threads = running.drain(..each);
            let late = threads.flat_map(|thread| thread.join().expect("no panic")).collect();
            Measured::new(name, late)
        });
        late.collect()
    })
}

fn warm_up(wait: &mut Wait) {
    for _ in 0..3 {
        wait(Duration::from_micros(100));
    }
}
