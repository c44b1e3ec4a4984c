//! Timers that are re-armed: one, and thousands to a million.

use std::cell::RefCell;
use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use pollmux::{Reactor, Sim, Time, Timer, select};
use tokio::time::{Instant as TokioInstant, Sleep};
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key;

use super::tokio_runtime;
use crate::counting::bytes;
use crate::measure::{Contestant, Measured, Run, Sample, shuffled, time};
use crate::native::{self, Peer};
use crate::raw::thread_cpu_time;
use crate::report::number;
use crate::row::{Bound, Family, row};

const FAR: Duration = Duration::from_secs(1_000);
/// The sizes of the rows with many timers, with gate and goal of a reset to later and to earlier.
const SIZES: [(usize, Option<[f64; 4]>); 4] = [
    (1_000, Some([2.0, 3.0, 1.8, 3.0])),
    (10_000, None),
    (100_000, None),
    (1_000_000, Some([1.8, 3.0, 1.8, 3.0])),
];
const STEPS: [(&str, Step, &str); 3] = [
    ("later", Step::Later, "one at random is put off to a given time."),
    ("earlier", Step::Earlier, "one at random is pulled earlier by a hundredth of their spread."),
    ("first", Step::First, "one at random is pulled before all others."),
];
const MANY: [&str; 3] = ["tokio Sleep", "tokio-util DelayQueue", "Go AfterFunc"];

pub fn families() -> Vec<Family> {
    let mut families = vec![one_timer()];
    for (n, targets) in SIZES {
        for (i, (how, step, about)) in STEPS.into_iter().enumerate() {
            let about = format!("{} live timers: {about}", number(n as f64));
            let mut spec = row(format!("timers/{how}/{n}"), about, "pollmux", &MANY);
            if let (Some(targets), true) = (targets, i < 2) {
                spec = spec.ratios(targets[2 * i], targets[2 * i + 1]);
            }
            families.push(
                Family::new(move |scale| many(scale.of(n.min(10_000), n, n), step), [spec])
                    .slices((20, 60), (9, 31)),
            );
        }
    }
    families.push(insert_and_drop(1_000_000));
    families.push(memory(1_000_000));
    families.push(worst_call(1_000_000));
    families
}

// One timer.

fn one_timer() -> Family {
    let given = ["tokio, instant given", "async-io, instant given"];
    let stored = ["libev ev_timer_again", "libuv uv_timer_again"];
    let from_now =
        ["tokio, clock read", "async-io, clock read", "libevent event_add", "Go Timer.Reset"];
    Family::new(
        |_| one_timer_contestants(),
        [
            row("timer/later/Time", "Put a timer off to a given `Time`.", "reset_at(Time)", &given)
                .ratios(3.5, 5.0),
            row(
                "timer/later/Instant",
                "Put a timer off to a given `Instant`.",
                "reset_at(Instant)",
                &given,
            )
            .ratios(1.2, 3.0),
            row("timer/from-now", "Put a timer off from now; reads the clock.", "reset", &from_now)
                .ratios(3.0, 5.0),
            row(
                "timer/from-stored-now",
                "Put a timer off, from the time of this turn, which the loop has stored.",
                "reset_at(now + d)",
                &stored,
            ),
            row("timer/restart", "Restart a ticker; reads the clock.", "restart", &from_now),
            row("timer/stop-reset", "Stop a timer and arm it again.", "stop + reset", &[]),
        ],
    )
}

fn one_timer_contestants() -> Vec<Contestant> {
    let mut contestants = in_rust();
    for (peer, name) in [
        (Peer::Libev, "libev ev_timer_again"),
        (Peer::Libuv, "libuv uv_timer_again"),
        (Peer::Libevent, "libevent event_add"),
        (Peer::Go, "Go Timer.Reset"),
    ] {
        contestants.push(native::contestant(peer, &[name], "rearm", 1));
    }
    contestants
}

