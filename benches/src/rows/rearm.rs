//! Timers that are re-armed: one, and thousands to a million.

use std::cell::RefCell;
use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use pollmux::{Reactor, Time, Timer};
use tokio::time::{Instant as TokioInstant, Sleep};
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key;

use super::tokio_runtime;
use crate::counting::{allocations, bytes};
use crate::measure::{Contestant, Measured, Run, Sample, shuffled, time};
use crate::row::{Bound, Family, row};

const FAR: Duration = Duration::from_secs(1_000);
/// The sizes of the rows with many timers, with gate and goal of a reset to later and to earlier.
const SIZES: [(usize, Option<[f64; 4]>); 4] = [
    (1_000, Some([2.0, 3.0, 1.8, 3.0])),
    (10_000, None),
    (100_000, None),
    (1_000_000, Some([1.8, 3.0, 1.8, 3.0])),
];
const MANY: [&str; 3] = ["tokio Sleep", "tokio-util DelayQueue", "Go AfterFunc"];

pub fn families() -> Vec<Family> {
    let mut families = vec![one_timer()];
    for (n, targets) in SIZES {
        for (i, (how, step)) in
            [("later", Step::Later), ("earlier", Step::Earlier)].iter().enumerate()
        {
            let about =
                format!("{n} live timers, one at random is moved {how}, the time is given.");
            let mut spec = row(format!("timers/{how}/{n}"), about, "pollmux", &MANY);
            if let Some(targets) = targets {
                spec = spec.ratios(targets[2 * i], targets[2 * i + 1]);
            }
            let step = *step;
            families.push(Family::new(move |_| many(n, step), [spec]).slices((20, 60), (9, 31)));
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
    let from_now = ["tokio, clock read", "async-io, clock read", "Go Timer.Reset"];
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
            row("timer/restart", "Restart a ticker; reads the clock.", "restart", &from_now),
            row("timer/stop-reset", "Stop a timer and arm it again.", "stop + reset", &[]),
        ],
    )
}

