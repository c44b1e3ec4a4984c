//! How late timers are: pollmux beside a bare timerfd and its peers, on an idle machine; and a
//! ticker in one `select!` with flooded channels.
//!
//! `cargo bench -p pollmux-benches --bench lateness` takes about two minutes, `-- --quick` a
//! quarter of a minute; a filter may follow (`-- timer`, `-- ticker`).
//!
//! The contestants take turns, sample by sample, so that a machine that drifts is slow for all of
//! them alike: **only ratios inside one run count**. Every one is given the same absolute deadline,
//! a reading of the clock plus the delay, and its lateness ends with a reading by the code that the
//! timer is for. Delays of 100 ms and more run side by side, a thread for each contestant,
//! staggered evenly, so that no two are awake at once.
//!
//! Gates: pollmux's median is at most that of the bare timerfd plus 10 % or 1 µs, whichever is
//! more; with `precise` it is at most 1 µs. What is of pollmux is never early; peers may be, and
//! are counted.

mod common;

use std::cell::Cell;
use std::hint::spin_loop;
use std::io;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use common::{Scale, raw, readable, tokio_runtime, verdict};
use hdrhistogram::Histogram;
use pollmux::sys::{PollEvents, Poller, PollerTimer};
use pollmux::{Inbox, Reactor, Time, channel, select};

#[derive(Parser)]
#[command(about = "How late timers and tickers are")]
struct Args {
    /// A quarter of a minute instead of two
    #[arg(long)]
    quick: bool,
    /// How far ahead of a deadline the `precise` reactor wakes up and spins, in µs
    #[arg(long, default_value_t = 200, value_name = "MICROS")]
    precise: u64,
    /// Only the parts whose name contains this: "timer", "ticker"
    filter: Option<String>,
}

fn main() {
    let args = Args::parse_from(common::arguments());
    let scale = Scale::new(args.quick);
    let chosen =
        |part: &str| args.filter.as_ref().is_none_or(|filter| part.contains(filter.as_str()));
    if chosen("timer") {
        timers(scale, Duration::from_micros(args.precise));
    }
    if chosen("ticker") {
        tickers(scale);
    }
}

// Timers.

/// Waits for one timer of the given delay; ns that it was late, negative if it was early.
type Wait = Box<dyn FnMut(Duration) -> i64>;

struct Contestant {
    name: &'static str,
    /// Of pollmux: must not be early.
    ours: bool,
    /// Makes it, on the thread that waits. The argument is what `precise` is to be.
    make: fn(Duration) -> Wait,
}

const RAW: usize = 0;
const POLLMUX: usize = 3;
const PRECISE: usize = 4;
const CONTESTANTS: [Contestant; 9] = [
    Contestant {
        name: "raw timerfd + epoll_wait",
        ours: false,
        make: |_| raw_timerfd(Duration::ZERO),
    },
    Contestant { name: "raw, ahead and then spinning", ours: false, make: raw_timerfd },
    Contestant { name: "pollmux::sys PollerTimer + Poller", ours: true, make: sys },
    Contestant { name: "pollmux", ours: true, make: |_| pollmux(Reactor::new()) },
    Contestant {
        name: "pollmux, precise",
        ours: true,
        make: |ahead| pollmux(Reactor::builder().precise(ahead).build()),
    },
    Contestant { name: "crossbeam at", ours: false, make: crossbeam },
    Contestant { name: "tokio sleep_until", ours: false, make: tokio },
    Contestant { name: "calloop Timer", ours: false, make: calloop },
    Contestant { name: "async-io Timer", ours: false, make: async_io },
];

/// Sleeps until `ahead` before the deadline and looks at the clock from then on: what `precise` can
/// be at best.
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

fn sys(_: Duration) -> Wait {
    let poller = Poller::new().expect("a poller");
    let timer = PollerTimer::new(&poller, 1).expect("a timer");
    let mut events = PollEvents::with_capacity(16);
    Box::new(move |delay| {
        let due = Time::now() + delay;
        timer.arm(due).expect("a deadline");
        while poller
            .wait(&mut events, None)
            .is_err_and(|error| error.kind() == io::ErrorKind::Interrupted)
        {}
        late_time(due)
    })
}

fn pollmux(reactor: io::Result<Reactor>) -> Wait {
    let reactor = reactor.expect("a reactor");
    let timer = reactor.timer();
    Box::new(move |delay| {
        let due = Time::now() + delay;
        timer.reset_at(due);
        select! { reactor; recv(timer) -> _ => late_time(due) }
    })
}