/// Returns all contestants but other programs.
pub fn in_rust() -> Vec<Contestant> {
    let reactor = Reactor::new().expect("a reactor");
    let step = Duration::from_nanos(1);
    let handle = reactor.handle();
    let timer = || reactor.after(FAR);
    let (at_time, mut times) = (timer(), Ahead::new(Time::now() + FAR));
    let (at_instant, mut instants) = (timer(), Ahead::new(Instant::now() + FAR));
    let (from_now, from_stored, stopped) = (timer(), timer(), timer());
    let (of, mut further) = (reactor.handle(), FAR);
    let ticker = reactor.every(FAR).expect("a period");
    let mut contestants = vec![
        Contestant::on("reset_at(Time)", &handle, move || {
            black_box(at_time.reset_at(times.next()));
        }),
        Contestant::on("reset_at(Instant)", &handle, move || {
            black_box(at_instant.reset_at(instants.next()));
        }),
        Contestant::on("reset", &handle, move || {
            black_box(from_now.reset(black_box(FAR + FAR)));
        }),
        Contestant::on("reset_at(now + d)", &handle, move || {
            further += step;
            black_box(from_stored.reset_at(of.now() + black_box(further)));
        }),
        Contestant::on("restart", &handle, move || {
            black_box(ticker.restart());
        }),
        Contestant::on("stop + reset", &handle, move || {
            stopped.stop();
            black_box(stopped.reset(black_box(FAR)));
        }),
    ];
    let runtime = Rc::new(tokio_runtime());
    let sleep = || {
        let _in = runtime.enter();
        arm(TokioInstant::now() + FAR)
    };
    let (mut given, mut read) = (sleep(), sleep());
    let mut instants = Ahead::new(TokioInstant::now() + FAR);
    let (a, b) = (runtime.clone(), runtime.clone());
    contestants.push(Contestant::new("tokio, instant given", move |run| {
        let _in = a.enter();
        crate::measure::time(run, || given.as_mut().reset(instants.next()))
    }));
    contestants.push(Contestant::new("tokio, clock read", move |run| {
        let _in = b.enter();
        crate::measure::time(run, || read.as_mut().reset(black_box(TokioInstant::now() + FAR)))
    }));
    #[cfg(not(loom))]
    contestants.extend(async_io_contestants());
    contestants
}

#[cfg(not(loom))]
fn async_io_contestants() -> [Contestant; 2] {
    let arm = || {
        let mut timer = async_io::Timer::after(FAR);
        let _ = Pin::new(&mut timer).poll(&mut Context::from_waker(Waker::noop()));
        timer
    };
    let (mut given, mut read) = (arm(), arm());
    let mut instants = Ahead::new(Instant::now() + FAR);
    [
        Contestant::ops("async-io, instant given", move || given.set_at(instants.next())),
        Contestant::ops("async-io, clock read", move || read.set_after(black_box(FAR))),
    ]
}

/// Deadlines from a table, each a little later than the one before. So no arithmetic is timed.
struct Ahead<T> {
    all: Vec<T>,
    next: usize,
}

impl<T: Copy + std::ops::Add<Duration, Output = T>> Ahead<T> {
    fn new(begin: T) -> Ahead<T> {
        let all = (0..1_024).map(|i| begin + Duration::from_nanos(i)).collect();
        Ahead { all, next: 0 }
    }

    #[inline]
    fn next(&mut self) -> T {
        self.next = (self.next + 1) % 1_024;
        black_box(self.all[self.next])
    }
}

/// Arms a sleep of tokio: it is in the wheel only after it was polled once.
fn arm(at: TokioInstant) -> Pin<Box<Sleep>> {
    let mut sleep = Box::pin(tokio::time::sleep_until(at));
    let _ = sleep.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    sleep
}

// Many timers.

/// Returns a delay of up to 100 s, different for each timer.
fn spread(i: usize) -> Duration {
    Duration::from_micros((i as u64).wrapping_mul(0x9e37_79b9) % 100_000_000)
}

#[derive(Clone, Copy)]
enum Step {
    Later,
    Earlier,
    /// To before all other timers.
    First,
}

/// Visits the timers at random. In each pass over all of them the deadlines move: to later by 10 s,
/// or to earlier by 1 s, which is a hundredth of the spread.
struct Walk {
    order: Vec<usize>,
    next: usize,
    /// The time from the beginning to the deadlines, without the spread.
    offset: Duration,
    step: Step,
}

impl Walk {
    fn new(n: usize, step: Step) -> Walk {
        // The offset is large enough for all passes to earlier deadlines.
        let offset = FAR * 1_000;
        let mut walk = Walk { order: shuffled(n), next: 0, offset, step };
        walk.pass();
        walk
    }

    fn pass(&mut self) {
        self.next = 0;
        match self.step {
            Step::Later => self.offset += Duration::from_secs(10),
            Step::Earlier => self.offset -= Duration::from_secs(1),
            Step::First => {}
        }
    }

    /// Returns a timer, and its next deadline.
    #[inline]
    fn next(&mut self) -> (usize, Duration) {
        if self.next == self.order.len() {
            self.pass();
        }
        let i = self.order[self.next];
        self.next += 1;
        if let Step::First = self.step {
            self.offset -= Duration::from_micros(1);
            return (i, self.offset);
        }
        (i, self.offset + spread(i))
    }
}