fn one_timer_contestants() -> Vec<Contestant> {
    let reactor = Reactor::new().expect("a reactor");
    let step = Duration::from_nanos(1);
    let handle = reactor.handle();
    let timer = || reactor.after(FAR);
    let at_time = timer();
    let mut time = Time::now() + FAR;
    let at_instant = timer();
    let mut instant = Instant::now() + FAR;
    let (from_now, stopped) = (timer(), timer());
    let ticker = reactor.every(FAR).expect("a period");
    let mut contestants = vec![
        Contestant::on("reset_at(Time)", &handle, move || {
            time += step;
            black_box(at_time.reset_at(black_box(time)));
        }),
        Contestant::on("reset_at(Instant)", &handle, move || {
            instant += step;
            black_box(at_instant.reset_at(black_box(instant)));
        }),
        Contestant::on("reset", &handle, move || {
            black_box(from_now.reset(black_box(FAR + FAR)));
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
    let mut to = TokioInstant::now() + FAR;
    let (a, b) = (runtime.clone(), runtime.clone());
    contestants.push(Contestant::new("tokio, instant given", move |run| {
        let _in = a.enter();
        crate::measure::time(run, || {
            to += step;
            given.as_mut().reset(black_box(to));
        })
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
    let mut to = Instant::now() + FAR;
    [
        Contestant::ops("async-io, instant given", move || {
            to += Duration::from_nanos(1);
            given.set_at(black_box(to));
        }),
        Contestant::ops("async-io, clock read", move || read.set_after(black_box(FAR))),
    ]
}

/// A sleep is in the wheel only after it was polled once.
fn arm(at: TokioInstant) -> Pin<Box<Sleep>> {
    let mut sleep = Box::pin(tokio::time::sleep_until(at));
    let _ = sleep.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    sleep
}

// Many timers.

/// Up to 100 s, different for each timer.
fn spread(i: usize) -> Duration {
    Duration::from_micros((i as u64).wrapping_mul(0x9e37_79b9) % 100_000_000)
}

#[derive(Clone, Copy)]
enum Step {
    Later,
    Earlier,
}

/// Visits the timers at random. In each pass over all of them their deadlines move by 10 s, a tenth
/// of the spread.
struct Walk {
    order: Vec<usize>,
    next: usize,
    /// From the beginning to the deadlines, without the spread.
    offset: Duration,
    step: Step,
}

impl Walk {
    fn new(n: usize, step: Step) -> Walk {
        // Far enough for a million passes of earlier ones.
        let offset = FAR * 1_000;
        let mut walk = Walk { order: shuffled(n), next: 0, offset, step };
        walk.pass();
        walk
    }

    fn pass(&mut self) {
        self.next = 0;
        let by = Duration::from_secs(10);
        match self.step {
            Step::Later => self.offset += by,
            Step::Earlier => self.offset = self.offset.saturating_sub(by).max(FAR),
        }
    }

    /// A timer, and its next deadline.
    #[inline]
    fn next(&mut self) -> (usize, Duration) {
        if self.next == self.order.len() {
            self.pass();
        }
        let i = self.order[self.next];
        self.next += 1;
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
    vec![ours, tokio, delays]
}

fn insert_and_drop(n: usize) -> Family {
    let peers = |what: &str| MANY.map(|peer| format!("{peer} {what}"));
    let rows = ["insert", "drop"].map(|what| {
        let peers = peers(what);
        let about = match what {
            "insert" => format!("Make a timer, {n} times, at random deadlines."),
            _ => format!("Drop one of {n} live timers at random."),
        };
        let peers: Vec<&str> = peers.iter().map(|peer| &**peer).collect();
        row(format!("timers/{what}/{n}"), about, &format!("pollmux {what}"), &peers)
            .ratios(1.2, 2.0)
    });
    Family::new(move |_| insert_and_drop_contestants(n), rows).slices((1, 1), (5, 15))
}

fn insert_and_drop_contestants(n: usize) -> Vec<Contestant> {
    let order = Rc::new(shuffled(n));
    let ours = {
        let order = order.clone();
        let reactor = Reactor::new().expect("a reactor");
        let mut timers: Vec<Option<Timer>> = Vec::with_capacity(n);
        Contestant::several(&["pollmux insert", "pollmux drop"], move |_| {
            let begin = reactor.now();
            timers.clear();
            let insert = each(n, || {
                timers.extend((0..n).map(|i| Some(reactor.at(begin + FAR + spread(i)))));
            });
            let drop = each(n, || order.iter().for_each(|&i| timers[i] = None));
            vec![insert, drop]
        })
    };
    let runtime = Rc::new(tokio_runtime());
    let tokio = {
        let (order, runtime) = (order.clone(), runtime.clone());
        let mut sleeps: Vec<Option<Pin<Box<Sleep>>>> = Vec::with_capacity(n);
        Contestant::several(&["tokio Sleep insert", "tokio Sleep drop"], move |_| {
            let _in = runtime.enter();
            let begin = TokioInstant::now();
            sleeps.clear();
            let insert = each(n, || {
                sleeps.extend((0..n).map(|i| Some(arm(begin + FAR + spread(i)))));
            });
            let drop = each(n, || order.iter().for_each(|&i| sleeps[i] = None));
            vec![insert, drop]
        })
    };
    let names = ["tokio-util DelayQueue insert", "tokio-util DelayQueue drop"];
    let delays = Contestant::several(&names, {
        let queue: RefCell<DelayQueue<usize>> = RefCell::new({
            let _in = runtime.enter();
            DelayQueue::with_capacity(n)
        });
        let mut keys: Vec<Key> = Vec::with_capacity(n);
        move |_| {
            let _in = runtime.enter();
            let begin = TokioInstant::now();
            let mut queue = queue.borrow_mut();
            keys.clear();
            let insert = each(n, || {
                keys.extend((0..n).map(|i| queue.insert_at(i, begin + FAR + spread(i))));
            });
            let drop = each(n, || {
                order.iter().for_each(|&i| {
                    black_box(queue.remove(&keys[i]));
                });
            });
            vec![insert, drop]
        }
    });
    vec![ours, tokio, delays]
}

/// The share of one of `n` operations that `all` does.
fn each(n: usize, all: impl FnOnce()) -> Sample {
    let mut all = Some(all);
    time(Run::Times(1), || all.take().expect("once")()).share(n)
}

fn memory(n: usize) -> Family {
    let spec = row(
        format!("timers/bytes/{n}"),
        format!("Memory of one of {n} live timers in the reactor, without its handle."),
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
    let spec = row(
        format!("timers/worst/{n}"),
        format!(
            "The longest single call with {n} timers that were all put off and are then stale."
        ),
        "pollmux",
        &[],
    );
    Family::own(
        move |task| {
            let n = task.scale.of(n / 100, n, n);
            let rounds = task.scale.of(1, 3, 9);
            let worst = (0..rounds).map(|_| {
                (task.progress)();
                worst_of(n)
            });
            vec![Measured { allocs: None, ..Measured::new("pollmux", worst.collect()) }]
        },
        [spec.gate(Bound::Value(1e6)).goal(Bound::Value(1e6))],
    )
}

/// All timers are put off and become stale at once; each call after that is timed, resets too.
fn worst_of(n: usize) -> f64 {
    let reactor = Reactor::new().expect("a reactor");
    let soon = Duration::from_millis(20);
    let timers: Vec<Timer> = (0..n).map(|_| reactor.after(FAR)).collect();
    timers.iter().for_each(|timer| _ = timer.reset(soon));
    timers.iter().for_each(|timer| _ = timer.reset(FAR));
    let mut worst = Duration::ZERO;
    let mut timed = |call: &mut dyn FnMut()| {
        let begin = Instant::now();
        call();
        worst = worst.max(begin.elapsed());
    };
    let (mut events, mut turns) = (pollmux::Events::with_capacity(64), 0);
    let made = allocations();
    while turns < 100_000 && (turns < 100 || reactor.stats().cleaned < n as u64) {
        timed(&mut || _ = reactor.try_wait(&mut events).expect("a turn"));
        let timer = &timers[turns % n];
        timed(&mut || _ = timer.reset(FAR));
        turns += 1;
    }
    black_box(made);
    worst.as_nanos() as f64
}