fn crossbeam(_: Duration) -> Wait {
    Box::new(|delay| {
        let due = Instant::now() + delay;
        crossbeam_channel::select! { recv(crossbeam_channel::at(due)) -> _ => late(due) }
    })
}

fn tokio(_: Duration) -> Wait {
    let runtime = tokio_runtime();
    Box::new(move |delay| {
        runtime.block_on(async {
            let due = Instant::now() + delay;
            tokio::time::sleep_until(due.into()).await;
            late(due)
        })
    })
}

fn calloop(_: Duration) -> Wait {
    use calloop::timer::{TimeoutAction, Timer};
    let mut events = calloop::EventLoop::<()>::try_new().expect("a loop");
    let handle = events.handle();
    let result = Rc::new(Cell::new(None));
    Box::new(move |delay| {
        let due = Instant::now() + delay;
        let result = result.clone();
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

fn async_io(_: Duration) -> Wait {
    Box::new(|delay| {
        async_io::block_on(async {
            let due = Instant::now() + delay;
            async_io::Timer::at(due).await;
            late(due)
        })
    })
}

/// ns since `due`, negative before it.
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

/// The samples of one contestant.
struct Samples {
    /// ns.
    late: Histogram<u64>,
    early: u64,
    /// Of the thread that waits, arming included.
    cpu: Duration,
}

impl Samples {
    fn new() -> Samples {
        Samples { late: histogram(), early: 0, cpu: Duration::ZERO }
    }

    fn take(&mut self, wait: &mut Wait, delay: Duration) {
        let before = raw::thread_cpu_time();
        let late = wait(delay);
        self.cpu += raw::thread_cpu_time() - before;
        self.early += u64::from(late < 0);
        self.late.saturating_record(late.max(0) as u64);
    }
}

fn histogram() -> Histogram<u64> {
    // Exact to 0.1 %, up to a minute.
    Histogram::new_with_max(60_000_000_000, 3).expect("bounds that hdrhistogram takes")
}

fn micros(late: &Histogram<u64>, quantile: f64) -> f64 {
    late.value_at_quantile(quantile) as f64 / 1e3
}

fn timers(scale: Scale, precise: Duration) {
    let us = Duration::from_micros;
    let delays = [
        (us(100), scale.of(2, 300, 3_000)),
        (us(1_000), scale.of(2, 100, 1_000)),
        (us(10_000), scale.of(1, 20, 250)),
        (us(100_000), scale.of(1, 15, 150)),
        (us(1_000_000), scale.of(0, 3, 40)),
    ];
    let mut gates = Vec::new();
    for (delay, samples) in delays.into_iter().filter(|(_, samples)| *samples > 0) {
        let all = if delay < us(100_000) {
            in_turn(delay, samples, precise)
        } else {
            side_by_side(delay, samples, precise)
        };
        println!("a timer of {}: µs late, {samples} samples each", readable(delay));
        println!(
            "{:32}{:>10}{:>10}{:>10}{:>12}{:>7}",
            "", "p50", "p99", "max", "CPU µs each", "early"
        );
        for (contestant, Samples { late, early, cpu }) in CONTESTANTS.iter().zip(&all) {
            assert!(
                !contestant.ours || *early == 0,
                "{}: {early} timers fired early",
                contestant.name
            );
            println!(
                "{:32}{:>10.2}{:>10.1}{:>10.1}{:>12.1}{:>7}",
                contestant.name,
                micros(late, 0.5),
                micros(late, 0.99),
                late.max() as f64 / 1e3,
                cpu.as_secs_f64() * 1e6 / samples as f64,
                early
            );
        }
        println!();
        let p50 = |contestant: usize| micros(&all[contestant].late, 0.5);
        gates.push((delay, p50(RAW), p50(POLLMUX), p50(PRECISE)));
    }
    println!(
        "gates: p50 of pollmux <= raw + max(10 %, 1 µs); p50 with precise({}) <= 1 µs",
        readable(precise)
    );
    for (delay, raw, pollmux, precise) in gates {
        let limit = raw + (raw * 0.1).max(1.0);
        println!(
            "{:>8}  pollmux {pollmux:.1} against {limit:.1}: {};  precise {precise:.2} against 1: \
             {}",
            readable(delay),
            verdict(pollmux <= limit),
            verdict(precise <= 1.0)
        );
    }
    println!();
}

/// One contestant after the other, beginning with another one each time.
fn in_turn(delay: Duration, samples: usize, precise: Duration) -> Vec<Samples> {
    let mut waits: Vec<Wait> =
        CONTESTANTS.iter().map(|contestant| (contestant.make)(precise)).collect();
    waits.iter_mut().for_each(warm_up);
    let mut all: Vec<Samples> = CONTESTANTS.iter().map(|_| Samples::new()).collect();
    for round in 0..samples {
        for i in 0..waits.len() {
            let i = (i + round) % waits.len();
            all[i].take(&mut waits[i], delay);
        }
    }
    all
}

/// Each on a thread of its own. A cycle is the delay and half a step more: one wakes up half-way
/// between the times when two others do.
fn side_by_side(delay: Duration, samples: usize, precise: Duration) -> Vec<Samples> {
    let n = CONTESTANTS.len() as u32;
    let cycle = delay + delay / (2 * n);
    let begin = Instant::now() + Duration::from_millis(50);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..n)
            .zip(&CONTESTANTS)
            .map(|(i, contestant)| {
                scope.spawn(move || {
                    let mut wait = (contestant.make)(precise);
                    warm_up(&mut wait);
                    let mut all = Samples::new();
                    for round in 0..samples as u32 {
                        let at = begin + cycle * round + cycle / n * i;
                        thread::sleep(at.saturating_duration_since(Instant::now()));
                        all.take(&mut wait, delay);
                    }
                    all
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

fn warm_up(wait: &mut Wait) {
    for _ in 0..3 {
        wait(Duration::from_micros(100));
    }
}

// Tickers.

const PERIOD: Duration = Duration::from_millis(1);
const CAPACITY: usize = 1_024;
const PRODUCERS: usize = 4;

/// What the loops of one contestant have seen.
struct Flood {
    late: Histogram<u64>,
    messages: u64,
    /// Grid points without a tick.
    missed: u64,
    spent: Duration,
}

impl Flood {
    fn new() -> Flood {
        Flood { late: histogram(), messages: 0, missed: 0, spent: Duration::ZERO }
    }
}

/// One loop, while it runs.
struct Loop<'a> {
    flood: &'a mut Flood,
    begin: Instant,
    slice: Duration,
    messages: u64,
    ticks: u64,
    over: bool,
}

impl<'a> Loop<'a> {
    fn new(flood: &'a mut Flood, slice: Duration) -> Loop<'a> {
        Loop { flood, begin: Instant::now(), slice, messages: 0, ticks: 0, over: false }
    }

    #[inline]
    fn message(&mut self) {
        self.messages += 1;
        // The ticks end it; this does if they starve.
        if self.messages % (1 << 16) == 0 {
            self.over |= self.begin.elapsed() >= self.slice;
        }
    }

    fn tick(&mut self, late: i64) {
        self.ticks += 1;
        self.flood.late.saturating_record(late.max(0) as u64);
        self.over |= self.begin.elapsed() >= self.slice;
    }
}

impl Drop for Loop<'_> {
    fn drop(&mut self) {
        let spent = self.begin.elapsed();
        let points = (spent.as_nanos() / PERIOD.as_nanos()) as u64;
        self.flood.missed += points.saturating_sub(self.ticks);
        self.flood.messages += self.messages;
        self.flood.spent += spent;
    }
}

/// Runs `consume` while each of the senders, in turn the next producer's, is kept full; ends when
/// it has dropped the receivers.
fn flooded<S: Clone + Send>(
    senders: Vec<S>,
    send: impl Fn(&S) -> bool + Copy + Send,
    consume: impl FnOnce(),
) {
    thread::scope(|scope| {
        for i in 0..PRODUCERS {
            let sender = senders[i % senders.len()].clone();
            scope.spawn(move || while send(&sender) {});
        }
        drop(senders);
        consume();
    });
}

/// A loop over the given receivers and a ticker, one case for each.
macro_rules! pollmux_loop {
    ($flood:ident, $slice:ident, $reactor:ident, $inboxes:ident as [$($inbox:ident),+]) => {{
        const CASES: usize = [$(stringify!($inbox)),+].len();
        let Ok([$($inbox),+]) = <[Inbox<u64>; CASES]>::try_from($inboxes) else {
            unreachable!("as many as there are names")
        };
        let ticker = $reactor.every(PERIOD).expect("a period");
        let mut run = Loop::new($flood, $slice);
        while !run.over {
            select! { $reactor;
                $(recv($inbox) -> _ => run.message(),)+
                recv(ticker) -> tick => {
                    let late = late_time(tick.scheduled);
                    assert!(late >= 0, "a tick that is early");
                    run.tick(late)
                }
            }
        }
    }};
}

fn pollmux_ticker(channels: usize, slice: Duration, flood: &mut Flood) {
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..channels).map(|_| channel::bounded::<u64>(CAPACITY)).unzip();
    flooded(
        senders,
        |tx| tx.send(1).is_ok(),
        move || {
            let reactor = Reactor::new().expect("a reactor");
            let inboxes: Vec<Inbox<u64>> = receivers
                .into_iter()
                .map(|rx| reactor.register(rx).expect("an open reactor"))
                .collect();
            match channels {
                1 => pollmux_loop!(flood, slice, reactor, inboxes as [a]),
                _ => pollmux_loop!(flood, slice, reactor, inboxes as [a, b, c, d]),
            }
        },
    );
}

fn crossbeam_ticker(channels: usize, slice: Duration, flood: &mut Flood) {
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..channels).map(|_| crossbeam_channel::bounded::<u64>(CAPACITY)).unzip();
    flooded(
        senders,
        |tx| tx.send(1).is_ok(),
        move || {
            let ticker = crossbeam_channel::tick(PERIOD);
            let mut run = Loop::new(flood, slice);
            while !run.over {
                match &receivers[..] {
                    [a] => crossbeam_channel::select! {
                        recv(a) -> _ => run.message(),
                        recv(ticker) -> due => run.tick(late(due.expect("a ticker for ever"))),
                    },
                    [a, b, c, d] => crossbeam_channel::select! {
                        recv(a) -> _ => run.message(),
                        recv(b) -> _ => run.message(),
                        recv(c) -> _ => run.message(),
                        recv(d) -> _ => run.message(),
                        recv(ticker) -> due => run.tick(late(due.expect("a ticker for ever"))),
                    },
                    _ => unreachable!("1 or 4"),
                }
            }
        },
    );
}

fn tokio_ticker(channels: usize, slice: Duration, flood: &mut Flood) {
    let (senders, mut receivers): (Vec<_>, Vec<_>) =
        (0..channels).map(|_| tokio::sync::mpsc::channel::<u64>(CAPACITY)).unzip();
    flooded(
        senders,
        |tx| tx.blocking_send(1).is_ok(),
        move || {
            tokio_runtime().block_on(async {
                let mut ticker =
                    tokio::time::interval_at(tokio::time::Instant::now() + PERIOD, PERIOD);
                ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
                let mut run = Loop::new(flood, slice);
                while !run.over {
                    match &mut receivers[..] {
                        [a] => tokio::select! {
                            _ = a.recv() => run.message(),
                            due = ticker.tick() => run.tick(late(due.into())),
                        },
                        [a, b, c, d] => tokio::select! {
                            _ = a.recv() => run.message(),
                            _ = b.recv() => run.message(),
                            _ = c.recv() => run.message(),
                            _ = d.recv() => run.message(),
                            due = ticker.tick() => run.tick(late(due.into())),
                        },
                        _ => unreachable!("1 or 4"),
                    }
                }
            });
        },
    );
}

type Ticking = fn(usize, Duration, &mut Flood);
const TICKERS: [(&str, Ticking); 3] = [
    ("pollmux select! + every", pollmux_ticker),
    ("crossbeam select! + tick", crossbeam_ticker),
    ("tokio select! + interval", tokio_ticker),
];

fn tickers(scale: Scale) {
    let (rounds, slice) = scale.of((1, 5), (3, 200), (12, 400));
    let slice = Duration::from_millis(slice);
    for channels in [1, PRODUCERS] {
        let mut floods = TICKERS.map(|_| Flood::new());
        for round in 0..rounds {
            for i in 0..TICKERS.len() {
                let i = (i + round) % TICKERS.len();
                TICKERS[i].1(channels, slice, &mut floods[i]);
            }
        }
        println!(
            "a ticker of {}, {PRODUCERS} producers that keep {channels} channel(s) of {CAPACITY} \
             full: µs late",
            readable(PERIOD)
        );
        println!(
            "{:32}{:>10}{:>10}{:>10}{:>12}{:>10}",
            "", "p50", "p99", "max", "missed, %", "M msg/s"
        );
        for ((name, _), Flood { late, messages, missed, spent }) in TICKERS.iter().zip(&floods) {
            let points = spent.as_secs_f64() / PERIOD.as_secs_f64();
            println!(
                "{name:32}{:>10.1}{:>10.1}{:>10.1}{:>12.2}{:>10.2}",
                micros(late, 0.5),
                micros(late, 0.99),
                late.max() as f64 / 1e3,
                *missed as f64 * 100.0 / points,
                *messages as f64 / spent.as_secs_f64() / 1e6
            );
        }
        println!();
    }
}