fn many(n: usize, step: Step) -> Vec<Contestant> {
    let first = FAR * 1_000;
    let ours = {
        let reactor = Reactor::new().expect("a reactor");
        let (begin, handle) = (reactor.now(), reactor.handle());
        let timers: Vec<Timer> = (0..n).map(|i| reactor.at(begin + first + spread(i))).collect();
        let mut walk = Walk::new(n, step);
        Contestant::on("pollmux", &handle, move || {
            let _keep = &reactor;
            let (i, at) = walk.next();
            black_box(timers[i].reset_at(begin + at));
        })
    };
    let runtime = Rc::new(tokio_runtime());
    let begin = TokioInstant::now();
    let tokio = {
        let _in = runtime.enter();
        let mut sleeps: Vec<_> = (0..n).map(|i| arm(begin + first + spread(i))).collect();
        let (mut walk, runtime) = (Walk::new(n, step), runtime.clone());
        Contestant::new(MANY[0], move |run| {
            let _in = runtime.enter();
            time(run, || {
                let (i, at) = walk.next();
                sleeps[i].as_mut().reset(begin + at);
            })
        })
    };
    let delays = {
        let _in = runtime.enter();
        let mut queue = DelayQueue::with_capacity(n);
        let keys: Vec<Key> =
            (0..n).map(|i| queue.insert_at(i, begin + first + spread(i))).collect();
        let (mut walk, runtime) = (Walk::new(n, step), runtime.clone());
        Contestant::new(MANY[1], move |run| {
            let _in = runtime.enter();
            time(run, || {
                let (i, at) = walk.next();
                queue.reset_at(&keys[i], begin + at);
            })
        })
    };
    let word = match step {
        Step::Later => "later",
        Step::Earlier => "earlier",
        Step::First => "first",
    };
    vec![ours, tokio, delays, native::contestant(Peer::Go, &MANY[2..], word, n)]
}

fn insert_and_drop(n: usize) -> Family {
    let all = number(n as f64);
    let rows = LIFE.map(|what| {
        let about = match what {
            "insert" => format!("Make a timer, {all} times, all for the same delay from now."),
            "insert-random" => format!("Make a timer, {all} times, at random deadlines."),
            "drop" => format!("Drop {all} live timers, in the order in which they were made."),
            _ => format!("Drop {all} live timers at random."),
        };
        let peers = MANY[..2].iter().map(|peer| format!("{peer} {what}")).collect::<Vec<_>>();
        let peers: Vec<&str> = peers.iter().map(|peer| &**peer).collect();
        let spec = row(format!("timers/{what}/{n}"), about, &format!("pollmux {what}"), &peers);
        if what.ends_with("random") { spec } else { spec.ratios(1.2, 2.0) }
    });
    Family::new(move |scale| lives(scale.of(n / 100, n, n)), rows).slices((1, 1), (5, 15))
}

const LIFE: [&str; 4] = ["insert", "drop", "insert-random", "drop-random"];

/// Makes the four rows of one contestant. `make` makes a timer for a delay from now, `drop` drops a
/// timer.
fn life<T: 'static, Q: 'static>(
    name: &str,
    order: Rc<Vec<usize>>,
    runtime: Rc<tokio::runtime::Runtime>,
    queue: Q,
    make: impl Fn(&mut Q, Duration) -> T + 'static,
    drop: impl Fn(&mut Q, T) + 'static,
) -> Contestant {
    let names = LIFE.map(|what| format!("{name} {what}"));
    let queue = RefCell::new(queue);
    let n = order.len();
    let mut timers: Vec<Option<T>> = Vec::with_capacity(n);
    Contestant::several(&names.each_ref().map(|name| &**name), move |_| {
        let _in = runtime.enter();
        let queue = &mut *queue.borrow_mut();
        let mut all = Vec::with_capacity(4);
        for random in [false, true] {
            timers.clear();
            all.push(each(n, || {
                for i in 0..n {
                    let delay = if random { FAR + spread(i) } else { FAR };
                    timers.push(Some(make(queue, delay)));
                }
            }));
            all.push(each(n, || {
                for i in 0..n {
                    let i = if random { order[i] } else { i };
                    drop(queue, timers[i].take().expect("a timer"));
                }
            }));
        }
        all
    })
}

fn lives(n: usize) -> Vec<Contestant> {
    let (order, runtime) = (Rc::new(shuffled(n)), Rc::new(tokio_runtime()));
    let queue = {
        let _in = runtime.enter();
        DelayQueue::<()>::with_capacity(n)
    };
    let reactor = Reactor::new().expect("a reactor");
    let (o, r) = (&order, &runtime);
    vec![
        life(
            "pollmux",
            o.clone(),
            r.clone(),
            reactor,
            |reactor, delay| reactor.after(delay),
            |_, timer| drop(timer),
        ),
        life(
            MANY[0],
            o.clone(),
            r.clone(),
            (),
            |_, delay| arm(TokioInstant::now() + delay),
            |_, sleep| drop(sleep),
        ),
        life(
            MANY[1],
            o.clone(),
            r.clone(),
            queue,
            |queue, delay| queue.insert((), delay),
            |queue, key| {
                black_box(queue.remove(&key));
            },
        ),
    ]
}

/// Returns the share of one of `n` operations that `all` does.
fn each(n: usize, all: impl FnOnce()) -> Sample {
    let mut all = Some(all);
    time(Run::Times(1), || all.take().expect("once")()).share(n)
}

fn memory(n: usize) -> Family {
    let spec = row(
        format!("timers/bytes/{n}"),
        format!("Memory of one of {} live timers, without its handle.", number(n as f64)),
        "pollmux",
        &["tokio Sleep", "tokio-util DelayQueue"],
    );
    let spec = spec.unit("bytes").gate(Bound::Value(48.0)).goal(Bound::Value(40.0));
    Family::own(
        move |task| {
            let n = task.scale.of(n / 100, n, n);
            let per = |grown: usize| vec![grown as f64 / n as f64];
            let reactor = Reactor::new().expect("a reactor");
            let mut timers: Vec<Timer> = Vec::with_capacity(n);
            let before = bytes();
            timers.extend((0..n).map(|i| reactor.after(FAR + spread(i))));
            let ours = bytes() - before;
            let runtime = tokio_runtime();
            let _in = runtime.enter();
            let mut sleeps = Vec::with_capacity(n);
            let before = bytes();
            sleeps.extend((0..n).map(|i| arm(TokioInstant::now() + FAR + spread(i))));
            let tokio = bytes() - before;
            let mut keys = Vec::with_capacity(n);
            let before = bytes();
            let mut queue = DelayQueue::new();
            keys.extend((0..n).map(|i| queue.insert((), FAR + spread(i))));
            let delays = bytes() - before;
            vec![
                Measured::new("pollmux", per(ours)),
                Measured::new("tokio Sleep", per(tokio)),
                Measured::new("tokio-util DelayQueue", per(delays)),
            ]
        },
        [spec],
    )
}

fn worst_call(n: usize) -> Family {
    let about = |call: &str| {
        let n = number(n as f64);
        format!("{n} timers, all put off, their old deadlines are over: the longest {call}.")
    };
    let polling = about("`select!` with `default`, or `try_recv`");
    let waiting = about("`try_wait`, which looks at all of them before it answers \"nothing\"");
    Family::own(
        move |task| {
            let n = task.scale.of(n / 100, n, n);
            let rounds = task.scale.of(1, 3, 9);
            ["select!", "try_wait"]
                .into_iter()
                .filter(|name| (task.wanted)(name))
                .map(|name| {
                    let worst = (0..rounds).map(|_| worst_of(n, name == "try_wait"));
                    Measured::new(name, worst.collect())
                })
                .collect()
        },
        [
            row(format!("timers/worst/{n}"), polling, "select!", &[])
                .gate(Bound::Value(1e6))
                .goal(Bound::Value(1e6)),
            row(format!("timers/worst-try_wait/{n}"), waiting, "try_wait", &[]),
        ],
    )
}

/// Returns the CPU time of the longest call until all stale deadlines are put right. Time is
/// virtual.
fn worst_of(n: usize, waits: bool) -> f64 {
    let sim = Sim::new();
    let reactor = Reactor::with_driver(sim.clone()).expect("a reactor");
    let timers: Vec<Timer> = (0..n as u64)
        .map(|i| reactor.after(Duration::from_nanos(1_000 + i * 7_919 % n as u64)))
        .collect();
    timers.iter().for_each(|timer| _ = timer.reset(FAR));
    sim.advance(Duration::from_millis(100));
    let (before, mut worst) = (reactor.stats().cleaned, Duration::ZERO);
    let mut events = pollmux::Events::with_capacity(64);
    for call in 0..1_000_000 {
        let begin = thread_cpu_time();
        match (waits, call % 2) {
            (true, _) => reactor.try_wait(&mut events).expect("a turn"),
            (_, 0) => _ = reactor.try_recv(&timers[0]).expect("a turn"),
            _ => select! { reactor; recv(timers[0]) -> _ => {}, default => {} },
        }
        worst = worst.max(thread_cpu_time() - begin);
        if reactor.stats().cleaned - before >= n as u64 {
            break;
        }
    }
    // The reactor is dropped first, so that the timers need not leave the queue one by one.
    drop(reactor);
    worst.as_nanos() as f64
}
